"""The files that DreamDiffusion's code writes, read as plain tensors and never as a program."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from models.errors import CheckpointError

Kind = Literal["fine-tuned", "pre-training"]


class _Config:
    """Stands in for the authors' pickled settings objects and only holds their values."""


STAND_INS: list[Any] = [
    (_Config, f"config.{name}") for name in ("Config_Generative_Model", "Config_MBM_EEG")
]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What no tensor's shape tells. The defaults are the reference's.

    Attributes
    ----------
    num_heads : attention heads of the EEG encoder.
    decoder_num_heads : of the decoder of pre-training.
    unet_num_heads : of every attention of the U-Net; 8 in SD 1.5.
    img_size : width and height of pictures in pixels.
    """

    num_heads: int = 16
    decoder_num_heads: int = 16
    unet_num_heads: int = 8
    img_size: int = 512

    def changed_by(self, values: Mapping[str, object]) -> Sizes:
        """With those of `values` that are sizes and not None.

        Raises
        ------
        CheckpointError
            One of them is no positive whole number.
        """
        known = {f.name: values[f.name] for f in fields(self) if values.get(f.name) is not None}
        for name, value in known.items():
            if type(value) is not int or value < 1:
                raise CheckpointError(
                    f"The checkpoint's {name} must be a positive whole number; found {value!r}. "
                    "Give another on the command line."
                )
        return replace(self, **known)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes
    ----------
    tensors : by the reference's names.
    sizes : from the file's own settings, where it has them.
    """

    tensors: dict[str, torch.Tensor]
    sizes: Sizes

    @property
    def kind(self) -> Kind:
        """What the names are of.

        Raises
        ------
        CheckpointError
            Neither of the two.
        """
        if any(name.startswith("cond_stage_model.") for name in self.tensors):
            return "fine-tuned"
        if any(name.startswith("decoder_blocks.") for name in self.tensors):
            return "pre-training"
        found = ", ".join(list(self.tensors)[:3]) or "nothing"
        raise CheckpointError(
            "The file is not one of DreamDiffusion's: a fine-tuned checkpoint has "
            "cond_stage_model.*, one of pre-training decoder_blocks.*, and this one begins with "
            f"{found}. Give checkpoint.pth as the authors' code wrote it."
        )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pth` of the reference's code, or a safetensors file with the same names.

    The tensors stay in the file until they are used, where its format allows that.

    Raises
    ------
    CheckpointError
        The file is missing or damaged, holds a program, or no tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. Give the checkpoint's file.")
    tensors, config = (
        _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    )
    values = vars(config) if isinstance(config, _Config) else config
    return Checkpoint(tensors, Sizes().changed_by(values if isinstance(values, dict) else {}))


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], object]:
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {}).get("config", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, config  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_pickle(path: Path) -> tuple[dict[str, torch.Tensor], object]:
    try:
        with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
            # Of pickle protocols that torch.save does not write.
            warnings.simplefilter("ignore", UserWarning)
            # Only the format of PyTorch 1.6 and later can be mapped into memory.
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        if program := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path} wants {program[1]} to be run when it is opened, which weights never "
                "need and malicious files do. It was not run. Fetch the file from its maker."
            ) from error
        raise _damaged(path, error) from error
    # Of a damaged file torch raises whatever its reader stumbled over.
    except Exception as error:
        raise _damaged(path, error) from error
    tensors: Any = content
    for name in ("model_state_dict", "model"):
        if isinstance(content, dict) and name in content:
            tensors = content[name]
    if not isinstance(tensors, dict):
        raise CheckpointError(
            f"{path} holds a {type(tensors).__name__}, not named tensors. Give checkpoint.pth as "
            "the authors' code wrote it."
        )
    odd = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise CheckpointError(
            f"{path} holds {odd[0]}, which is no tensor. Give checkpoint.pth as the authors' code "
            "wrote it."
        )
    return dict(tensors), content.get("config")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    said = str(error).strip().splitlines()
    reason = said[0][:200] if said and not isinstance(error, pickle.UnpicklingError) else ""
    return CheckpointError(
        f"{path} is no checkpoint, or is damaged or incomplete"
        + (f" ({reason})" if reason else "")
        + ". Fetch it again and compare its size with the original's."
    )
