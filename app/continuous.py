"""Continuous EEG, cut into the epochs of a prepared set by the code that live use runs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.epochs import EpochStream
from acquisition.parameters import check_parameters, whole_numbers
from acquisition.recording import Recording, load_recording
from acquisition.simulated import named_subject, simulated_info
from acquisition.simulated_subject import BLOCK, SFREQ, SimulatedSubject
from acquisition.source import Chunk, Marker, SourceOptions
from acquisition.stimuli import Composition, concepts
from acquisition.stream_info import StreamInfo
from app.epoch_shards import PreparedEpoch

# Samples of a recording that are pushed at once.
RECORDING_CHUNK = 512

Step = tuple[Chunk, Sequence[Marker]]
# (label, image_id) of what a marker shows; None where its epochs are not wanted.
What = tuple[int, int]
WhatOf = Callable[[Marker], What | None]
NOTHING: What = (-1, -1)


@dataclass(frozen=True, slots=True)
class Opened:
    """Continuous EEG that is ready to be cut.

    Attributes
    ----------
    info : of its channels.
    steps : its chunks and markers.
    what_of : what its markers show.
    numbers : `subject`, `session` and `run` of its epochs.
    notes : for the set's specification.
    """

    info: StreamInfo
    steps: Iterator[Step]
    what_of: WhatOf
    numbers: dict[str, int]
    notes: dict[str, Any]


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
    what_of : label and image of a marker; None leaves its epochs out. Asked once for each.
    """
    seen = _Seen()
    t_start: float | None = None
    n_counted = 0
    for chunk, markers in steps:
        if t_start is None:
            t_start = float(chunk.timestamps[0])
        counted = []
        for marker in markers:
            what = what_of(marker)
            if what is not None or marker.label == "offset":
                seen.add(marker.timestamp, what)
            if what is not None:
                # The stream hands a marker back as it was given, so it can carry these.
                counted.append(replace(marker, details={"what": what, "position": n_counted}))
                n_counted += 1
        for epoch in stream.push(chunk, counted):
            if epoch.marker is None:
                what, position = seen.during(epoch.t_first, epoch.t_last), -1
                t_onset = epoch.t_first
            else:
                what, position = epoch.marker.details["what"], epoch.marker.details["position"]
                t_onset = epoch.marker.timestamp
            label, image_id = what
            yield PreparedEpoch(
                eeg=epoch.data,
                label=label,
                image_id=image_id,
                t_onset=t_onset - t_start,
                is_locked=epoch.marker is not None,
                position=position,
            )


def simulated_steps(
    subject: SimulatedSubject,
    seconds: float,
    seen: list[Composition],
    kept: frozenset[int] = frozenset(),
) -> Iterator[Step]:
    """A simulated session as fast as it can be made.

    Parameters
    ----------
    seconds : of EEG, rounded up to whole ones.
    seen : takes the pictures; a marker's detail `image_id` is its picture's place there.
    kept : labels of the concepts whose markers get details, and whose pictures are taken;
        empty: all.
    """
    for block in range(math.ceil(seconds)):
        data, events = subject.next_block()
        first = block * BLOCK
        markers = []
        for sample, label, composition in events:
            details: dict[str, Any] = {}
            if composition is not None and (not kept or composition.label in kept):
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
        self.labels = dict(wanted)
        self._concepts = {f"onset/{c.name}": label for label, c in enumerate(concepts())}

    def __call__(self, marker: Marker) -> What | None:
        name = marker.label
        if name not in self.labels:
            if not self._is_open or name == "offset":
                return None
            # Behind the concepts, so that both can stand in one recording.
            n_others = len(set(self.labels) - set(self._concepts))
            self.labels[name] = self._concepts.get(name, len(self._concepts) + n_others)
        return self.labels[name], -1


def open_simulated(
    parameters: dict[str, str],
    seconds: float,
    seen: list[Composition],
    kept: frozenset[int] = frozenset(),
) -> Iterator[Opened]:
    """`simulated:?subject=0&session=1&seed=1&difficulty=demo`; `seen` takes the pictures.

    Epochs of other concepts than those in `kept` are left out; empty: none are.
    """
    subject = named_subject(parameters, session=0)

    def what_of(marker: Marker) -> What | None:
        details = marker.details
        return (details["label"], details["image_id"]) if details else None

    yield Opened(
        simulated_info(subject),
        simulated_steps(subject, seconds, seen, kept),
        what_of,
        {"subject": subject.subject, "session": subject.session, "run": 0},
        {"seconds": seconds, "seed": subject.seed, **subject.parameters.to_dict()},
    )


def open_recording(
    target: str, parameters: dict[str, str], place: int, options: SourceOptions, what_of: WhatOf
) -> Iterator[Opened]:
    """`xdf:FILE` or `file:FILE`, which may say `subject=`, `session=` and `run=`."""
    names = ("subject", "session", "run")
    own = {name: parameters.pop(name) for name in names if name in parameters}
    numbers = {"subject": 0, "session": 0, "run": place, **whole_numbers(own)}
    recording = load_recording(Path(target).expanduser(), options, parameters)
    notes = {"seconds": recording.duration}
    yield Opened(recording.info, recording_steps(recording), what_of, numbers, notes)


def open_moabb(target: str, parameters: dict[str, str], options: SourceOptions) -> Iterator[Opened]:
    """`moabb:NAME?subjects=1,2`: EEG without pictures, for pre-training."""
    from acquisition.recording_moabb import find_dataset, moabb_runs

    check_parameters("moabb:", parameters, ("subjects",))
    texts = [t for t in parameters.get("subjects", "").split(",") if t]
    subjects = [whole_numbers({"subjects": text})["subjects"] for text in texts]
    for found in moabb_runs(find_dataset(target), subjects, options):
        numbers = {"subject": found.subject, "session": found.session, "run": found.run}
        recording = found.recording
        notes = {"seconds": recording.duration}
        yield Opened(recording.info, recording_steps(recording), lambda _: None, numbers, notes)
