"""IP-Adapter: a text-to-image U-Net paints what a CLIP image embedding says.

The light route from EEG to pictures: the EEG's CLIP embedding stands where that of a picture
stood when the adapter (Ye et al. 2023, arXiv 2308.06721) was trained. U-Net and adapter stay as
they are; the encoder alone learns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
)
from diffusers.models.embeddings import ImageProjection
from torch import nn

from models.conditioner import EEGConditioner


class ImageAttention(IPAdapterAttnProcessor2_0):  # type: ignore[misc]
    """Cross-attention to the tokens of the empty prompt, and added to it that to image tokens.

    diffusers' own is told both. The prompt never changes, so that the U-Net's context here is
    image tokens (n, n_tokens, dim) alone.
    """

    empty_prompt: torch.Tensor

    def __init__(self, hidden_size: int, dim: int, n_tokens: int, n_text: int) -> None:
        super().__init__(hidden_size, dim, [n_tokens])
        self.register_buffer("empty_prompt", torch.zeros(1, n_text, dim), persistent=False)

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        text = self.empty_prompt.expand(encoder_hidden_states.shape[0], -1, -1)
        both = (text, [encoder_hidden_states])
        out: torch.Tensor = super().__call__(attn, hidden_states, both, attention_mask, temb)
        return out


def cross_attentions(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The U-Net's cross-attentions by name, in the order in which adapters count them."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    return {name: unet.get_submodule(name) for name in names if name.endswith("attn2")}


def hidden_sizes(unet: UNet2DConditionModel) -> list[int]:
    """Values of a key of each cross-attention."""
    return [attn.to_k.out_features for attn in cross_attentions(unet).values()]


class ImageAdapter(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """CLIP image embeddings to image tokens, and the keys and values that the U-Net reads of them.

    Parameters
    ----------
    hidden_sizes : of the U-Net's cross-attentions, in diffusers' order.
    clip_dim : of the embeddings; 1024 for CLIP ViT-H/14.
    cross_attention_dim : of the U-Net's context.
    n_tokens : image tokens; 4 in the paper.
    n_text : tokens of the empty prompt.
    embed_norm : length of the embeddings that it was trained on. L_clip teaches the EEG's
        direction alone.
    """

    empty_prompt: torch.Tensor

    @register_to_config
    def __init__(
        self,
        hidden_sizes: Sequence[int],
        clip_dim: int = 1024,
        cross_attention_dim: int = 768,
        n_tokens: int = 4,
        n_text: int = 77,
        embed_norm: float = 1.0,  # noqa: ARG002 - the configuration keeps it
    ) -> None:
        super().__init__()
        dim = cross_attention_dim
        self.projection = ImageProjection(clip_dim, dim, n_tokens)
        self.register_buffer("empty_prompt", torch.zeros(1, n_text, dim))
        self.layers = nn.ModuleList(
            ImageAttention(size, dim, n_tokens, n_text) for size in hidden_sizes
        )

    def forward(self, clip_embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings (n, clip_dim) to image tokens (n, n_tokens, dim); zero ones say nothing."""
        scaled = F.normalize(clip_embeds, dim=1) * self.config.embed_norm
        tokens: torch.Tensor = self.projection(scaled)
        return tokens

    def nothing(self, n: int) -> torch.Tensor:
        """Image tokens (n, n_tokens, dim) of no picture, which guidance leads away from."""
        zero = torch.zeros(1, self.config.clip_dim, device=self.empty_prompt.device)
        tokens: torch.Tensor = self(zero)
        return tokens.expand(n, -1, -1)

    def install(self, unet: UNet2DConditionModel) -> None:
        """Let a U-Net read image tokens as its context; its own weights stay as they are.

        Raises
        ------
        ValueError
            The adapter was made for another U-Net.
        """
        attentions = cross_attentions(unet)
        found = hidden_sizes(unet), unet.config.cross_attention_dim
        wanted = list(self.config.hidden_sizes), self.config.cross_attention_dim
        if found != wanted:
            raise ValueError(
                f"the adapter is for {len(wanted[0])} cross-attentions of a context of "
                f"{wanted[1]} values, the U-Net has {len(found[0])} of {found[1]}"
            )
        processors = dict(unet.attn_processors)
        for name, layer in zip(attentions, self.layers, strict=True):
            layer.empty_prompt = self.empty_prompt
            processors[f"{name}.processor"] = layer.to(unet.device, unet.dtype)
        unet.set_attn_processor(processors)


def uninstall(unet: UNet2DConditionModel) -> None:
    """Let a U-Net read its context as it did without an adapter."""
    unet.set_attn_processor(AttnProcessor2_0())


def condition(
    conditioner: EEGConditioner, adapter: ImageAdapter | None, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The encoder's tokens to the U-Net's context, time embedding and the EEG's CLIP embedding.

    By one of two routes: DreamDiffusion's, where the context comes from the conditioner, and with
    an adapter that of images: it comes from the CLIP embedding, and the time embedding is zero.
    """
    context, time_embedding, clip_embeds = conditioner(tokens)
    if adapter is not None:
        context, time_embedding = adapter(clip_embeds), torch.zeros_like(time_embedding)
    return context, time_embedding, clip_embeds


def empty_context(adapter: ImageAdapter | None, context: torch.Tensor) -> torch.Tensor:
    """What guidance leads away from, in the place of a context (n, n_tokens, dim).

    It is zero, which conditioning dropout trains, or the tokens of no picture.
    """
    if adapter is None:
        return torch.zeros_like(context)
    return adapter.nothing(len(context)).to(context)
