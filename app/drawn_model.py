"""A small latent diffusion model of gratings, faces and houses, from drawn pictures.

It stands where Stable Diffusion 1.5 and CLIP stand in the paper, at 64x64 pixels, and is
trained by the scale model's own stages in about an hour on one slow core. Its VAE
halves the side twice instead of three times: three halvings left the high spatial frequency
grey.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from app.muse import CASES, PIXELS
from app.picture_shards import PictureShards
from models.training import clip, text_to_image, vae
from models.training.caption_painter import CaptionPainter
from models.training.scale_config import ClipConfig, TextToImageConfig, VaeConfig

N_PICTURES = 4000
CHANNELS = (64, 96, 128)
SAMPLER_STEPS = 20
# There are ten captions: most mixtures of them are of pictures that have nothing in common.
MIXED = 0.2
# One of these paints all EEG; mixtures of captions, one's share and that of another, choose it.
GUIDANCES = (1.0, 2.0, 3.0, 4.0)
SHARE = 0.6
N_MIXTURES = 20


def draw_pictures(out: Path, n: int = N_PICTURES, seed: int = 0) -> Path:
    """Draw varied pictures of all cases with captions, equally many of each, once."""
    if not (out / "spec.json").is_file():
        rng = np.random.default_rng(seed)
        kinds = [(case, i) for case in CASES.values() for i in range(len(case.names))]
        shards = PictureShards(out, PIXELS)
        for number in range(n):
            label = number % len(kinds)
            case, i = kinds[label]
            shards.append(case.draw(i, rng), label, case.captions[i])
        shards.flush()
        spec = {"kind": "drawn gratings, faces and houses", "pixels": PIXELS, "seed": seed}
        (out / "spec.json").write_text(json.dumps(spec, indent=2), encoding="utf-8")
    return out


def build_vae() -> AutoencoderTiny:
    """64x64 pictures to latents of 16x16x4."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
    )


def squared_error(images: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """On the scale of the other terms; absolute errors leave fine gratings grey for long."""
    return 4 * F.mse_loss(decoded, images)


def train_drawn_model(out: Path, steps: float = 1.0) -> tuple[Path, Path]:
    """Train VAE, CLIP and U-Net in `out`, each going on where it was stopped.

    Parameters
    ----------
    steps : factor on the length of all stages; for tests.

    Returns
    -------
    folders of the base model and of CLIP, as fine-tuning takes them.
    """
    pictures = draw_pictures(out / "pictures", max(40, round(steps * N_PICTURES)))

    def schedule(n: int, batch: int, lr: float) -> dict[str, Any]:
        n = max(2, round(steps * n))
        rates = {"lr": lr, "warmup": min(50, n // 2), "ema_decay": 0.99, "precision": "fp32"}
        return {"steps": n, "batch": batch, "save_every": 200, **rates}

    if not (out / "vae" / "vae" / "config.json").is_file():
        lessons = VaeConfig(**schedule(1500, 8, 3e-3))
        vae.train(pictures, out / "vae", lessons, build=build_vae, error=squared_error)
    if not (out / "clip" / "clip" / "preprocessor_config.json").is_file():
        clip.train(pictures, out / "clip", ClipConfig(**schedule(300, 48, 1e-3)))
    base = out / "unet" / "base"
    if not (base / "scheduler").is_dir():
        text_to_image.train(
            pictures,
            out / "unet",
            TextToImageConfig(**schedule(2400, 16, 1e-3), mixed=MIXED),
            out / "vae" / "vae",
            out / "clip" / "clip",
            channels=CHANNELS,
        )
    return base, out / "clip" / "clip"


def read_mixtures(
    out: Path, base: Path, clip: Path, n: int = N_MIXTURES
) -> dict[str, dict[str, float]]:
    """How many pictures of mixed captions show the weightier, by guidance and case, once.

    What EEG says is uncertain, and its context lies between captions; of whole captions every
    guidance paints what they say.

    Parameters
    ----------
    out : JSON file of the answer.
    n : mixtures in which a caption is the weightier.
    """
    if not out.is_file():
        found = {}
        painter, rng = CaptionPainter(base, clip), np.random.default_rng(0)
        for guidance in GUIDANCES:
            right = {}
            for name, case in CASES.items():
                told = np.repeat(np.arange(len(case.names)), n)
                other = (told + rng.integers(1, len(case.names), len(told))) % len(case.names)
                each = painter.encode(list(case.captions))
                context = SHARE * each[told] + (1 - SHARE) * each[other]
                painted = painter.paint(context, SAMPLER_STEPS, guidance, seed=0)
                read = np.stack([case.read(picture) for picture in painted])
                is_right = (read.argmax(1) == told) & (read.max(1) >= case.shown_from)
                right[name] = float(is_right.mean())
            found[f"{guidance:g}"] = right
        out.write_text(json.dumps(found, indent=2), encoding="utf-8")
    answer: dict[str, dict[str, float]] = json.loads(out.read_text(encoding="utf-8"))
    return answer


def choose_guidance(right: dict[str, dict[str, float]]) -> float:
    """The guidance with which most mixtures are read rightly, all cases alike; least of equals."""
    return float(max(right, key=lambda guidance: sum(right[guidance].values())))
