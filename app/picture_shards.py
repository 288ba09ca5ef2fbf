"""Writes pictures into the shards of a prepared set, holding one shard in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from app.epoch_shards import writing

# 1300 pictures of 128x128, 81 of 512x512.
SHARD_BYTES = 64_000_000


class PictureShards:
    """The `pictures-NNNNN.safetensors` of a prepared set, and `pictures.json`, their captions.

    Parameters
    ----------
    folder : of the set; made where it is missing.
    pixels : side of every picture.

    Raises
    ------
    SummaryError
        They cannot be written, here or later.
    """

    def __init__(self, folder: Path, pixels: int) -> None:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.pixels = pixels
        self._capacity = max(1, SHARD_BYTES // (3 * pixels**2))
        self._rows: list[tuple[np.ndarray, int]] = []
        self._captions: list[str] = []
        self._n_shards = 0

    def __len__(self) -> int:
        return len(self._captions)

    def append(self, image: np.ndarray, label: int, caption: str) -> int:
        """Add a picture; a full shard is written at once.

        Parameters
        ----------
        image : array of shape (pixels, pixels, 3), uint8 RGB.

        Returns
        -------
        the picture's id.
        """
        self._rows.append((image, label))
        self._captions.append(caption)
        if len(self._rows) == self._capacity:
            self._write()
        return len(self) - 1

    def flush(self) -> None:
        """Write the pictures that are held, and all captions."""
        if self._rows:
            self._write()
        captions = json.dumps(self._captions, ensure_ascii=False)
        with writing(self._folder):
            (self._folder / "pictures.json").write_text(captions, encoding="utf-8")

    def _write(self) -> None:
        images, labels = zip(*self._rows, strict=True)
        columns = {
            "images": np.ascontiguousarray(np.stack(images)),
            "label": np.array(labels, np.int64),
        }
        with writing(self._folder):
            save_file(columns, self._folder / f"pictures-{self._n_shards:05d}.safetensors")
        self._n_shards += 1
        self._rows.clear()
