"""What a stage tells while it runs: a progress bar or lines, and TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

# Reading a loss waits for the GPU, so not at every step.
EVERY = 10
LINE_EVERY = 50


class TrainingLog:
    """Losses of a stage; a context.

    Parameters
    ----------
    out : folder of the stage; scalars go to `out / "tensorboard"`.
    start, steps : first step and number of steps.
    is_main : whether this process is the one that tells.
    say : takes lines where there is no terminal for a bar.
    """

    def __init__(
        self, out: Path, start: int, steps: int, is_main: bool, say: Callable[[str], None]
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        self._name, self._start, self._steps, self._say = out.name, start, steps, say
        self._running: dict[str, float] = {}
        # None: a bar on a terminal, nothing in a log.
        self._bar = tqdm(
            total=steps, initial=start, desc=out.name, disable=None if is_main else True
        )
        self._writer = (
            SummaryWriter(str(out / "tensorboard"), purge_step=start) if is_main else None
        )
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._writer:
            self._writer.close()

    @staticmethod
    def is_due(step: int) -> bool:
        """Whether the losses of this step are read."""
        return step % EVERY == 0

    def losses(self, step: int, values: Mapping[str, torch.Tensor]) -> None:
        """Take the losses after `step` steps; read only where `is_due` and at the end."""
        self._bar.update()
        if not self._writer or not (self.is_due(step) or step == self._steps):
            return
        for name, value in values.items():
            current = float(value)
            self._running[name] = 0.9 * self._running.get(name, current) + 0.1 * current
            self._writer.add_scalar(f"train/{name}", current, step)
        text = " ".join(f"{name}={value:.4f}" for name, value in self._running.items())
        self._bar.set_postfix_str(text, refresh=False)
        if self._bar.disable and step % LINE_EVERY == 0:
            pace = (time.monotonic() - self._begun) / (step - self._start)
            self._say(f"{self._name}: step {step}/{self._steps} {pace:.2f} s a step {text}")

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Take scores of held-out data."""
        if not self._writer or not values:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"held-out/{name}", value, step)
        text = " ".join(f"{name}={value:.4f}" for name, value in values.items())
        self._say(f"{self._name}: step {step} held-out {text}")
