"""From the parts of a bundle to the names of DreamDiffusion's own code (arXiv 2306.16934)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.errors import CheckpointError
from models.masked_autoencoder import MaskedAutoencoder
from models.pipeline import EEGToImagePipeline
from models.published import pixels_per_latent_of, with_cls_row
from models.published_file import Sizes
from models.published_names import (
    CONDITIONER,
    ENCODER,
    conditioner_names,
    encoder_names,
    masked_autoencoder_names,
    unet_names,
    vae_names,
)

Tensors = dict[str, torch.Tensor]


def pipeline_to_reference(pipeline: EEGToImagePipeline) -> tuple[Tensors, Sizes]:
    """The tensors of a bundle by the names of a fine-tuned checkpoint, and what they do not tell.

    Raises
    ------
    CheckpointError
        The bundle's U-Net or VAE is not of SD 1.5's structure, or it paints by an image adapter.
    """
    if pipeline.image_adapter is not None:
        raise CheckpointError(
            "The bundle paints by an image adapter, which has no counterpart in the reference. "
            "Such a bundle cannot be exported."
        )
    unet, vae, encoder = pipeline.unet, pipeline.vae, pipeline.eeg_encoder
    _expect_sd_1_5(unet, UNet2DConditionModel, norm_num_groups=32, use_linear_projection=False)
    _expect_sd_1_5(vae, AutoencoderKL, norm_num_groups=32)
    tensors = conditioning_to_reference(encoder, pipeline.conditioner)
    tensors |= _renamed(unet, unet_names(unet))
    of_vae = _renamed(vae, vae_names(vae))
    for name, value in of_vae.items():
        # The VAE's attention: a matrix here, a convolution of width one there.
        is_matrix = ".attn_1." in name and value.ndim == 2
        tensors[name] = value[:, :, None, None] if is_matrix else value
    return tensors, Sizes(
        num_heads=encoder.config.num_heads,
        unet_num_heads=unet.config.attention_head_dim,
        img_size=unet.config.sample_size * pixels_per_latent_of(vae),
    )


def conditioning_to_reference(encoder: EEGEncoder, conditioner: EEGConditioner) -> Tensors:
    """Encoder and conditioner by the names of a fine-tuned checkpoint.

    The two tokens that the reference's encoder has and never uses are zero.
    """
    token = encoder.pos_embed.new_zeros(1, 1, encoder.config.embed_dim)
    tensors = {
        ENCODER + "cls_token": token,
        ENCODER + "mask_token": token.clone(),
        ENCODER + "pos_embed": with_cls_row(encoder.pos_embed),
    }
    tensors |= _renamed(encoder, encoder_names(encoder))
    tensors |= _renamed(conditioner, conditioner_names(conditioner))
    if conditioner.config.clip_from == "context":
        tensors |= _head_on_tokens(conditioner)
    return tensors


def masked_autoencoder_to_reference(model: MaskedAutoencoder) -> Tensors:
    """The tensors by the names of a checkpoint of pre-training.

    Raises
    ------
    CheckpointError
        The model has no cls token, without which the reference's does not run.
    """
    if model.cls_token is None:
        raise CheckpointError(
            "This masked autoencoder has no cls token, without which the reference's does not "
            "run. Only one that was pre-trained with a cls token can be exported."
        )
    return {
        "pos_embed": with_cls_row(model.encoder.pos_embed),
        "decoder_pos_embed": model.decoder_pos_embed,
        **_renamed(model, masked_autoencoder_names(model)),
    }


def _head_on_tokens(conditioner: EEGConditioner) -> Tensors:
    """The paper's h, which reads the context, as the same function of the encoder's tokens.

    All that lies between tokens and CLIP embedding is affine, so it is one weighted sum over
    tokens and one matrix: what the reference's h is.
    """
    w = {name: value.double() for name, value in conditioner.state_dict().items()}
    pool = w["mapping.maxpool.weight"][..., 0]  # (1, n_context)
    second, first = w["channel_mapper.1.weight"][..., 0], w["channel_mapper.0.weight"][..., 0]
    bias_of_tokens = second @ w["channel_mapper.0.bias"] + w["channel_mapper.1.bias"]
    bias_of_dims = pool.sum() * w["dim_mapper.bias"] + w["mapping.maxpool.bias"]
    head = {
        "maxpool.weight": (pool @ second @ first)[..., None],
        "maxpool.bias": pool @ bias_of_tokens,
        "fc.weight": w["mapping.fc.weight"] @ w["dim_mapper.weight"],
        "fc.bias": w["mapping.fc.weight"] @ bias_of_dims + w["mapping.fc.bias"],
    }
    dtype = conditioner.mapping.fc.weight.dtype
    return {f"{CONDITIONER}mapping.{name}": value.to(dtype) for name, value in head.items()}


def _renamed(model: nn.Module, names: Mapping[str, str]) -> Tensors:
    return {names[name]: value for name, value in model.state_dict().items()}


def _expect_sd_1_5(part: Any, kind: Any, **config: object) -> None:
    """The reference's code can be set to other widths, not to another class or these settings."""
    if not isinstance(part, kind) or any(part.config[k] != v for k, v in config.items()):
        raise CheckpointError(
            f"The bundle's {type(part).__name__} has no counterpart in the reference, which has "
            f"Stable Diffusion 1.5's {kind.__name__}. Such a bundle cannot be exported."
        )
