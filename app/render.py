"""A session painted again, from the painter's log and the EEG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import Epoch, EpochKind, EpochStream
from acquisition.montage import Montage
from acquisition.recording import load_recording
from acquisition.simulated import named_subject, simulated_info
from acquisition.simulated_subject import LIVE_SESSION
from acquisition.source import SourceOptions, parse_source
from acquisition.stimuli import read_stimuli
from acquisition.stream_info import StreamInfo
from app.bundle import find_bundle, find_stimuli, read_epoch_spec
from app.continuous import Step, recording_steps, simulated_steps
from app.errors import PainterLogError, SummaryError
from app.painter_log import Aimed, Begun, Stepped, digest_of, read_log
from models.frames import Painter
from models.ladder import RUNGS, Ladder, Rung
from models.painter import open_painter
from models.training.report import folder_digest

# How a replay was played does not change its epochs.
_PACE = ("speed", "loop")


@dataclass(frozen=True, slots=True)
class Rendered:
    """What came of it.

    Attributes
    ----------
    n_frames : that the log tells of.
    n_same : of these, the same bit for bit.
    """

    n_frames: int
    n_same: int


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
    log: Path,
    out: Path,
    source: str = "",
    bundle: str = "",
    device: str = "",
    say: Callable[[str], None] = print,
) -> Rendered:
    """Paint a session again, and write its frames to `out / "00001.png"` and so on.

    The same bit for bit on the same machine and software; elsewhere products are rounded
    differently, and frames may differ in the last bits of their pixels.

    Parameters
    ----------
    source : recording of the EEG, if it is not what the log says.
    bundle, device : if not those that the log says.

    Raises
    ------
    PainterLogError, SummaryError, BundleError, SourceError
    """
    painter: Painter | None = None
    epochs: _Epochs | None = None
    ladder = _Told()
    n_frames = n_same = 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise SummaryError(f"{out} is not empty. Give a new folder: frames would be mixed.")
        for event in read_log(log):
            if isinstance(event, Begun):
                folder = find_bundle(bundle or event.bundle)
                if folder_digest(folder) != event.bundle_sha256:
                    raise PainterLogError(
                        f"{folder} is not the bundle that painted: its files are others. Give "
                        "that one with --bundle."
                    )
                ladder = _Told()
                painter = open_painter(
                    folder, event.seed, event.threads, device or event.device, ladder
                )
                epochs = _Epochs(folder, source or event.source, event)
            assert painter is not None
            assert epochs is not None
            if isinstance(event, Aimed):
                painter.aim(epochs.find(event.first_sample))
            elif isinstance(event, Stepped):
                ladder.tell(event.rung)
                frame = painter.step(event.dt)
                rgb = None if frame is None else frame.rgb
                if event.digest or rgb is not None:
                    n_frames += 1
                    n_same += digest_of(rgb) == event.digest
                if rgb is not None:
                    note = PngInfo()
                    note.add_text("Source", f"Made from EEG: {epochs.honesty} ({epochs.source})")
                    Image.fromarray(rgb).save(out / f"{n_frames:05}.png", pnginfo=note)
    except OSError as error:
        raise SummaryError(
            f"Frames cannot be written to {out} ({error.strerror}). Give a folder on a disk with "
            "room."
        ) from error
    kind = f" from {epochs.honesty} EEG" if epochs else ""
    say(
        f"{out} holds {n_frames} frames{kind}; {n_same} are the same bit for bit as those of {log}."
    )
    return Rendered(n_frames, n_same)


class _Epochs:
    """The epochs of a source, found by where they begin; each is cut once, in their order."""

    def __init__(self, bundle: Path, source: str, begun: Begun) -> None:
        self.source = source
        kind: EpochKind = "sliding" if begun.epochs == "sliding" else "marker-locked"
        options = SourceOptions(begun.ch_names, begun.unit, (), find_stimuli(bundle))
        info, steps = _open(source, options)
        self.honesty = info.honesty
        self._epochs = _cut(read_epoch_spec(bundle), info, steps, kind)
        self._found: dict[int, np.ndarray] = {}

    def find(self, first_sample: int) -> np.ndarray:
        while first_sample not in self._found:
            epoch = next(self._epochs, None)
            if epoch is None:
                raise PainterLogError(
                    f"{self.source} holds no epoch that begins at sample {first_sample}. Give the "
                    "recording of that session with --source."
                )
            self._found[epoch.first_sample] = epoch.data
        return self._found[first_sample]


def _cut(
    spec: EpochSpec, info: StreamInfo, steps: Iterator[Step], kind: EpochKind
) -> Iterator[Epoch]:
    stream = EpochStream(info, spec, Montage.from_channels(info.ch_names, spec), kinds=(kind,))
    for chunk, markers in steps:
        yield from stream.push(None, markers)
        yield from stream.push(chunk)


def _open(source: str, options: SourceOptions) -> tuple[StreamInfo, Iterator[Step]]:
    kind, target, parameters = parse_source(source)
    if kind == "simulated":
        stimuli = read_stimuli(options.stimuli) if options.stimuli else {}
        subject = named_subject(parameters, LIVE_SESSION, stimuli.values())
        # As long as epochs are asked for; a session of a month is longer than any log.
        return simulated_info(subject), simulated_steps(subject, 30 * 86400, [])
    if kind in ("xdf", "file"):
        rest = {name: value for name, value in parameters.items() if name not in _PACE}
        recording = load_recording(Path(target).expanduser(), options, rest)
        return recording.info, recording_steps(recording)
    raise PainterLogError(
        f"The EEG of {source} is gone. Give a recording of it with --source, as xdf:FILE."
    )
