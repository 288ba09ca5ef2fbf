"""How differently CLIP sees two pictures: what blurs a face costs next to nothing in pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn
from transformers import CLIPModel

from models.errors import TrainingError

# Share of patches that count: objects cover few, and what blurs a face few of these.
WORST = 0.1


class PerceptualLoss(nn.Module):
    """How differently CLIP sees two pictures.

    Of each patch in each layer the squared distance of features of unit length, as Zhang et al.
    2018 (arXiv 1801.03924) compare those of other networks, over the patches of all pictures that
    differ most.

    Parameters
    ----------
    clip : that was trained on pictures in -1 to 1; it stays as it is.
    side : of the pictures, in pixels.

    Raises
    ------
    TrainingError
        CLIP sees pictures of another size.
    """

    def __init__(self, clip: CLIPModel, side: int) -> None:
        super().__init__()
        expected = clip.config.vision_config.image_size
        if side != expected:
            raise TrainingError(
                f"CLIP sees pictures of {expected} pixels, and these have {side}. Give --clip one "
                "that was trained on pictures of this size."
            )
        self.vision = clip.vision_model.requires_grad_(False).eval()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Of pictures (n, 3, H, W) in -1 to 1; only `y` has a gradient."""
        with torch.no_grad():
            wanted = self._features(x)
        pairs = zip(self._features(y), wanted, strict=True)
        distances = torch.stack([(a - b).square().sum(-1).flatten() for a, b in pairs])
        return distances.topk(math.ceil(WORST * distances.shape[1])).values.mean()

    def _features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        seen = self.vision(pixel_values=pictures, output_hidden_states=True)
        return [F.normalize(x.float(), dim=-1) for x in seen.hidden_states[1:]]


class LatentPerceptualLoss(nn.Module):
    """How differently CLIP sees the pictures of latents and of what a U-Net takes for them.

    Errors of latents weigh alike in L_SD, however much the decoder makes of them (Berrada et al.
    2024, arXiv 2411.04873, who compare features of the decoder). Noisier latents than signal do not
    count: of what is told there only the mean is known, whose picture is blurred as it should be.

    Parameters
    ----------
    vae : whose decoder stays as it is.
    perceptual : compares pictures.
    """

    def __init__(self, vae: AutoencoderTiny, perceptual: PerceptualLoss) -> None:
        super().__init__()
        self.decoder = vae.decoder.requires_grad_(False).eval()
        self.perceptual = perceptual
        self._scale = float(vae.config.scaling_factor)

    def forward(
        self, latents: torch.Tensor, denoised: torch.Tensor, alpha: torch.Tensor
    ) -> torch.Tensor:
        """Of latents (n, 4, h, w), whose share of the noisy ones' variance is `alpha` (n,)."""
        counts = alpha > 0.5
        if not counts.any():
            return denoised.sum() * 0
        with torch.no_grad():
            wanted = self.decoder(latents[counts] / self._scale)
        loss: torch.Tensor = self.perceptual(wanted, self.decoder(denoised[counts] / self._scale))
        return loss
