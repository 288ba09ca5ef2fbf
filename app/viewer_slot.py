"""What waits for one viewer: never more than the newest frame.

Only an acknowledgement says that a viewer keeps up: a server's `send` into a slow
connection returns within milliseconds, because the system buffers it. Measured over
300 kB/s: 12 s behind after 12 s without acknowledgements, 0.3 s with them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from app.picture import EncodedFrame

# Frames on their way: one being drawn and one arriving keep a fast viewer busy.
MAX_IN_FLIGHT = 2

# A viewer who takes longer for a frame gets the next one only when that is done, until one takes
# less than the second: two on a slow way are twice as late, and no sooner there.
SLOW, QUICK = 0.25, 0.15

# Traces that wait at most: 2 s in chunks of 80 ms.
MAX_TRACES = 25

# A viewer that has not drawn for this long is in the background or behind: traces
# would fill the connection before the frames that it waits for.
STALL = 1.0


@dataclass(frozen=True, slots=True)
class InFlight:
    """A frame that was sent and not acknowledged yet.

    Attributes
    ----------
    frame : what was sent.
    t_sent : session time.
    is_fresh : whether it was offered as it was made, not kept for a viewer who came later.
    """

    frame: EncodedFrame
    t_sent: float
    is_fresh: bool


class ViewerSlot:
    """The hand-over to one viewer; no I/O, used by one thread.

    Replies and states come first, then the frame, then traces.

    Attributes
    ----------
    n_sent, n_drawn, n_replaced : frames sent, acknowledged, and replaced by a newer
        one before they could be sent.
    """

    def __init__(self) -> None:
        self.n_sent = self.n_drawn = self.n_replaced = 0
        self._replies: deque[bytes] = deque()
        self._state: bytes | None = None
        self._frame: tuple[EncodedFrame, bool] | None = None
        self._traces: deque[bytes] = deque(maxlen=MAX_TRACES)
        self._in_flight: dict[int, InFlight] = {}
        self._is_slow = False

    def offer(self, frame: EncodedFrame, is_fresh: bool = True) -> None:
        """Take a frame in place of the one that waits, if any."""
        self.n_replaced += self._frame is not None
        self._frame = frame, is_fresh

    def offer_state(self, message: bytes) -> None:
        """Take a state in place of the one that waits, if any."""
        self._state = message

    def offer_traces(self, message: bytes) -> None:
        """Take traces; the oldest give way, which the page sees by the sample numbers."""
        self._traces.append(message)

    def reply(self, message: bytes) -> None:
        """Take an answer to something the page sent; inbound limits bound their number."""
        self._replies.append(message)

    def acknowledge(self, number: int, t: float, is_drawn: bool = True) -> InFlight | None:
        """The page has done with frame `number`; older ones it will never draw.

        Parameters
        ----------
        t : session time.
        is_drawn : False where the picture stands still because someone wants it so.

        Returns
        -------
        the frame, or None if it was not on its way (an acknowledgement buys no credit twice)
        or was not drawn.
        """
        frame = self._in_flight.get(number)
        if frame is None:
            return None
        self._in_flight = {n: f for n, f in self._in_flight.items() if n > number}
        self.n_drawn += is_drawn
        self._is_slow = t - frame.t_sent > (QUICK if self._is_slow else SLOW)
        return frame if is_drawn else None

    def take(self, t: float) -> bytes | None:
        """What to send at session time `t`, or None if nothing may be sent now."""
        if self._replies:
            return self._replies.popleft()
        if self._state is not None:
            state, self._state = self._state, None
            return state
        most = 1 if self._is_slow else MAX_IN_FLIGHT
        if self._frame is not None and len(self._in_flight) < most:
            (frame, is_fresh), self._frame = self._frame, None
            self._in_flight[frame.number] = InFlight(frame, t, is_fresh)
            self.n_sent += 1
            return frame.message
        if self._traces and not self.is_stalled(t):
            return self._traces.popleft()
        return None

    def is_stalled(self, t: float) -> bool:
        """Whether the viewer owes acknowledgements for longer than `STALL`."""
        most = 1 if self._is_slow else MAX_IN_FLIGHT
        return len(self._in_flight) >= most and (
            t - min(f.t_sent for f in self._in_flight.values()) > STALL
        )
