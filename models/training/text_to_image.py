"""The scale model's text-to-image diffusion: stands where Stable Diffusion 1.5 stands.

Latent diffusion (Rombach et al. 2022, arXiv 2112.10752) on the VAE's latents, conditioned
by the tokens of CLIP's text encoder, with SD 1.5's noise schedule, ended in pure noise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from torch import nn
from transformers import CLIPModel

from models.guidance import guide
from models.training.base import encode_set, load_stage
from models.training.clip import load_clip
from models.training.denoising import Denoising
from models.training.mixtures import Mixtures
from models.training.prepared import PreparedSet
from models.training.scale_config import TextToImageConfig
from models.training.stage import Rows, processes, run_stage
from models.training.vae import load_vae

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
    scheduler.set_timesteps(steps, device=unet.device)
    side = unet.config.sample_size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(context), 4, side, side, generator=generator).to(unet.device)
    context, time_embedding = context.to(unet.device), time_embedding.to(unet.device)
    for t in scheduler.timesteps:
        noise_pred = unet(x, t, context, class_labels=time_embedding).sample
        if guidance_scale > 1:
            zeros = torch.zeros_like
            empty = unet(x, t, zeros(context), class_labels=zeros(time_embedding)).sample
            noise_pred = guide(empty, noise_pred, guidance_scale, scheduler)
        x = scheduler.step(noise_pred, t, x).prev_sample
    pictures = vae.decode(x.to(vae.device) / vae.config.scaling_factor).sample.cpu()
    pixels = (pictures.clamp(-1, 1) + 1) * 127.5
    return np.asarray(pixels.round().byte().permute(0, 2, 3, 1).numpy())


def grid(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures (n, H, W, 3) side by side."""
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows, 0))


class TextToImageTask(nn.Module):
    """Learns to denoise latents from the caption's tokens, or from a mixture of several's.

    Parameters
    ----------
    unet, scheduler : the U-Net and its noise schedule.
    clip : whose text encoder stays as it is.
    latents : array of shape (n, 4, h, w).
    tokens : of the captions, (n, 16).
    label : of the pictures, (n,).
    mixed : share of pictures that are trained under a mixture.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        clip: CLIPModel,
        latents: np.ndarray,
        tokens: torch.Tensor,
        label: torch.Tensor,
        mixed: float = 0.0,
    ) -> None:
        super().__init__()
        self.unet, self.denoising = unet, Denoising(scheduler, MIN_SNR)
        self.clip = clip.requires_grad_(False)
        self._latents, self._tokens = latents, tokens
        self._mixtures = Mixtures(label, mixed)

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Pictures, noise, timesteps, and what their captions are mixed with."""
        index = torch.randint(len(self._latents), (batch,), generator=generator)
        return {
            "index": index,
            **self._mixtures.draw(generator, index),
            "noise": torch.randn(batch, *self._latents.shape[1:], generator=generator),
            "t": torch.randint(len(self.denoising.alphas_cumprod), (batch,), generator=generator),
            "is_kept": torch.rand(batch, generator=generator) >= DROPOUT,
        }

    def load(self, rows: Rows) -> Rows:
        """Latents and captions."""
        index = rows.pop("index")
        latents = torch.from_numpy(self._latents[index.numpy()]).float()
        captions = torch.cat([index[:, None], rows.pop("others")], 1)
        return {**rows, "latents": latents, "tokens": self._tokens[captions]}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """L_SD under the captions' tokens."""
        tokens, shares = rows["tokens"], rows["shares"] * rows["is_kept"][:, None]
        each = encode_captions(self.clip, tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        context = (each * shares[:, :, None, None]).sum(1)
        empty = context.new_zeros(len(context), 4 * self.unet.config.block_out_channels[0])
        loss = self.denoising(self.unet, rows["latents"], rows["noise"], rows["t"], context, empty)
        return {"loss": loss}


def train(
    pictures: Path,
    out: Path,
    config: TextToImageConfig,
    vae_folder: Path,
    clip_folder: Path,
    say: Callable[[str], None] = print,
    channels: tuple[int, int, int] = (96, 128, 192),
) -> None:
    """Train the U-Net; `out / "base"` is what fine-tuning starts from.

    Parameters
    ----------
    pictures : folder of a prepared set with pictures and captions.
    out : folder of the stage.
    vae_folder, clip_folder : that earlier stages wrote.
    channels : of a new U-Net; `config.start` has its own.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    data = PreparedSet(pictures)
    vae = load_vae(vae_folder)
    clip, words = load_clip(clip_folder)
    tokens = words(data.captions())
    latents = encode_set(out / "cache" / "latents.npy", data, vae, vae_folder)
    torch.manual_seed(config.seed)
    if config.start:
        remedy = "Give --start the folder of a U-Net."
        unet = load_stage(UNet2DConditionModel, config.start, "The U-Net", remedy)
    else:
        unet = build_unet(clip.config.text_config.hidden_size, latents.shape[-1], channels)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    scheduler = build_scheduler()
    label = data.pictures()["label"]
    task = TextToImageTask(unet, scheduler, clip, latents, tokens, label, config.mixed)

    def look(_step: int) -> None:
        context = encode_captions(clip, tokens[:40].to(unet.device))
        empty = torch.zeros(len(context), 4 * unet.config.block_out_channels[0])
        painted = sample(
            unet, vae, context, empty, guidance_scale=2.0, scheduler=copy.deepcopy(scheduler)
        )
        grid(painted, 10).save(out / "samples.png")

    given = {"pictures": pictures, "vae": vae_folder, "clip": clip_folder}
    run_stage(out, task, config, say, look, {name: str(path) for name, path in given.items()})
    if processes().is_main_process:
        for name, part in (("unet", unet), ("vae", vae), ("scheduler", scheduler)):
            part.save_pretrained(out / "base" / name)
        say(f"{out / 'base'} holds the base model: phosphene finetune --base {out / 'base'}")
