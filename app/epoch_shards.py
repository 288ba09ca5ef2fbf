"""Writes epochs into the shards of a prepared set, holding one shard in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from app.errors import SummaryError

# A shard holds at most so many rows, and at most so many bytes of EEG: 1024 epochs of 32
# channels and 256 samples are 34 MB, of the reference's 128 and 512 they would be 268 MB.
SHARD = 1024
SHARD_BYTES = 64_000_000


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what keeps the block from writing a prepared set (no right, no room) into a sentence."""
    try:
        yield
    # safetensors tells of a full disk by an error of its own.
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SummaryError(
            f"The prepared set cannot be written to {folder} ({reason}). "
            "Give a folder that can be made, on a disk with room."
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class PreparedEpoch:
    """One row of a prepared set.

    Attributes
    ----------
    eeg : array of shape (n_channels, n_times), float32, as the bundle wants it.
    label, image_id : what was seen; -1 for nothing.
    t_onset : seconds from the source's first sample to the marker, or to the first sample
        of a sliding epoch; NaN where a data set does not tell.
    is_locked : whether it is a marker-locked epoch.
    position : place of its marker among those of the run that count, also where an earlier
        one got no epoch; -1 for a sliding epoch or where it is not told.
    split : 0 train, 1 validation, 2 test, as the data set tells; -1 where it does not.
    """

    eeg: np.ndarray
    label: int
    image_id: int
    t_onset: float
    is_locked: bool
    position: int = -1
    split: int = -1


class EpochShards:
    """The `epochs-NNNNN.safetensors` of a prepared set.

    Parameters
    ----------
    folder : of the set; made where it is missing.

    Attributes
    ----------
    NUMBERS : names of the columns beside `eeg`.

    Raises
    ------
    SummaryError
        The folder cannot be made, or holds epochs already.
    """

    NUMBERS: ClassVar = ("label", "image_id", "t_onset", "is_locked", "position", "split",
                         "subject", "session", "run")  # fmt: skip

    def __init__(self, folder: Path) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("epochs-*.safetensors")):
            raise SummaryError(
                f"{folder} holds prepared epochs already. Give another folder, or delete it."
            )
        self._folder = folder
        self._rows: list[tuple[PreparedEpoch, int, int, int]] = []
        self._n_shards = 0
        self.n_epochs = 0

    def append(self, epoch: PreparedEpoch, subject: int, session: int, run: int) -> None:
        """Add a row; a full shard is written at once.

        Raises
        ------
        SummaryError
            The shard cannot be written.
        """
        self._rows.append((epoch, subject, session, run))
        self.n_epochs += 1
        if len(self._rows) == SHARD or len(self._rows) * epoch.eeg.nbytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held."""
        if not self._rows:
            return
        epochs, *numbers = zip(*self._rows, strict=True)
        # safetensors writes memory as it lies, whatever the strides say: rows in C order only.
        eeg = np.empty((len(epochs), *epochs[0].eeg.shape), np.float32)
        columns: dict[str, np.ndarray] = {"eeg": np.stack([e.eeg for e in epochs], out=eeg)}
        for name in self.NUMBERS[:-3]:
            kind = np.float64 if name == "t_onset" else np.int64
            columns[name] = np.array([getattr(e, name) for e in epochs], kind)
        for name, values in zip(self.NUMBERS[-3:], numbers, strict=True):
            columns[name] = np.array(values, np.int64)
        with writing(self._folder):
            save_file(columns, self._folder / f"epochs-{self._n_shards:05d}.safetensors")
        self._n_shards += 1
        self._rows.clear()
