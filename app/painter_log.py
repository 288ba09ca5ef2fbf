"""What a painter was told and when, so that its frames can be made again from a recording.

Each thing that happened is one message on the bus, and one line of JSON in a recording: a painter
began, an epoch was taken, a frame was made. They are numbered, so that whoever listens knows what
did not come.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.cores import worker_threads
from app.errors import PainterLogError
from app.messages import pack
from app.settings import Settings

DIGEST_CHARACTERS = 16
# Messages that wait for a slow recorder: a minute of 30 frames a second.
DEPTH = 2048


@dataclass(frozen=True, slots=True)
class Begun:
    """A painter began, or began anew: it knows nothing of what was before.

    Attributes
    ----------
    began : session time that names the stream of epochs which it follows from now on; a segment
        of the recording has the same.
    epochs : which of them it is given (`app.settings`).
    bundle, bundle_sha256 : name of its folder (a path may hold a person's), and digest of all its
        files.
    seed, threads, device : of the painter.
    software : versions of what computes.
    """

    began: float
    epochs: str
    bundle: str
    bundle_sha256: str
    seed: int
    threads: int
    device: str
    software: dict[str, str]


@dataclass(frozen=True, slots=True)
class Aimed:
    """An epoch was taken.

    Attributes
    ----------
    first_sample : of the epoch, on the grid of the bundle's rate.
    is_locked : whether it is a marker-locked one.
    """

    first_sample: int
    is_locked: bool


@dataclass(frozen=True, slots=True)
class Stepped:
    """A frame was made, or the last one held.

    Attributes
    ----------
    dt : seconds since the one before.
    rung : of the ladder, by its name; "" for a painter without one.
    digest : of the pixels; "" where there was no new frame.
    """

    dt: float
    rung: str
    digest: str


Event = Begun | Aimed | Stepped
_KINDS: dict[str, type[Begun] | type[Aimed] | type[Stepped]] = {
    "begun": Begun,
    "aimed": Aimed,
    "stepped": Stepped,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def event_to_dict(event: Event) -> dict[str, Any]:
    """An event as JSON values.

    >>> event_to_dict(Aimed(640, False))
    {'what': 'aimed', 'first_sample': 640, 'is_locked': False}
    """
    return {"what": _NAMES[type(event)], **asdict(event)}


def event_from_dict(values: Mapping[str, Any]) -> Event:
    """An event from JSON values.

    Raises
    ------
    PainterLogError
        They are not those of an event.
    """
    try:
        rest = {name: value for name, value in values.items() if name != "what"}
        return _KINDS[values["what"]](**rest)
    except (KeyError, TypeError) as error:
        raise PainterLogError(
            f"The painter's log tells of something unknown ({dict(values)}). Use the version of "
            "Phosphene that recorded it."
        ) from error


def digest_of(rgb: np.ndarray | None) -> str:
    """A digest of pixels (H, W, 3), uint8; "" for none."""
    if rgb is None:
        return ""
    return hashlib.sha256(np.ascontiguousarray(rgb).data).hexdigest()[:DIGEST_CHARACTERS]


def begun(settings: Settings, bundle: str, bundle_sha256: str, began: float) -> Begun:
    """That a painter of these settings begins."""
    import diffusers
    import openvino
    import torch

    return Begun(
        began,
        settings.epochs,
        bundle,
        bundle_sha256,
        settings.seed,
        worker_threads(settings.threads),
        settings.device,
        {module.__name__: module.__version__ for module in (diffusers, openvino, torch)},
    )


class PainterLog:
    """Publishes what a painter does; used by one thread.

    Parameters
    ----------
    send : publishes a packed message.
    describe : what to tell when a painter begins with a stream of epochs.
    clock : of the session.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        describe: Callable[[float], Begun],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send, self._describe, self._clock = send, describe, clock
        # Tells the messages of this process from those of one before it.
        self._process, self._number = clock(), 0

    def begin(self, began: float) -> None:
        """A painter begins with the stream of epochs that this session time names."""
        self.add(self._describe(began))

    def add(self, event: Event) -> None:
        """Something happened."""
        header = {
            "process": self._process,
            "number": self._number,
            "t": self._clock(),
            "event": event_to_dict(event),
        }
        self._number += 1
        self._send(pack("painter", header))
