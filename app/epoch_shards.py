"""Writes epochs into the shards of a prepared set, holding one shard in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from app.errors import SummaryError

# 34 MB where an epoch has 32 channels and 256 samples.
SHARD = 1024


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
        of a sliding epoch.
    is_locked : whether it is a marker-locked epoch.
    """

    eeg: np.ndarray
    label: int
    image_id: int
    t_onset: float
    is_locked: bool


class EpochShards:
    """The `epochs-NNNNN.safetensors` of a prepared set.

    Parameters
    ----------
    folder : of the set; made where it is missing.

    Raises
    ------
    SummaryError
        The folder cannot be made, or holds epochs already.
    """

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
        if len(self._rows) == SHARD:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held."""
        if not self._rows:
            return
        epochs, *numbers = zip(*self._rows, strict=True)
        columns: dict[str, np.ndarray] = {
            "eeg": np.stack([e.eeg for e in epochs]).astype(np.float32),
            "label": np.array([e.label for e in epochs], np.int64),
            "image_id": np.array([e.image_id for e in epochs], np.int64),
            "t_onset": np.array([e.t_onset for e in epochs], np.float64),
            "is_locked": np.array([e.is_locked for e in epochs], np.int64),
        }
        columns |= {
            name: np.array(values, np.int64)
            for name, values in zip(("subject", "session", "run"), numbers, strict=True)
        }
        with writing(self._folder):
            save_file(columns, self._folder / f"epochs-{self._n_shards:05d}.safetensors")
        self._n_shards += 1
        self._rows.clear()
