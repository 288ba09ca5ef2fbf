"""The scale model's decoder: sharp pictures from the latents of a VAE that stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from torch import nn
from transformers import CLIPModel

from models.errors import TrainingError
from models.training.base import encode_set
from models.training.clip import load_clip
from models.training.prepared import PreparedSet, Shards, images_to_tensor
from models.training.scale_config import DecoderConfig
from models.training.stage import Rows, processes, run_stage
from models.training.text_to_image import grid
from models.training.vae import LATENT_NOISE, load_vae, reconstruction_loss

# Pictures of a set that are decoded to be looked at.
SHOWN = 40
# Share of patches that count: objects cover few, and what blurs a face few of these.
WORST = 0.1


def replace_decoder(vae: AutoencoderTiny, width: int, blocks: tuple[int, ...]) -> AutoencoderTiny:
    """The same encoder with another decoder.

    Of the same width it begins with what the old one knows: a block that is new does nothing at
    first (but cut off what is negative, where it is the first of its size), and blocks that are too
    many are left out (Chen et al. 2016, Net2Net, arXiv 1511.05641).

    Parameters
    ----------
    width : channels of all its blocks; a picture costs about their square.
    blocks : on 16, 32, 64 and 128 pixels; each costs four times as much as one before.
    """
    shape = {"decoder_block_out_channels": (width,) * 4, "num_decoder_blocks": blocks}
    other: AutoencoderTiny = AutoencoderTiny.from_config(dict(vae.config) | shape)
    other.encoder.load_state_dict(vae.encoder.state_dict())
    if width != vae.config.decoder_block_out_channels[0]:
        return other
    known, new = vae.decoder.layers, other.decoder.layers
    new[0].load_state_dict(known[0].state_dict())
    for (old_blocks, old_end), (new_blocks, new_end) in zip(
        _stages(known), _stages(new), strict=True
    ):
        new_end.load_state_dict(old_end.state_dict())
        for number, block in enumerate(new_blocks):
            if number < len(old_blocks):
                block.load_state_dict(old_blocks[number].state_dict())
            else:
                for parameter in block.conv[-1].parameters():
                    nn.init.zeros_(parameter)
    return other


def _stages(layers: nn.Sequential) -> list[tuple[list[AutoencoderTinyBlock], nn.Conv2d]]:
    """Blocks of each size of picture, and the convolution behind them."""
    stages: list[tuple[list[AutoencoderTinyBlock], nn.Conv2d]] = []
    blocks: list[AutoencoderTinyBlock] = []
    for layer in list(layers)[1:]:
        if isinstance(layer, AutoencoderTinyBlock):
            blocks.append(layer)
        elif isinstance(layer, nn.Conv2d):
            stages.append((blocks, layer))
            blocks = []
    return stages


class PerceptualLoss(nn.Module):
    """How differently CLIP sees two pictures.

    Of each patch in each layer the squared distance of features of unit length, as Zhang et al.
    2018 (arXiv 1801.03924) compare those of other networks, over the patches of all pictures that
    differ most. It tells a blurred face from a face, which costs next to nothing in pixels.

    Parameters
    ----------
    clip : that was trained on pictures in -1 to 1; it stays as it is.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.vision = clip.vision_model.requires_grad_(False).eval()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Of pictures (n, 3, H, W) in -1 to 1; only `y` has a gradient."""
        with torch.no_grad():
            wanted = self._features(x)
        pairs = zip(self._features(y), wanted, strict=True)
        distances = torch.stack([(a - b).square().sum(-1).flatten() for a, b in pairs])
        return distances.topk(math.ceil(WORST * distances.shape[1])).values.mean()

    def _features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        seen = self.vision(pixel_values=pictures, output_hidden_states=True)
        return [F.normalize(x.float(), dim=-1) for x in seen.hidden_states[1:]]


class DecoderTask(nn.Module):
    """Learns to decode what a frozen encoder made of pictures.

    Parameters
    ----------
    vae : whose decoder is trained.
    images : "images" (n, H, W, 3) uint8.
    latents : of the images, (n, 4, h, w), of unit size.
    clip, weight : of `PerceptualLoss`.
    """

    def __init__(
        self,
        vae: AutoencoderTiny,
        images: Shards,
        latents: np.ndarray,
        clip: CLIPModel,
        weight: float,
    ) -> None:
        super().__init__()
        self.decoder, self.perceptual = vae.decoder, PerceptualLoss(clip)
        self._scale = float(vae.config.scaling_factor)
        self._images, self._latents, self._weight = images, latents, weight

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Pictures, and noise for their latents."""
        return {
            "index": torch.randint(len(self._images), (batch,), generator=generator),
            "noise": torch.randn(batch, *self._latents.shape[1:], generator=generator),
        }

    def load(self, rows: Rows) -> Rows:
        """Pictures in -1 to 1, and their latents."""
        index = rows["index"]
        latents = torch.from_numpy(self._latents[index.numpy()]).float() / self._scale
        x = images_to_tensor(self._images.rows("images", index))
        return {"x": x, "latents": latents + LATENT_NOISE * rows["noise"]}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """Reconstruction of noisy latents."""
        x = rows["x"]
        decoded = self.decoder(rows["latents"]).float()
        seen = self.perceptual(x, decoded)
        loss = reconstruction_loss(x, decoded) + self._weight * seen
        return {"loss": loss, "l1": F.l1_loss(decoded, x), "seen": seen}


def train(
    pictures: Path,
    out: Path,
    config: DecoderConfig,
    vae_folder: Path,
    clip_folder: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Train a decoder; `out / "vae"` is the VAE with it, its latents what they were.

    Parameters
    ----------
    pictures : folder of a prepared set with pictures.
    out : folder of the stage.
    vae_folder, clip_folder : that earlier stages wrote.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    blocks = _numbers(config.blocks)
    data = PreparedSet(pictures)
    images = data.pictures()
    vae = load_vae(vae_folder)
    clip, _ = load_clip(clip_folder)
    side, expected = images.shape("images")[0], clip.config.vision_config.image_size
    if side != expected:
        raise TrainingError(
            f"CLIP sees pictures of {expected} pixels, and {pictures} has {side}. Give --clip one "
            "that was trained on pictures of this size."
        )
    latents = encode_set(out / "cache" / "latents.npy", data, vae, vae_folder)
    torch.manual_seed(config.seed)
    vae = replace_decoder(vae, config.width, blocks)
    task = DecoderTask(vae, images, latents, clip, config.perceptual)
    shown = task.load(task.draw(torch.Generator().manual_seed(1), SHOWN))

    def look(_step: int) -> None:
        with torch.no_grad():
            # Of the VAE the decoder alone is where training computes.
            device = next(task.decoder.parameters()).device
            decoded = task.decoder(shown["latents"].to(device)).cpu()
        pairs = torch.stack([shown["x"], decoded.clamp(-1, 1)], 1).flatten(0, 1)
        pixels = (pairs.permute(0, 2, 3, 1) / 2 + 0.5) * 255
        grid(pixels.byte().numpy(), 10).save(out / "samples.png")

    given = {"pictures": pictures, "vae": vae_folder, "clip": clip_folder}
    run_stage(out, task, config, say, look, {name: str(path) for name, path in given.items()})
    if processes().is_main_process:
        vae.save_pretrained(out / "vae")
        say(f"{out / 'vae'} holds the VAE with this decoder.")


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        raise TrainingError(f"--blocks expects four numbers, as 3,3,3,0, not {text}.")
    return tuple(map(int, parts))
