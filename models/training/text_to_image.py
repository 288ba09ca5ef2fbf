"""The scale model's text-to-image diffusion: stands where Stable Diffusion 1.5 stands.

    python -m models.training.text_to_image runs/pictures runs/vae/vae runs/clip/clip runs/unet

Latent diffusion (Rombach et al. 2022, arXiv 2112.10752) on the VAE's latents, conditioned
by the tokens of CLIP's text encoder, with SD 1.5's noise schedule, ended in pure noise.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import nn
from transformers import CLIPModel

from models.training.clip import Words
from models.training.config import Schedule
from models.training.denoising import Denoising
from models.training.prepared import PreparedSet, Shards, images_to_tensor
from models.training.stage import Rows, run_stage

# Share of pictures that are trained without their caption, so that guidance is possible
# (Ho and Salimans 2022, arXiv 2207.12598).
DROPOUT = 0.1
# Of the timesteps' weights, see `Denoising`.
MIN_SNR = 5.0


def build_unet(
    cross_attention_dim: int = 128,
    sample_size: int = 16,
    channels: tuple[int, int, int] = (96, 128, 192),
) -> UNet2DConditionModel:
    """SD 1.5's kind of U-Net; takes the EEG's time embedding as class labels."""
    return UNet2DConditionModel(
        sample_size=sample_size,
        block_out_channels=channels,
        layers_per_block=1,
        # No attention at 16x16: it costs a third of a step there.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,
        class_embed_type="identity",
    )


def build_scheduler() -> DDIMScheduler:
    """SD 1.5's noise schedule, ended in pure noise (Lin et al. 2023, arXiv 2305.08891).

    SD 1.5's own leaves 7 % of a picture in its noisiest step: enough to read the mean colour
    there, so that a background painted from pure noise followed the noise and not the caption.
    Of pure noise the noise cannot be asked; the velocity can.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


@torch.no_grad()
def encode_pictures(vae: AutoencoderTiny, images: Shards) -> torch.Tensor:
    """All pictures of a set as scaled latents (n, 4, h, w), float16."""
    parts = []
    for index in torch.arange(len(images)).split(64):
        pixels = images_to_tensor(images.rows("images", index))
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(pixels).latents
        parts.append((latents * vae.config.scaling_factor).half())
    return torch.cat(parts)


@torch.no_grad()
def encode_captions(clip: CLIPModel, tokens: torch.Tensor) -> torch.Tensor:
    """Token numbers (n, 16) to the text encoder's tokens (n, 16, dim)."""
    out: torch.Tensor = clip.text_model(
        input_ids=tokens, attention_mask=(tokens > 0).long()
    ).last_hidden_state
    return out


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    vae: AutoencoderTiny,
    context: torch.Tensor,
    time_embedding: torch.Tensor,
    steps: int = 20,
    guidance_scale: float = 1.0,
    seed: int = 0,
    scheduler: DDIMScheduler | None = None,
) -> np.ndarray:
    """Pictures (n, H, W, 3) uint8 for contexts (n, tokens, dim), each from its own noise."""
    scheduler = scheduler or build_scheduler()
    scheduler.set_timesteps(steps)
    side = unet.config.sample_size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(context), 4, side, side, generator=generator)
    for t in scheduler.timesteps:
        noise_pred = unet(x, t, context, class_labels=time_embedding).sample
        if guidance_scale > 1:
            zeros = torch.zeros_like
            empty = unet(x, t, zeros(context), class_labels=zeros(time_embedding)).sample
            noise_pred = empty + guidance_scale * (noise_pred - empty)
        x = scheduler.step(noise_pred, t, x).prev_sample
    pictures = vae.decode(x / vae.config.scaling_factor).sample
    pixels = (pictures.clamp(-1, 1) + 1) * 127.5
    return np.asarray(pixels.round().byte().permute(0, 2, 3, 1).numpy())


def grid(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures (n, H, W, 3) side by side."""
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows, 0))


class TextToImageTask(nn.Module):
    """Learns to denoise latents from the caption's tokens.

    Parameters
    ----------
    unet, scheduler : the U-Net and its noise schedule.
    clip : whose text encoder stays as it is.
    latents : (n, 4, h, w).
    tokens : of the captions, (n, 16).
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        clip: CLIPModel,
        latents: torch.Tensor,
        tokens: torch.Tensor,
    ) -> None:
        super().__init__()
        self.unet, self.denoising = unet, Denoising(scheduler, MIN_SNR)
        self.clip = clip.requires_grad_(False)
        self._latents, self._tokens = latents, tokens

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Pictures, noise and timesteps."""
        return {
            "index": torch.randint(len(self._latents), (batch,), generator=generator),
            "noise": torch.randn(batch, *self._latents.shape[1:], generator=generator),
            "t": torch.randint(1000, (batch,), generator=generator),
            "is_kept": torch.rand(batch, generator=generator) >= DROPOUT,
        }

    def load(self, rows: Rows) -> Rows:
        """Latents and captions."""
        index = rows.pop("index")
        return {**rows, "latents": self._latents[index].float(), "tokens": self._tokens[index]}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """L_SD under the caption's tokens."""
        context = encode_captions(self.clip, rows["tokens"]) * rows["is_kept"][:, None, None]
        empty = context.new_zeros(len(context), 4 * self.unet.config.block_out_channels[0])
        loss = self.denoising(self.unet, rows["latents"], rows["noise"], rows["t"], context, empty)
        return {"loss": loss}


def train(
    pictures: Path,
    vae_folder: Path,
    clip_folder: Path,
    out: Path,
    schedule: Schedule,
    channels: tuple[int, int, int] = (96, 128, 192),
    scheduler: DDIMScheduler | None = None,
    start: Path | None = None,
) -> None:
    """Train the U-Net; `out / "base"` is what fine-tuning starts from.

    Parameters
    ----------
    start : an already trained U-Net, which learns on; its sizes count then.
    """
    data = PreparedSet(pictures)
    images = data.pictures()
    vae = AutoencoderTiny.from_pretrained(vae_folder)
    clip = CLIPModel.from_pretrained(clip_folder)
    tokens = Words.load(clip_folder)(data.captions())
    out.mkdir(parents=True, exist_ok=True)
    cache = out / "latents.pt"
    if not cache.is_file():
        torch.save(encode_pictures(vae, images), cache)
    latents = torch.load(cache, weights_only=True, mmap=True)
    torch.manual_seed(schedule.seed)
    if start:
        unet = UNet2DConditionModel.from_pretrained(
            start, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
    else:
        unet = build_unet(clip.config.text_config.hidden_size, latents.shape[-1], channels)
    scheduler = scheduler or build_scheduler()
    task = TextToImageTask(unet, scheduler, clip, latents, tokens)

    def look(_step: int) -> None:
        context = encode_captions(clip, tokens[:40])
        empty = torch.zeros(40, 4 * unet.config.block_out_channels[0])
        painted = sample(
            unet, vae, context, empty, guidance_scale=2.0, scheduler=copy.deepcopy(scheduler)
        )
        grid(painted, 10).save(out / "samples.png")

    run_stage(out, task, schedule, look=look)
    for name, part in (("unet", unet), ("vae", vae), ("scheduler", scheduler)):
        part.save_pretrained(out / "base" / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pictures", "vae", "clip", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--start", type=Path, help="folder of an already trained U-Net")
    arguments = parser.parse_args()
    train(
        arguments.pictures,
        arguments.vae,
        arguments.clip,
        arguments.out,
        Schedule(
            arguments.steps,
            arguments.batch,
            arguments.lr,
            warmup=200,
            ema_decay=0.999,
            precision="bf16",
        ),
        start=arguments.start,
    )


if __name__ == "__main__":
    main()
