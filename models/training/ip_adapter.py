"""The scale model's IP-Adapter: stands where h94/IP-Adapter stands for Stable Diffusion 1.5.

The U-Net stays as it is. Its empty prompt is zero, as text-to-image training left captions out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn

from models.ip_adapter import ImageAdapter, ImageAttention, cross_attentions, hidden_sizes
from models.training.base import embed_pictures, encode_set, load_base
from models.training.denoising import Denoising
from models.training.mixtures import Mixtures
from models.training.prepared import PreparedSet
from models.training.scale_config import IpAdapterConfig
from models.training.stage import Rows, processes, run_stage
from models.training.text_to_image import DROPOUT, MIN_SNR, grid, sample

ADAPTER = "image_adapter"


def build_adapter(unet: UNet2DConditionModel, clip_dim: int, n_tokens: int) -> ImageAdapter:
    """A new adapter whose keys and values begin as the U-Net's own of text."""
    adapter: ImageAdapter = ImageAdapter(
        hidden_sizes(unet),
        clip_dim,
        unet.config.cross_attention_dim,
        n_tokens,
        n_text=1,
    )
    for attn, layer in zip(cross_attentions(unet).values(), adapter.layers, strict=True):
        assert isinstance(layer, ImageAttention)
        layer.to_k_ip[0].load_state_dict(attn.to_k.state_dict())
        layer.to_v_ip[0].load_state_dict(attn.to_v.state_dict())
    return adapter


class IpAdapterTask(nn.Module):
    """Learns to let a frozen U-Net denoise latents by what CLIP says of the picture.

    Parameters
    ----------
    adapter, unet : the adapter, which is installed in the U-Net here.
    scheduler : the noise schedule.
    latents : of the pictures, (n, 4, h, w).
    image_embeds : of the pictures by CLIP, (n, clip_dim), of unit length.
    label : of the pictures, (n,).
    mixed : see `Mixtures`.
    """

    def __init__(
        self,
        adapter: ImageAdapter,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        latents: np.ndarray,
        image_embeds: np.ndarray,
        label: torch.Tensor,
        mixed: float,
    ) -> None:
        super().__init__()
        unet.requires_grad_(False)
        adapter.install(unet)
        # First, so that what learns has the adapter's names.
        self.adapter, self.unet = adapter, unet
        self.denoising = Denoising(scheduler, MIN_SNR)
        self._latents, self._image_embeds = latents, image_embeds
        self._mixtures = Mixtures(label, mixed)

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Pictures, noise, timesteps, and what their embeddings are mixed with."""
        index = torch.randint(len(self._latents), (batch,), generator=generator)
        return {
            "index": index,
            **self._mixtures.draw(generator, index),
            "noise": torch.randn(batch, *self._latents.shape[1:], generator=generator),
            "t": torch.randint(len(self.denoising.alphas_cumprod), (batch,), generator=generator),
            "is_kept": torch.rand(batch, generator=generator) >= DROPOUT,
        }

    def load(self, rows: Rows) -> Rows:
        """Latents and mixed embeddings; zero ones where nothing is told."""
        index, shares = rows.pop("index"), rows.pop("shares") * rows.pop("is_kept")[:, None]
        pictures = torch.cat([index[:, None], rows.pop("others")], 1)
        embeds = torch.from_numpy(self._image_embeds[pictures.numpy()]).float()
        latents = torch.from_numpy(self._latents[index.numpy()]).float()
        return {**rows, "latents": latents, "embeds": (embeds * shares[:, :, None]).sum(1)}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """L_SD under the image tokens."""
        context = self.adapter(rows["embeds"])
        empty = context.new_zeros(len(context), 4 * self.unet.config.block_out_channels[0])
        loss = self.denoising(self.unet, rows["latents"], rows["noise"], rows["t"], context, empty)
        return {"loss": loss}


def train(
    pictures: Path,
    out: Path,
    config: IpAdapterConfig,
    base_folder: Path,
    clip_folder: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Train an adapter and save it to `out / "image_adapter"`.

    Parameters
    ----------
    pictures : folder of a prepared set with pictures.
    out : folder of the stage.
    base_folder : with unet, vae and scheduler, as that of a base model or a bundle.
    clip_folder : of the CLIP whose embeddings it reads.

    Raises
    ------
    PreparedSetError, TrainingError, ScorerError
    """
    data = PreparedSet(pictures)
    base = load_base(str(base_folder))
    latents = encode_set(out / "cache" / "latents.npy", data, base.vae, base_folder)
    image_embeds = embed_pictures(out / "cache" / "image_embeds.npy", data, clip_folder)
    torch.manual_seed(config.seed)
    adapter = build_adapter(base.unet, image_embeds.shape[1], config.n_tokens)
    label = data.pictures()["label"]
    task = IpAdapterTask(
        adapter, base.unet, base.scheduler, latents, image_embeds, label, config.mixed
    )
    scheduler = DDIMScheduler.from_config(
        base.scheduler.config, clip_sample=False, timestep_spacing="trailing"
    )

    @torch.no_grad()
    def look(_step: int) -> None:
        embeds = torch.from_numpy(np.array(image_embeds[:40])).float().to(base.unet.device)
        empty = torch.zeros(len(embeds), 4 * base.unet.config.block_out_channels[0])
        painted = sample(
            base.unet, base.vae, adapter(embeds), empty, scheduler=copy.deepcopy(scheduler)
        )
        grid(painted, 10).save(out / "samples.png")

    given = {"pictures": pictures, "base": base_folder, "clip": clip_folder}
    run_stage(out, task, config, say, look, {name: str(path) for name, path in given.items()})
    if processes().is_main_process:
        adapter.save_pretrained(out / ADAPTER)
        say(
            f"{out / ADAPTER} holds the adapter: phosphene finetune --route image "
            f"--base {base_folder} --adapter {out / ADAPTER}"
        )
