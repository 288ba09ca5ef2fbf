"""What fine-tuning starts from: Stable Diffusion 1.5, or any folder of the same classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel

from models.errors import TrainingError
from models.pipeline import first_line
from models.training.prepared import PreparedSet
from models.training.scorers import open_encoder
from models.training.seen import encoded_pictures
from models.training.stage import processes


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


def load_part(what: str, place: Path | str, remedy: str, load: Callable[[], Any]) -> Any:
    """Load a part, or say in one sentence why that does not work.

    Raises
    ------
    TrainingError
    """
    try:
        return load()
    # The hub's client, diffusers, transformers and safetensors raise errors of their own.
    except Exception as error:
        raise TrainingError(
            f"{what} cannot be loaded from {place} ({first_line(error)}). {remedy}"
        ) from error


def load_stage(kind: Any, folder: Path | str, what: str, remedy: str) -> Any:
    """A network that an earlier stage wrote, in fp32; `load_part` for the errors.

    Parameters
    ----------
    kind : class of the network.
    """

    def load() -> Any:
        return kind.from_pretrained(folder, local_files_only=True).float().eval()

    return load_part(what, folder, remedy, load)


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

    def scheduler() -> Any:
        return DDPMScheduler.from_pretrained(name, subfolder="scheduler")

    remedy = "Give --base a folder, or a name on the Hugging Face Hub and a connection to it."
    noise = load_part("The noise schedule", name, remedy, scheduler)
    check_prediction(noise, name)
    return Base(
        load_part("The VAE", name, remedy, vae).requires_grad_(False).eval(),
        load_part("The U-Net", name, remedy, unet).requires_grad_(False),
        noise,
    )


def check_prediction(scheduler: Any, name: Path | str) -> None:
    """Refuse a model that predicts neither the noise nor the velocity."""
    if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
        raise TrainingError(
            f"{name} predicts {scheduler.config.prediction_type}, which training is not made for. "
            "Give a model that predicts the noise (epsilon), as Stable Diffusion 1.5, or the "
            "velocity (v_prediction)."
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


def encode_set(path: Path, data: PreparedSet, vae: Any, name: Path | str) -> np.ndarray:
    """Latents of all pictures of a set, computed once and kept in `path`.

    Parameters
    ----------
    name : of the VAE.

    Returns
    -------
    array of shape (n_pictures, 4, h, w), float16.
    """
    group = processes()
    with torch.no_grad(), group.main_process_first():
        vae.to(group.device, memory_format=torch.channels_last)
        latents = encoded_pictures(
            path,
            data.pictures(),
            lambda x: encode_latents(vae, x.to(group.device)),
            f"{data.folder.resolve()} by {name}",
        )
        vae.to("cpu", memory_format=torch.contiguous_format)
    return latents


def embed_pictures(path: Path, data: PreparedSet, clip: Path | str) -> np.ndarray:
    """CLIP's embeddings of all pictures of a set, of unit length, computed once and kept in `path`.

    Parameters
    ----------
    clip : name or folder.

    Returns
    -------
    array of shape (n_pictures, clip_dim), float16.

    Raises
    ------
    ScorerError
    """
    group = processes()
    with torch.no_grad(), group.main_process_first():
        encode = open_encoder(str(clip), group.device)
        return encoded_pictures(
            path,
            data.pictures(),
            lambda x: F.normalize(encode(x), dim=1),
            f"{data.folder.resolve()} by {clip}",
        )
