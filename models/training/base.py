"""What fine-tuning starts from: Stable Diffusion 1.5, or any folder of the same classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

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


def _load(what: str, name: str, load: Callable[[], Any]) -> Any:
    """Load a part, or say in one sentence why that does not work."""
    try:
        return load()
    # The hub's client, diffusers, transformers and safetensors raise errors of their own.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainingError(
            f"{what} cannot be loaded from {name} ({reason}). Give --base a folder, or a name on "
            "the Hugging Face Hub and a connection to it."
        ) from error


def load_base(name: str) -> Base:
    """Load the parts of a base model from a folder or from the Hub.

    Raises
    ------
    TrainingError
        A part is missing or damaged, or predicts neither the noise nor the velocity.
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
        lambda: DDPMScheduler.from_pretrained(name, subfolder="scheduler"),
    )
    if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise TrainingError(
            f"{name} predicts {scheduler.config.prediction_type}, which L_SD is not made for. Give "
            "--base a model that predicts the noise (epsilon), as Stable Diffusion 1.5, or the "
            "velocity (v_prediction)."
        )
    return Base(
        _load("The VAE", name, vae).requires_grad_(False).eval(),
        _load("The U-Net", name, unet).requires_grad_(False),
        scheduler,
    )


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
