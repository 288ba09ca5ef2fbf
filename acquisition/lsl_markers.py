"""Marker streams beside an EEG stream, joined as they appear."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from acquisition.clock import measure_offset
from acquisition.lsl_network import LSLStream, StreamFinder
from acquisition.source import Marker

_LOOK_EVERY_S = 1.0


class MarkerInlets:
    """Collects the markers of every marker stream that is or comes on the network.

    Each stream has a thread of its own: an inlet's first clock synchronisation takes
    640 ms, for which the EEG must not wait.

    Parameters
    ----------
    name : of the one stream wanted; empty for all of type Markers.
    own : source_id of a stream that is never wanted.
    """

    def __init__(self, pylsl: Any, finder: StreamFinder, name: str = "", own: str = "") -> None:
        self._pylsl, self._finder, self._name, self._own = pylsl, finder, name, own
        self._found: deque[Marker] = deque(maxlen=10_000)
        self._threads: dict[str, threading.Thread] = {}
        self._is_closed = threading.Event()
        self._t_look = 0.0

    def take(self) -> list[Marker]:
        """The markers since the last call, in order of time; never blocks."""
        now = time.monotonic()
        if now >= self._t_look:
            self._t_look = now + _LOOK_EVERY_S
            self.join()
        taken = [self._found.popleft() for _ in range(len(self._found))]
        return sorted(taken, key=lambda m: m.timestamp)

    def join(self) -> None:
        """Listen to the marker streams that came since the last call."""
        for stream in self._finder.streams():
            if self._is_wanted(stream) and not self._is_joined(stream.uid):
                thread = threading.Thread(
                    target=self._listen, args=(stream,), name=f"markers {stream.name}", daemon=True
                )
                self._threads[stream.uid] = thread
                thread.start()

    def close(self) -> None:
        self._is_closed.set()
        for thread in self._threads.values():
            thread.join(timeout=1.0)

    def _is_wanted(self, stream: LSLStream) -> bool:
        if self._own and stream.source_id == self._own:
            return False
        if self._name:
            return stream.name == self._name
        return stream.sfreq == 0 and stream.type.lower() in ("marker", "markers")

    def _is_joined(self, uid: str) -> bool:
        return uid in self._threads and self._threads[uid].is_alive()

    def _listen(self, stream: LSLStream) -> None:
        lsl = self._pylsl
        inlet = lsl.StreamInlet(stream.handle, recover=False, processing_flags=lsl.proc_clocksync)
        offset = measure_offset(lsl.local_clock)
        try:
            inlet.open_stream(timeout=5.0)
            inlet.time_correction(timeout=5.0)
            while not self._is_closed.is_set():
                # One sample at a time: a chunk of strings waits until it is full.
                sample, timestamp = inlet.pull_sample(timeout=0.2)
                if sample and (label := _label(sample)):
                    self._found.append(Marker(timestamp + offset, label))
        except (lsl.util.LostError, TimeoutError, lsl.util.TimeoutError):
            return  # it is joined again when it comes back


def _label(sample: list[Any]) -> str:
    """The first value that is not empty."""
    texts = [f"{v:g}" if isinstance(v, float) else str(v).strip() for v in sample]
    return next((t for t in texts if t), "")
