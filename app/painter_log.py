"""What a painter was told and when, so that its frames can be made again.

Lines of JSON, one for each thing that happened: a painter began, an epoch was taken, a frame was
made. A worker that is started again begins anew in the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from app.cores import worker_threads
from app.errors import PainterLogError, SummaryError
from app.settings import Settings

DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Begun:
    """A painter began.

    Attributes
    ----------
    bundle, bundle_sha256 : folder and digest of all its files.
    source, epochs, ch_names, unit : where its EEG came from, and how (`app.settings`).
    seed, threads, device : of the painter.
    software : versions of what computes.
    """

    bundle: str
    bundle_sha256: str
    source: str
    epochs: str
    ch_names: tuple[str, ...]
    unit: str
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
    """

    first_sample: int


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


def digest_of(rgb: np.ndarray | None) -> str:
    """A digest of pixels (H, W, 3), uint8; "" for none."""
    if rgb is None:
        return ""
    return hashlib.sha256(np.ascontiguousarray(rgb).data).hexdigest()[:DIGEST_CHARACTERS]


def begun(settings: Settings, bundle: Path) -> Begun:
    """What the log of a session begins with, and goes on with after a worker was started again."""
    import diffusers
    import openvino
    import torch

    from models.training.report import folder_digest

    return Begun(
        str(bundle),
        folder_digest(bundle),
        settings.source,
        settings.epochs,
        settings.ch_names,
        settings.unit,
        settings.seed,
        worker_threads(settings.threads),
        settings.device,
        {module.__name__: module.__version__ for module in (diffusers, openvino, torch)},
    )


class PainterLog:
    """Writes events to the end of a file; used by one thread.

    Parameters
    ----------
    path : of the file, which is opened with the first event.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def add(self, *events: Event) -> None:
        """Write events; none at all shows whether that can be done.

        Raises
        ------
        SummaryError
            There is no such folder, or no room.
        """
        lines = (json.dumps({"what": _NAMES[type(e)], **asdict(e)}) + "\n" for e in events)
        try:
            # Line by line: what is killed loses nothing that was written.
            self._file = self._file or self._path.open("a", buffering=1, encoding="utf-8")
            self._file.writelines(lines)
        except OSError as error:
            raise SummaryError(
                f"The painter's log {self._path} cannot be written ({error.strerror}). Give "
                "--painter-log a file in a folder that exists, on a disk with room."
            ) from error

    def close(self) -> None:
        """Nothing more will come."""
        if self._file:
            with suppress(OSError):
                self._file.close()


def read_log(path: Path) -> Iterator[Event]:
    """The events of a file, as they happened.

    A last line that was cut off is left out: whoever wrote it was killed.

    Raises
    ------
    PainterLogError
        There is no such file, or it is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PainterLogError(
            f"The painter's log {path} cannot be read ({error}). Give the file that --painter-log "
            "named."
        ) from error
    lines = text.split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            values: dict[str, Any] = json.loads(line)
            event = _KINDS[values.pop("what")](**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PainterLogError(
                f"Line {number} of {path} is not one of a painter's log. Give the file that "
                "--painter-log named, as it was written."
            ) from error
        if number == 1 and not isinstance(event, Begun):
            raise PainterLogError(f"{path} does not begin with a painter. Give the whole log.")
        yield event
