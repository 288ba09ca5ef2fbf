"""How noise and latents are mixed at a timestep, and taken apart again."""

from __future__ import annotations

from typing import Any, NamedTuple

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

    def level(self, t: torch.Tensor) -> NoiseLevel:
        """The noise of timestep `t`, (1,)."""
        zero, one = (torch.full((1, 1, 1, 1), x, device=t.device) for x in (0.0, 1.0))
        # Both are linear in what they are given.
        mixing = torch.cat([self.noisy(one, zero, t), self.noisy(zero, one, t)]).flatten()
        cleaning = torch.cat([self(one, zero, t), self(zero, one, t)]).flatten()
        return NoiseLevel(t, mixing, cleaning)


class NoiseLevel(NamedTuple):
    """A timestep, and what is added up there; found once, as a GPU launches every operation.

    Attributes
    ----------
    t : (1,).
    mixing : of latents and noise, (2,).
    cleaning : of noisy latents and of what the U-Net predicts, (2,).
    """

    t: torch.Tensor
    mixing: torch.Tensor
    cleaning: torch.Tensor

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """As `NoiseSchedule.noisy`."""
        return self.mixing[0] * latents + self.mixing[1] * noise

    def clean(self, noisy: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """As `ConsistencyFunction`."""
        return self.cleaning[0] * noisy + self.cleaning[1] * predicted
