"""What a U-Net is asked at a timestep."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from models.training.denoising import Denoising
from models.training.text_to_image import build_scheduler

LATENTS = torch.linspace(-1, 1, 4 * 4 * 4 * 4).reshape(4, 4, 4, 4)
NOISE = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
T = torch.tensor([3, 300, 700, 999])


class Answer:
    """A U-Net that says one thing, and remembers what it was shown."""

    def __init__(self, said: torch.Tensor) -> None:
        self.said = said

    def __call__(self, noisy: torch.Tensor, *_: object, **__: object) -> SimpleNamespace:
        self.noisy = noisy
        return SimpleNamespace(sample=self.said)


def ask(scheduler: DDIMScheduler, said: torch.Tensor, min_snr: float = 0.0) -> tuple[float, Answer]:
    unet = Answer(said)
    loss = Denoising(scheduler, min_snr)(unet, LATENTS, NOISE, T, NOISE, NOISE)
    return loss.item(), unet


def test_a_model_of_the_noise_is_asked_for_the_noise() -> None:
    scheduler = DDIMScheduler(prediction_type="epsilon")
    loss, unet = ask(scheduler, NOISE)
    assert loss == pytest.approx(0, abs=1e-9)
    assert torch.allclose(unet.noisy, scheduler.add_noise(LATENTS, NOISE, T), atol=1e-6)


def test_a_model_of_the_velocity_is_asked_for_diffusers_velocity() -> None:
    scheduler = build_scheduler()
    loss, unet = ask(scheduler, scheduler.get_velocity(LATENTS, NOISE, T))
    assert loss == pytest.approx(0, abs=1e-9)
    # The last timestep shows nothing of the picture.
    assert torch.allclose(unet.noisy[3], NOISE[3], atol=1e-3)
    assert ask(scheduler, NOISE)[0] > 0.1


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), build_scheduler()])
def test_clean_timesteps_weigh_less_and_noisy_ones_all_alike(scheduler: DDIMScheduler) -> None:
    weight = Denoising(scheduler, min_snr=5.0).weight(T)
    assert weight[0] < 0.1
    assert weight[2:].tolist() == pytest.approx([1, 1])
    assert Denoising(scheduler).weight(T).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), build_scheduler()])
def test_a_right_answer_gives_the_latents_and_the_noise_back(scheduler: DDIMScheduler) -> None:
    denoising = Denoising(scheduler)
    noisy = denoising.noisy(LATENTS, NOISE, T)
    said = NOISE
    if scheduler.config.prediction_type == "v_prediction":
        said = scheduler.get_velocity(LATENTS, NOISE, T)
        # The last timestep is pure noise, and yet the velocity tells of the latents.
        assert denoising.alphas_cumprod[999].item() == pytest.approx(0, abs=1e-6)
    latents, noise = denoising.parts(noisy, said, T)
    torch.testing.assert_close(latents, LATENTS, rtol=0, atol=1e-3)
    torch.testing.assert_close(noise, NOISE, rtol=0, atol=1e-3)
