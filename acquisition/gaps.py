"""Missing samples: found in the timestamps, numbered on the stream's own grid."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from acquisition.source import Chunk

# A step between neighbours beyond this (and half a period) is a gap. Real devices' jitter
# reaches 83 ms without a sample missing (Bluetooth bursts of a Mentalab Explore; Muse 34 ms,
# Cyton 35 ms), so half as much again; a gap of an eighth of a second is found.
GAP_S = 0.125
# A timestamp this far before its forerunner is a clock that was set, not jitter (51 ms seen).
BACKWARD_S = 0.25


def find_missing(timestamps: np.ndarray, sfreq: float) -> np.ndarray:
    """Count the samples that are missing before each sample.

    A long step is no gap if the samples after it come in so quick succession that they
    catch up: a burst that waited in a buffer and was stamped on arrival.

    Parameters
    ----------
    timestamps : array of shape (n_times,), seconds.
    sfreq : nominal rate in Hz; a real rate that differs is no gap.

    Returns
    -------
    array of shape (n_times,), int64; 0 for the first sample. Where the clock jumps back
    by more than 0.25 s, 1: the samples are not neighbours.
    """
    missing = np.zeros(len(timestamps), dtype=np.int64)
    steps = np.diff(timestamps)
    missing[1:][steps < -BACKWARD_S] = 1
    for before in np.flatnonzero(steps > gap_threshold(sfreq)):
        # As many samples as are missing would have to follow at once, to catch up.
        n_ahead = min(math.ceil(steps[before] * sfreq), int(10 * sfreq)) + 1
        ahead = timestamps[before + 1 : before + 1 + n_ahead] - timestamps[before]
        late = float(np.min(ahead - np.arange(1, len(ahead) + 1) / sfreq))
        if late > gap_threshold(sfreq) - 1 / sfreq:
            missing[before + 1] = max(1, round(late * sfreq))
    return missing


def gap_threshold(sfreq: float) -> float:
    """The longest step, in seconds, that is still jitter."""
    return GAP_S + 1.5 / sfreq


def level(timestamps: np.ndarray, n_missing: np.ndarray, sfreq: float) -> np.ndarray:
    """Timestamps that never fall.

    Jitter that runs backwards becomes a plateau. Where the clock was set back (a step down
    with samples missing), time goes on one period later.

    Returns
    -------
    array of shape (n_times,), float64.
    """
    steps = np.diff(timestamps)
    is_set_back = (steps < 0) & (n_missing[1:] > 0)
    shift = np.where(is_set_back, 1 / sfreq - steps, 0.0)
    return np.asarray(np.maximum.accumulate(timestamps + np.concatenate(([0.0], np.cumsum(shift)))))


class SampleGrid:
    """Numbers samples in order, cuts them into chunks wherever some are missing."""

    def __init__(self) -> None:
        self._next = 0
        self._last_time = -math.inf

    @property
    def last_time(self) -> float:
        """Session time of the newest sample; minus infinity before the first."""
        return self._last_time

    def chunks(
        self,
        data: np.ndarray,
        timestamps: np.ndarray,
        n_missing: np.ndarray,
        n_lost: np.ndarray | None = None,
    ) -> tuple[Chunk, ...]:
        """Make chunks without a gap inside.

        Parameters
        ----------
        data : array of shape (n_channels, n_times), float32, microvolts.
        timestamps : array of shape (n_times,), seconds on the session clock. Jitter that
            runs backwards is levelled, so that times never fall within a chunk.
        n_missing : array of shape (n_times,), int; samples missing before each.
        n_lost : the same for those that were lost on the way; none if not given.
        """
        bounds = sorted({0, *np.flatnonzero(n_missing).tolist(), len(timestamps)})
        chunks = []
        for start, stop in pairwise(bounds):
            times = np.maximum.accumulate(timestamps[start:stop])
            if not n_missing[start] or 0 <= self._last_time - times[0] <= BACKWARD_S:
                times = np.maximum(times, self._last_time)
            self._next += int(n_missing[start])
            lost = 0 if n_lost is None else int(n_lost[start])
            chunks.append(Chunk(data[:, start:stop], times, self._next, lost))
            self._next += stop - start
            self._last_time = float(times[-1])
        return tuple(chunks)
