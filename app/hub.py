"""From the worker's pictures to every viewer's slot: one guard, one JPEG, many viewers.

A thread of its own takes pictures, moves the flash guard and encodes (`Hub.run`); the
viewers belong to the event loop, which learns of a new frame by one callback and never
waits. What is not taken in time is replaced, on either side.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from app.bus import Subscriber
from app.messages import Message, pack
from app.picture import EncodedFrame, Picture, encode_jpeg
from app.summary import STAGES
from app.viewer_slot import InFlight, ViewerSlot

# Frames per second while the guard moves.
RATE = 30.0

# Seconds between looks at `stop` while nothing comes.
IDLE = 0.25

# "Drawn" means that the first pixel has moved a tenth of the way to the new picture.
FIRST_USE_FADE = 0.1

# From the worker's header to the page's.
OF_PICTURE = ("epoch", "t_eeg", "t_painted", "seed", "honesty", "concepts", "chance", "is_sure")


class GuardedFrame(Protocol):
    """What the flash guard lets through (`app.flash_guard.GuardedFrame`)."""

    @property
    def rgb(self) -> np.ndarray: ...
    @property
    def fade(self) -> float: ...
    @property
    def state(self) -> str: ...
    @property
    def changed(self) -> bool: ...
    @property
    def number(self) -> int: ...


class Guard(Protocol):
    """What stands between pictures and screens (`app.flash_guard.FlashGuard`)."""

    n_replaced: int
    n_breaches: int

    @property
    def is_moving(self) -> bool: ...
    def show(self, rgb: np.ndarray, t: float) -> None: ...
    def tick(self, t: float) -> GuardedFrame: ...


class Hub:
    """One stream of pictures to many viewers.

    `show` and `tick` belong to the hub's thread; everything else to the event loop.

    Parameters
    ----------
    guard : limits what flashes.
    clock : of the session.

    Attributes
    ----------
    viewers : the slots of those who watch.
    """

    def __init__(self, guard: Guard, clock: Callable[[], float] = time.monotonic) -> None:
        self._guard = guard
        self._clock = clock
        # What the guard was given and may still show, by its count.
        self._shown: dict[int, Picture] = {}
        self._n_shown = 0
        self._jpeg = b""
        self._last = (0, "")
        self._newest: EncodedFrame | None = None
        self._number = 0
        self._lock = threading.Lock()
        self._notify: Callable[[], None] | None = None
        self._pending: EncodedFrame | None = None
        self._n_skipped = 0
        self._ended = [0, 0, 0]
        self._drawn_ms: list[float] = []
        self._stages_ms: dict[str, list[float]] = {stage: [] for stage in STAGES}
        # The newest EEG of which anything was drawn.
        self._t_used = -np.inf
        self.viewers: dict[ViewerSlot, Callable[[], None]] = {}

    # The hub's thread

    def run(self, frames: Subscriber, stop: threading.Event) -> None:
        """Take pictures from the bus and pass them on until `stop` is set."""
        t_next = 0.0
        while not stop.is_set():
            wait = max(0.0, t_next - self._clock()) if self._guard.is_moving else IDLE
            message, n_replaced = frames.newest(wait)
            if message is not None:
                self.show(message, n_replaced)
            if self._guard.is_moving and self._clock() >= t_next:
                # From now, not from when it was due: after a stall there is no burst.
                t_next = self._clock() + 1 / RATE
                self.tick()

    def show(self, message: Message, n_replaced: int = 0) -> None:
        """Take the worker's newest `frame` message.

        Parameters
        ----------
        n_replaced : older ones that it replaced on the way.
        """
        self._n_skipped += n_replaced
        header = message.header
        self._n_shown += 1
        self._shown[self._n_shown] = Picture(header)
        shape = header["height"], header["width"], 3
        self._guard.show(np.frombuffer(message.payload, np.uint8).reshape(shape), self._clock())

    def tick(self) -> None:
        """Let the guard move, and pass its frame on if it says anything new."""
        frame = self._guard.tick(self._clock())
        # Two epochs may give the same pixels: that is news too.
        if frame.number and (frame.changed or (frame.number, frame.state) != self._last):
            self._last = frame.number, frame.state
            self._shown = {n: p for n, p in self._shown.items() if n >= frame.number}
            if frame.changed or not self._jpeg:
                self._jpeg = encode_jpeg(frame.rgb)
            picture = self._shown[frame.number]
            state = frame.state if frame.state != "painted" else picture.header["state"]
            self._publish(picture, frame.fade, state)

    def _publish(self, picture: Picture, fade: float, state: str) -> None:
        self._number += 1
        header = {
            "number": self._number,
            "picture": picture.header["number"],
            "state": state,
            "fade": round(fade, 4),
            **{name: picture.header[name] for name in OF_PICTURE},
        }
        message = pack("frame", header, self._jpeg)
        self._newest = EncodedFrame(self._number, picture, fade, self._clock(), message)
        with self._lock:
            is_waiting = self._pending is not None
            self._pending = self._newest
        if not is_waiting and self._notify is not None:
            self._notify()

    # The event loop

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which loop the viewers belong to."""

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(self.deliver)
            except RuntimeError:
                # The loop has ended: so have the viewers.
                self._notify = None

        self._notify = notify
        # A frame that came before had nobody to notify, and hides those after it.
        loop.call_soon(self.deliver)

    def deliver(self) -> None:
        """Offer the newest frame to every viewer."""
        with self._lock:
            frame, self._pending = self._pending, None
        if frame is not None:
            for slot, wake in self.viewers.items():
                slot.offer(frame)
                wake()

    def join(self, wake: Callable[[], None]) -> ViewerSlot:
        """Add a viewer, who sees the newest frame at once.

        Parameters
        ----------
        wake : called when something waits in the slot.
        """
        slot = ViewerSlot()
        self.viewers[slot] = wake
        if self._newest is not None:
            slot.offer(self._newest, is_fresh=False)
        return slot

    def leave(self, slot: ViewerSlot) -> None:
        """Forget a viewer; what was counted stays."""
        if self.viewers.pop(slot, None) is not None:
            self._ended = [a + b for a, b in zip(self._ended, _counts(slot), strict=True)]

    def acknowledge(
        self, slot: ViewerSlot, number: int, is_drawn: bool = True, shown_ms: float = 0.0
    ) -> None:
        """A viewer has drawn a frame, or will not because its picture stands still.

        Parameters
        ----------
        shown_ms : from its arrival to its drawing, by the page's own clock.
        """
        drawn = slot.acknowledge(number, self._clock(), is_drawn)
        if drawn is None or drawn.frame.fade < FIRST_USE_FADE:
            return
        picture = drawn.frame.picture
        # An epoch is used once, by its first frame; a viewer who came later draws old ones, which
        # says nothing of latency.
        if picture.t_eeg > self._t_used and drawn.is_fresh:
            self._add_first_use(drawn, shown_ms)
        self._t_used = max(self._t_used, picture.t_eeg)

    def _add_first_use(self, drawn: InFlight, shown_ms: float) -> None:
        header, t = drawn.frame.picture.header, self._clock()
        shown = min(shown_ms / 1000, t - drawn.t_sent)
        moments = (
            header["t_eeg"],
            header["t_published"],
            header["t_encoded"],
            header["t_painted"],
            drawn.frame.t_compressed,
            drawn.t_sent,
            t - shown,
            t,
        )
        self._drawn_ms.append((t - header["t_eeg"]) * 1000)
        for stage, since, at in zip(STAGES, moments, moments[1:], strict=False):
            self._stages_ms[stage].append((at - since) * 1000)

    def counts(self) -> dict[str, int]:
        """What is counted: frames of all viewers, and what the guard had to stop.

        Replaced are frames on their way from the worker, in the guard and in the slots.
        """
        columns = zip(self._ended, *map(_counts, self.viewers), strict=True)
        sent, drawn, replaced = (sum(column) for column in columns)
        replaced += self._n_skipped + self._guard.n_replaced
        return {
            "frames_sent": sent,
            "frames_drawn": drawn,
            "frames_replaced": replaced,
            "flash_breaches": self._guard.n_breaches,
        }

    def take_stages_ms(self) -> dict[str, list[float]]:
        """What first use is made of, since the last call: times of each stage, in milliseconds."""
        taken, self._stages_ms = self._stages_ms, {stage: [] for stage in STAGES}
        return taken

    def take_drawn_ms(self) -> list[float]:
        """First-use latencies since the last call, in milliseconds."""
        taken, self._drawn_ms = self._drawn_ms, []
        return taken


def _counts(slot: ViewerSlot) -> Iterator[int]:
    return iter((slot.n_sent, slot.n_drawn, slot.n_replaced))
