"""A session painted again from its recording."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import Epoch, EpochKind, EpochStream, kinds_of
from acquisition.montage import Montage
from acquisition.source import Marker
from app.bundle import find_bundle, find_stimuli, read_epoch_spec
from app.errors import PainterLogError, SummaryError
from app.film import Film
from app.painter_log import Aimed, Begun, Stepped, digest_of
from app.recorded_session import Logged, RecordedSession, SeenAt, Segment, read_session
from models.bundle_files import folder_digest
from models.frames import Painter
from models.ladder import RUNGS, Ladder, Rung
from models.painter import open_painter

# Epochs that are kept for a painter that took them in another order than they were cut.
KEPT = 64


@dataclass(frozen=True, slots=True)
class Rendered:
    """What came of it.

    Attributes
    ----------
    n_frames : that were painted again.
    n_same : of these, the same bit for bit.
    n_left_out : that the log tells of and nobody can paint again.
    """

    n_frames: int
    n_same: int
    n_left_out: int


class _Told(Ladder):
    """A ladder whose rungs are read from a log."""

    def __init__(self) -> None:
        super().__init__()
        self._told = RUNGS[0]

    @property
    def rung(self) -> Rung:
        return self._told

    def tell(self, name: str) -> None:
        found = [rung for rung in RUNGS if rung.name == name]
        if name and not found:
            raise PainterLogError(
                f"The log tells of a rung that is not known, '{name}'. Use the version of "
                "Phosphene that wrote it."
            )
        self._told = (found or RUNGS)[0]

    def took(self, calls: int, in_calls: float, in_decoding: float) -> None:
        pass


def render(
    file: Path,
    out: Path,
    bundle: str,
    device: str = "",
    say: Callable[[str], None] = print,
) -> Rendered:
    """Paint a session again: a film, a contact sheet and every frame, beside what was seen.

    The same bit for bit on the same machine and software; elsewhere products are rounded
    differently, and frames may differ in the last bits of their pixels.

    Parameters
    ----------
    file : recording of the session.
    out : folder, new or empty.
    bundle : that painted it.
    device : if not that of the log.

    Raises
    ------
    PainterLogError, SummaryError, BundleError, SourceError
    """
    session = read_session(file)
    folder = find_bundle(bundle)
    _check_bundle(session.log, folder)
    events = [line.event for line in session.log]
    n_told = sum(isinstance(event, Stepped) and event.digest != "" for event in events)
    n_frames = n_same = 0
    seen = SeenAt(session.markers)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise SummaryError(f"{out} is not empty. Give a new folder: frames would be mixed.")
        with Film(out, n_told, find_stimuli(folder), say) as film:
            for frame in _painted_again(session, folder, device):
                n_frames += 1
                n_same += frame.is_same
                if frame.rgb is not None:
                    film.add(frame.t, frame.rgb, seen.at(frame.t), frame.honesty)
    except OSError as error:
        raise SummaryError(
            f"Frames cannot be written to {out} ({error.strerror}). Give a folder on a disk with "
            "room."
        ) from error
    kinds = " and ".join(sorted({s.honesty for s in session.segments.values()}))
    say(
        f"{out} holds {n_frames} frames from {kinds} EEG; {n_same} are the same bit for bit as "
        "those that were painted then."
    )
    if n_left_out := n_told - n_frames:
        say(
            f"{n_left_out} frames are left out: the recording lacks EEG or lines of the painter's "
            "log that they were made from."
        )
    return Rendered(n_frames, n_same, n_left_out)


def _check_bundle(log: Sequence[Logged], folder: Path) -> None:
    digest = folder_digest(folder)
    for line in log:
        if isinstance(line.event, Begun) and line.event.bundle_sha256 != digest:
            raise PainterLogError(
                f"{folder} is not the bundle that painted, '{line.event.bundle}': its files are "
                "others. Give that one with --bundle."
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """A frame of the log, painted again; `rgb` is None where the log has one and we have not."""

    t: float
    rgb: np.ndarray | None
    is_same: bool
    honesty: str


def _painted_again(session: RecordedSession, bundle: Path, device: str) -> Iterator[_Frame]:
    """The frames of a log, but those that depend on something that was not recorded."""
    ladder = _Told()
    opened: tuple[int, int, str] | None = None
    painter: Painter | None = None
    # None until a painter begins of which all is known, and from where something is missing.
    epochs: _Epochs | None = None
    next_number = 0
    for line in session.log:
        event = line.event
        if isinstance(event, Begun):
            wanted = event.seed, event.threads, device or event.device
            if painter is None or wanted != opened:
                painter, opened = open_painter(bundle, *wanted, ladder), wanted
            painter.restart()
            segment = session.segments.get(event.began)
            epochs = _Epochs(segment, session.markers, bundle, event.epochs) if segment else None
        elif line.number != next_number:
            epochs = None
        next_number = line.number + 1
        if painter is None or epochs is None:
            continue
        if isinstance(event, Aimed):
            epoch = epochs.find(event)
            if epoch is None:
                epochs = None
            else:
                painter.aim(epoch, event.is_locked, event.first_sample)
        elif isinstance(event, Stepped):
            ladder.tell(event.rung)
            frame = painter.step(event.dt)
            rgb = None if frame is None else frame.rgb
            if event.digest or rgb is not None:
                yield _Frame(line.t, rgb, digest_of(rgb) == event.digest, epochs.honesty)


class _Epochs:
    """The epochs of a segment, found by where they begin; each is cut once, in their order."""

    def __init__(
        self, segment: Segment, markers: Sequence[Marker], bundle: Path, epochs: str
    ) -> None:
        self.honesty = segment.honesty
        self._epochs = _cut(segment, markers, read_epoch_spec(bundle), kinds_of(epochs))
        self._kept: OrderedDict[Aimed, np.ndarray] = OrderedDict()
        self._newest = -1

    def find(self, aimed: Aimed) -> np.ndarray | None:
        """The epoch that was taken, if the recording has it."""
        # Epochs of both kinds may begin at one sample.
        while aimed not in self._kept and self._newest <= aimed.first_sample:
            epoch = next(self._epochs, None)
            if epoch is None:
                break
            self._newest = epoch.first_sample
            self._kept[Aimed(epoch.first_sample, epoch.kind == "marker-locked")] = epoch.data
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept.get(aimed)


def _cut(
    segment: Segment, markers: Sequence[Marker], spec: EpochSpec, kinds: Sequence[EpochKind]
) -> Iterator[Epoch]:
    info = segment.info
    stream = EpochStream(info, spec, Montage.from_channels(info.ch_names, spec), kinds=kinds)
    waiting = iter([*markers, None])
    marker = next(waiting)
    for chunk in segment.chunks():
        reached = []
        while marker and marker.timestamp <= chunk.timestamps[-1]:
            reached.append(marker)
            marker = next(waiting)
        yield from stream.push(None, reached)
        yield from stream.push(chunk)
