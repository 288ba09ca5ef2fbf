"""The loop every training stage runs in: seeded, resumable, never half-written.

A stage keeps its state in `<out>/checkpoint.pt`, replaced atomically every `save_every`
steps and when it is told to stop. Started again with the same folder it goes on from
there. Each step draws from a generator that is seeded by the step's number, so a resumed
stage computes what it would have computed, to the bit on the same device.

Every process draws the whole batch and loads its own share of it, so that any number of
processes and of accumulated parts makes the same step.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import nn

from models.errors import TrainingError
from models.training.checkpoint import load_checkpoint, save_atomically
from models.training.config import NEUTRAL, Schedule
from models.training.training_log import TrainingLog

Rows = dict[str, torch.Tensor]
"""A batch: tensors whose first dimension is the batch's."""


class Task(Protocol):
    """What a stage learns; an `nn.Module` whose trainable parameters require gradients."""

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Choose a batch: row numbers and all random values, without loading data."""

    def load(self, rows: Rows) -> Rows:
        """Fetch what `rows`, a share of the batch, refers to; runs in a thread beside."""

    def __call__(self, rows: Rows) -> dict[str, torch.Tensor]:
        """Named mean losses over rows; `loss` is minimised, the others are shown."""


class Average:
    """Exponential moving average of parameters, warmed up."""

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, nn.Parameter], step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in parameters.items():
            self.values[name].lerp_(parameter, 1 - decay)


def trained_parameters(task: nn.Module) -> dict[str, nn.Parameter]:
    """Those that require gradients, by name."""
    return {name: p for name, p in task.named_parameters() if p.requires_grad}


def build_optimizer(parameters: dict[str, nn.Parameter], schedule: Schedule) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) without decay of vectors."""
    decayed = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=schedule.lr, betas=(0.9, 0.99))


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came; a second one interrupts at once.

    The step that runs is finished first: half a step of the optimiser cannot be resumed.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    try:
        for each in (signal.SIGINT, signal.SIGTERM):
            before[each] = signal.signal(each, note)
    except ValueError:
        pass  # not the main thread: nobody signals it
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shares(schedule: Schedule, n_processes: int, rank: int) -> list[slice]:
    """The parts of a batch that process `rank` computes.

    >>> shares(Schedule(batch=8, accumulate=2), 2, 1)
    [slice(4, 6, None), slice(6, 8, None)]
    """
    n_parts = n_processes * schedule.accumulate
    if schedule.batch % n_parts:
        raise TrainingError(
            f"A batch of {schedule.batch} cannot be cut into {n_parts} equal parts "
            f"({n_processes} processes x {schedule.accumulate} accumulated). Choose --batch as a "
            f"multiple of {n_parts}."
        )
    size = schedule.batch // n_parts
    first = rank * schedule.accumulate
    return [slice(i * size, (i + 1) * size) for i in range(first, first + schedule.accumulate)]


def check_same_settings(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with other settings than a stage was begun with."""
    changed = [
        f"{name}={before.get(name)!r} (now {now.get(name)!r})"
        for name in sorted({*before, *now} - set(NEUTRAL))
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise TrainingError(
            f"{path.parent} was begun with {', '.join(changed)}. Give the same settings to go on, "
            "or another folder to begin anew."
        )


def processes() -> Accelerator:
    """The processes that `accelerate launch` or `torchrun` started, or this one alone.

    Accelerate's own `PartialState` would take several on CPUs for one each. The precision is
    ours: Accelerate fixes its own for the whole life of a process.

    Raises
    ------
    TrainingError
        Several were started and do not know of each other, as `torchrun` does on CPUs: each
        would train for itself, into the same files.
    """
    accelerator = Accelerator(mixed_precision="no")
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if n != accelerator.num_processes:
        raise TrainingError(
            f"{n} processes were started that do not know of each other. Set "
            "ACCELERATE_USE_CPU=true for torchrun on CPUs, or use `accelerate launch`."
        )
    return accelerator


def has_vectors_of_bf16() -> bool:
    """Whether this CPU can be faster in bf16; without AVX-512 fp32 takes a fraction of the time."""
    return torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")


class _Progress:
    """What a checkpoint holds: trained parameters and all that their next step depends on."""

    def __init__(
        self, task: nn.Module, schedule: Schedule, device: torch.device, identity: dict[str, str]
    ) -> None:
        self.parameters = trained_parameters(task)
        self.optimizer = build_optimizer(self.parameters, schedule)
        self.scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16")
        self.average = Average(self.parameters, schedule.ema_decay) if schedule.ema_decay else None
        self.settings = {**settings_of(schedule), **identity}
        self.step = 0

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "settings": self.settings,
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values if self.average else {},
            "scaler": self.scaler.state_dict(),
        }
        save_atomically(state, path)

    def load(self, path: Path) -> None:
        state = load_checkpoint(path)
        check_same_settings(path, state["settings"], self.settings)
        copy_parameters(state["parameters"], self.parameters)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            for name, value in self.average.values.items():
                value.copy_(state["average"][name])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    def optimise(self, schedule: Schedule) -> torch.Tensor:
        """One step along the gradients, whose norm is returned."""
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.lr * schedule.factor(self.step)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), schedule.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.parameters, self.step)
        self.step += 1
        return norm


@torch.no_grad()
def copy_parameters(values: dict[str, torch.Tensor], parameters: dict[str, nn.Parameter]) -> None:
    """Overwrite parameters by name."""
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def settings_of(schedule: Schedule) -> dict[str, Any]:
    """All settings of a stage as plain values."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(schedule).items()}


def run_stage(
    out: Path,
    task: Any,
    schedule: Schedule,
    say: Callable[[str], None] = print,
    look: Callable[[int], dict[str, float] | None] | None = None,
    identity: dict[str, str] | None = None,
    follow: Callable[[dict[str, torch.Tensor]], None] | None = None,
) -> None:
    """Train a task for `schedule.steps` steps, from the checkpoint if there is one.

    Parameters
    ----------
    out : folder of the stage; made if missing. Losses go to `out / "tensorboard"`.
    task : a `Task`; afterwards it holds the trained (or averaged) weights.
    look : called at every checkpoint and at the end, to write samples and to score held-out
        data; what it returns is logged.
    identity : what else a checkpoint must agree in to be gone on from, as the data.
    follow : given the moving average of the weights before the first step, by the names of the
        task's parameters; it changes in place. Not called where `ema_decay` is 0.

    Raises
    ------
    TrainingError
        The checkpoint cannot be written or read, or belongs to other settings; the loss is
        no number any more.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, with the checkpoint of the last whole step written.
    """
    accelerator = processes()
    device, is_main = accelerator.device, accelerator.is_main_process
    if schedule.precision == "fp16" and device.type != "cuda":
        raise TrainingError("fp16 needs a GPU with CUDA. Use --precision bf16 or fp32 here.")
    if (
        schedule.precision == "bf16"
        and device.type == "cpu"
        and not has_vectors_of_bf16()
        and is_main
    ):
        say(f"{out.name}: bf16 is slower than fp32 on this processor; give --precision fp32.")
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[schedule.precision]
    parts = shares(schedule, accelerator.num_processes, accelerator.process_index)
    # Convolutions of the U-Net are 1.3 times as fast so, on CPUs without bf16.
    model = accelerator.prepare(task.to(memory_format=torch.channels_last))
    progress = _Progress(task, schedule, device, identity or {})
    path = out / "checkpoint.pt"
    if path.is_file():
        progress.load(path)
        if is_main:
            say(f"{out.name}: going on from step {progress.step}")
    if follow and progress.average:
        follow(progress.average.values)
    # All have read it before one may replace it.
    accelerator.wait_for_everyone()
    if is_main:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(progress.settings, indent=2)
        (out / "config.json").write_text(text + "\n", encoding="utf-8")

    def seed_of(step: int) -> int:
        return schedule.seed * 1_000_003 + step

    def load(step: int) -> list[Rows]:
        generator = torch.Generator().manual_seed(seed_of(step))
        batch = task.draw(generator, schedule.batch)
        return [task.load({k: v[part] for k, v in batch.items()}) for part in parts]

    def learn(loaded: list[Rows]) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = {}
        for number, rows in enumerate(loaded):
            is_last = number + 1 == len(loaded)
            with nullcontext() if is_last else accelerator.no_sync(model):
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    part = model({k: v.to(device) for k, v in rows.items()})
                accelerator.backward(progress.scaler.scale(part["loss"] / len(loaded)))
            for name, value in part.items():
                losses[name] = losses.get(name, 0) + value.detach() / len(loaded)
        losses["grad_norm"] = progress.optimise(schedule)
        return losses

    with (
        ThreadPoolExecutor(1) as beside,
        TrainingLog(out, progress.step, schedule.steps, is_main, say) as log,
        told_to_stop() as is_stopped,
    ):

        def keep() -> None:
            if is_main:
                progress.save(path)

        def inspect() -> None:
            if look and is_main:
                log.scores(progress.step, look(progress.step) or {})

        is_done = progress.step >= schedule.steps
        waiting = None if is_done else beside.submit(load, progress.step)
        while waiting is not None:
            step, loaded = progress.step, waiting.result()
            waiting = beside.submit(load, step + 1) if step + 1 < schedule.steps else None
            torch.manual_seed(seed_of(step) + accelerator.process_index)
            losses = learn(loaded)
            if log.is_due(progress.step) or waiting is None:
                losses = accelerator.reduce(losses, reduction="mean")
                if not torch.isfinite(losses["loss"]):
                    raise TrainingError(
                        f"{out.name}: the loss is {float(losses['loss'])} at step {step + 1}. The "
                        "last checkpoint is kept; begin anew with a lower --lr or fp32."
                    )
            log.losses(progress.step, losses)
            if _agree(accelerator, is_stopped()):
                keep()
                if is_main:
                    say(
                        f"{out.name}: stopped after step {progress.step} of {schedule.steps}, "
                        f"which is saved in {path}. The same command goes on from there."
                    )
                raise KeyboardInterrupt
            if progress.step % schedule.save_every == 0 and waiting is not None:
                keep()
                inspect()
        if not is_done:
            keep()
        if progress.average:
            copy_parameters(progress.average.values, progress.parameters)
        inspect()
    # Files hold weights in the usual order.
    task.to(memory_format=torch.contiguous_format)
    accelerator.wait_for_everyone()


def _agree(accelerator: Accelerator, is_stopped: bool) -> bool:
    """Whether any process was told to stop: all must stop after the same step."""
    if accelerator.num_processes == 1:
        return is_stopped
    votes = accelerator.reduce(torch.tensor(float(is_stopped), device=accelerator.device))
    return bool(votes > 0)
