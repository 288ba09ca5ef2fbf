"""tau_theta: encoder tokens to what the U-Net is conditioned by; h: to CLIP's space."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class TokenPooling(nn.Module):
    """A learned weighted sum over tokens, then a linear map; h of the loss L_clip."""

    def __init__(self, n_tokens: int, dim: int, out: int) -> None:
        super().__init__()
        # The reference calls this weighted sum `maxpool`; the name is kept for its keys.
        self.maxpool = nn.Conv1d(n_tokens, 1, 1)
        self.fc = nn.Linear(dim, out)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.maxpool(tokens).squeeze(1))
        return out


class EEGConditioner(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Encoder tokens to cross-attention context, time embedding and CLIP embedding.

    Parameters
    ----------
    n_tokens, embed_dim : of the encoder.
    n_context, cross_attention_dim : of the context; 77 x 768 for SD 1.5.
    time_embed_dim : of the U-Net's time embedding, to which `time_embedding` is added.
    clip_dim : of CLIP's shared space.
    clip_from : what h reads: "context" as in the paper, h(tau_theta(y)), or "tokens", the
        encoder's tokens, as in the authors' code.
    """

    @register_to_config
    def __init__(
        self,
        n_tokens: int = 128,
        embed_dim: int = 1024,
        n_context: int = 77,
        cross_attention_dim: int = 768,
        time_embed_dim: int = 1280,
        clip_dim: int = 768,
        clip_from: str = "context",
    ) -> None:
        super().__init__()
        # Convolutions of width one over the token axis: linear maps between token counts.
        self.channel_mapper = nn.Sequential(
            nn.Conv1d(n_tokens, n_tokens // 2, 1), nn.Conv1d(n_tokens // 2, n_context, 1)
        )
        self.dim_mapper = nn.Linear(embed_dim, cross_attention_dim)
        self.time_mapper = nn.Sequential(
            nn.Conv1d(n_context, n_context // 2, 1),
            nn.Conv1d(n_context // 2, 1, 1),
            nn.Linear(cross_attention_dim, time_embed_dim),
        )
        # Zero at first, so that a pre-trained U-Net starts undisturbed.
        for parameter in self.time_mapper[2].parameters():
            nn.init.zeros_(parameter)
        self.mapping = (
            TokenPooling(n_context, cross_attention_dim, clip_dim)
            if clip_from == "context"
            else TokenPooling(n_tokens, embed_dim, clip_dim)
        )

    def context(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (n, n_tokens, embed_dim) to context (n, n_context, cross_attention_dim)."""
        out: torch.Tensor = self.dim_mapper(self.channel_mapper(tokens))
        return out

    def time_embedding(self, context: torch.Tensor) -> torch.Tensor:
        """Context to (n, time_embed_dim), added to the U-Net's time embedding."""
        out: torch.Tensor = self.time_mapper(context).squeeze(1)
        return out

    def clip_embedding(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """h: to CLIP's space, (n, clip_dim)."""
        source = context if self.config.clip_from == "context" else tokens
        out: torch.Tensor = self.mapping(source)
        return out

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens to context, time embedding and CLIP embedding."""
        context = self.context(tokens)
        return context, self.time_embedding(context), self.clip_embedding(tokens, context)
