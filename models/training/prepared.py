"""Prepared sets: folders of safetensors shards, written by `app.prepare`.

A set holds `spec.json` and any of

- `pictures-NNNNN.safetensors`: `images` (n, H, W, 3) uint8, `label` (n,) int64;
  captions in `pictures.json`, a list in the same order. A picture's id is its
  position over all shards.
- `epochs-NNNNN.safetensors`: `eeg` (n, n_channels, n_times) float32, and (n,)
  `label`, `image_id`, `subject`, `session`, `run`, `t_onset`, `is_locked`, `position` and
  `split`; -1 in one of them (NaN in `t_onset`) is "not told", except that label -1 is
  "nothing was seen". `app.epoch_shards.PreparedEpoch` says what each means.

`spec.json` also says `honesty`, `labels` (name to number), `units` (of `eeg`), `band` (Hz),
`is_block_design` (true, false, or null where nobody tells), `notes`, `licence`, `citation`,
`skipped` (what was left out, by name) and `confounding` (see `models.training.confounding`).

Tensors stay memory-mapped: memory does not grow with the set.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from models.errors import PreparedSetError

# The background's colour (its hue as a point in a plane, as far from the middle as it is
# saturated, and its lightness), and the object's size and place in shares of the picture.
COMPOSITIONS = "compositions.json"
APPEARANCE = ("hue_x", "hue_y", "value", "size", "x", "y")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PreparedSetError(
            f"{path} is damaged or cannot be read ({error}). Prepare the set again."
        ) from error


class Shards:
    """Equal-length columns spread over several safetensors files.

    Parameters
    ----------
    folder : of the prepared set.
    kind : "pictures" or "epochs".
    """

    def __init__(self, folder: Path, kind: str) -> None:
        paths = sorted(folder.glob(f"{kind}-*.safetensors"))
        if not paths:
            raise PreparedSetError(
                f"{folder} holds no {kind}-*.safetensors. Make the set with `phosphene prepare`."
            )
        self._folder = folder
        self.columns: dict[str, list[torch.Tensor]] = {}
        try:
            for path in paths:
                with safe_open(path, framework="pt") as shard:
                    for name in shard.keys():  # noqa: SIM118  (not a dict)
                        self.columns.setdefault(name, []).append(shard.get_tensor(name))
        except SafetensorError as error:
            raise PreparedSetError(
                f"{path} is damaged ({error}). Prepare the set again."
            ) from error
        lengths = [len(part) for part in next(iter(self.columns.values()))]
        self.starts = torch.tensor([0, *lengths]).cumsum(0)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, name: str) -> torch.Tensor:
        """A whole column; for labels and other small ones."""
        return torch.cat(self._column(name))

    def _column(self, name: str) -> list[torch.Tensor]:
        if name not in self.columns:
            raise PreparedSetError(
                f"{self._folder} has no column {name}; it has {', '.join(self.columns)}. "
                "Prepare the set again."
            )
        return self.columns[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one row of a column."""
        return tuple(self.columns[name][0].shape[1:])

    def rows(self, name: str, index: torch.Tensor) -> torch.Tensor:
        """Rows `index` (n,) of a column, read from the shards that hold them."""
        shard = torch.searchsorted(self.starts, index, right=True) - 1
        parts = self._column(name)
        out = torch.empty((len(index), *parts[0].shape[1:]), dtype=parts[0].dtype)
        for number in shard.unique().tolist():
            where = shard == number
            out[where] = parts[number][index[where] - self.starts[number]]
        return out


class PreparedSet:
    """A prepared set on disk.

    Parameters
    ----------
    folder : that `app.prepare` wrote.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        spec = self.folder / "spec.json"
        if not spec.is_file():
            raise PreparedSetError(
                f"{self.folder} is not a prepared set (no spec.json). "
                "Make one with `phosphene prepare`."
            )
        self.spec: dict[str, Any] = _read(spec)

    def digest(self) -> str:
        """What tells this set's epochs from others': a hash of their small columns."""
        epochs = self.epochs()
        sha = hashlib.sha256()
        for name in ("label", "image_id", "subject", "session", "run", "t_onset"):
            sha.update(epochs[name].numpy().tobytes())
        return sha.hexdigest()[:16]

    def pictures(self) -> Shards:
        return Shards(self.folder, "pictures")

    def epochs(self) -> Shards:
        return Shards(self.folder, "epochs")

    def captions(self) -> list[str]:
        """What is told of each picture, in their order."""
        path = self.folder / "pictures.json"
        if not path.is_file():
            raise PreparedSetError(
                f"{self.folder} holds no captions (no pictures.json). Make the set with "
                "`phosphene prepare`, and --pictures or --images."
            )
        captions: list[str] = _read(path)
        return captions

    @property
    def says_appearance(self) -> bool:
        """Whether `appearance` is known: of drawn pictures, and of no photographs."""
        return (self.folder / COMPOSITIONS).is_file()

    def appearance(self) -> torch.Tensor:
        """What the pictures look like, (n_pictures, 6), in the order of `APPEARANCE`.

        Raises
        ------
        PreparedSetError
            The set does not say what its pictures show.
        """
        path = self.folder / COMPOSITIONS
        if not self.says_appearance:
            raise PreparedSetError(
                f"{self.folder} has no {COMPOSITIONS}, so it does not say what its pictures "
                "look like. Prepare the set of pictures again."
            )
        rows = [
            (
                c["saturation"] * math.cos(2 * math.pi * c["hue"]),
                c["saturation"] * math.sin(2 * math.pi * c["hue"]),
                *(c[name] for name in APPEARANCE[2:]),
            )
            for c in _read(path)
        ]
        return torch.tensor(rows)


def images_to_tensor(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, H, W, 3) to float32 (n, 3, H, W) in -1 to 1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1
