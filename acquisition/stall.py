"""Notices a stream that has fallen silent, whatever its driver says."""

from __future__ import annotations

from typing import Literal

# A stream is stalled after 0.5 s or five of its usual chunks, and lost after 3 s.
STALLED_S, STALLED_CHUNKS, LOST_S = 0.5, 5.0, 3.0


class StallTimer:
    """Times the silence since the last samples.

    Parameters
    ----------
    t : session time at which samples are first waited for.
    """

    def __init__(self, t: float) -> None:
        self._t_last = t
        self._interval = 0.0
        self._is_started = False

    def feed(self, t: float) -> None:
        """Note that samples came at `t`."""
        if self._is_started and self.state(t) == "running":
            self._interval += 0.1 * (t - self._t_last - self._interval)
        self._t_last, self._is_started = t, True

    def silence(self, t: float) -> float:
        """Seconds without a sample."""
        return t - self._t_last

    def state(self, t: float) -> Literal["running", "stalled", "lost"]:
        stalled = max(STALLED_S, STALLED_CHUNKS * self._interval)
        if self.silence(t) <= stalled:
            return "running"
        return "stalled" if self.silence(t) <= max(LOST_S, 2 * stalled) else "lost"
