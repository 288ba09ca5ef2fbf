"""What a latent diffusion U-Net is asked at a timestep, and how much the answer weighs."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from models.losses import sd_loss
from models.noise_schedule import NoiseSchedule


class Denoising(NoiseSchedule):
    """L_SD under the noise schedule of a base model.

    Parameters
    ----------
    scheduler : see `NoiseSchedule`.
    min_snr : timesteps weigh at most as one of this signal-to-noise ratio (Hang et al. 2023,
        arXiv 2303.09556), so that the many almost clean ones, which decide little, do not take
        most of the capacity. 0: the plain mean.
    """

    def __init__(self, scheduler: Any, min_snr: float = 0.0) -> None:
        super().__init__(scheduler)
        self._min_snr = min_snr

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
