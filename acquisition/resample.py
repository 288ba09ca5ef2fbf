"""A causal change of rate, by any ratio, the same whatever the chunks."""

from __future__ import annotations

import math

import numpy as np
from scipy import signal

ATTENUATION_DB = 70.0  # of images and aliases; the passband is then flat to 0.03 %
N_PHASES = 512  # rows of the table; the error of reading between two rows is below 2e-6
BLOCK = 64  # output samples in one matrix product


class Resampler:
    """Windowed-sinc interpolation of a stream whose band ends at `h_freq`.

    Output sample k stands where k * sfreq_in / sfreq_out falls among the input's
    samples, on a grid that gaps and restarts do not move. It is the value at just that
    moment, known `delay_s` later: the kernel reaches so far to both sides. Since nothing
    is left above `h_freq`, the kernel may fall off slowly, and is short: 5 samples to
    each side from 256 to 250 Hz, 14 from 1000.

    Parameters
    ----------
    n_channels : rows of each chunk.
    sfreq_in, sfreq_out : rates in Hz.
    h_freq : highest frequency that must pass unharmed, in Hz.

    Attributes
    ----------
    delay_s : seconds by which an output sample must wait for the input.
    """

    def __init__(self, n_channels: int, sfreq_in: float, sfreq_out: float, h_freq: float) -> None:
        self.ratio = sfreq_in / sfreq_out
        lower = min(sfreq_in, sfreq_out)
        passband = min(h_freq, 0.45 * lower)
        width = 2 * math.pi * (lower - 2 * passband) / sfreq_in
        # Kaiser's formula for the length of a filter with this attenuation and transition.
        self._half = math.ceil((ATTENUATION_DB - 7.95) / (2.285 * width) / 2) + 1
        self.delay_s = self._half / sfreq_in
        phases = np.arange(N_PHASES + 1)[:, np.newaxis] / N_PHASES
        taps = np.arange(-self._half + 1, self._half + 1) - phases
        beta = signal.kaiser_beta(ATTENUATION_DB)
        inside = np.sqrt(np.clip(1 - (taps / self._half) ** 2, 0, None))
        table = np.sinc(taps * lower / sfreq_in) * np.i0(beta * inside)
        self._table = table / table.sum(axis=1, keepdims=True)
        self._data = np.empty((n_channels, 0))
        self._timestamps = np.empty(0)
        self.restart(0)

    def first_output(self, first_sample: int) -> int:
        """Index of the first output that needs no input before `first_sample`."""
        k = math.ceil((first_sample + self._half - 1) / self.ratio)
        # Rounding may put k just below the whole number that was meant.
        return k if math.floor(k * self.ratio) - self._half + 1 >= first_sample else k + 1

    def restart(self, first_sample: int) -> None:
        """Forget the past; the next input sample has the index `first_sample`."""
        self._data = self._data[:, :0]
        self._timestamps = self._timestamps[:0]
        self._start = first_sample
        self.next_output = self.first_output(first_sample)

    def push(self, data: np.ndarray, timestamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the next input samples, give the output samples that they complete.

        Parameters
        ----------
        data : array of shape (n_channels, n_times).
        timestamps : array of shape (n_times,), seconds.

        Returns
        -------
        data : array of shape (n_channels, m), float64; the first of them has the index
            that `next_output` had before.
        times : array of shape (2, m), seconds: the moment of each output sample, and the
            timestamp of the newest input sample it was made from.
        """
        data = np.concatenate([self._data, data], axis=1)
        timestamps = np.concatenate([self._timestamps, timestamps])
        end = self._start + data.shape[1]
        stop = math.ceil((end - self._half) / self.ratio)
        if math.floor((stop - 1) * self.ratio) + self._half >= end:
            stop -= 1
        k = np.arange(self.next_output, max(stop, self.next_output))
        position = k * self.ratio
        whole = np.floor(position).astype(np.int64)
        part = position - whole
        out = np.empty((data.shape[0], len(k)))
        for i in range(0, len(k), BLOCK):
            block = slice(i, i + BLOCK)
            first = whole[block] - self._half + 1 - self._start
            out[:, block] = self._interpolate(data, first, part[block])
        at = whole - self._start
        before = timestamps[at]
        times = np.stack(
            [before + part * (timestamps[at + 1] - before), timestamps[at + self._half]]
        )
        self.next_output += len(k)
        keep = math.floor(self.next_output * self.ratio) - self._half + 1 - self._start
        keep = min(max(keep, 0), data.shape[1])
        self._data, self._timestamps = data[:, keep:].copy(), timestamps[keep:].copy()
        self._start += keep
        return out, times

    def _interpolate(self, data: np.ndarray, first: np.ndarray, part: np.ndarray) -> np.ndarray:
        """One output sample for each window of `data` that begins at `first`."""
        row, between = np.divmod(part * N_PHASES, 1)
        row, between = row.astype(np.int64), between[:, np.newaxis]
        kernels = (1 - between) * self._table[row] + between * self._table[row + 1]
        n_taps = 2 * self._half
        weights = np.zeros((int(first[-1] - first[0]) + n_taps, len(first)))
        rows = first - first[0] + np.arange(n_taps)[:, np.newaxis]
        weights[rows, np.arange(len(first))] = kernels.T
        return np.asarray(data[:, first[0] : first[0] + len(weights)] @ weights)
