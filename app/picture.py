"""A picture on its way from the worker to the screens, and how it becomes bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

QUALITY = 85

# Small pictures are enlarged to the whole screen, where ringing at edges would show: up to
# this side full colour resolution and a higher quality, which cost little.
SMALL_SIDE = 256
SMALL_QUALITY = 93


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame of the worker's.

    Attributes
    ----------
    header : of the worker's `frame` message.
    """

    header: dict[str, Any]

    @property
    def t_eeg(self) -> float:
        """Session time of the last EEG sample that it was made from."""
        return float(self.header["t_eeg"])


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A frame as every viewer gets it.

    Attributes
    ----------
    number : the server's own, rising by one.
    picture : which it shows, or fades to.
    fade : how far, 0 to 1.
    t_compressed : session time at which it was ready to be sent.
    message : packed, with the JPEG as its payload.
    """

    number: int
    picture: Picture
    fade: float
    t_compressed: float
    message: bytes


def encode_jpeg(rgb: np.ndarray) -> bytes:
    """Encode a picture.

    Parameters
    ----------
    rgb : array of shape (height, width, 3), uint8.
    """
    is_small = max(rgb.shape[:2]) <= SMALL_SIDE
    quality, subsampling = (SMALL_QUALITY, "4:4:4") if is_small else (QUALITY, "4:2:0")
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=quality, subsampling=subsampling)
    return out.getvalue()
