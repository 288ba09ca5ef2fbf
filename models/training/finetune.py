r"""Fine-tuning: L = L_SD + lambda L_clip, of encoder, conditioner and cross-attention.

    python -m models.training.finetune runs/eeg runs/vae/vae runs/clip/clip runs/unet/unet \
        runs/align runs/finetune

DreamDiffusion's third stage (arXiv 2306.16934): everything else of the U-Net, the VAE and
CLIP stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import nn

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.losses import clip_loss
from models.training.stage import Schedule, run_stage
from models.training.text_to_image import (
    DROPOUT,
    build_scheduler,
    encode_pictures,
    grid,
    sample,
    snr_weight,
)
from models.training.viewed import ViewedSet, augment


def cross_attention(unet: UNet2DConditionModel) -> list[nn.Parameter]:
    """The parameters of the U-Net's cross-attention and of the norms before it."""
    return [
        p
        for name, p in unet.named_parameters()
        if ".attn2." in name or (".norm2." in name and "transformer_blocks" in name)
    ]


def train(
    epochs: Path,
    vae_folder: Path,
    unet_folder: Path,
    clip: Path,
    aligned: Path,
    out: Path,
    schedule: Schedule,
    batch: int = 32,
    clip_weight: float = 1.0,
) -> None:
    """Fine-tune and save `eeg_encoder`, `conditioner` and `unet` to `out`."""
    data = ViewedSet(epochs, clip)
    vae = AutoencoderTiny.from_pretrained(vae_folder)
    unet = UNet2DConditionModel.from_pretrained(unet_folder).requires_grad_(False)
    encoder = EEGEncoder.from_pretrained(aligned / "eeg_encoder")
    conditioner = EEGConditioner.from_pretrained(aligned / "conditioner")
    out.mkdir(parents=True, exist_ok=True)
    cache = out / "latents.pt"
    if not cache.is_file():
        torch.save(encode_pictures(vae, data.pictures), cache)
    latents = torch.load(cache, weights_only=True)
    scheduler = build_scheduler()
    attention = cross_attention(unet)
    for parameter in attention:
        parameter.requires_grad_(True)
    parts = nn.ModuleDict({"eeg_encoder": encoder, "conditioner": conditioner, "unet": unet})
    trained = [*encoder.parameters(), *conditioner.parameters(), *attention]

    def loss_of_step(_step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        b = data.draw(generator, batch)
        # Blank epochs teach alignment what nothing is; here there is no picture to paint.
        keep = b.is_seen
        x = latents[b.image_id[keep]].float()
        n = len(x)
        noise = torch.randn(x.shape, generator=generator)
        t = torch.randint(1000, (n,), generator=generator)
        has_condition = torch.rand(n, 1, generator=generator) >= DROPOUT
        with torch.autocast("cpu", torch.bfloat16):
            context, time_embedding, embeds = conditioner(encoder(augment(b, generator)))
            noise_pred = unet(
                scheduler.add_noise(x, noise, t),
                t,
                context[keep] * has_condition[:, :, None],
                class_labels=time_embedding[keep] * has_condition,
            ).sample
        error = (noise_pred.float() - noise).square().mean((1, 2, 3))
        l_sd = (snr_weight(scheduler, t) * error).mean()
        l_clip = clip_loss(b.image_embeds, embeds.float())
        return {"loss": l_sd + clip_weight * l_clip, "sd": l_sd, "clip": l_clip}

    @torch.no_grad()
    def look(_step: int) -> None:
        locked = data.is_locked.nonzero()[:20, 0]
        b = data.take(locked)
        context, time_embedding, _ = conditioner(encoder(b.eeg))
        seen = data.pictures.rows("images", b.image_id).numpy()
        painted = sample(unet, vae, context, time_embedding)
        rows = [np.concatenate(p[i : i + 10], 1) for i in (0, 10) for p in (seen, painted)]
        grid(np.stack(rows), 1).save(out / "samples.png")

    run_stage(out, {"parts": parts}, trained, loss_of_step, schedule, averaged="parts", look=look)
    look(schedule.steps)
    encoder.save_pretrained(out / "eeg_encoder")
    conditioner.save_pretrained(out / "conditioner")
    unet.save_pretrained(out / "unet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("epochs", "vae", "clip", "unet", "aligned", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=2e-4)
    a = parser.parse_args()
    schedule = Schedule(a.steps, a.lr)
    train(a.epochs, a.vae, a.unet, a.clip, a.aligned, a.out, schedule)


if __name__ == "__main__":
    main()
