"""The loop every training stage runs in: seeded, resumable, never half-written.

A stage keeps its state in `<out>/checkpoint.pt`, replaced atomically every
`save_every` steps and at Ctrl-C. Started again with the same folder it goes on
from there. Batches are drawn by a generator that is seeded by the step number, so
a resumed stage sees the data it would have seen.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast a stage learns.

    Attributes
    ----------
    steps : optimiser steps in all.
    lr : highest learning rate, after `warmup` steps; it falls to zero by a half cosine.
    warmup : steps of linear rise.
    weight_decay : of AdamW.
    clip : largest norm of the gradient.
    save_every : steps between checkpoints.
    seed : of weights, batches and noise.
    """

    steps: int
    lr: float
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    save_every: int = 250
    seed: int = 0

    def factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def save_atomically(value: object, path: Path) -> None:
    """Write with `torch.save` so that `path` is either the old file or the whole new one."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class Average:
    """Exponential moving average of a module's weights (decay 0.999, warmed up)."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)


def run_stage(
    out: Path,
    modules: Mapping[str, nn.Module],
    parameters: Iterable[nn.Parameter],
    loss_of_step: Callable[[int, torch.Generator], dict[str, torch.Tensor]],
    schedule: Schedule,
    averaged: str | None = None,
    say: Callable[[str], None] = print,
    look: Callable[[int], None] | None = None,
) -> None:
    """Train `parameters` for `schedule.steps` steps, from the checkpoint if there is one.

    Parameters
    ----------
    out : folder of the stage; made if missing.
    modules : whose state is kept in the checkpoint, by name.
    parameters : that are optimised.
    loss_of_step : from step number and the step's generator to named losses; `loss`
        is the one minimised, the others are printed.
    averaged : name of the module whose moving average replaces its weights at the end.
    look : called at every checkpoint, to write sample pictures.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.pt"
    parameters = list(parameters)
    optimizer = torch.optim.AdamW(
        parameters, lr=schedule.lr, betas=(0.9, 0.99), weight_decay=schedule.weight_decay
    )
    average = Average(modules[averaged]) if averaged else None
    start, spent = 0, 0.0
    if path.is_file():
        state = torch.load(path, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name])
        optimizer.load_state_dict(state["optimizer"])
        if average:
            average.values = state["average"]
        start, spent = state["step"], state["seconds"]
        say(f"{out.name}: going on from step {start}")
    begun = time.monotonic()

    def save(step: int) -> None:
        save_atomically(
            {
                "step": step,
                "seconds": spent + time.monotonic() - begun,
                "modules": {name: module.state_dict() for name, module in modules.items()},
                "optimizer": optimizer.state_dict(),
                "average": average.values if average else {},
            },
            path,
        )
        if look:
            look(step)

    running: dict[str, float] = {}
    step = start
    try:
        for step in range(start, schedule.steps):
            generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + step)
            torch.manual_seed(schedule.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * schedule.factor(step)
            losses = loss_of_step(step, generator)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            nn.utils.clip_grad_norm_(parameters, schedule.clip)
            optimizer.step()
            if average and averaged:
                average.update(modules[averaged], step)
            for name, value in losses.items():
                current = float(value.detach())
                running[name] = 0.98 * running.get(name, current) + 0.02 * current
            if (step + 1) % 50 == 0:
                seconds = spent + time.monotonic() - begun
                text = " ".join(f"{name}={value:.4f}" for name, value in running.items())
                say(f"{out.name}: step {step + 1}/{schedule.steps} {seconds:.0f} s {text}")
            if (step + 1) % schedule.save_every == 0 and step + 1 < schedule.steps:
                save(step + 1)
    except KeyboardInterrupt:
        save(step)
        raise
    if start < schedule.steps:
        save(schedule.steps)
    if average and averaged:
        modules[averaged].load_state_dict(average.values)
