"""The training loop: killed and resumed equals uninterrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from models.training.stage import Schedule, run_stage, save_atomically

Interrupt = int | None


def fit(out: Path, steps: int, interrupt_at: Interrupt = None) -> nn.Linear:
    """Learn to sum four numbers."""
    torch.manual_seed(0)
    module = nn.Linear(4, 1)

    def loss_of_step(step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        if step == interrupt_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 4, generator=generator)
        error = module(x) - x.sum(1, keepdim=True) + 0.1 * torch.randn(8, 1)
        return {"loss": error.square().mean()}

    schedule = Schedule(steps, lr=0.05, warmup=2, save_every=10)
    run_stage(
        out,
        {"module": module},
        module.parameters(),
        loss_of_step,
        schedule,
        "module",
        lambda _: None,
    )
    return module


@pytest.mark.parametrize("interrupt_at", [1, 10, 17, 29])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, interrupt_at: int) -> None:
    whole = fit(tmp_path / "whole", 30)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", 30, interrupt_at)
    resumed = fit(tmp_path / "parts", 30)
    assert torch.equal(whole.weight, resumed.weight)


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    done = fit(tmp_path, 20)
    assert torch.equal(done.weight, fit(tmp_path, 20, interrupt_at=0).weight)


def test_it_learns(tmp_path: Path) -> None:
    assert (fit(tmp_path, 200).weight - 1).abs().max().item() < 0.15


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_atomically({"step": 1}, path)
    with pytest.raises((TypeError, AttributeError)):
        save_atomically({"step": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(100, 1.0, warmup=10)
    factors = [schedule.factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.0)
