"""The training loop: killed and resumed equals uninterrupted, two processes equal one."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import models.training.checkpoint
from models.errors import TrainingError
from models.training.config import FinetuneConfig, Schedule
from models.training.finetune import finetune
from models.training.stage import (
    Rows,
    build_optimizer,
    processes,
    run_stage,
    shares,
    trained_parameters,
)
from tests.models.training.made_sets import make_base, make_clip, make_prepared_set

ROOT = Path(__file__).resolve().parents[3]
SCHEDULE = Schedule(30, 8, 0.05, warmup=2, save_every=10)


class SumTask(nn.Module):
    """Learns to sum four numbers."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 1)
        self.frozen = nn.Linear(4, 1).requires_grad_(False)
        self._interrupt_at, self._step = interrupt_at, 0

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        return {"seed": torch.randint(10**6, (batch,), generator=generator)}

    def load(self, rows: Rows) -> Rows:
        x = [
            torch.randn(4, generator=torch.Generator().manual_seed(seed))
            for seed in rows["seed"].tolist()
        ]
        return {"x": torch.stack(x)}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        if self._step == self._interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        self._step += 1
        error = self.linear(rows["x"]) - rows["x"].sum(1, keepdim=True) - 0.5
        return {"loss": error.square().mean()}


def silent(_line: str) -> None:
    pass


def fit(out: Path, schedule: Schedule = SCHEDULE, interrupt_at: int | None = None) -> SumTask:
    task = SumTask(interrupt_at)
    run_stage(out, task, schedule, silent)
    return task


@pytest.mark.parametrize("interrupt_at", [0, 9, 17, 28])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, interrupt_at: int, ema_decay: float
) -> None:
    schedule = Schedule(30, 8, 0.05, warmup=2, save_every=10, ema_decay=ema_decay)
    whole = fit(tmp_path / "whole", schedule)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", schedule, interrupt_at)
    resumed = fit(tmp_path / "parts", schedule)
    assert torch.equal(whole.linear.weight, resumed.linear.weight)
    assert torch.equal(whole.linear.bias, resumed.linear.bias)


def test_a_stage_may_follow_its_average_over_an_interrupt(tmp_path: Path) -> None:
    schedule = Schedule(30, 8, 0.05, warmup=2, save_every=10, ema_decay=0.9)
    followed: list[dict[str, torch.Tensor]] = []
    for interrupt_at in (9, None):
        task = SumTask(interrupt_at)
        try:
            run_stage(tmp_path, task, schedule, silent, follow=followed.append)
        except KeyboardInterrupt:
            half = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["average"]
            assert torch.equal(followed[0]["linear.weight"], half["linear.weight"])
    # What it was given is what is averaged, and in the end what is saved.
    assert torch.equal(followed[1]["linear.weight"], task.linear.weight)
    assert not torch.equal(followed[1]["linear.weight"], half["linear.weight"])
    run_stage(tmp_path / "none", SumTask(), SCHEDULE, silent, follow=followed.append)
    assert len(followed) == 2


def test_the_step_that_runs_at_an_interrupt_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, interrupt_at=4)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 5


def test_signals_mean_again_what_they_meant_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    fit(tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    done = fit(tmp_path)
    assert torch.equal(done.linear.weight, fit(tmp_path, interrupt_at=0).linear.weight)


def test_accumulated_parts_make_the_same_step(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    parts = fit(tmp_path / "parts", Schedule(30, 8, 0.05, warmup=2, save_every=10, accumulate=4))
    torch.testing.assert_close(whole.linear.weight, parts.linear.weight, rtol=0, atol=1e-6)


def test_it_learns_and_what_is_frozen_stays(tmp_path: Path) -> None:
    task = fit(tmp_path, Schedule(300, 8, 0.05, warmup=2)).cpu()
    assert (task.linear.weight - 1).abs().max().item() < 0.02
    assert task.frozen.weight.grad is None
    assert torch.equal(task.frozen.weight, SumTask().frozen.weight)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(TrainingError, match=r"was begun with lr=0.05 \(now 0.1\)"):
        fit(tmp_path, Schedule(30, 8, 0.1, warmup=2, save_every=10))
    # What only changes how a step is computed may change.
    fit(tmp_path, Schedule(30, 8, 0.05, warmup=2, save_every=5, accumulate=2))


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, interrupt_at=11)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(value: object, file: io.BufferedWriter) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(models.training.checkpoint.torch, "save", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*the one before is whole"):
        fit(tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_torchs_own_words_for_a_full_disk_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoint.partial").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"cannot be written.*there is none before it"):
        models.training.checkpoint.save_atomically(
            {"x": torch.zeros(10**6)}, tmp_path / "checkpoint.pt"
        )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", None])
def test_a_damaged_checkpoint_gets_its_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "checkpoint.pt"
    if content is None:
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is no checkpoint.*Delete it"):
        fit(tmp_path)


def test_a_loss_that_is_no_number_stops_the_stage(tmp_path: Path) -> None:
    task = SumTask()
    with torch.no_grad():
        task.linear.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"the loss is nan at step 10.*lower --lr"):
        run_stage(tmp_path, task, SCHEDULE, silent)
    with pytest.raises(TrainingError, match="the loss is nan at step 3"):
        run_stage(tmp_path, task, Schedule(3, 8), silent)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_uneven_share_and_fp16_without_a_gpu_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="multiple of 6"):
        shares(Schedule(batch=8, accumulate=3), 2, 0)
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="fp16 needs a GPU"):
            fit(tmp_path, Schedule(2, 8, precision="fp16"))


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(100, lr=1.0, warmup=10)
    factors = [schedule.factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.0)
    assert Schedule(100, decay="constant", warmup=10).factor(100) == 1.0


def test_vectors_are_not_decayed() -> None:
    task = SumTask()
    groups = build_optimizer(trained_parameters(task), Schedule(weight_decay=0.3)).param_groups
    assert [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in groups] == [
        (0.3, [2]),
        (0.0, [1]),
    ]


def test_losses_go_to_tensorboard_and_held_out_scores_too(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines: list[str] = []
    run_stage(tmp_path, SumTask(), SCHEDULE, lines.append, lambda step: {"accuracy": step / 30})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [10, 20, 30]
    assert [(e.step, e.value) for e in events.Scalars("held-out/accuracy")] == [
        (10, pytest.approx(1 / 3)),
        (20, pytest.approx(2 / 3)),
        (30, 1.0),
    ]
    assert any("held-out accuracy=1.0000" in line for line in lines)


def tune(out: Path) -> None:
    """Fine-tune on the sets beside `out`."""
    made = {name: str(out.parent / name) for name in ("base", "clip")}
    config = FinetuneConfig(4, 8, preset="tiny", n_context=4, augment=0.5, sampler_steps=1, **made)
    finetune(out.parent / "set", out / "finetune", config, silent)


def of_processes(n: int, out: Path) -> list[dict[str, torch.Tensor]]:
    """What `n` processes of Accelerate learn in two stages, on CPUs by gloo."""
    code = (
        "import os, sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from tests.models.training.test_stage import fit, tune\n"
        f"fit(Path({str(out)!r}))\n"
        f"tune(Path({str(out)!r}))\n"
        f"Path({str(out)!r}, 'rank-' + os.environ.get('RANK', '0')).touch()\n"
    )
    script = out.parent / "fit.py"
    script.write_text(code)
    # What `accelerate launch` starts on GPUs; for CPUs it would want MPI.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={n}", str(script)]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("rank-*"))) == n
    paths = (out / "checkpoint.pt", out / "finetune" / "checkpoint.pt")
    return [torch.load(path, weights_only=True)["parameters"] for path in paths]


def test_processes_that_do_not_know_of_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="ACCELERATE_USE_CPU"):
        processes()


@pytest.mark.parametrize(("capability", "is_told"), [("AVX2", True), ("AVX512", False)])
def test_a_processor_that_is_slow_in_bf16_is_told_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: str, is_told: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    # Also where there is a GPU.
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    lines: list[str] = []
    run_stage(tmp_path, SumTask(), replace(SCHEDULE, steps=1, precision="bf16"), lines.append)
    assert any("--precision fp32" in line for line in lines) == is_told


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(tmp_path: Path) -> None:
    make_prepared_set(tmp_path / "set")
    make_base(tmp_path / "base")
    make_clip(tmp_path / "clip")
    one, two = (of_processes(n, tmp_path / str(n)) for n in (1, 2))
    for alone, shared in zip(one, two, strict=True):
        for name, value in alone.items():
            torch.testing.assert_close(shared[name], value, rtol=0, atol=2e-5)
    # Sums in another order differ in the last bits: equal to the bit would mean two lone runs.
    assert any(not torch.equal(a, b) for a, b in zip(one[1].values(), two[1].values(), strict=True))
