"""What fine-tuning starts from: Stable Diffusion 1.5, or any folder of the same classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPVisionModelWithProjection
from transformers.image_processing_base import ImageProcessingMixin

from models.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Base:
    """A text-to-image diffusion model without its text encoder.

    Attributes
    ----------
    vae : `AutoencoderKL` or `AutoencoderTiny`, frozen.
    unet : with `class_embed_type="identity"`, which adds no parameters: the time embedding
        of the EEG takes that place.
    scheduler : its noise schedule.
    """

    vae: Any
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler


def _load(what: str, name: str, flag: str, load: Callable[[], Any]) -> Any:
    """Load a part, or say in one sentence why that does not work."""
    try:
        return load()
    # The hub's client, diffusers, transformers and safetensors raise errors of their own.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainingError(
            f"{what} cannot be loaded from {name} ({reason}). Give {flag} a folder, or a name on "
            "the Hugging Face Hub and a connection to it."
        ) from error


def load_base(name: str) -> Base:
    """Load the parts of a base model from a folder or from the Hub.

    Raises
    ------
    TrainingError
        A part is missing or damaged, or predicts something else than the noise.
    """

    def vae() -> Any:
        config = diffusers.AutoencoderKL.load_config(name, subfolder="vae")
        kind = getattr(diffusers, config["_class_name"])
        return kind.from_pretrained(name, subfolder="vae")

    def unet() -> Any:
        return UNet2DConditionModel.from_pretrained(
            name, subfolder="unet", class_embed_type="identity", low_cpu_mem_usage=False
        )

    scheduler = _load(
        "The noise schedule",
        name,
        "--base",
        lambda: DDPMScheduler.from_pretrained(name, subfolder="scheduler"),
    )
    if scheduler.config.prediction_type != "epsilon":
        raise TrainingError(
            f"{name} predicts {scheduler.config.prediction_type}; L_SD is the error of the noise. "
            "Give --base a model that predicts the noise (epsilon), as Stable Diffusion 1.5."
        )
    return Base(
        _load("The VAE", name, "--base", vae).requires_grad_(False).eval(),
        _load("The U-Net", name, "--base", unet).requires_grad_(False),
        scheduler,
    )


class ImageEncoder(nn.Module):
    """E_I: CLIP's image encoder (Radford et al. 2021, arXiv 2103.00020), frozen.

    Parameters
    ----------
    clip : with its projection.
    mean, std : of the three colours, by which pixels in 0 to 1 are normalised.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, clip: CLIPVisionModelWithProjection, mean: list[float], std: list[float]
    ) -> None:
        super().__init__()
        self.clip = clip.requires_grad_(False).eval()
        self.side: int = clip.config.image_size
        self.dim: int = clip.config.projection_dim
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @classmethod
    def from_pretrained(cls, name: str) -> ImageEncoder:
        """From a folder or from the Hub, with the normalisation that stands beside it.

        Raises
        ------
        TrainingError
            It cannot be loaded.
        """
        clip = _load(
            "CLIP", name, "--clip", lambda: CLIPVisionModelWithProjection.from_pretrained(name)
        )
        processor, _ = _load(
            "CLIP's normalisation",
            name,
            "--clip",
            lambda: ImageProcessingMixin.get_image_processor_dict(name),
        )
        return cls(clip, processor["image_mean"], processor["image_std"])

    @torch.no_grad()
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, H, W) in 0 to 1 to embeddings of unit length (n, dim)."""
        if pictures.shape[-2:] != (self.side, self.side):
            pictures = nn.functional.interpolate(
                pictures, size=(self.side, self.side), mode="bicubic", antialias=True
            ).clamp(0, 1)
        embeds = self.clip(pixel_values=(pictures - self.mean) / self.std).image_embeds
        return nn.functional.normalize(embeds.float(), dim=1)


@torch.no_grad()
def encode_latents(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, H, W) in 0 to 1 to scaled latents (n, 4, h, w).

    Of a VAE's posterior its mean is taken: its spread is far below the noise that is added.
    """
    encoded = vae.encode((2 * pictures - 1).to(vae.dtype))
    # AutoencoderTiny has no posterior.
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
    out: torch.Tensor = latents.float() * vae.config.scaling_factor
    return out
