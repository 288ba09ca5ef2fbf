"""Write pictures with labels and captions as a prepared set (see `models.training.prepared`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SHARD = 4096


def write_picture_set(
    out: Path,
    pictures: Iterable[np.ndarray],
    labels: Sequence[int],
    captions: Sequence[str],
    spec: Mapping[str, Any],
) -> None:
    """Write pictures in shards, holding one shard in memory.

    Parameters
    ----------
    pictures : each an array of shape (height, width, 3), uint8; a picture's id is its place.
    labels, captions : of each picture.
    spec : says what they are; `spec.json` of the set.
    """
    out.mkdir(parents=True, exist_ok=True)
    coming = iter(pictures)
    for number, first in enumerate(range(0, len(labels), SHARD)):
        part = {
            "images": np.stack(list(islice(coming, SHARD))),
            "label": np.array(labels[first : first + SHARD], np.int64),
        }
        save_file(part, out / f"pictures-{number:05d}.safetensors")
    (out / "pictures.json").write_text(json.dumps(list(captions)), encoding="utf-8")
    (out / "spec.json").write_text(json.dumps(dict(spec), indent=2), encoding="utf-8")
