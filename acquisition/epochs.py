"""From chunks of samples to the epochs that a bundle's model wants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.filters import CausalFilter
from acquisition.montage import Montage
from acquisition.resample import Resampler
from acquisition.ring_buffer import RingBuffer
from acquisition.source import Chunk, Marker
from acquisition.stream_info import StreamInfo

__all__ = ["Epoch", "EpochKind", "EpochSpec", "EpochStream", "kinds_of", "normalise"]

EpochKind = Literal["sliding", "marker-locked"]

# A marker may come so much later than its samples and still get its epoch.
HISTORY_S = 10.0
# Long chunks (a recording that is prepared) are worked through in pieces of this length.
PIECE_S = 2.0
# Timestamps that jump by more than this between neighbours are a gap, whatever the index
# says: a clock that was reset, or a source that does not count what it lost. Arrival
# times of radio headsets jump by up to 0.2 s without one.
JUMP_S = 0.5
MAX_WAITING = 256
FLOOR_UV = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Epoch:
    """A piece of EEG as the model wants it.

    Attributes
    ----------
    number : counts all epochs of the stream.
    kind : "sliding" or "marker-locked".
    data : array of shape (n_channels, n_times) of the specification, float32, normalised.
    first_sample : index of its first sample on the grid of the specification's rate.
    t_first : session time of its first sample.
    t_last : session time of the newest source sample that it was made from.
    marker : what a marker-locked epoch is locked to.
    """

    number: int
    kind: EpochKind
    data: np.ndarray
    first_sample: int
    t_first: float
    t_last: float
    marker: Marker | None = None


def kinds_of(wanted: str) -> tuple[EpochKind, ...]:
    """The kinds of epochs that a setting asks for: one, or "auto" for both.

    >>> kinds_of("sliding")
    ('sliding',)
    """
    return tuple(kind for kind in get_args(EpochKind) if wanted in ("auto", kind))


def normalise(data: np.ndarray, floor: float = FLOOR_UV) -> np.ndarray:
    """Take each channel's mean off an epoch and divide by its standard deviation.

    Parameters
    ----------
    data : array of shape (n_channels, n_times).
    floor : smallest divisor, in the data's unit; keeps a dead channel's noise small.
    """
    centred = data - data.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(centred.std(axis=1, keepdims=True), floor))


@dataclass(slots=True)
class _Waiting:
    """A marker whose epoch is not complete yet."""

    marker: Marker
    onset: int | None = None  # grid index of the marker, once its samples have come


class EpochStream:
    """Filters, maps, resamples and cuts a stream of EEG, the same whatever the chunks.

    Band-pass and notches at the headset's rate, the montage's matrix, the specification's
    rate, its reference, a ring of the newest samples, epochs. No epoch spans a gap or
    holds samples from before the filters have settled. Sliding epochs end at multiples
    of `hop` on the grid. Of markers, those labelled `offset` end a picture and get no
    epoch; each other gets one, once its samples have come.

    Parameters
    ----------
    info : of the source.
    spec : of the bundle.
    montage : from the headset's electrodes to the bundle's.
    kinds : which epochs to cut.

    Attributes
    ----------
    display : index of the first sample and array of shape (n_channels of the headset, n),
        float32, microvolts: what the last push added after band-pass and notches, at the
        headset's rate (after a gap, the samples behind it).
    n_markers_missed : markers that got no epoch: in a gap, too soon after one, or too late.
    delay_s : seconds by which the change of rate delays; the filter's group delay is apart
        (`acquisition.filters.group_delay`).
    """

    def __init__(
        self,
        info: StreamInfo,
        spec: EpochSpec,
        montage: Montage,
        kinds: Sequence[EpochKind] = ("sliding", "marker-locked"),
    ) -> None:
        self.info = info
        self.spec = spec
        self.montage = montage
        self.kinds = tuple(kinds)
        self.filter = CausalFilter(
            info.n_channels, info.sfreq, spec.l_freq, spec.h_freq, spec.notch_freqs
        )
        self._resampler: Resampler | None = None
        if not math.isclose(info.sfreq, spec.sfreq, rel_tol=1e-6):
            self._resampler = Resampler(spec.n_channels, info.sfreq, spec.sfreq, spec.h_freq)
        self.delay_s = self._resampler.delay_s if self._resampler else 0.0
        kept_s = HISTORY_S + PIECE_S + 1 + abs(spec.tmin)
        capacity = spec.n_times + math.ceil(kept_s * spec.sfreq)
        self._ring = RingBuffer(spec.n_channels, capacity)
        # Beside each sample: its moment, and the newest source sample it needed.
        self._times = RingBuffer(2, capacity, np.float64)
        self._held = np.empty(0)  # timestamps of samples that the filter holds back
        self._next_sample: int | None = None
        self._last_timestamp = 0.0
        self._ready = 0  # first settled sample on the grid
        self._next_end = 0  # of the next sliding epoch
        self._latest = -math.inf  # of the moments in the ring
        self._waiting: list[_Waiting] = []
        self._number = 0
        self._display: list[np.ndarray] = []
        self._display_first = 0
        self.display: tuple[int, np.ndarray] = (0, np.empty((info.n_channels, 0), np.float32))
        self.n_markers_missed = 0

    @property
    def is_ready(self) -> bool:
        """Whether the filters have settled since the start or the last gap."""
        return self.filter.is_settled

    @property
    def n_due(self) -> int:
        """Samples of the source until the next epoch may be complete, at least 1.

        Never more than it takes: where that is not certain, it says too few.
        """
        ratio = self.info.sfreq / self.spec.sfreq
        ends, due = [], [PIECE_S * self.info.sfreq]
        if "sliding" in self.kinds and self._next_sample is not None:
            ends.append(self._next_end)
        for waiting in self._waiting:
            if waiting.onset is None:
                duration = self.spec.tmin + self.spec.n_times / self.spec.sfreq
                seconds = waiting.marker.timestamp + duration - self._last_timestamp
                # Timestamps jitter.
                due.append((seconds - JUMP_S) * self.info.sfreq)
            else:
                first = waiting.onset + round(self.spec.tmin * self.spec.sfreq)
                ends.append(first + self.spec.n_times)
        # Of the next sample of the grid, one of the source is lacking at least.
        due += [(end - 1 - self._ring.end) * ratio + 1 for end in ends]
        return max(1, int(min(due)))

    def push(self, chunk: Chunk | None, markers: Sequence[Marker] = ()) -> list[Epoch]:
        """Take the next samples and markers, give the epochs that they complete.

        Parameters
        ----------
        chunk : of any length; None where only markers came.
        markers : may come before their samples or up to 10 s after them.

        Returns
        -------
        in the order in which they end.
        """
        if "marker-locked" in self.kinds:
            self._waiting += [_Waiting(m) for m in markers if m.label != "offset"]
        self._display.clear()
        self._display_first = (self._next_sample or 0) - len(self._held)
        epochs = self._cut() if markers else []
        if chunk is not None:
            for first, stop in self._pieces(chunk):
                sample = chunk.first_sample + first
                data, timestamps = chunk.data[:, first:stop], chunk.timestamps[first:stop]
                if self._is_gap(sample, float(timestamps[0])):
                    self._restart(sample)
                self._advance(data, timestamps)
                self._next_sample = sample + stop - first
                self._last_timestamp = float(timestamps[-1])
                epochs += self._cut()
        # Within one push markers may be many, as their list is the caller's; what goes on
        # waiting afterwards is bounded, and the oldest give way.
        n_over = len(self._waiting) - MAX_WAITING
        if n_over > 0:
            del self._waiting[:n_over]
            self.n_markers_missed += n_over
        filtered = [part.astype(np.float32) for part in self._display]
        empty = np.empty((self.info.n_channels, 0), np.float32)
        self.display = (self._display_first, np.concatenate([empty, *filtered], axis=1))
        return epochs

    def _pieces(self, chunk: Chunk) -> Iterator[tuple[int, int]]:
        """Where to cut a chunk: where its timestamps jump, and every two seconds."""
        steps = np.diff(chunk.timestamps) - 1 / self.info.sfreq
        jumps = np.flatnonzero(np.abs(steps) > JUMP_S) + 1
        longest = max(1, int(PIECE_S * self.info.sfreq))
        for first, stop in zip([0, *jumps.tolist()], [*jumps.tolist(), chunk.n_times], strict=True):
            for at in range(first, stop, longest):
                yield at, min(at + longest, stop)

    def _is_gap(self, sample: int, timestamp: float) -> bool:
        step = timestamp - self._last_timestamp - 1 / self.info.sfreq
        return sample != self._next_sample or abs(step) > JUMP_S

    def _restart(self, sample: int) -> None:
        self.filter.restart()
        self._held = self._held[:0]
        settled = sample + self.filter.n_settle
        if self._resampler is None:
            grid, self._ready = sample, settled
        else:
            self._resampler.restart(sample)
            grid, self._ready = self._resampler.next_output, self._resampler.first_output(settled)
        self._ring.restart(grid)
        self._times.restart(grid)
        self._latest = -math.inf
        hop = self.spec.hop
        self._next_end = -(-(self._ready + self.spec.n_times) // hop) * hop
        # Whoever was waiting for the rest of an epoch waits in vain.
        n_before = len(self._waiting)
        self._waiting = [w for w in self._waiting if w.onset is None]
        self.n_markers_missed += n_before - len(self._waiting)
        self._display.clear()
        self._display_first = sample

    def _advance(self, data: np.ndarray, timestamps: np.ndarray) -> None:
        """Filter, map, resample, reference, keep."""
        self._held = np.concatenate([self._held, timestamps])
        filtered = self.filter.push(data)
        if filtered.shape[1] == 0:
            return
        timestamps, self._held = self._held, self._held[:0]
        self._display.append(filtered)
        mapped = self.montage.matrix @ filtered
        if self._resampler is None:
            times = np.stack([timestamps, timestamps])
        else:
            mapped, times = self._resampler.push(mapped, timestamps)
        if self.spec.reference == "average":
            mapped -= mapped.mean(axis=0)
        self._ring.append(mapped)
        self._times.append(times)
        if times.shape[1]:
            self._latest = max(self._latest, float(times[0].max()))

    def _cut(self) -> list[Epoch]:
        """The epochs that are complete now."""
        found: list[tuple[int, Marker | None]] = []
        if "sliding" in self.kinds:
            while self._next_end <= self._ring.end and self._next_sample is not None:
                found.append((self._next_end - self.spec.n_times, None))
                self._next_end += self.spec.hop
        still_waiting = []
        for waiting in self._waiting:
            first = self._first_of(waiting)
            if first is not None and first < max(self._ready, self._ring.start):
                self.n_markers_missed += 1
            elif first is None or first + self.spec.n_times > self._ring.end:
                still_waiting.append(waiting)
            else:
                found.append((first, waiting.marker))
        self._waiting = still_waiting
        return [self._epoch(first, marker) for first, marker in sorted(found, key=lambda f: f[0])]

    def _first_of(self, waiting: _Waiting) -> int | None:
        """Grid index at which the marker's epoch begins; None until the marker is reached.

        The marker stands at the sample whose own timestamp is nearest: timestamps jitter,
        and a replay at another speed does not have the nominal period.
        """
        target = waiting.marker.timestamp
        if waiting.onset is None:
            if self._latest < target:
                return None
            moments = self._times.newest(len(self._times))[0]
            index = int(np.argmax(moments >= target))
            # Earlier than all that is held: it lies in a gap, or comes too late.
            if index == 0:
                return self._times.start - self.spec.n_times
            if target - moments[index - 1] < moments[index] - target:
                index -= 1
            waiting.onset = self._times.start + index
        return waiting.onset + round(self.spec.tmin * self.spec.sfreq)

    def _epoch(self, first: int, marker: Marker | None) -> Epoch:
        n_times = self.spec.n_times
        data = self._ring.window(first, n_times)
        data = normalise(data) if self.spec.normalisation == "channel" else data.copy()
        times = self._times.window(first, n_times)
        self._number += 1
        return Epoch(
            number=self._number - 1,
            kind="sliding" if marker is None else "marker-locked",
            data=data,
            first_sample=first,
            t_first=float(times[0, 0]),
            t_last=float(times[1].max()),
            marker=marker,
        )
