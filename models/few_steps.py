"""Few steps for Stable Diffusion 1.5: what others have distilled, put into a bundle.

LCM-LoRA (Luo et al. 2023, arXiv 2311.05556) lets the U-Net paint in 1 to 4 steps without
guidance; TAESD (github.com/madebyollin/taesd) decodes with a fortieth of the VAE's weights.
Both were made for SD 1.5's own weights: what they do to a U-Net whose cross-attention was
fine-tuned on EEG is to be measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from diffusers import AutoencoderTiny, LCMScheduler, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin

from models.errors import BundleError
from models.pipeline import EEGToImagePipeline, first_line

T = TypeVar("T")


def _load(what: str, name: str, load: Callable[[], T]) -> T:
    try:
        return load()
    # diffusers, peft and the Hub raise whatever their inner libraries do.
    except Exception as error:
        raise BundleError(
            f"{what} {name} cannot be taken ({first_line(error)}). Give a folder that holds one "
            "for this bundle's networks, or its name on the Hub."
        ) from error


def fuse_lcm_lora(pipeline: EEGToImagePipeline, lora: str) -> None:
    """Add a LoRA to the U-Net's weights, and let LCM's scheduler sample.

    Parameters
    ----------
    pipeline : changed in place.
    lora : folder, file or name on the Hub, as latent-consistency/lcm-lora-sdv1-5.

    Raises
    ------
    BundleError
        The bundle is distilled already, or the LoRA is missing, damaged or of another U-Net.
    """
    if isinstance(pipeline.scheduler, LCMScheduler):
        raise BundleError(
            "The bundle paints in few steps already (LCMScheduler). Leave --lora out, or give "
            "the bundle that it was distilled from."
        )
    unet: UNet2DConditionModel = pipeline.unet

    def fuse() -> tuple[int, int]:
        before = {name: p.clone() for name, p in unet.named_parameters()}
        tensors, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(lora)
        StableDiffusionLoraLoaderMixin.load_lora_into_unet(tensors, alphas, unet)
        unet.fuse_lora(safe_fusing=True)
        unet.unload_lora()
        n_layers = sum(name.endswith(("lora_A.weight", "lora.down.weight")) for name in tensors)
        changed = [not torch.equal(p, before[name]) for name, p in unet.named_parameters()]
        return n_layers, sum(changed)

    # peft passes over what it finds no place for.
    n_layers, n_changed = _load("The LoRA", lora, fuse)
    if n_changed < max(1, n_layers):
        raise BundleError(
            f"The LoRA {lora} is for {n_layers} layers, of which this bundle's U-Net has "
            f"{n_changed}. Give one that was made for Stable Diffusion 1.5."
        )
    pipeline.register_modules(scheduler=LCMScheduler.from_config(pipeline.scheduler.config))


def replace_vae(pipeline: EEGToImagePipeline, name: str) -> None:
    """Take TAESD, or another small autoencoder of the same latents, in the VAE's place.

    Parameters
    ----------
    pipeline : changed in place.
    name : folder, or name on the Hub, as madebyollin/taesd.

    Raises
    ------
    BundleError
        It is missing, damaged or of other latents.
    """
    vae = _load(
        "The autoencoder",
        name,
        lambda: AutoencoderTiny.from_pretrained(name, use_safetensors=True),
    )
    wanted, shrinks = pipeline.unet.config.in_channels, _shrinks(pipeline)
    found, by = vae.config.latent_channels, 2 ** (len(vae.config.decoder_block_out_channels) - 1)
    if (found, by) != (wanted, shrinks):
        raise BundleError(
            f"The autoencoder {name} has latents of {found} channels at a {by}th of the side; "
            f"this bundle paints {wanted} at a {shrinks}th. Give one that was made for it."
        )
    pipeline.register_modules(vae=vae.to(pipeline.unet.device, pipeline.unet.dtype).eval())


def _shrinks(pipeline: EEGToImagePipeline) -> int:
    config = pipeline.vae.config
    widths = config.get("decoder_block_out_channels") or config.block_out_channels
    return int(2 ** (len(widths) - 1))
