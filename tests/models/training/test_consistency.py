"""Consistency along a teacher's way, where the way is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from torch import nn

from models.training.consistency import DistillTask, pseudo_huber
from models.training.denoising import Denoising
from models.training.text_to_image import build_scheduler

NOISE = {
    "epsilon": DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    "v_prediction": build_scheduler(),
}
# The only picture there is under the condition, and the only one under none.
SEEN, EMPTY = 1.5, 0.5
SHAPE = (1, 2, 2)


class Knowing(nn.Module):
    """A U-Net that knows the only picture there is, and says so as its schedule asks.

    It holds that picture anew for each fifth of the way, so that a student can learn them.
    """

    def __init__(self, scheduler: Any, seen: float, empty: float) -> None:
        super().__init__()
        self.denoising = Denoising(scheduler)
        self.is_velocity = scheduler.config.prediction_type == "v_prediction"
        self.seen = nn.Parameter(torch.full((5, *SHAPE), seen))
        self.empty = nn.Parameter(torch.full(SHAPE, empty))

    def forward(
        self, noisy: torch.Tensor, t: torch.Tensor, context: torch.Tensor, class_labels: Any
    ) -> SimpleNamespace:
        picture = torch.where(context.any(2)[:, :, None, None], self.seen[t // 200], self.empty)
        alpha = self.denoising.alphas_cumprod[t][:, None, None, None]
        noise = (noisy - alpha.sqrt() * picture) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * picture
        return SimpleNamespace(sample=velocity if self.is_velocity else noise)


class Seen:
    """Epochs that all showed picture 0."""

    def __init__(self) -> None:
        self.image_id = torch.zeros(8, dtype=torch.int64)
        self.epochs = SimpleNamespace(shape=lambda _name: (1, 4))

    def draw(self, generator: torch.Generator, n: int) -> torch.Tensor:
        return torch.randint(len(self), (n,), generator=generator)

    def __len__(self) -> int:
        return 8

    def eeg(self, places: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(places), 1, 4)


class Conditioner(nn.Module):
    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return tokens, tokens[:, 0], tokens


def make_task(
    prediction: str, student: nn.Module, guidance: float, n_steps: int = 50, **more: Any
) -> DistillTask:
    noise = NOISE[prediction]
    return DistillTask(
        student,
        Knowing(noise, SEEN, EMPTY),
        nn.Identity(),
        Conditioner(),
        LCMScheduler.from_config(noise.config, original_inference_steps=n_steps),
        guidance,
        Seen(),  # type: ignore[arg-type]
        np.full((1, *SHAPE), SEEN, np.float16),
        **more,
    )


def rows(task: DistillTask, seed: int, batch: int = 32) -> dict[str, torch.Tensor]:
    return task.load(task.draw(torch.Generator().manual_seed(seed), batch))


@pytest.mark.parametrize("prediction", NOISE)
def test_at_the_end_of_the_way_the_answer_is_the_point_itself(prediction: str) -> None:
    task = make_task(prediction, Knowing(NOISE[prediction], 3.0, 0.0), 1.0)
    noisy = torch.randn(5, *SHAPE)
    context = torch.ones(5, 1, 4)
    t = torch.zeros(5, dtype=torch.int64)
    assert torch.equal(task.answer(task.unet, noisy, t, (context, context[:, 0])), noisy)
    # And a few steps before it already what the U-Net says.
    answer = task.answer(task.unet, noisy, t + 99, (context, context[:, 0]))
    torch.testing.assert_close(answer, torch.full_like(answer, 3.0), rtol=0, atol=0.05)


@pytest.mark.parametrize("prediction", NOISE)
def test_the_answer_is_what_lcm_makes_of_the_same_prediction(prediction: str) -> None:
    task = make_task(prediction, Knowing(NOISE[prediction], 3.0, 0.0), 1.0)
    context = torch.ones(1, 1, 4)
    scheduler = LCMScheduler.from_config(NOISE[prediction].config)
    for t in (19, 499, 999):
        noisy = torch.randn(1, *SHAPE)
        scheduler.set_timesteps(timesteps=[t] if t == 999 else [999, t])
        said = task.unet(noisy, torch.tensor([t]), context, class_labels=None).sample
        expected = scheduler.step(said, t, noisy).denoised
        answer = task.answer(task.unet, noisy, torch.tensor([t]), (context, context[:, 0]))
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", NOISE)
def test_the_way_is_that_of_diffusers_ddim(prediction: str) -> None:
    task = make_task(prediction, nn.Identity(), 2.0)
    ddim = DDIMScheduler.from_config(
        NOISE[prediction].config,
        timestep_spacing="trailing",
        set_alpha_to_one=False,
        clip_sample=False,
    )
    ddim.set_timesteps(50)
    assert ddim.timesteps.tolist() == task.consistency.timesteps.flip(0).tolist()
    assert task.consistency.timesteps[-1] == 999, "the noisiest that there is"
    noisy = torch.randn(1, *SHAPE)
    context = torch.ones(1, 1, 4)
    for t in (999, 519, 19):
        at = torch.tensor([t])
        seen = task.teacher(noisy, at, context, class_labels=None).sample
        empty = task.teacher(noisy, at, 0 * context, class_labels=None).sample
        expected = ddim.step(empty + 2.0 * (seen - empty), t, noisy).prev_sample
        further = (at - 20).clamp(min=0)
        found = task.step(noisy, at, further, (context, context[:, 0]))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", NOISE)
def test_who_knows_what_the_teacher_paints_has_nothing_to_learn(prediction: str) -> None:
    right = make_task(prediction, Knowing(NOISE[prediction], SEEN, EMPTY), 1.0)
    wrong = make_task(prediction, Knowing(NOISE[prediction], 0.0, EMPTY), 1.0)
    assert right(rows(right, 0))["loss"].item() < 2e-3
    assert wrong(rows(wrong, 0))["loss"].item() > 20 * right(rows(right, 0))["loss"].item()


@pytest.mark.parametrize("prediction", NOISE)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_teacher_whose_picture_is_known_is_matched(prediction: str, guidance: float) -> None:
    # With guidance the way leads beyond the picture under the condition, and is as straight.
    expected = EMPTY + guidance * (SEEN - EMPTY)
    task = make_task(prediction, Knowing(NOISE[prediction], 0.0, 0.0), guidance, n_steps=5)
    optimizer = torch.optim.Adam([task.unet.seen], lr=0.2)
    averaged = {"unet.seen": task.unet.seen.detach().clone()}
    task.follow(averaged)
    losses: list[float] = []
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 500)
        optimizer.zero_grad()
        loss = task(rows(task, step))["loss"]
        assert loss.isfinite()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        averaged["unet.seen"].lerp_(task.unet.seen.detach(), 0.5)
    learnt = task.unet.seen.detach()
    torch.testing.assert_close(learnt, torch.full_like(learnt, expected), rtol=0.05, atol=0)
    assert np.mean(losses[-10:]) < 0.1 * np.mean(losses[:10])
    # The teacher is as it was, and nothing else learns.
    assert task.teacher.seen.grad is None
    assert task.teacher.seen.unique().item() == SEEN


def test_the_target_is_the_average_and_has_no_gradient() -> None:
    task = make_task("epsilon", Knowing(NOISE["epsilon"], 0.0, 0.0), 1.0)
    drawn = rows(task, 0)
    own = task(drawn)["loss"].item()
    average = torch.full((5, *SHAPE), 9.0)
    task.follow({"unet.seen": average, "unet.empty": torch.zeros(SHAPE)})
    far = task(drawn)["loss"]
    assert far.item() > own
    # It is looked at anew at every step.
    average.fill_(0.0)
    assert task(drawn)["loss"].item() == own
    far.backward()
    assert average.grad is None
    assert task.unet.seen.grad.abs().sum() > 0


def test_a_share_of_the_epochs_has_the_painters_noise() -> None:
    noise, painters = NOISE["v_prediction"], torch.full((1, *SHAPE), 7.0)
    for share in (0.0, 0.5, 1.0):
        student = Knowing(noise, SEEN, EMPTY)
        task = make_task("v_prediction", student, 1.0, fixed=painters, fixed_share=share)
        drawn = rows(task, 0, 400)["noise"]
        is_fixed = (drawn == painters).flatten(1).all(1)
        assert is_fixed.double().mean() == pytest.approx(share, abs=0.1)
        assert (drawn[~is_fixed].abs() < 6).all()


def test_pseudo_huber_is_squared_near_zero_and_absolute_far_from_it() -> None:
    assert pseudo_huber(torch.zeros(3)).item() == 0
    assert pseudo_huber(torch.tensor([1e-5])).item() == pytest.approx(5e-8, rel=0.01)
    assert pseudo_huber(torch.tensor([-2.0, 2.0])).item() == pytest.approx(2.0, abs=1e-3)
