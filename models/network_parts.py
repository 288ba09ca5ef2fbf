"""Encoder, U-Net and decoder of a bundle as functions of tensors, and inputs of their shapes."""

from __future__ import annotations

import torch
from torch import nn

from models.pipeline import EEGToImagePipeline


class EncoderPart(nn.Module):
    """Encoder and conditioner."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        super().__init__()
        self.encoder, self.conditioner = pipeline.eeg_encoder, pipeline.conditioner

    def forward(self, eeg: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out: tuple[torch.Tensor, ...] = self.conditioner(self.encoder(eeg))
        return out


class UnetPart(nn.Module):
    """The U-Net, tensors of any precision in and one of its own out."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        super().__init__()
        # Asked once: diffusers looks through all parts for it.
        self.unet, self.dtype = pipeline.unet, pipeline.unet.dtype

    def forward(
        self,
        latents: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        time_embedding: torch.Tensor,
    ) -> torch.Tensor:
        latents, context, told = (x.to(self.dtype) for x in (latents, context, time_embedding))
        out: torch.Tensor = self.unet(latents, t, context, class_labels=told, return_dict=False)[0]
        return out


class DecoderPart(nn.Module):
    """Latents (n, 4, h, w) to pixels (n, H, W, 3), uint8."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        super().__init__()
        self.vae, self.dtype = pipeline.vae, pipeline.vae.dtype
        self.scale = float(pipeline.vae.config.scaling_factor)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = self.vae.decode(latents.to(self.dtype) / self.scale, return_dict=False)[0]
        x = ((x.float() / 2 + 0.5).clamp(0, 1) * 255).round()
        pixels: torch.Tensor = x.permute(0, 2, 3, 1).to(torch.uint8)
        return pixels


def example_eeg(pipeline: EEGToImagePipeline) -> torch.Tensor:
    """An epoch for `EncoderPart`."""
    encoder = pipeline.eeg_encoder
    shape = (1, encoder.config.in_channels, encoder.config.n_times)
    return torch.zeros(shape, dtype=encoder.dtype, device=encoder.device)


def example(pipeline: EEGToImagePipeline, n: int) -> tuple[torch.Tensor, ...]:
    """What `UnetPart` takes for `n` pictures; the latents come first."""
    unet, device = pipeline.unet, pipeline.unet.device
    width = unet.config.cross_attention_dim
    time_dim = unet.time_embedding.linear_2.out_features
    return (
        torch.zeros(pipeline.latent_shape(n), dtype=unet.dtype, device=device),
        torch.zeros(n, dtype=torch.int64, device=device),
        torch.zeros(n, pipeline.n_context, width, dtype=unet.dtype, device=device),
        torch.zeros(n, time_dim, dtype=unet.dtype, device=device),
    )
