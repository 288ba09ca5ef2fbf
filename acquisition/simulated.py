"""The simulated subject as a live source: `simulated:`, the default.

Samples come in real time by the session's clock, and do not depend on how they are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from acquisition.errors import SourceError
from acquisition.parameters import check_parameters, whole_numbers
from acquisition.simulated_subject import CH_NAMES, LIVE_SESSION, SFREQ, SimulatedSubject
from acquisition.simulation_parameters import of_difficulty
from acquisition.source import CHUNK_S, Chunk, Marker, Reading, Source, SourceOptions
from acquisition.stimuli import Composition, read_stimuli
from acquisition.stream_info import StreamInfo


class SimulatedSource:
    """The simulated subject as a live `Source`.

    Parameters
    ----------
    subject : who generates the samples.
    names : of the pictures that are shown, if they have any.
    speed : 1 is real time.
    lag : seconds after which a sample can be read.
    now, sleep : the session clock.
    ch_names : electrodes of the headset, some of the subject's.
    """

    def __init__(
        self,
        subject: SimulatedSubject,
        names: Mapping[Composition, str] | None = None,
        speed: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        lag: float = 0.0,
        ch_names: Sequence[str] = CH_NAMES,
    ) -> None:
        self.info = simulated_info(subject, ch_names)
        self._rows = [CH_NAMES.index(name) for name in ch_names]
        self._subject, self._speed, self._names = subject, speed, names or {}
        self._now, self._sleep = now, sleep
        self._start, self._lag = now(), lag
        self._read = 0
        self._data = np.zeros((len(CH_NAMES), 0), np.float32)
        self._events: list[tuple[int, str, Composition | None]] = []

    chunk_times = round(CHUNK_S * SFREQ)

    @property
    def n_read(self) -> int:
        """Samples that were read."""
        return self._read

    def sample_at(self, t: float) -> int:
        """Index of the sample that is nearest to session time `t`."""
        return round((t - self._start) * SFREQ * self._speed)

    def read(self, timeout: float, n_due: int | None = None) -> Reading:
        n_least = min(self.chunk_times, n_due or self.chunk_times)
        start = self._start + self._lag
        due = start + (self._read + n_least) / SFREQ / self._speed
        if (wait := due - self._now()) > 0:
            self._sleep(min(wait, timeout))
            if wait > timeout:
                return Reading()
        n = max(n_least, int((self._now() - start) * SFREQ * self._speed) - self._read)
        while self._data.shape[1] < n:
            block, events = self._subject.next_block()
            self._data = np.concatenate((self._data, block), axis=1)
            self._events += events
        data, self._data = self._data[:, :n], self._data[:, n:]
        index = self._read + np.arange(n)
        chunk = Chunk(np.ascontiguousarray(data[self._rows]), self._time(index), self._read)
        self._read += n
        markers = tuple(self._marker(*e) for e in self._events if e[0] < self._read)
        self._events = [e for e in self._events if e[0] >= self._read]
        return Reading((chunk,), markers)

    def _time(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(self._start + index / (SFREQ * self._speed))

    def _marker(self, sample: int, label: str, composition: Composition | None) -> Marker:
        details: dict[str, Any] = {}
        if composition:
            details = {"label": composition.label, "composition": composition.to_dict()}
            if composition in self._names:
                details["picture"] = self._names[composition]
        return Marker(float(self._time(np.array(sample))), label, details)

    def close(self) -> None:
        """Nothing to release."""


def simulated_info(subject: SimulatedSubject, ch_names: Sequence[str] = CH_NAMES) -> StreamInfo:
    """What the stream says of itself, down to the difficulty."""
    name = f"simulated, {subject.parameters.difficulty}"
    return StreamInfo(name, tuple(ch_names), SFREQ, "simulated")


def check_electrodes(ch_names: Sequence[str]) -> Sequence[str]:
    """Electrodes that the subject has, each once; none: all.

    Raises
    ------
    SourceError
    """
    if unknown := [name for name in ch_names if name not in CH_NAMES]:
        raise SourceError(
            f"The simulated subject has no electrode {unknown[0]}. It has: {', '.join(CH_NAMES)}."
        )
    if len(set(ch_names)) < len(ch_names):
        raise SourceError("An electrode is named twice. Name each once.")
    return ch_names or CH_NAMES


def named_subject(
    parameters: Mapping[str, str],
    session: int,
    shown: Iterable[Composition] = (),
    looks: bool = True,
) -> SimulatedSubject:
    """The subject that `simulated:?subject=0&session=1&seed=1&difficulty=demo` asks for.

    Parameters
    ----------
    parameters : of the source's name; every one may be left out.
    session : where the name says none.
    shown, looks : see `SimulatedSubject`.

    Raises
    ------
    SourceError
        A parameter that is not known, or has no such value.
    """
    check_parameters("simulated:", parameters, ("subject", "session", "seed", "difficulty"))
    texts = dict(parameters)
    difficulty = of_difficulty(texts.pop("difficulty", "demo"))
    numbers = {"subject": 0, "session": session, **whole_numbers(texts)}
    return SimulatedSubject(**numbers, parameters=difficulty, shown=shown, looks=looks)


def open_simulated(target: str, parameters: dict[str, str], options: SourceOptions) -> Source:
    """Open `simulated:`, with the parameters of `named_subject`, and `shown=page`.

    With that, the subject sees what the page presents and nothing else. Names of channels say
    which electrodes the headset has.
    """
    if target:
        raise SourceError(
            f"'simulated:{target}': parameters follow a question mark, as simulated:?seed=1."
        )
    stimuli = read_stimuli(options.stimuli) if options.stimuli else {}
    texts = dict(parameters)
    shown = texts.pop("shown", "")
    if shown not in ("", "page"):
        raise SourceError(
            f"shown is '{shown}'. Expected shown=page, for a subject who sees what the page "
            "presents; leave it out for one who is shown pictures by itself."
        )
    subject = named_subject(texts, LIVE_SESSION, stimuli.values(), looks=not shown)
    if options.unit:
        raise SourceError("simulated: has microvolts; leave --unit out.")
    ch_names = check_electrodes(options.ch_names)
    if shown:
        if not stimuli:
            raise SourceError(
                "simulated:?shown=page sees the pictures of a bundle, and this one has none. Take "
                "a bundle with stimuli/stimuli.json, as weights/scale-model."
            )
        from acquisition.simulated_viewer import GuidedSource

        return GuidedSource(subject, stimuli, ch_names=ch_names)
    return SimulatedSource(subject, {c: name for name, c in stimuli.items()}, ch_names=ch_names)
