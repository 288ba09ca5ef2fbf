"""A recording streamed onto LSL as outlets, so that any LSL program sees it as live."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.channels import Channel
from acquisition.errors import RecordingError, SourceError
from acquisition.gaps import find_missing, level
from acquisition.lsl_network import load_pylsl
from acquisition.recorded_stream import RecordedStream, read_streams
from acquisition.source import SourceOptions

WARNING = (
    "LSL has neither passwords nor encryption: while this replay runs, whoever is on the network "
    "can read the recording."
)
_PUSH_S = 0.02  # what falls due within this is pushed at once
_MARKERS_S = 2.0  # for a consumer of the EEG to join the markers too


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was sent of one stream."""

    name: str
    type: str
    n_samples: int
    had_consumer: bool


class LSLReplay:
    """The outlets of a recording, and the loop that feeds them.

    Parameters
    ----------
    streams : as `load_streams` gives them; empty ones are announced too.
    speed : recorded seconds per second.
    is_looped : whether it begins again at its end, after a pause of 0.5 s: a gap.
    known_peers : see `SourceOptions`.
    """

    def __init__(
        self,
        streams: list[RecordedStream],
        speed: float = 1.0,
        is_looped: bool = False,
        known_peers: tuple[str, ...] = (),
    ) -> None:
        if not 0 < speed <= 1000:
            raise SourceError(f"speed is {speed:g}. Give a speed between 0 and 1000.")
        self._lsl = load_pylsl(known_peers)
        self._streams, self._speed, self._is_looped = streams, speed, is_looped
        self._times = _relative_times(streams)
        self._outlets = [_outlet(self._lsl, s, speed) for s in streams]
        self._n_pushed = [0] * len(streams)
        self._had_consumer = [False] * len(streams)
        self._stop = threading.Event()

    @property
    def duration(self) -> float:
        """Seconds of the recording."""
        return max((float(t[-1]) for t in self._times if len(t)), default=0.0)

    def wait_for_consumer(self, timeout: float) -> bool:
        """Wait until someone listens to the EEG (or, without any, to some stream).

        Returns
        -------
        Whether there is one; at the latest after `timeout` seconds.
        """
        filled = [(s, o) for s, o in zip(self._streams, self._outlets, strict=True) if s.n_times]
        eeg = [o for s, o in filled if s.is_eeg] or [o for _, o in filled]
        if not self._wait(lambda: any(o.have_consumers() for o in eeg), timeout):
            return False
        # Who listens to the EEG joins the markers a moment later (640 ms for the clocks).
        markers = [o for s, o in filled if s.is_markers]
        self._wait(lambda: all(o.have_consumers() for o in markers), _MARKERS_S)
        return True

    def _wait(self, is_there: Callable[[], bool], timeout: float) -> bool:
        t_end = time.monotonic() + timeout
        while not (there := is_there()) and time.monotonic() < t_end and not self._stop.is_set():
            self._stop.wait(0.02)
        return there

    def run(self, on_round: Callable[[int], None] | None = None) -> list[Pushed]:
        """Push every sample at its time, until the end or `stop`.

        Parameters
        ----------
        on_round : called with the number of rounds done after each.

        Returns
        -------
        For each stream, what was pushed.
        """
        n_rounds = 0
        while not self._stop.is_set():
            self._round()
            n_rounds += 1
            if on_round:
                on_round(n_rounds)
            if not self._is_looped:
                break
            self._stop.wait(0.5)
        return self.pushed()

    def pushed(self) -> list[Pushed]:
        counted = zip(self._streams, self._n_pushed, self._had_consumer, strict=True)
        return [Pushed(s.name, s.type, n, had) for s, n, had in counted]

    def stop(self) -> None:
        """End `run` and `wait_for_consumer`; may be called from another thread."""
        self._stop.set()

    def close(self, linger: float = 0.5) -> None:
        """Take the outlets off the network, after `linger` seconds to send what is queued."""
        self._stop.set()
        if self._outlets:
            time.sleep(linger)
        self._outlets = []

    def _round(self) -> None:
        lsl, t_start = self._lsl, self._lsl.local_clock()
        sent = [0] * len(self._streams)
        while not self._stop.is_set():
            elapsed = (lsl.local_clock() - t_start) * self._speed
            t_next = math.inf
            for i, times in enumerate(self._times):
                stop = int(np.searchsorted(times, elapsed, side="right"))
                if stop > sent[i]:
                    self._push(i, sent[i], stop, t_start)
                    sent[i] = stop
                if stop < len(times):
                    t_next = min(t_next, times[stop])
            if t_next == math.inf:
                return
            self._stop.wait(max((t_next - elapsed) / self._speed, _PUSH_S))

    def _push(self, i: int, start: int, stop: int, t_start: float) -> None:
        outlet, samples = self._outlets[i], self._streams[i].samples[start:stop]
        stamps = t_start + self._times[i][start:stop] / self._speed
        if self._streams[i].is_text:
            for row, stamp in zip(samples, stamps, strict=True):
                outlet.push_sample([str(v) for v in row], float(stamp))
        else:
            outlet.push_chunk(np.ascontiguousarray(samples), [float(t) for t in stamps])
        self._n_pushed[i] += stop - start
        self._had_consumer[i] = self._had_consumer[i] or bool(outlet.have_consumers())


def load_streams(path: Path, options: SourceOptions, board: str = "") -> list[RecordedStream]:
    """Read all streams of a recording; names and unit of the options go to its EEG.

    Raises
    ------
    SourceError
        The file is missing or damaged, holds nothing, or the names do not fit.
    """
    streams = read_streams(path, {"board": board} if board else {})
    if not any(s.n_times for s in streams):
        raise RecordingError(f"{path.name} holds no sample at all. Use another recording.")
    return [_with_options(s, options) if s.is_eeg and s.n_times else s for s in streams]


def _with_options(stream: RecordedStream, options: SourceOptions) -> RecordedStream:
    names = options.ch_names
    if names and len(names) != len(stream.channels):
        raise SourceError(
            f"'{stream.name}' has {len(stream.channels)} channels, but --ch-names gives "
            f"{len(names)}. Give one name for each."
        )
    channels = [
        Channel(names[i] if names else c.label, c.type or "EEG", options.unit or c.unit)
        for i, c in enumerate(stream.channels)
    ]
    return replace(stream, channels=tuple(channels))


def _relative_times(streams: list[RecordedStream]) -> list[np.ndarray]:
    """Seconds since the recording's first sample; levelled, so that they can be kept."""
    levelled = []
    for s in streams:
        missing = np.zeros(s.n_times, dtype=np.int64)
        if s.sfreq and s.n_times:
            missing = find_missing(s.timestamps, s.sfreq)
        levelled.append(level(s.timestamps, missing, s.sfreq or 1.0) if s.n_times else s.timestamps)
    t_first = min((float(t[0]) for t in levelled if len(t)), default=0.0)
    return [t - t_first for t in levelled]


def _outlet(lsl: Any, stream: RecordedStream, speed: float) -> Any:
    kinds = {"f4": "float32", "f8": "double64", "i1": "int8", "i2": "int16", "i4": "int32"}
    kind = "string" if stream.is_text else kinds.get(stream.samples.dtype.str[1:], "double64")
    # Never liblsl's default source_id: two replays of one file would then be taken for one.
    info = lsl.StreamInfo(
        stream.name or "recording", stream.type, len(stream.channels), stream.sfreq, kind,
        stream.source_id or f"replay {stream.name} {stream.type}",
    )  # fmt: skip
    info.desc().append_child_value("honesty", "replay")
    info.desc().append_child_value("speed", f"{speed:g}")
    channels = info.desc().append_child("channels")
    for c in stream.channels:
        node = channels.append_child("channel")
        for key, value in (("label", c.label), ("type", c.type), ("unit", c.unit)):
            if value:
                node.append_child_value(key, value)
    return lsl.StreamOutlet(info)
