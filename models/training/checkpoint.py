"""Checkpoints: either the old file or the whole new one, whatever happens meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from models.errors import TrainingError


def save_atomically(value: object, path: Path) -> None:
    """Write with `torch.save` so that `path` is either the old file or the whole new one.

    Raises
    ------
    TrainingError
        There is no space, or the folder cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    # torch's writer reports a full disk as a RuntimeError of its own.
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        kept = "the one before is whole" if path.is_file() else "there is none before it"
        raise TrainingError(
            f"The checkpoint {path} cannot be written ({reason}); {kept}. Make room, and give the "
            "same command to go on."
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a stage's checkpoint: tensors and plain values, never a pickled object.

    Raises
    ------
    TrainingError
        The file is damaged or something else.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not {"step", "settings", "parameters", "optimizer"} <= set(state):
            raise KeyError("it lacks what a stage writes")
    # Whatever torch's and zip's readers raise.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"{path} is no checkpoint of a training stage, or damaged ({reason}). Delete it to "
            "begin anew, or give another folder."
        ) from error
    return state
