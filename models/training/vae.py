"""The scale model's VAE: pictures of 128x128 to latents of 16x16x4 (factor 8).

python -m models.training.vae runs/pictures runs/vae
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from models.training.prepared import PreparedSet, images_to_tensor
from models.training.stage import Schedule, run_stage

# Standard deviation of the noise on latents of about unit size.
LATENT_NOISE = 0.1


def build_vae(width: int = 48, latent_channels: int = 4) -> AutoencoderTiny:
    """An autoencoder of TAESD's kind: no normalisation, so colours are learnt quickly."""
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
        latent_channels=latent_channels,
    )


def reconstruction_loss(images: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """L1 on pixels, on the mean colour of 8x8 blocks, and on the differences of neighbours.

    The blocks teach the colours within hundreds of steps, which pixels alone take
    thousands for; the differences keep outlines.
    """
    loss = F.l1_loss(decoded, images)
    loss = loss + 4 * F.l1_loss(F.avg_pool2d(decoded, 8), F.avg_pool2d(images, 8))
    for axis in (2, 3):
        loss = loss + F.l1_loss(decoded.diff(dim=axis), images.diff(dim=axis))
    return loss


def train(
    pictures: Path,
    out: Path,
    schedule: Schedule,
    batch: int = 16,
    start: Path | None = None,
    width: int = 48,
    latent_channels: int = 4,
) -> None:
    """Train the VAE and save it to `out / "vae"`, its latents scaled to unit variance.

    With `start`, an already trained VAE, only the decoder learns on: the latents stay
    what a U-Net was trained on.
    """
    images = PreparedSet(pictures).pictures()
    torch.manual_seed(schedule.seed)
    vae = AutoencoderTiny.from_pretrained(start) if start else build_vae(width, latent_channels)
    vae.encoder.requires_grad_(start is None)

    def draw(generator: torch.Generator, n: int) -> torch.Tensor:
        index = torch.randint(len(images), (n,), generator=generator)
        return images_to_tensor(images.rows("images", index))

    def loss_of_step(step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        # Quarter crops cost a quarter; whole pictures at the end, because the group
        # norms see other statistics there.
        if step < 0.8 * schedule.steps:
            x = draw(generator, batch)
            side = x.shape[-1] // 2
            top, left = torch.randint(side + 1, (2,), generator=generator).tolist()
            x = x[..., top : top + side, left : left + side]
        else:
            x = draw(generator, batch // 4)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encoder(x)
            # Noise keeps neighbouring latents alike, as a VAE's posterior does.
            noisy = latents + LATENT_NOISE * torch.randn_like(latents)
            decoded = vae.decoder(noisy).float()
        reconstruction = reconstruction_loss(x, decoded)
        size = latents.float().square().mean()
        return {
            "loss": reconstruction + 1e-3 * size,
            "l1": F.l1_loss(decoded, x),
            "size": size,
        }

    trained = [p for p in vae.parameters() if p.requires_grad]
    run_stage(out, {"vae": vae}, trained, loss_of_step, schedule, averaged="vae")
    if start is None:
        with torch.no_grad():
            latents = vae.encode(draw(torch.Generator().manual_seed(1), 256)).latents
        vae.register_to_config(scaling_factor=round(float(1 / latents.std()), 5))
    vae.save_pretrained(out / "vae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--start", type=Path, help="train only the decoder of this VAE on")
    arguments = parser.parse_args()
    train(
        arguments.pictures,
        arguments.out,
        Schedule(steps=arguments.steps, lr=arguments.lr),
        arguments.batch,
        arguments.start,
    )


if __name__ == "__main__":
    main()
