"""The newest samples of a stream, as one contiguous view."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike


class RingBuffer:
    """A mirrored ring: every sample is written twice, `capacity` columns apart.

    So the newest n samples are always one slice, wherever the ring stands; a push of 8
    samples of 64 channels takes a few microseconds, whereas shifting the whole buffer
    takes 26 to 262. Samples are found by their absolute index.

    Views stay valid until the next `append` or `restart`; copy what must live longer.

    Parameters
    ----------
    n_channels : rows.
    capacity : samples that are kept.
    dtype : of the samples.

    Attributes
    ----------
    end : index of the sample that will come next.
    """

    def __init__(self, n_channels: int, capacity: int, dtype: DTypeLike = np.float32) -> None:
        if capacity < 1:
            raise ValueError(f"A ring needs room for at least one sample, not {capacity}.")
        self._data = np.zeros((n_channels, 2 * capacity), dtype)
        self.capacity = capacity
        self.end = 0
        self._n_held = 0

    @property
    def start(self) -> int:
        """Index of the oldest sample that is held; `end` where none is."""
        return self.end - self._n_held

    def __len__(self) -> int:
        return self._n_held

    def append(self, data: np.ndarray) -> None:
        """Add samples, array of shape (n_channels, n_times); the oldest make room."""
        n_times = data.shape[1]
        end = self.end + n_times
        newest = data[:, -self.capacity :] if n_times > self.capacity else data
        at = (end - newest.shape[1]) % self.capacity
        first = newest[:, : self.capacity - at]  # up to the end of the ring
        rest = newest[:, self.capacity - at :]  # goes on at its beginning
        for offset in (0, self.capacity):
            self._data[:, offset + at : offset + at + first.shape[1]] = first
            self._data[:, offset : offset + rest.shape[1]] = rest
        self.end = end
        self._n_held = min(self._n_held + n_times, self.capacity)

    def restart(self, first_sample: int) -> None:
        """Forget all samples; the next one has the index `first_sample`."""
        self.end = first_sample
        self._n_held = 0

    def window(self, first: int, n_times: int) -> np.ndarray:
        """The samples `first` to `first + n_times`, a view of shape (n_channels, n_times).

        Raises
        ------
        IndexError
            Some of them are no longer held, or have not come yet.
        """
        if n_times < 0 or first < self.start or first + n_times > self.end:
            raise IndexError(
                f"Samples {first} to {first + n_times} were asked for; "
                f"{self.start} to {self.end} are held."
            )
        at = first % self.capacity
        return self._data[:, at : at + n_times]

    def newest(self, n_times: int) -> np.ndarray:
        """The newest `n_times` samples, a view of shape (n_channels, n_times)."""
        return self.window(self.end - n_times, n_times)
