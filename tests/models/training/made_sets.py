"""Small prepared sets and networks of the real classes, made by the tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

N_CHANNELS, N_TIMES, PIXELS = 4, 64, 32
NAMES = ("red", "green", "blue", "grey")
COLOURS = torch.tensor([[220, 30, 30], [30, 200, 30], [30, 30, 220], [128, 128, 128]])


def composition(label: int) -> dict[str, float]:
    """What a picture of `make_prepared_set` looks like."""
    is_grey = NAMES[label] == "grey"
    return {
        "hue": label / 3,
        "saturation": 0.0 if is_grey else 0.86,
        "value": 0.5 if is_grey else 0.86,
        "size": 0.5 + 0.1 * label,
        "x": 0.3 + 0.1 * label,
        "y": 0.7 - 0.1 * label,
    }


def make_prepared_set(folder: Path, n: int = 64, n_runs: int = 4, seed: int = 0) -> Path:
    """Pictures of one colour each, and epochs in which channel `label` is loud."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(parents=True)
    label = torch.randint(len(NAMES), (n,), generator=generator)
    noise = torch.randint(-20, 20, (n, PIXELS, PIXELS, 3), generator=generator)
    images = (COLOURS[label][:, None, None] + noise).clamp(0, 255).to(torch.uint8)
    save_file({"images": images, "label": label}, folder / "pictures-00000.safetensors")
    (folder / "pictures.json").write_text(json.dumps([NAMES[c] for c in label.tolist()]))
    (folder / "compositions.json").write_text(json.dumps([composition(c) for c in label.tolist()]))
    eeg = 0.5 * torch.randn(n, N_CHANNELS, N_TIMES, generator=generator)
    rhythm = torch.sin(torch.arange(N_TIMES) / 3 + 6.3 * torch.rand(n, 1, generator=generator))
    eeg[torch.arange(n), label] += 2 * rhythm
    columns = {
        "eeg": eeg,
        "label": label,
        "image_id": torch.arange(n),
        "subject": torch.zeros(n, dtype=torch.int64),
        "session": torch.zeros(n, dtype=torch.int64),
        "run": torch.arange(n) * n_runs // n,
        "t_onset": torch.arange(n, dtype=torch.float64),
        "is_locked": torch.ones(n, dtype=torch.int64),
        "position": torch.arange(n) % (n // n_runs),
        "split": -torch.ones(n, dtype=torch.int64),
    }
    save_file(columns, folder / "epochs-00000.safetensors")
    spec = {
        "honesty": "simulated",
        "concepts": list(NAMES),
        "epoch_spec": {"ch_names": ["O1", "O2", "P3", "P4"], "n_times": N_TIMES, "sfreq": 64.0},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def make_base(folder: Path, seed: int = 0) -> Path:
    """Stands for Stable Diffusion 1.5: VAE, U-Net and noise schedule with random weights."""
    torch.manual_seed(seed)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ).save_pretrained(folder / "vae")
    UNet2DConditionModel(
        sample_size=PIXELS // 8,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    ).save_pretrained(folder / "scheduler")
    return folder


def make_clip(folder: Path, seed: int = 0) -> Path:
    """Stands for CLIP ViT-L/14: an image encoder with random weights."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    normalisation = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(normalisation))
    return folder
