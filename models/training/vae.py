"""The scale model's VAE: pictures of 128x128 to latents of 16x16x4 (factor 8)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn

from models.training.base import load_stage
from models.training.prepared import PreparedSet, Shards, images_to_tensor
from models.training.scale_config import VaeConfig
from models.training.stage import Rows, processes, run_stage

# Standard deviation of the noise on latents of about unit size.
LATENT_NOISE = 0.1


# Pictures and decoded ones, (n, 3, H, W), to what is minimised.
Error = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def build_vae() -> AutoencoderTiny:
    """An autoencoder of TAESD's kind: no normalisation, so colours are learnt quickly."""
    return AutoencoderTiny(
        encoder_block_out_channels=(48, 48, 48, 48),
        decoder_block_out_channels=(48, 48, 48, 48),
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(2, 2, 2, 1),
        latent_channels=4,
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


class VaeTask(nn.Module):
    """Learns pictures.

    Parameters
    ----------
    vae : that is trained.
    images : "images" (n, H, W, 3) uint8.
    error : from pictures and decoded ones to what is minimised.
    crop : share of the side that crops have. Quarter crops cost a quarter.
    """

    def __init__(
        self,
        vae: AutoencoderTiny,
        images: Shards,
        error: Error = reconstruction_loss,
        crop: float = 0.5,
    ) -> None:
        super().__init__()
        self.vae, self._images, self._error, self._crop = vae, images, error, crop

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Pictures, and where each is cropped."""
        return {
            "index": torch.randint(len(self._images), (batch,), generator=generator),
            "corner": torch.rand(batch, 2, generator=generator),
        }

    def load(self, rows: Rows) -> Rows:
        """Crops in -1 to 1."""
        x = images_to_tensor(self._images.rows("images", rows["index"]))
        side = round(self._crop * x.shape[-1])
        corners = (rows["corner"] * (x.shape[-1] - side + 1)).long().tolist()
        crops = [
            picture[:, top : top + side, left : left + side]
            for picture, (top, left) in zip(x, corners, strict=True)
        ]
        return {"x": torch.stack(crops)}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """Reconstruction of noisy latents."""
        x = rows["x"]
        latents = self.vae.encoder(x)
        # Noise keeps neighbouring latents alike, as a VAE's posterior does.
        noisy = latents + LATENT_NOISE * torch.randn_like(latents)
        decoded = self.vae.decoder(noisy).float()
        size = latents.float().square().mean()
        return {
            "loss": self._error(x, decoded) + 1e-3 * size,
            "l1": F.l1_loss(decoded, x),
            "size": size,
        }


def load_vae(folder: Path | str) -> AutoencoderTiny:
    """A trained VAE; `load_part` for the errors."""
    remedy = "Give --vae the folder `vae` that `phosphene scale-model vae` wrote."
    vae: AutoencoderTiny = load_stage(AutoencoderTiny, folder, "The VAE", remedy)
    return vae


def train(
    pictures: Path,
    out: Path,
    config: VaeConfig,
    say: Callable[[str], None] = print,
    build: Callable[[], AutoencoderTiny] = build_vae,
    error: Error = reconstruction_loss,
) -> None:
    """Train the VAE and save it to `out / "vae"`, its latents scaled to unit variance.

    Parameters
    ----------
    pictures : folder of a prepared set with pictures.
    out : folder of the stage.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    images = PreparedSet(pictures).pictures()
    torch.manual_seed(config.seed)
    vae = build()
    run_stage(out, VaeTask(vae, images, error), config, say, identity={"pictures": str(pictures)})
    if not processes().is_main_process:
        return
    index = torch.randint(len(images), (256,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        pixels = images_to_tensor(images.rows("images", index)).to(vae.device)
        latents = vae.encode(pixels).latents
    vae.register_to_config(scaling_factor=round(float(1 / latents.std()), 5))
    vae.save_pretrained(out / "vae")
    say(f"{out / 'vae'} holds the VAE.")
