"""The simulated subject looks at what somebody else shows: `simulated:?shown=page`.

It looks at nothing by itself. Onsets and ends come as markers, stamped by whoever showed the
pictures; the responses begin at the stamped samples. So that a stamp may come after the moment
that it names, samples come `LAG` seconds late, as a wireless headset's do, with their true
timestamps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from acquisition.simulated import SimulatedSource
from acquisition.simulated_subject import CH_NAMES, SFREQ, SimulatedSubject
from acquisition.source import Chunk, Marker, Reading
from acquisition.stimuli import Composition, features

LAG = 0.25
# Of a picture whose end is not told (seconds).
LONGEST = 10.0


@dataclass(slots=True)
class _Trial:
    """A picture that is or was seen, and what it evokes.

    Attributes
    ----------
    marker : of its onset.
    composition : what it shows.
    key : of the random numbers of this trial.
    onset : index of the sample.
    response : array of shape (32, n_times) from the onset on, microvolts, without the session's
        gains.
    is_over : whether its end is known.
    """

    marker: Marker
    composition: Composition
    key: tuple[int, ...]
    onset: int
    response: np.ndarray
    is_over: bool = False


class GuidedSource:
    """The simulated subject as a `Source` that is told what it sees.

    Parameters
    ----------
    subject : made with `looks=False`.
    stimuli : what the pictures show, by their names.
    now, sleep : the session clock.
    ch_names : electrodes of the headset, some of the subject's.
    """

    def __init__(
        self,
        subject: SimulatedSubject,
        stimuli: Mapping[str, Composition],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        ch_names: Sequence[str] = CH_NAMES,
    ) -> None:
        self._source = SimulatedSource(subject, now=now, sleep=sleep, lag=LAG, ch_names=ch_names)
        self.info = self._source.info
        self._rows = [CH_NAMES.index(name) for name in ch_names]
        self._subject, self._stimuli = subject, stimuli
        self._trials: list[_Trial] = []
        self._n_seen = 0
        self._message = ""

    def see(self, marker: Marker) -> None:
        """Take a picture's onset, with its name as the detail `picture`, or its end."""
        if marker.label == "offset":
            self._end(marker.timestamp)
            return
        # Where the end of the one before was not told, it is over at the latest now.
        self._end(marker.timestamp)
        name = marker.details.get("picture")
        composition = self._stimuli.get(str(name))
        if composition is None:
            self._message = (
                f"The simulated subject knows no picture called {name!r} and does not respond to "
                "it. Present the pictures of the bundle's stimuli."
            )
            return
        onset = self._source.sample_at(marker.timestamp)
        late = self._source.n_read - onset
        self._message = (
            f"The onset of {name!r} was told {late / SFREQ * 1000:.0f} ms too late: the beginning "
            "of the simulated response is missing."
            if late > 0
            else ""
        )
        key = (15485863, self._subject.seed, 1, self._n_seen)
        self._n_seen += 1
        trial = _Trial(marker, composition, key, onset, self._respond(composition, key, LONGEST))
        self._trials.append(trial)
        self._subject.attend(is_seeing=True)

    def _end(self, t: float) -> None:
        self._subject.attend(is_seeing=False)
        for trial in self._trials:
            if not trial.is_over:
                viewing = min(t - trial.marker.timestamp, LONGEST)
                trial.response = self._respond(trial.composition, trial.key, viewing)
                trial.is_over = True

    def _respond(
        self, composition: Composition, key: tuple[int, ...], viewing: float
    ) -> np.ndarray:
        # The same latency and amplitude when the end is known as at the onset.
        rng = np.random.default_rng(key)
        return self._subject.response(features(composition), composition.label, rng, viewing)

    def read(self, timeout: float, n_due: int | None = None) -> Reading:
        reading = self._source.read(timeout, n_due)
        chunks = tuple(self._with_responses(chunk) for chunk in reading.chunks)
        return replace(reading, chunks=chunks, message=self._message)

    def _with_responses(self, chunk: Chunk) -> Chunk:
        evoked = np.zeros((len(CH_NAMES), chunk.n_times))
        for trial in self._trials:
            end = trial.onset + trial.response.shape[1]
            first, stop = max(chunk.first_sample, trial.onset), min(chunk.end, end)
            if first < stop:
                evoked[:, first - chunk.first_sample : stop - chunk.first_sample] += trial.response[
                    :, first - trial.onset : stop - trial.onset
                ]
        self._trials = [
            t for t in self._trials if t.onset + t.response.shape[1] > chunk.end or not t.is_over
        ]
        evoked *= self._subject.gain[:, None]
        return replace(chunk, data=(chunk.data + evoked[self._rows]).astype(np.float32))

    def close(self) -> None:
        """Nothing to release."""
