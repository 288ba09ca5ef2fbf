"""Guidance: where it leads, and that it keeps a prediction's spread where noise is pure."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, LCMScheduler

from models.guidance import guide
from models.training.text_to_image import build_scheduler

EMPTY, TOLD = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_guidance_leads_away_from_the_empty_condition() -> None:
    led = guide(EMPTY, TOLD, 3.0, DDIMScheduler())
    torch.testing.assert_close(led, EMPTY + 3 * (TOLD - EMPTY))
    torch.testing.assert_close(guide(EMPTY, TOLD, 1.0, DDIMScheduler()), TOLD)


def test_where_noise_is_pure_the_spread_of_each_picture_stays() -> None:
    dims = (1, 2, 3)
    for scheduler in (build_scheduler(), LCMScheduler(rescale_betas_zero_snr=True)):
        led = guide(EMPTY, TOLD, 3.0, scheduler)
        torch.testing.assert_close(led.std(dims), TOLD.std(dims))
        further = EMPTY + 3 * (TOLD - EMPTY)
        cosine = torch.cosine_similarity(led.flatten(1), further.flatten(1))
        torch.testing.assert_close(cosine, torch.ones(3))
        torch.testing.assert_close(guide(EMPTY, TOLD, 1.0, scheduler), TOLD)
