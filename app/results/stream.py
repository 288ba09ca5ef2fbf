"""Simulated sessions cut as in live use, and what was on the screen during each epoch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import Epoch, EpochKind, EpochStream
from acquisition.montage import Montage
from acquisition.simulated import simulated_info
from acquisition.simulated_subject import SimulatedSubject
from acquisition.simulation_parameters import SimulationParameters
from acquisition.stimuli import Composition
from app.continuous import simulated_steps
from app.errors import SettingsError

KINDS: tuple[EpochKind, ...] = ("sliding", "marker-locked")

Spoil = Callable[[np.ndarray], np.ndarray]
"""Raw samples (32, n_times) in microvolts to what the amplifier would give instead."""


@dataclass(frozen=True, slots=True, eq=False)
class Epochs:
    """Epochs of one kind, and the pictures of their sessions.

    Attributes
    ----------
    data : (n, n_channels, n_times) float32, as the bundle wants them.
    first, last : (n,), seconds; moments of the first and the last sample.
    picture : (n,), what it is locked to, or the last picture that had appeared by its last
        sample; -1 where that one is not among the pictures.
    onset, offset, label : (n_pictures,), seconds, seconds and number of the concept.
    """

    data: np.ndarray
    first: np.ndarray
    last: np.ndarray
    picture: np.ndarray
    onset: np.ndarray
    offset: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.data)

    @property
    def truth(self) -> np.ndarray:
        """The concept of each epoch's picture, (n,)."""
        return np.asarray(self.label[self.picture])

    def take(self, which: np.ndarray) -> Self:
        """The epochs `which` (n,) bool is true for; all pictures stay."""
        return replace(
            self,
            data=self.data[which],
            first=self.first[which],
            last=self.last[which],
            picture=self.picture[which],
        )

    def inside(self) -> Self:
        """Epochs that lie fully inside a viewing."""
        return self.take(self._ends_seen() & (self.first >= self.onset[self.picture]))

    def during(self) -> Self:
        """Epochs that end inside a viewing: what a viewer is shown while they look."""
        return self.take(self._ends_seen())

    def in_gaps(self, after: float) -> Self:
        """Epochs fully between two pictures, from `after` seconds behind the first one's end."""
        is_late = self.first >= self.offset[self.picture] + after
        return self.take((self.picture >= 0) & is_late)

    def _ends_seen(self) -> np.ndarray:
        return np.asarray((self.picture >= 0) & (self.last < self.offset[self.picture]))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The epochs of several sessions, their pictures numbered through."""
        before = np.cumsum([0, *(len(part.label) for part in parts)])
        picture = [
            np.where(part.picture < 0, -1, part.picture + n)
            for part, n in zip(parts, before, strict=False)
        ]
        columns = ("data", "first", "last", "onset", "offset", "label")
        values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        return cls(picture=np.concatenate(picture), **values)


def record(
    subject: SimulatedSubject, spec: EpochSpec, n_trials: int, spoil: Spoil | None = None
) -> dict[EpochKind, Epochs]:
    """A session through the stream that live use runs, by kind of epoch.

    Pictures that appear before the stream gives its first window are left out, and so is one
    that the session does not see the end of.

    Parameters
    ----------
    n_trials : pictures that the session is about as long as.
    spoil : changes the raw samples.

    Raises
    ------
    SettingsError
        The session is too short for one whole picture.
    """
    p = subject.parameters
    info = simulated_info(subject)
    stream = EpochStream(info, spec, Montage.from_channels(info.ch_names, spec), KINDS)
    seen: list[Composition] = []
    onsets: list[float] = []
    offsets: list[float] = []
    epochs: list[Epoch] = []
    seconds = n_trials * (p.viewing + (p.gap_min + p.gap_max) / 2)
    for chunk, markers in simulated_steps(subject, seconds, seen):
        for marker in markers:
            (onsets if marker.details else offsets).append(marker.timestamp)
        if spoil is not None:
            chunk = replace(chunk, data=spoil(chunk.data))
        epochs += stream.push(chunk, markers)
    ready = min((e.t_last for e in epochs if e.marker is None), default=np.inf)
    onset = np.array(onsets)
    is_kept = (onset >= ready) & (np.arange(len(onset)) < len(offsets))
    if not is_kept.any():
        raise SettingsError(
            f"A session of about {n_trials} pictures is too short: the filters settle during the "
            "first ones, and none whole is left. Measure more trials."
        )
    # Behind them -1, for epochs before the first picture.
    number = np.append(np.where(is_kept, np.cumsum(is_kept) - 1, -1), -1)
    label = np.array([c.label for c in seen])[is_kept]
    offset = np.array(offsets)[is_kept[: len(offsets)]]
    out: dict[EpochKind, Epochs] = {}
    for kind in KINDS:
        own = [e for e in epochs if e.kind == kind]
        appeared = [
            e.marker.details["image_id"] if e.marker else bisect_right(onsets, e.t_last) - 1
            for e in own
        ]
        shape = (len(own), spec.n_channels, spec.n_times)
        out[kind] = Epochs(
            data=np.array([e.data for e in own], np.float32).reshape(shape),
            first=np.array([e.t_first for e in own]),
            last=np.array([e.t_last for e in own]),
            picture=number[np.array(appeared, int)],
            onset=onset[is_kept],
            offset=offset,
            label=label,
        )
    return out


@dataclass(frozen=True, slots=True)
class Sessions:
    """Which simulated sessions are measured.

    Attributes
    ----------
    parameters : of the subject.
    subject : its number.
    numbers : of the sessions.
    n_trials : pictures of each, about.
    """

    parameters: SimulationParameters
    subject: int
    numbers: Sequence[int]
    n_trials: int

    def begin(
        self, number: int, parameters: SimulationParameters | None = None
    ) -> SimulatedSubject:
        """The subject at the beginning of a session, perhaps with other parameters."""
        return SimulatedSubject(self.subject, number, parameters=parameters or self.parameters)

    def record(
        self,
        spec: EpochSpec,
        parameters: SimulationParameters | None = None,
        spoil: Spoil | None = None,
    ) -> dict[EpochKind, Epochs]:
        """All sessions, joined."""
        each = [
            record(self.begin(number, parameters), spec, self.n_trials, spoil)
            for number in self.numbers
        ]
        return {kind: Epochs.joined([part[kind] for part in each]) for kind in KINDS}
