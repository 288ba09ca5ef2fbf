"""A recording replayed as if live, gaps and all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from acquisition.gaps import SampleGrid
from acquisition.recording import Recording
from acquisition.source import Chunk, Marker, Reading
from acquisition.stream_info import StreamInfo

# Samples are released at most this often: 8 samples at 250 Hz, as headsets deliver them.
CHUNK_S = 0.032


class Replay:
    """A recording released sample by sample; has no clock of its own and never waits.

    Parameters
    ----------
    recording : what to replay.
    t_start : session time of the first sample.
    speed : recorded seconds per second of the session.
    is_looped : whether it begins again at its end; the jump back is a gap.
    """

    def __init__(
        self, recording: Recording, t_start: float, speed: float = 1.0, is_looped: bool = False
    ) -> None:
        self._recording = recording
        self._speed = speed
        self._is_looped = is_looped
        self._t_start = t_start
        t_first = recording.timestamps[0]
        self._times = recording.timestamps - t_first
        self._marker_times = [m.timestamp - t_first for m in recording.markers]
        self._grid = SampleGrid()
        self._next_sample = 0
        self._next_marker = 0
        self._is_first_round = True
        self._t_released = -math.inf

    @property
    def is_finished(self) -> bool:
        return not self._is_looped and self._next_sample == self._recording.n_times

    @property
    def t_next(self) -> float:
        """Session time at which the next chunk is due; infinity after the end."""
        if self.is_finished:
            return math.inf
        due = self._session_time(self._times[self._next_sample % self._recording.n_times])
        return max(due, self._t_released + CHUNK_S)

    def release(self, t: float) -> Reading:
        """Everything that is due by the session time `t` and was not released before."""
        chunks: list[Chunk] = []
        markers: list[Marker] = []
        while True:
            self._release_round(t, chunks, markers)
            at_end = self._next_sample == self._recording.n_times
            t_again = self._t_start + self._recording.duration / self._speed
            if not (self._is_looped and at_end and t >= t_again):
                break
            self._t_start, self._is_first_round = t_again, False
            self._next_sample = self._next_marker = 0
        if chunks:
            self._t_released = t
        if self.is_finished:
            message = f"The recording {self._recording.info.name} has ended."
            return Reading(tuple(chunks), tuple(markers), "finished", message)
        wait = self.t_next - t
        if not chunks and wait > 1:
            message = f"The recording has a gap here and goes on in {wait:.0f} s."
            return Reading((), tuple(markers), "stalled", message)
        return Reading(tuple(chunks), tuple(markers))

    def _session_time(self, recorded: float) -> float:
        return self._t_start + float(recorded) / self._speed

    def _release_round(self, t: float, chunks: list[Chunk], markers: list[Marker]) -> None:
        recording, start = self._recording, self._next_sample
        elapsed = (t - self._t_start) * self._speed
        # One unit in the last place of elapsed must not hold back the sample that is due.
        stop = int(np.searchsorted(self._times, elapsed + 1e-9, side="right"))
        if stop > start:
            missing = recording.n_missing[start:stop].copy()
            if start == 0 and not self._is_first_round:
                missing[0] = 1
            times = self._t_start + self._times[start:stop] / self._speed
            chunks.extend(self._grid.chunks(recording.data[:, start:stop], times, missing))
            self._next_sample = stop
        # After the last sample nothing is waited for: markers behind it belong to no sample.
        is_over = self._next_sample == recording.n_times
        while self._next_marker < len(recording.markers):
            at = self._marker_times[self._next_marker]
            if at > elapsed and not is_over:
                break
            marker = recording.markers[self._next_marker]
            markers.append(replace(marker, timestamp=self._session_time(at)))
            self._next_marker += 1


class RecordingSource:
    """A recording as a source: `Replay` on the session clock."""

    def __init__(
        self,
        recording: Recording,
        speed: float = 1.0,
        is_looped: bool = False,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._recording = recording
        self._speed, self._is_looped = speed, is_looped
        self._now, self._sleep = now, sleep
        self._replay: Replay | None = None

    @property
    def info(self) -> StreamInfo:
        return self._recording.info

    def read(self, timeout: float, _n_due: int | None = None) -> Reading:
        """Wait for the next chunk, as a headset sends it; the first call starts the replay."""
        if self._replay is None:
            self._replay = Replay(self._recording, self._now(), self._speed, self._is_looped)
        wait = min(timeout, self._replay.t_next - self._now())
        if wait > 0:
            self._sleep(wait)
        return self._replay.release(self._now())

    def close(self) -> None:
        """Nothing to release: the file was closed after reading."""
