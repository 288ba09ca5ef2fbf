"""Checkpoints as DreamDiffusion's code writes them: its names and structure, less width."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.masked_autoencoder import MaskedAutoencoder
from models.pipeline import EEGToImagePipeline
from models.published import build_scheduler
from models.published_export import masked_autoencoder_to_reference, pipeline_to_reference

CONFIG = {"num_heads": 4, "decoder_num_heads": 2, "img_size": 64, "crop_ratio": 0.2, "HW": None}
N_CONTEXT, CROSS, TIME = 77, 24, 96


def narrow_unet(**config: Any) -> Any:
    """SD 1.5's U-Net, a tenth as wide."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64, 64, 96),
        cross_attention_dim=CROSS,
        time_embedding_dim=TIME,
        attention_head_dim=8,
        **config,
    )


def narrow_parts(n_channels: int = 128, n_times: int = 512, depth: int = 2) -> dict[str, Any]:
    """The parts of a fine-tuned model with random weights, those that begin at zero too."""
    torch.manual_seed(0)
    encoder = EEGEncoder(n_channels, n_times, 4, 32, depth, CONFIG["num_heads"], 1.0)
    conditioner = EEGConditioner(
        encoder.n_tokens, 32, N_CONTEXT, CROSS, TIME, CROSS, clip_from="tokens"
    )
    torch.nn.init.normal_(conditioner.time_mapper[2].weight)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=2,
        sample_size=64,
        scaling_factor=0.18215,
    )
    return {
        "vae": vae,
        "unet": narrow_unet(class_embed_type="identity"),
        "scheduler": build_scheduler(),
        "eeg_encoder": encoder,
        "conditioner": conditioner,
    }


def finetuned_tensors(parts: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """`model_state_dict` of a fine-tuned checkpoint, with all that an importer must drop."""
    tensors, _ = pipeline_to_reference(EEGToImagePipeline(**parts))
    for name in ("cls_token", "mask_token"):
        tensors[f"cond_stage_model.mae.{name}"] = torch.randn(1, 1, 32)
    tower = "image_embedder.transformer."
    tensors[tower + "vision_model.embeddings.class_embedding"] = torch.randn(8)
    tensors[tower + "vision_model.encoder.layers.0.layer_norm2.weight"] = torch.ones(8)
    tensors[tower + "visual_projection.weight"] = torch.randn(8, 8)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    bar = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1), bar[:-1]])
    variance = betas * (1 - before) / (1 - bar)
    schedule = {
        "betas": betas,
        "alphas_cumprod": bar,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": bar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - bar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - bar).log(),
        "sqrt_recip_alphas_cumprod": bar.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / bar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - bar),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - bar),
    }
    return tensors | {name: value.float() for name, value in schedule.items()}


def pretraining_tensors() -> dict[str, torch.Tensor]:
    """`model` of a checkpoint of pre-training."""
    torch.manual_seed(0)
    encoder = EEGEncoder(8, 64, 4, 32, 2, CONFIG["num_heads"], 1.0)
    return masked_autoencoder_to_reference(
        MaskedAutoencoder(encoder, 16, 1, CONFIG["decoder_num_heads"], has_cls_token=True)
    )


def save(path: Path, content: dict[str, Any], class_name: str = "Config_Generative_Model") -> Path:
    """Write `content` with a `config` that is an object of the authors' own class."""
    kind = type(class_name, (), {"__module__": "config"})
    module = ModuleType("config")
    setattr(module, class_name, kind)
    config = kind()
    config.__dict__.update(CONFIG)
    assert "config" not in sys.modules
    sys.modules["config"] = module
    try:
        torch.save({**content, "config": config}, path)
    finally:
        del sys.modules["config"]
    return path


def save_finetuned(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    return save(path, {"model_state_dict": dict(tensors), "state": torch.get_rng_state()})


def save_pretraining(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    # A state that a GradScaler and an optimiser leave.
    rest = {"optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "scaler": {}, "epoch": 3}
    return save(path, {"model": dict(tensors), **rest}, "Config_MBM_EEG")
