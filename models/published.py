"""DreamDiffusion's published checkpoints (arXiv 2306.16934) as this program's parts.

Sizes are read from the tensors. Every tensor of a checkpoint is used, is compared with what
this program computes itself, or stands in `DROPPED`; anything else is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.errors import CheckpointError
from models.masked_autoencoder import MaskedAutoencoder
from models.pipeline import EEGToImagePipeline
from models.published_file import Sizes
from models.published_names import (
    CONDITIONER,
    ENCODER,
    TIME,
    UNET,
    VAE,
    conditioner_names,
    encoder_names,
    masked_autoencoder_names,
    unet_names,
    vae_names,
)
from models.published_state import UnusedTensors

DROPPED = (
    # The encoder of fine-tuning never uses them.
    "cond_stage_model.mae.cls_token",
    "cond_stage_model.mae.mask_token",
    # CLIP's image tower, which the loss alone needs.
    "image_embedder.*",
    # The noise schedule, which the scheduler computes from `betas`, and unused weights of a loss.
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
    "logvar",
)
"""What of a fine-tuned checkpoint is left out on purpose; `*` stands for anything."""


def build_scheduler() -> Any:
    """The reference's sampler, PLMS, on the noise schedule of SD 1.5."""
    return PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def pipeline_from_reference(
    tensors: Mapping[str, torch.Tensor], sizes: Sizes
) -> EEGToImagePipeline:
    """A fine-tuned checkpoint as a pipeline.

    Parameters
    ----------
    tensors : by the reference's names.
    sizes : what no tensor tells.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over, or of another shape than the others ask for.
    """
    unused = UnusedTensors(tensors)
    encoder, conditioner = conditioning_from_reference(unused, sizes)
    vae = _vae(unused, sizes)
    unet = _unet(unused, sizes, pixels_per_latent=pixels_per_latent_of(vae))
    scheduler = build_scheduler()
    if unused.has("betas"):
        unused.expect_computed("betas", scheduler.betas)
    unused.drop(DROPPED)
    unused.expect_none()
    return EEGToImagePipeline(vae, unet, scheduler, encoder, conditioner)


def conditioning_from_reference(
    unused: UnusedTensors, sizes: Sizes
) -> tuple[EEGEncoder, EEGConditioner]:
    """Encoder and conditioner of a fine-tuned checkpoint; their tensors are taken out.

    Raises
    ------
    CheckpointError
        A tensor is missing, or of another shape than the others ask for.
    """
    encoder = _encoder(unused, sizes, ENCODER)
    unused.fill(encoder, encoder_names(encoder))
    cross_attention_dim, embed_dim = unused.shape(CONDITIONER + "dim_mapper.weight", 2)
    with init_empty_weights():
        conditioner: EEGConditioner = EEGConditioner(
            encoder.n_tokens,
            embed_dim,
            n_context=unused.shape(CONDITIONER + "channel_mapper.1.weight", 3)[0],
            cross_attention_dim=cross_attention_dim,
            time_embed_dim=unused.shape(TIME + "2.weight", 2)[0],
            clip_dim=unused.shape(CONDITIONER + "mapping.fc.weight", 2)[0],
            clip_from="tokens",
        )
    unused.fill(conditioner, conditioner_names(conditioner))
    return encoder, conditioner


def masked_autoencoder_from_reference(
    tensors: Mapping[str, torch.Tensor], sizes: Sizes
) -> MaskedAutoencoder:
    """A checkpoint of pre-training; parameters and errors as `pipeline_from_reference`."""
    unused = UnusedTensors(tensors)
    encoder = _encoder(unused, sizes, prefix="")
    dim = unused.shape("decoder_embed.weight", 2)[0]
    _expect_heads(sizes.decoder_num_heads, dim, "the decoder")
    with init_empty_weights():
        model = MaskedAutoencoder(
            encoder,
            decoder_embed_dim=dim,
            decoder_depth=unused.count("decoder_blocks."),
            decoder_num_heads=sizes.decoder_num_heads,
            has_cls_token=True,
        )
    unused.expect_computed("decoder_pos_embed", model.decoder_pos_embed)
    unused.fill(model, masked_autoencoder_names(model))
    unused.expect_none()
    return model


def _encoder(unused: UnusedTensors, sizes: Sizes, prefix: str) -> EEGEncoder:
    """An encoder of the right sizes, without weights."""
    dim, in_channels, patch_size = unused.shape(prefix + "patch_embed.proj.weight", 3)
    n_tokens = unused.shape(prefix + "pos_embed", 3)[1] - 1  # the first is the cls token's
    _expect_heads(sizes.num_heads, dim, "the EEG encoder")
    with init_empty_weights():
        encoder: EEGEncoder = EEGEncoder(
            in_channels,
            n_tokens * patch_size,
            patch_size,
            dim,
            depth=unused.count(prefix + "blocks."),
            num_heads=sizes.num_heads,
            mlp_ratio=unused.shape(prefix + "blocks.0.mlp.fc1.weight", 2)[0] / dim,
        )
    unused.expect_computed(prefix + "pos_embed", with_cls_row(encoder.pos_embed))
    return encoder


def _unet(unused: UnusedTensors, sizes: Sizes, pixels_per_latent: int) -> Any:
    if sizes.img_size % pixels_per_latent:
        raise CheckpointError(
            f"Pictures of {sizes.img_size} pixels cannot be painted: one latent is "
            f"{pixels_per_latent} pixels wide. Give a multiple of that, as 512."
        )
    n_blocks = unused.count(UNET + "input_blocks.")
    halving = [i for i in range(n_blocks) if unused.has(f"{UNET}input_blocks.{i}.0.op.")]
    row = halving[0] if halving else n_blocks
    first = [f"{UNET}input_blocks.{i}." for i in range(1, n_blocks, row)]  # of each level
    attends = [unused.has(block + "1.") for block in first]
    channels = [unused.shape(block + "0.out_layers.3.weight", 4)[0] for block in first]
    for dim in channels:
        _expect_heads(sizes.unet_num_heads, dim, "a level of the U-Net")
    middle = UNET + "middle_block.1.transformer_blocks."
    with init_empty_weights():
        unet = UNet2DConditionModel(
            sample_size=sizes.img_size // pixels_per_latent,
            in_channels=unused.shape(UNET + "input_blocks.0.0.weight", 4)[1],
            out_channels=unused.shape(UNET + "out.2.weight", 4)[0],
            down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
            up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]],
            block_out_channels=channels,
            layers_per_block=row - 1,
            transformer_layers_per_block=unused.count(middle),
            cross_attention_dim=unused.shape(middle + "0.attn2.to_k.weight", 2)[1],
            time_embedding_dim=unused.shape(UNET + "time_embed.0.weight", 2)[0],
            # diffusers means the number of heads by this.
            attention_head_dim=sizes.unet_num_heads,
            # Adds the EEG's time embedding to that of the step.
            class_embed_type="identity",
        )
    unused.fill(unet, unet_names(unet))
    return unet


def _vae(unused: UnusedTensors, sizes: Sizes) -> Any:
    n_levels = unused.count(VAE + "encoder.down.")
    first = [f"{VAE}encoder.down.{level}.block.0." for level in range(n_levels)]
    with init_empty_weights():
        vae = AutoencoderKL(
            in_channels=unused.shape(VAE + "encoder.conv_in.weight", 4)[1],
            out_channels=unused.shape(VAE + "decoder.conv_out.weight", 4)[0],
            down_block_types=["DownEncoderBlock2D"] * n_levels,
            up_block_types=["UpDecoderBlock2D"] * n_levels,
            block_out_channels=[unused.shape(b + "conv1.weight", 4)[0] for b in first],
            layers_per_block=unused.count(VAE + "encoder.down.0.block."),
            latent_channels=unused.shape(VAE + "post_quant_conv.weight", 4)[0],
            sample_size=sizes.img_size,
            scaling_factor=0.18215,
        )
    unused.fill(vae, vae_names(vae))
    return vae


def with_cls_row(positions: torch.Tensor) -> torch.Tensor:
    """Positions (1, n_tokens, dim) with the reference's row of zeros for a cls token."""
    return torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)


def pixels_per_latent_of(vae: Any) -> int:
    """By how much the VAE shrinks a picture's sides."""
    return 1 << (len(vae.config.block_out_channels) - 1)


def _expect_heads(n_heads: int, dim: int, whose: str) -> None:
    if dim % n_heads:
        raise CheckpointError(
            f"{n_heads} attention heads do not divide the width of {whose}, {dim}. No tensor tells "
            "how many there are: give the right number."
        )
