"""Other clocks to the session clock, `time.monotonic`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np

WINDOW_S = 60.0  # a crystal that is 50 ppm off runs 3 ms away in this time
STEP_S = 0.5
PERSISTENCE_S = 2.0


def measure_offset(
    other_clock: Callable[[], float],
    session_clock: Callable[[], float] = time.monotonic,
    n_readings: int = 9,
) -> float:
    """Seconds to add to another clock of this machine to get session time.

    For LSL's `local_clock`, to which clocksync maps all streams: on Linux it is the
    session clock itself, and exactly 0 is returned. The other clock is read between two
    readings of the session clock; of several tries the one that took least time counts.
    """
    tightest, offset = float("inf"), 0.0
    for _ in range(n_readings):
        before = session_clock()
        other = other_clock()
        after = session_clock()
        if after - before < tightest:
            tightest, offset = after - before, (before + after) / 2 - other
    # Within what the readings can tell, the two are the same clock.
    return 0.0 if abs(offset) <= tightest / 2 else offset


class RunningMinimumClock:
    """Maps a clock that is only seen in the stamps of arriving samples.

    A sample arrives after it was stamped, by a delay that changes and is never negative.
    So the least of the differences between arrival and stamp over the last minute is the
    nearest to the offset between the clocks (plus the least delay, which cannot be seen).

    A clock that is set to another time shows as a step. Set forward, it is seen at once.
    Set back, it looks like a delay at first: only a difference that stays raised for two
    seconds of steady arrivals is a step; the backlog after a stall of the radio is over
    sooner.

    Attributes
    ----------
    offset : seconds to add to the other clock to get session time; None before the first
        `update`.
    """

    def __init__(self) -> None:
        self.offset: float | None = None
        self._minima: deque[tuple[float, float]] = deque()  # (t_session, difference), both rise
        self._raised: list[tuple[float, float]] = []

    def update(self, t_other: float, t_session: float) -> float:
        """Learn that a sample stamped `t_other` arrived at `t_session`.

        Returns
        -------
        by how many seconds the other clock was found to have been set forward (negative:
        back); 0.0 almost always.
        """
        difference = t_session - t_other
        step = 0.0
        if self.offset is not None:
            if difference < self.offset - STEP_S:
                step = self.offset - difference
                self._minima.clear()
            elif difference > self.offset + STEP_S:
                if self._raised and t_session - self._raised[-1][0] > STEP_S:
                    self._raised.clear()  # the radio stalled in between
                self._raised.append((t_session, difference))
                if t_session - self._raised[0][0] >= PERSISTENCE_S:
                    step = self.offset - min(d for _, d in self._raised)
                    self._minima.clear()
                    for t, d in self._raised:
                        self._keep(t, d)
            else:
                self._raised.clear()
        if step:
            self._raised.clear()
        self._keep(t_session, difference)
        self.offset = self._minima[0][1]
        return step

    def _keep(self, t_session: float, difference: float) -> None:
        while self._minima and self._minima[-1][1] >= difference:
            self._minima.pop()
        self._minima.append((t_session, difference))
        while self._minima[0][0] < t_session - WINDOW_S:
            self._minima.popleft()

    def to_session(self, timestamps: np.ndarray) -> np.ndarray:
        """Stamps of the other clock, any shape, as session time.

        Raises
        ------
        ValueError
            Nothing was learnt by `update` yet.
        """
        if self.offset is None:
            raise ValueError("The clock's offset is not known before the first update.")
        return np.asarray(timestamps, np.float64) + self.offset
