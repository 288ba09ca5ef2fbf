"""Lost samples, found in the package numbers that a board sends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A longer loss also shows in the timestamps; else the counter is not the plain one that is
# assumed (the Ganglion's wraps at 100 or 200).
_PLAUSIBLE_S = 0.2


@dataclass(slots=True)
class PackageCounter:
    """Follows a package counter across its wrap.

    Parameters
    ----------
    sfreq : of the samples, Hz.
    stride : by how much the number grows from package to package (Cyton with Daisy: 2).
    """

    sfreq: float
    stride: int = 1
    _last: int | None = None
    _largest: int = 255
    _run: int = 0
    _samples_per_package: int = 1

    def lost(self, numbers: np.ndarray, n_missing: np.ndarray) -> np.ndarray:
        """Count the samples lost before each.

        Parameters
        ----------
        numbers : array of shape (n_times,), the package number of each sample. Samples that
            came in one package (Muse: 12) share it.
        n_missing : array of shape (n_times,), samples missing by the timestamps
            (`acquisition.gaps.find_missing`).

        Returns
        -------
        array of shape (n_times,), int64.
        """
        lost = np.zeros(len(numbers), dtype=np.int64)
        for i, number in enumerate(int(n) for n in numbers):
            if self._last is None or number == self._last:
                self._run += 1
            else:
                self._samples_per_package = max(self._samples_per_package, self._run)
                self._run = 1
                lost[i] = self._between(self._last, number, int(n_missing[i]))
            self._last = number
            self._largest = max(self._largest, number)
        return lost

    def _between(self, last: int, number: int, in_time: int) -> int:
        # One byte, two or four: the counter's size shows in the numbers.
        wrap = next(w for w in (1 << 8, 1 << 16, 1 << 32, 1 << 63) if self._largest < w)
        n_lost = ((number - last) % wrap // self.stride - 1) * self._samples_per_package
        whole_turn = wrap // self.stride * self._samples_per_package
        if n_lost > _PLAUSIBLE_S * self.sfreq and in_time < n_lost / 2:
            return 0
        # A pause may be longer than the counter's turn: time tells how many turns.
        n_turns = max(0, round((in_time - n_lost) / whole_turn))
        return max(0, n_lost) + n_turns * whole_turn
