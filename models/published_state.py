"""The tensors of a checkpoint while its parts are made: what is used is taken out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from models.errors import CheckpointError


class UnusedTensors:
    """Tensors of a checkpoint that have not found their place yet.

    Every method raises `CheckpointError` with the names of what is missing, left over or of
    the wrong shape.

    Parameters
    ----------
    tensors : by the reference's names; stays as it is.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = dict(tensors)

    def has(self, prefix: str) -> bool:
        """Whether any name begins so."""
        return any(name.startswith(prefix) for name in self._tensors)

    def count(self, prefix: str) -> int:
        """How many different numbers stand behind a prefix, at least one."""
        numbered = re.compile(re.escape(prefix) + r"(\d+)\.")
        numbers = {found[1] for name in self._tensors if (found := numbered.match(name))}
        if not numbers:
            raise _lacks([prefix + "0"])
        return len(numbers)

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a tensor that must have `ndim` dimensions."""
        if name not in self._tensors:
            raise _lacks([name])
        shape = tuple(self._tensors[name].shape)
        if len(shape) != ndim or 0 in shape:
            raise CheckpointError(
                f"The checkpoint's {name} is {_shown(shape)}, not a tensor of {ndim} dimensions. "
                "The file is damaged, or of another network than the reference's."
            )
        return shape

    def fill(self, model: nn.Module, names: Mapping[str, str]) -> None:
        """Give a model without weights those that are called `names[ours]`."""
        missing = [theirs for theirs in names.values() if theirs not in self._tensors]
        if missing:
            raise _lacks(missing)
        weights = {}
        for ours, parameter in model.state_dict().items():
            value = self._tensors.pop(names[ours])
            expected, found = tuple(parameter.shape), tuple(value.shape)
            if found == (*expected, 1, 1):
                # The VAE's attention: a convolution of width one there, a matrix here.
                value = value[:, :, 0, 0]
            elif found != expected:
                raise _wrong_shape(names[ours], expected, found)
            weights[ours] = value
        model.load_state_dict(weights, assign=True)

    def expect_computed(self, name: str, computed: torch.Tensor) -> None:
        """Take out what this program computes itself, if it is the same."""
        if name not in self._tensors:
            raise _lacks([name])
        found = self._tensors.pop(name)
        if found.shape != computed.shape:
            raise _wrong_shape(name, tuple(computed.shape), tuple(found.shape))
        tolerance = max(1e-5, 2 * torch.finfo(found.dtype).eps)
        if not torch.allclose(found.float(), computed, rtol=0, atol=tolerance):
            raise CheckpointError(
                f"The checkpoint's {name} is not the reference's, which is computed and not "
                "learned. This program computes it too, so another one would be lost."
            )

    def drop(self, patterns: Iterable[str]) -> None:
        """Leave out what one of the patterns names; a `*` stands for anything."""
        patterns = tuple(patterns)
        for name in list(self._tensors):
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                del self._tensors[name]

    def expect_none(self) -> None:
        """Every tensor must have been used."""
        if self._tensors:
            raise CheckpointError(
                f"The checkpoint holds {_listed(list(self._tensors))}, for which this program has "
                "no place. It is of another network than the reference's."
            )


def _lacks(names: list[str]) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint lacks {_listed(names)}. It is incomplete, or of another network than the "
        "reference's; fetch it again."
    )


def _wrong_shape(name: str, expected: tuple[int, ...], found: tuple[int, ...]) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint's {name} is {_shown(found)}; beside its other tensors it must be "
        f"{_shown(expected)}. The file is damaged, or of another network than the reference's."
    )


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
