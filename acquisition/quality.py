"""How well each electrode sits, from the raw samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from acquisition.ring_buffer import RingBuffer
from acquisition.source import Chunk
from acquisition.stream_info import StreamInfo

Grade = Literal["good", "fair", "poor", "off"]
Reason = Literal["railed", "flat", "line noise", "drift", "noisy"]

GRADES: tuple[Grade, ...] = ("good", "fair", "poor", "off")
LINE_FREQS = (50.0, 60.0)
# A reading's median deviation times this is the standard deviation, if it is Gaussian.
MAD_TO_STD = 1.4826


@dataclass(frozen=True, slots=True)
class QualityParameters:
    """Where the grades begin. Pairs are the thresholds of fair and of poor.

    Attributes
    ----------
    every_s : seconds from one reading to the next.
    window_s : seconds that a reading looks at; of drift, `drift_window_s`.
    full_scale_uv : largest value of the amplifier; an ADS1299 at gain 24 (OpenBCI) has
        4.5 V / 24. Where the amplifier's range is smaller, clipping tells.
    railed : shares of the full scale, as the OpenBCI GUI has them: 75 % near (poor), 90 %
        railed (off).
    clipped : share of samples that sit exactly on the window's highest or lowest value;
        more means the amplifier clips (off).
    clipped_span_uv : a signal that moves less than this does not clip.
    flat_uv : a standard deviation below this means no electrode (off).
    line_share : share of the power at 50 and 60 Hz above which mains may be the reason.
    line_uv : root mean square of mains, in uV.
    drift_uv_per_s : change of the mean, in uV/s.
    noisy_uv : standard deviation without mains and trend, robust against blinks, in uV.
    """

    every_s: float = 0.25
    window_s: float = 1.0
    drift_window_s: float = 4.0
    full_scale_uv: float = 187_500.0
    railed: tuple[float, float] = (0.75, 0.9)
    clipped: float = 0.2
    clipped_span_uv: float = 100.0
    flat_uv: float = 0.5
    line_share: float = 0.5
    line_uv: tuple[float, float] = (10.0, 100.0)
    drift_uv_per_s: tuple[float, float] = (50.0, 500.0)
    noisy_uv: tuple[float, float] = (50.0, 100.0)


@dataclass(frozen=True, slots=True)
class ElectrodeQuality:
    """How one electrode sits.

    Attributes
    ----------
    name : of the channel.
    grade : "good", "fair" (usable), "poor" (hardly) or "off" (no signal of a head).
    reasons : why it is not good; empty where it is.
    """

    name: str
    grade: Grade
    reasons: tuple[Reason, ...] = ()


class QualityMonitor:
    """Grades every electrode of a stream four times a second.

    Gaps are not looked at: they are the radio's, not the electrode's.
    """

    def __init__(self, info: StreamInfo, parameters: QualityParameters | None = None) -> None:
        self.info = info
        self.parameters = parameters or QualityParameters()
        self._every = max(1, round(self.parameters.every_s * info.sfreq))
        self._n_window = max(8, round(self.parameters.window_s * info.sfreq))
        self._n_drift = max(self._n_window, round(self.parameters.drift_window_s * info.sfreq))
        self._ring = RingBuffer(info.n_channels, self._n_drift)
        self._due = -(-self._n_window // self._every) * self._every
        self._trend, self._line = _bases(self._n_window, info.sfreq)

    def push(self, chunk: Chunk) -> list[ElectrodeQuality] | None:
        """Take raw samples in microvolts, before any filter.

        Returns
        -------
        a grade for each channel, or None where no new reading is due. The first comes
        after a second.
        """
        # What is no number carries no signal: a constant, which is graded as flat.
        self._ring.append(np.nan_to_num(chunk.data, nan=0.0, posinf=0.0, neginf=0.0))
        if self._ring.end < self._due:
            return None
        self._due = (self._ring.end // self._every + 1) * self._every
        return self._grade()

    def _grade(self) -> list[ElectrodeQuality]:
        p = self.parameters
        raw = self._ring.newest(self._n_window).astype(np.float64)
        level = np.median(np.abs(raw), axis=1) / p.full_scale_uv
        highest, lowest = raw.max(axis=1, keepdims=True), raw.min(axis=1, keepdims=True)
        at_edge = np.maximum((raw == highest).mean(axis=1), (raw == lowest).mean(axis=1))
        span = (highest - lowest)[:, 0]
        is_clipped = (at_edge > p.clipped) & (span >= p.clipped_span_uv)
        # Mean and trend, then mains, are fitted and taken off.
        moving = raw - (raw @ self._trend) @ self._trend.T
        weights = moving @ self._line
        rest = moving - weights @ self._line.T
        power = (moving**2).mean(axis=1)
        line_power = (weights**2).sum(axis=1) / self._n_window
        is_line = line_power > p.line_share * power
        deviation = np.abs(rest - np.median(rest, axis=1, keepdims=True))
        noise = MAD_TO_STD * np.median(deviation, axis=1)
        drift = self._drift()
        grades = []
        for i, name in enumerate(self.info.ch_names):
            # As numbers of GRADES.
            found: dict[Reason, int] = {
                "railed": 3 if is_clipped[i] else (0, 2, 3)[_rank(float(level[i]), p.railed)],
                "flat": 3 if math.sqrt(power[i]) < p.flat_uv else 0,
                "line noise": _rank(math.sqrt(line_power[i]), p.line_uv) if is_line[i] else 0,
                "drift": _rank(float(drift[i]), p.drift_uv_per_s),
                "noisy": _rank(float(noise[i]), p.noisy_uv),
            }
            reasons = tuple(reason for reason, rank in found.items() if rank)
            grades.append(ElectrodeQuality(name, GRADES[max(found.values())], reasons))
        return grades

    def _drift(self) -> np.ndarray:
        """Change of the median from the first to the last second of four, in uV/s."""
        if len(self._ring) < self._n_drift or self._n_drift == self._n_window:
            return np.zeros(self.info.n_channels)
        raw = self._ring.newest(self._n_drift)
        first, last = raw[:, : self._n_window], raw[:, -self._n_window :]
        seconds = (self._n_drift - self._n_window) / self.info.sfreq
        return np.asarray(np.abs(np.median(last, axis=1) - np.median(first, axis=1)) / seconds)


def _rank(value: float, thresholds: tuple[float, float]) -> int:
    """How many of the thresholds are reached."""
    return sum(value >= threshold for threshold in thresholds)


def _bases(n_times: int, sfreq: float) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal columns of mean and trend, and of mains free of these."""
    t = np.arange(n_times) / sfreq
    trend, _ = np.linalg.qr(np.column_stack([np.ones(n_times), t - t.mean()]))
    # Mains wander by 0.2 Hz: waves that grow along the window follow them.
    waves = [
        envelope * wave(2 * np.pi * freq * t)
        for freq in LINE_FREQS
        if freq < 0.49 * sfreq
        for wave in (np.cos, np.sin)
        for envelope in (1, t - t.mean())
    ]
    line = np.column_stack(waves) if waves else np.zeros((n_times, 0))
    line, _ = np.linalg.qr(line - trend @ (trend.T @ line))
    return trend, line
