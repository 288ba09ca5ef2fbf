"""A bundle of the real classes with random weights, small enough to make in a test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, LCMScheduler, UNet2DConditionModel

from acquisition.simulated_subject import CH_NAMES
from acquisition.stimuli import concepts
from models.concepts import ConceptTable
from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.pipeline import EEGToImagePipeline


@dataclass(frozen=True)
class TinySizes:
    """Sizes of the tiny bundle."""

    n_channels: int = 32
    n_times: int = 256
    embed_dim: int = 16
    context: int = 8
    cross: int = 16
    latent_side: int = 4
    clip: int = 8


TINY = TinySizes()


def tiny_parts(sizes: TinySizes = TINY) -> dict[str, Any]:
    """The components, with random weights from a fixed seed."""
    torch.manual_seed(0)
    encoder = EEGEncoder(sizes.n_channels, sizes.n_times, 16, sizes.embed_dim, 1, 2, 1.0)
    names = [c.name for c in concepts()]
    return {
        "eeg_encoder": encoder,
        "conditioner": EEGConditioner(
            encoder.n_tokens, sizes.embed_dim, sizes.context, sizes.cross, 64, sizes.clip
        ),
        "unet": UNet2DConditionModel(
            sample_size=sizes.latent_side,
            block_out_channels=(16, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=sizes.cross,
            attention_head_dim=2,
            norm_num_groups=4,
            class_embed_type="identity",
        ),
        "vae": AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
        ),
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        ),
        "concepts": ConceptTable(names, sizes.clip),
    }


def make_tiny_bundle(folder: Path, sizes: TinySizes = TINY) -> Path:
    """Write a bundle to `folder`; its pictures are noise."""
    EEGToImagePipeline(**tiny_parts(sizes)).save_pretrained(folder)
    spec = {"ch_names": list(CH_NAMES[: sizes.n_channels]), "n_times": sizes.n_times}
    (folder / "epoch_spec.json").write_text(json.dumps(spec))
    (folder / "painter.json").write_text(json.dumps({"num_inference_steps": 2}))
    return folder


def make_distilled_bundle(folder: Path, sizes: TinySizes = TINY) -> Path:
    """Write a bundle that paints in few steps, as `phosphene distill` writes them."""
    make_tiny_bundle(folder, sizes)
    parts = tiny_parts(sizes)
    parts["scheduler"] = LCMScheduler.from_config(
        parts["scheduler"].config, original_inference_steps=8, clip_sample=False
    )
    with torch.no_grad():
        # Random weights make much the same of all epochs: these tell them apart.
        parts["conditioner"].dim_mapper.weight *= 30
    EEGToImagePipeline(**parts).save_pretrained(folder)
    return folder
