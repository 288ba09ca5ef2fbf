"""What a latent diffusion U-Net is asked at a timestep, and how much the answer weighs."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from models.losses import sd_loss


class Denoising(nn.Module):
    """The noise schedule of a base model and what its U-Net predicts.

    Parameters
    ----------
    scheduler : whose `prediction_type` is "epsilon" (the noise, as Stable Diffusion 1.5) or
        "v_prediction" (the velocity, Salimans and Ho 2022, arXiv 2202.00512).
    min_snr : timesteps weigh at most as one of this signal-to-noise ratio (Hang et al. 2023,
        arXiv 2303.09556), so that the many almost clean ones, which decide little, do not take
        most of the capacity. 0: the plain mean.
    """

    alphas_cumprod: torch.Tensor

    def __init__(self, scheduler: Any, min_snr: float = 0.0) -> None:
        super().__init__()
        # Here, since diffusers' add_noise moves its table to the device at every call.
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone(), persistent=False)
        self._is_velocity = scheduler.config.prediction_type == "v_prediction"
        self._min_snr = min_snr

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

    def weight(self, t: torch.Tensor) -> torch.Tensor:
        """Weight of the error at timesteps (n,)."""
        alpha = self.alphas_cumprod[t]
        if not self._min_snr:
            return torch.ones_like(alpha)
        snr = alpha / (1 - alpha)
        # The velocity's error is that of the picture times SNR + 1, the noise's times SNR.
        # One more on both sides, since pure noise must not weigh nothing.
        shift = float(self._is_velocity)
        weight: torch.Tensor = (snr.clamp(max=self._min_snr) + shift) / (snr + shift)
        return weight

    def forward(
        self,
        unet: UNet2DConditionModel,
        latents: torch.Tensor,
        noise: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        time_embedding: torch.Tensor,
    ) -> torch.Tensor:
        """L_SD at timesteps `t` (n,), for latents and noise (n, 4, h, w)."""
        target = noise
        if self._is_velocity:
            alpha = self._alpha(t)
            target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        noisy = self.noisy(latents, noise, t)
        predicted = unet(noisy, t, context, class_labels=time_embedding).sample
        return sd_loss(target, predicted.float(), self.weight(t))
