"""What makes a function of tensors faster without changing what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


class Fuse(Protocol):
    """Makes a function of tensors of fixed shapes, or a network, faster."""

    def __call__(self, function: Function, /) -> Function: ...


def as_it_is(function: Function) -> Function:
    """No faster: where a small operation costs little, as on a CPU."""
    return function


class Compiler:
    """`Fuse` by PyTorch's compiler: of many kernels it makes few.

    What it makes of a function it makes once, for whoever asks.

    Parameters
    ----------
    backend : of `torch.compile`.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._made: dict[Callable[..., Any], Any] = {}

    def __call__(self, function: Function, /) -> Function:
        """The same function, compiled at its first call."""
        if function not in self._made:
            # Shapes are fixed; and what cannot be compiled whole shall say so, and not be slow.
            self._made[function] = torch.compile(
                function, backend=self._backend, dynamic=False, fullgraph=True
            )
        out: Function = self._made[function]
        return out
