"""Make prepared sets (see `models.training.prepared`).

From pictures, from recordings and from the simulated subject, the latter two through
the same acquisition code as live use: `EpochStream` cuts the same epochs from the same
samples.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from safetensors.numpy import save_file

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochKind, EpochStream
from acquisition.errors import SourceError
from acquisition.montage import Montage
from acquisition.parameters import check_parameters
from acquisition.recording import Recording, load_recording
from acquisition.simulated_subject import BLOCK, CH_NAMES, SFREQ, SimulatedSubject
from acquisition.source import Chunk, Marker, SourceOptions, parse_source
from acquisition.stimuli import Composition, concepts, random_composition
from acquisition.stream_info import StreamInfo
from app.epoch_shards import EpochShards, PreparedEpoch, writing
from app.errors import SettingsError
from app.pictures import render

SHARD = 4096
# Samples of a recording that are pushed at once.
RECORDING_CHUNK = 512

Step = tuple[Chunk, Sequence[Marker]]
# (label, image_id) of what a marker shows; None where its epochs are not wanted.
What = tuple[int, int]
WhatOf = Callable[[Marker], What | None]
NOTHING: What = (-1, -1)


def write_pictures(
    out: Path, compositions: list[Composition], seed: int, pixels: int = 128
) -> None:
    """Render compositions into a prepared set of pictures with captions.

    Raises
    ------
    SummaryError
        They cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(compositions), SHARD)):
        part = compositions[first : first + SHARD]
        columns = {
            "images": np.stack([render(c, pixels) for c in part]),
            "label": np.array([c.label for c in part], np.int64),
        }
        with writing(out):
            save_file(columns, out / f"pictures-{number:05d}.safetensors")
    captions = [c.caption for c in compositions]
    spec = {
        "kind": "pictures of the 40 concepts, drawn from Noto Color Emoji (OFL)",
        "concepts": [c.name for c in concepts()],
        "pixels": pixels,
        "seed": seed,
    }
    with writing(out):
        (out / "pictures.json").write_text(json.dumps(captions), encoding="utf-8")
        (out / "spec.json").write_text(json.dumps(spec, indent=2), encoding="utf-8")


def prepare_pictures(out: Path, n: int, seed: int) -> None:
    """Draw `n` random compositions, every concept equally often."""
    rng = np.random.default_rng(seed)
    n_concepts = len(concepts())
    write_pictures(out, [random_composition(rng, i % n_concepts) for i in range(n)], seed)


class _Seen:
    """What was on the screen lately, from the markers."""

    def __init__(self) -> None:
        # Onset, end and what; an epoch reaches over a few pictures at most.
        self._spans: deque[tuple[float, float, What]] = deque(maxlen=64)

    def add(self, timestamp: float, what: What | None) -> None:
        """Something appears at `timestamp`, or (None) what was there goes."""
        if self._spans and self._spans[-1][1] == math.inf:
            start, _, before = self._spans.pop()
            self._spans.append((start, timestamp, before))
        if what is not None:
            self._spans.append((timestamp, math.inf, what))

    def during(self, t_first: float, t_last: float) -> What:
        """What was there for at least half of the time, or nothing."""
        for start, end, what in self._spans:
            if min(end, t_last) - max(start, t_first) >= (t_last - t_first) / 2:
                return what
        return NOTHING


def prepare_epochs(
    steps: Iterable[Step], stream: EpochStream, what_of: WhatOf
) -> Iterator[PreparedEpoch]:
    """Cut the epochs of a source, one after the other; nothing is kept.

    A sliding epoch is labelled with what was on the screen for at least half of it.

    Parameters
    ----------
    steps : chunks, each with the markers up to its end.
    stream : as in live use.
    what_of : label and image of a marker; None leaves its epochs out.
    """
    seen = _Seen()
    t_start: float | None = None
    for chunk, markers in steps:
        if t_start is None:
            t_start = float(chunk.timestamps[0])
        for marker in markers:
            what = what_of(marker)
            if what is not None or marker.label == "offset":
                seen.add(marker.timestamp, what)
        for epoch in stream.push(chunk, markers):
            if epoch.marker is None:
                what, t_onset = seen.during(epoch.t_first, epoch.t_last), epoch.t_first
            else:
                what, t_onset = what_of(epoch.marker), epoch.marker.timestamp
            if what is not None:
                yield PreparedEpoch(epoch.data, *what, t_onset - t_start, epoch.marker is not None)


def simulated_steps(
    subject: SimulatedSubject, seconds: float, seen: list[Composition]
) -> Iterator[Step]:
    """A simulated session as fast as it can be made.

    Parameters
    ----------
    seconds : of EEG, rounded up to whole ones.
    seen : takes the pictures; a marker's detail `image_id` is its picture's place there.
    """
    for block in range(math.ceil(seconds)):
        data, events = subject.next_block()
        first = block * BLOCK
        markers = []
        for sample, label, composition in events:
            details: dict[str, Any] = {}
            if composition is not None:
                details = {"label": composition.label, "image_id": len(seen)}
                seen.append(composition)
            markers.append(Marker(sample / SFREQ, label, details))
        yield Chunk(data, (first + np.arange(BLOCK)) / SFREQ, first), markers


def recording_steps(recording: Recording, n_times: int = RECORDING_CHUNK) -> Iterator[Step]:
    """A recording on its own clock, each marker with the chunk that reaches it."""
    markers = deque(recording.markers)
    for chunk in recording.chunks(n_times):
        reached = []
        while markers and markers[0].timestamp <= chunk.timestamps[-1]:
            reached.append(markers.popleft())
        yield chunk, reached


class Labels:
    """Numbers for the markers of recordings.

    Parameters
    ----------
    wanted : number by marker; others are left out. Empty: every marker but `offset`, the
        names of concepts as their numbers, others numbered as they appear.
    """

    def __init__(self, wanted: Mapping[str, int]) -> None:
        self._is_open = not wanted
        self.numbers = dict(wanted)
        self._concepts = {f"onset/{c.name}": label for label, c in enumerate(concepts())}

    def __call__(self, marker: Marker) -> What | None:
        name = marker.label
        if name not in self.numbers:
            if not self._is_open or name == "offset":
                return None
            # Behind the concepts, so that both can stand in one recording.
            n_others = len(set(self.numbers) - set(self._concepts))
            self.numbers[name] = self._concepts.get(name, len(self._concepts) + n_others)
        return self.numbers[name], -1


def to_kinds(text: str) -> tuple[EpochKind, ...]:
    """Read `--epochs`.

    >>> to_kinds("sliding,marker-locked")
    ('sliding', 'marker-locked')
    """
    kinds = [kind for kind in get_args(EpochKind) if kind in text.split(",")]
    if len(kinds) != len(text.split(",")):
        raise SettingsError(
            f"--epochs expects sliding, marker-locked, or both with a comma, not '{text}'."
        )
    return tuple(kinds)


def to_labels(text: str) -> dict[str, int]:
    """Read `--labels`.

    >>> to_labels("1=0,onset/cat=1")
    {'1': 0, 'onset/cat': 1}
    """
    pairs = [part.rpartition("=") for part in text.split(",") if part]
    if not all(name and number.isdecimal() for name, _, number in pairs):
        raise SettingsError(
            f"--labels expects markers and their numbers, as 1=0,2=1, not '{text}'."
        )
    return {name: int(number) for name, _, number in pairs}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a prepared set shall hold.

    Attributes
    ----------
    spec : of the epochs.
    kinds : of the epochs.
    seconds : of each simulated source.
    labels : see `Labels`.
    options : what the operator says about recordings.
    """

    spec: EpochSpec
    kinds: tuple[EpochKind, ...] = ("marker-locked",)
    seconds: float = 600.0
    labels: Mapping[str, int] = field(default_factory=dict)
    options: SourceOptions = field(default_factory=SourceOptions)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A source that is ready to be cut; `notes` go to the set's specification."""

    info: StreamInfo
    steps: Iterator[Step]
    what_of: WhatOf
    numbers: dict[str, int]
    notes: dict[str, Any]


def _open_simulated(parameters: dict[str, str], seconds: float, seen: list[Composition]) -> _Opened:
    check_parameters("simulated:", parameters, ("subject", "session", "seed"))
    numbers = {"subject": 0, "session": 0, **_whole_numbers(parameters)}
    subject = SimulatedSubject(numbers["subject"], numbers["session"], numbers.get("seed"))

    def what_of(marker: Marker) -> What | None:
        details = marker.details
        return (details["label"], details["image_id"]) if details else None

    return _Opened(
        StreamInfo("simulated subject", CH_NAMES, SFREQ, "simulated"),
        simulated_steps(subject, seconds, seen),
        what_of,
        {"subject": numbers["subject"], "session": numbers["session"], "run": 0},
        {"seconds": seconds, "seed": subject.seed, "parameters": subject.parameters.digest()},
    )


def _open_recording(
    target: str, parameters: dict[str, str], place: int, options: SourceOptions, labels: Labels
) -> _Opened:
    names = ("subject", "session", "run")
    own = {name: parameters.pop(name) for name in names if name in parameters}
    numbers = {"subject": 0, "session": 0, "run": place, **_whole_numbers(own)}
    recording = load_recording(Path(target).expanduser(), options, parameters)
    notes = {"seconds": recording.duration}
    return _Opened(recording.info, recording_steps(recording), labels, numbers, notes)


def _whole_numbers(parameters: Mapping[str, str]) -> dict[str, int]:
    if wrong := [f"{n}={text}" for n, text in parameters.items() if not text.isdecimal()]:
        raise SourceError(f"{', '.join(wrong)}: expected whole numbers from zero upwards.")
    return {name: int(text) for name, text in parameters.items()}


def prepare_sources(
    out: Path, sources: Sequence[str], wanted: Wanted, with_images: bool = False
) -> int:
    """Write the epochs of sources into a prepared set, and say how in `spec.json`.

    Parameters
    ----------
    out : folder of the set; must not hold epochs yet.
    sources : `simulated:?subject=0&session=1&seed=1`, `xdf:FILE`, `file:FILE`; a
        recording may say `subject=`, `session=` and `run=` (else 0, 0 and its place).
    with_images : whether to draw what the simulated subject saw.

    Returns
    -------
    number of epochs.

    Raises
    ------
    SettingsError, SourceError, StreamInfoError, MontageError, SummaryError
    """
    split = [parse_source(source) for source in sources]
    kinds = {"simulated" if kind == "simulated" else "replay" for kind, _, _ in split}
    if len(kinds) != 1 or any(kind not in ("simulated", "xdf", "file") for kind, _, _ in split):
        raise SettingsError(
            "A prepared set is made from recordings, or from simulated: sources, never from both "
            f"nor from others; found {', '.join(sources) or 'none'}."
        )
    shards = EpochShards(out)
    labels = Labels(wanted.labels)
    seen: list[Composition] = []
    rows: list[dict[str, Any]] = []
    for place, (kind, target, parameters) in enumerate(split):
        if kind == "simulated":
            opened = _open_simulated(parameters, wanted.seconds, seen)
        else:
            opened = _open_recording(target, parameters, place, wanted.options, labels)
        montage = Montage.from_channels(opened.info.ch_names, wanted.spec)
        stream = EpochStream(opened.info, wanted.spec, montage, wanted.kinds)
        n_before = shards.n_epochs
        for epoch in prepare_epochs(opened.steps, stream, opened.what_of):
            shards.append(epoch, **opened.numbers)
        rows.append(
            {
                "source": sources[place],
                **opened.numbers,
                **opened.notes,
                "n_epochs": shards.n_epochs - n_before,
                "n_markers_missed": stream.n_markers_missed,
                "fidelity": montage.fidelity,
            }
        )
    shards.flush()
    if with_images and seen:
        write_pictures(out, seen, rows[0]["seed"])
    _write_spec(out, wanted, kinds.pop(), labels.numbers, rows, seen)
    return shards.n_epochs


def _write_spec(
    out: Path,
    wanted: Wanted,
    honesty: str,
    labels: Mapping[str, int],
    rows: list[dict[str, Any]],
    seen: list[Composition],
) -> None:
    spec: dict[str, Any] = {
        "kind": f"epochs ({', '.join(wanted.kinds)})",
        "honesty": honesty,
        "epoch_spec": wanted.spec.to_dict(),
        "sources": rows,
    }
    if honesty == "simulated":
        spec["concepts"] = [c.name for c in concepts()]
    else:
        spec["labels"] = dict(labels)
    with writing(out):
        if honesty == "simulated":
            rendered = [c.to_dict() for c in seen]
            (out / "compositions.json").write_text(json.dumps(rendered), encoding="utf-8")
        # Last: a folder without it is no prepared set, should this be interrupted.
        (out / "spec.json").write_text(json.dumps(spec, indent=2), encoding="utf-8")
