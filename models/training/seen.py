"""Epochs of a prepared set with the pictures that were seen, as frozen networks see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from models.errors import PreparedSetError, TrainingError
from models.training.prepared import PreparedSet, Shards

# Pixels that a frozen network sees at once: 16 pictures of Stable Diffusion's size.
ENCODED = 2**22

Encode = Callable[[torch.Tensor], torch.Tensor]


def unit_pictures(pictures: Shards, index: torch.Tensor) -> torch.Tensor:
    """Pictures `index` (n,) of a set as (n, 3, H, W) in 0 to 1."""
    return pictures.rows("images", index).permute(0, 3, 1, 2).float() / 255


def encoded_pictures(path: Path, pictures: Shards, encode: Encode, key: str) -> np.ndarray:
    """What a frozen network makes of all pictures, computed once and kept in a file.

    Parameters
    ----------
    path : `.npy` file, memory-mapped; made where it is missing or has another key.
    encode : pictures (n, 3, H, W) in 0 to 1 to rows (n, ...).
    key : names the set and the network.

    Returns
    -------
    array of shape (n_pictures, ...), float16, read-only.
    """
    note = path.with_suffix(".json")
    wanted = {"key": key, "n": len(pictures)}
    if path.is_file() and note.is_file() and json.loads(note.read_text()) == wanted:
        return np.asarray(np.load(path, mmap_mode="r"))
    path.parent.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    partial = path.with_suffix(".partial")
    out: np.memmap | None = None
    try:
        height, width, _ = pictures.shape("images")
        at_once = max(1, ENCODED // (height * width))
        for index in torch.arange(len(pictures)).split(at_once):
            rows = encode(unit_pictures(pictures, index)).half().cpu().numpy()
            if out is None:
                shape = (len(pictures), *rows.shape[1:])
                out = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
            out[index[0] : index[-1] + 1] = rows
        assert out is not None
        out.flush()
        partial.replace(path)
        # Last: without it the file counts as another network's.
        note.write_text(json.dumps(wanted), encoding="utf-8")
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written ({error.strerror}). Make room, or give another folder."
        ) from error
    return np.asarray(np.load(path, mmap_mode="r"))


Kinds = Literal["marker-locked", "sliding", "both"]


class SeenEpochs:
    """Epochs during which a picture was seen.

    Parameters
    ----------
    data : prepared set with epochs and pictures.
    kinds : of epochs that are taken.

    Attributes
    ----------
    index : (n,), rows of the set.
    image_id, label : (n,).
    blank : (n_blank,), rows of the same sessions' windows in which nothing appeared or was seen.

    Raises
    ------
    PreparedSetError
        No epoch of these kinds has a picture.
    """

    def __init__(self, data: PreparedSet, kinds: Kinds = "both") -> None:
        self.epochs = data.epochs()
        self._spec = data.spec
        is_taken = self.epochs["image_id"] >= 0
        if kinds != "both":
            is_taken &= (self.epochs["is_locked"] == 1) == (kinds == "marker-locked")
        self._take(is_taken.nonzero()[:, 0])
        if not len(self.index):
            which = "" if kinds == "both" else f"{kinds} "
            raise PreparedSetError(
                f"No {which}epoch of {data.folder} says which picture was seen. Prepare it with "
                "--images (simulated sources) or --stimuli (recordings)."
            )

    def _take(self, index: torch.Tensor) -> None:
        self.index = index
        self.image_id, self.label = self.epochs["image_id"][index], self.epochs["label"][index]
        self._is_locked = self.epochs["is_locked"][index] == 1

    def __len__(self) -> int:
        return len(self.index)

    def draw(self, generator: torch.Generator, n: int) -> torch.Tensor:
        """Places of `n` random epochs; half of each kind where there are both.

        There are twice as many sliding windows, and in most of them little of the response.
        """
        is_locked = self._is_locked
        kinds = [k for k in (is_locked.nonzero()[:, 0], (~is_locked).nonzero()[:, 0]) if len(k)]
        sizes = [n - n // 2, n // 2] if len(kinds) == 2 else [n]
        return torch.cat(
            [
                kind[torch.randint(len(kind), (size,), generator=generator)]
                for kind, size in zip(kinds, sizes, strict=True)
            ]
        )

    @property
    def blank(self) -> torch.Tensor:
        e, spec = self.epochs, self._spec["epoch_spec"]
        _, session = torch.stack([e["subject"], e["session"]]).unique(dim=1, return_inverse=True)
        of_part = torch.isin(session, session[self.index])
        is_blank = (e["image_id"] < 0) & (e["is_locked"] == 0) & of_part
        # Windows in which a picture appeared near the end are said to show nothing, too.
        duration = spec["n_times"] / spec["sfreq"]
        far = 1 + e["t_onset"].max()
        time = e["t_onset"] + 2 * far * session
        onset = time[(e["is_locked"] == 1) & of_part].sort().values
        begun, ended = (torch.searchsorted(onset, t) for t in (time, time + duration))
        return (is_blank & (begun == ended)).nonzero()[:, 0]

    def part(self, places: torch.Tensor) -> SeenEpochs:
        """Those at `places` (n,)."""
        out = copy(self)
        out._take(self.index[places])
        return out

    def columns(self) -> dict[str, torch.Tensor]:
        """All columns but the EEG, for these epochs."""
        names = [name for name in self.epochs.columns if name != "eeg"]
        return {name: self.epochs[name][self.index] for name in names}

    def eeg(self, places: torch.Tensor) -> torch.Tensor:
        """EEG of the epochs at `places` (n,), float32."""
        return self.epochs.rows("eeg", self.index[places]).float()
