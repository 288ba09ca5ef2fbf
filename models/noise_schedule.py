"""How noise and latents are mixed at a timestep, and taken apart again."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class NoiseSchedule(nn.Module):
    """The noise schedule of a base model and what its U-Net predicts.

    Parameters
    ----------
    scheduler : whose `prediction_type` is "epsilon" (the noise, as Stable Diffusion 1.5) or
        "v_prediction" (the velocity, Salimans and Ho 2022, arXiv 2202.00512).
    """

    alphas_cumprod: torch.Tensor

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        # Here, since diffusers' add_noise moves its table to the device at every call.
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)
        self._is_velocity = scheduler.config.prediction_type == "v_prediction"

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Latents and noise (n, 4, h, w) mixed as at timesteps `t` (n,)."""
        alpha = self._alpha(t)
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def parts(
        self, noisy: torch.Tensor, predicted: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents and the noise that a prediction takes `noisy` (n, 4, h, w) to be made of.

        Where a schedule ends in pure noise, only the velocity tells of the latents there.
        """
        alpha = self._alpha(t)
        if self._is_velocity:
            latents = alpha.sqrt() * noisy - (1 - alpha).sqrt() * predicted
            return latents, alpha.sqrt() * predicted + (1 - alpha).sqrt() * noisy
        return (noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt(), predicted

    def _alpha(self, t: torch.Tensor) -> torch.Tensor:
        return self.alphas_cumprod[t][:, None, None, None]


class ConsistencyFunction(NoiseSchedule):
    """Noisy latents and what a distilled U-Net predicts, to the latents of the picture.

    Latent consistency models (Luo et al. 2023, arXiv 2310.04378).

    Parameters
    ----------
    scheduler : diffusers' `LCMScheduler`, whose own scalings are taken.

    Attributes
    ----------
    timesteps : (n,), those that were learnt, rising; the last is the noisiest there is.
    stride : between them.
    """

    timesteps: torch.Tensor

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler)
        n_steps = scheduler.config.original_inference_steps
        self.stride = len(scheduler) // n_steps
        timesteps = self.stride * torch.arange(1, n_steps + 1) - 1
        self.register_buffer("timesteps", timesteps, persistent=False)
        self._scheduler = scheduler

    def forward(
        self, noisy: torch.Tensor, predicted: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """Latents for `noisy` (n, 4, h, w) at timesteps `t` (n,)."""
        latents, _ = self.parts(noisy, predicted, t)
        scalings = self._scheduler.get_scalings_for_boundary_condition_discrete(t)
        c_skip, c_out = (scaling[:, None, None, None] for scaling in scalings)
        out: torch.Tensor = c_skip * noisy + c_out * latents
        return out
