"""Causal band-pass and notches that keep their state from chunk to chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import signal

from acquisition.errors import EpochSpecError

BUTTERWORTH_ORDER = 4  # as `scipy.signal.butter` and mne count it: of each edge of the band
NOTCH_QUALITY = 30.0  # 1.7 Hz wide at 50 Hz
# The transition to Nyquist needs some room; above 0.45 of the rate there is no EEG left to keep.
HIGHEST_EDGE = 0.45
HIGHEST_NOTCH = 0.49
# Mains of 50 and of 60 Hz have whole periods in 0.1 s, so they do not move the first mean.
START_S = 0.1
SETTLED = 0.01


def design_filter(
    sfreq: float, l_freq: float, h_freq: float, notch_freqs: Sequence[float] = ()
) -> np.ndarray:
    """Second-order sections of a Butterworth band-pass and notches.

    Where the rate is too low for the upper edge, the edge is lowered to 0.45 `sfreq`. A
    notch above 0.49 `sfreq` is left out: nothing is there that could be notched.

    Returns
    -------
    array of shape (n_sections, 6), float64.

    Raises
    ------
    EpochSpecError
        No band is left between `l_freq` and 0.45 `sfreq`.
    """
    upper = min(h_freq, HIGHEST_EDGE * sfreq)
    if not 0 < l_freq < upper:
        raise EpochSpecError(
            f"A band from {l_freq:g} to {h_freq:g} Hz cannot be had at {sfreq:g} Hz, which "
            f"reaches up to {HIGHEST_EDGE * sfreq:g} Hz. Use a headset with a higher rate, or a "
            "bundle with a lower band."
        )
    sections = [
        signal.butter(BUTTERWORTH_ORDER, [l_freq, upper], "bandpass", fs=sfreq, output="sos")
    ]
    for freq in notch_freqs:
        if freq < HIGHEST_NOTCH * sfreq:
            sections.append(signal.tf2sos(*signal.iirnotch(freq, NOTCH_QUALITY, fs=sfreq)))
    return np.concatenate(sections)


def settle_time(sos: np.ndarray, sfreq: float) -> float:
    """Seconds until what a step leaves behind is below 1 %.

    From the poles: the one nearest to the unit circle decays last. It belongs to the
    high-pass (3.9 s at 0.5 Hz; a simulated step takes 3.7 s), or to a notch where the
    band begins higher.
    """
    slowest = max(float(np.abs(np.roots(section[3:])).max()) for section in sos)
    return math.log(SETTLED) / math.log(slowest) / sfreq


def group_delay(sos: np.ndarray, sfreq: float, freqs: Sequence[float]) -> np.ndarray:
    """By how many seconds the filter delays each of the frequencies.

    Returns
    -------
    array of shape (len(freqs),), seconds.
    """
    # Sections in a row add their delays, and a section alone is numerically harmless.
    total = np.zeros(len(freqs))
    for section in sos:
        _, delay = signal.group_delay((section[:3], section[3:]), w=np.asarray(freqs), fs=sfreq)
        total += delay
    return total / sfreq


class CausalFilter:
    """Filters a stream chunk by chunk, the same whatever the chunks.

    The filter starts as if the mean of the first 0.1 s had been there for ever; until so
    much has arrived, samples are held back. (The first chunk's mean, the custom, would
    make the result depend on how long the first chunk happens to be. Electrode offsets
    are thousands of microvolts, so it must be some mean.)

    Parameters
    ----------
    n_channels : rows of each chunk.
    sfreq : rate in Hz.
    l_freq, h_freq, notch_freqs : see `design_filter`.

    Attributes
    ----------
    sos : array of shape (n_sections, 6).
    settle_s : seconds after a start during which the output is not to be trusted.
    """

    def __init__(
        self,
        n_channels: int,
        sfreq: float,
        l_freq: float,
        h_freq: float,
        notch_freqs: Sequence[float] = (),
    ) -> None:
        self.sos = design_filter(sfreq, l_freq, h_freq, notch_freqs)
        self.settle_s = settle_time(self.sos, sfreq)
        self.n_settle = math.ceil(self.settle_s * sfreq)
        self._n_start = math.ceil(START_S * sfreq)
        self._zi_of_one = signal.sosfilt_zi(self.sos)[:, np.newaxis, :]
        self._held = np.empty((n_channels, 0))
        self._last = np.zeros(n_channels)
        self._zi: np.ndarray | None = None
        self._n_out = 0

    @property
    def is_settled(self) -> bool:
        """Whether the newest output sample is free of the start's transient."""
        return self._n_out > self.n_settle

    def restart(self) -> None:
        """Forget the past; to be called where samples are missing."""
        self._held = self._held[:, :0]
        self._zi = None
        self._n_out = 0

    def push(self, data: np.ndarray) -> np.ndarray:
        """Filter the next samples.

        Parameters
        ----------
        data : array of shape (n_channels, n_times), microvolts. Values that are not finite
            (some devices send NaN for a loose electrode) would spoil the state for ever;
            the electrode's last value stands in for them.

        Returns
        -------
        array of shape (n_channels, m), float64, microvolts. m is n_times, except in the
        first 0.1 s after a start: 0 until they are complete, then all that was held.
        """
        data = np.array(data, np.float64)
        if not np.isfinite(data).all():
            self._fill(data)
        if data.shape[1]:
            self._last = data[:, -1]
        if self._zi is None:
            data = np.concatenate([self._held, data], axis=1)
            if data.shape[1] < self._n_start:
                self._held = data
                return data[:, :0]
            self._held = data[:, :0].copy()
            first_mean = data[:, : self._n_start].mean(axis=1)
            self._zi = self._zi_of_one * first_mean[:, np.newaxis]
        if data.shape[1] == 0:
            return data
        out, self._zi = signal.sosfilt(self.sos, data, zi=self._zi)
        self._n_out += data.shape[1]
        return np.asarray(out)

    def _fill(self, data: np.ndarray) -> None:
        """Replace, in place, what is not finite by the last value that was."""
        for column in range(data.shape[1]):
            self._last = np.where(np.isfinite(data[:, column]), data[:, column], self._last)
            data[:, column] = self._last
