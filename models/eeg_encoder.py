"""The EEG encoder of DreamDiffusion: a transformer over patches of time.

Bai et al. 2023, arXiv 2306.16934, after MinD-Vis (Chen et al. 2022, arXiv 2211.06956).
All electrodes of four samples make one token; parameters carry the reference's names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.utils.checkpoint import checkpoint

from models.errors import EpochShapeError


def sincos_positions(n_tokens: int, dim: int) -> torch.Tensor:
    """Fixed sine-cosine position embedding: all sines, then all cosines.

    Returns
    -------
    tensor of shape (1, n_tokens, dim), float32.
    """
    # float64 until the end, as the reference computes it.
    omega = 10000 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angle = torch.outer(torch.arange(n_tokens, dtype=torch.float64), omega)
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()[None]


class Attention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, dim = x.shape
        # (n, tokens, 3 * dim) -> 3 x (n, heads, tokens, dim / heads)
        q, k, v = self.qkv(x).view(n, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        out: torch.Tensor = self.proj(x.transpose(1, 2).reshape(n, tokens, dim))
        return out


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A transformer block, normalised before attention and MLP (eps 1e-5, as the reference)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        out: torch.Tensor = x + self.mlp(self.norm2(x))
        return out


def initialise(module: nn.Module) -> None:
    """The reference's initial weights, for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv1d):
        nn.init.normal_(module.weight, std=0.02)


class Blocks(nn.ModuleList):
    """Transformer blocks one after the other; may compute activations again to save memory."""

    is_checkpointed = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self:
            if self.is_checkpointed and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


class PatchEmbed(nn.Module):
    """Non-overlapping patches of time, all channels mixed."""

    def __init__(self, in_channels: int, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(in_channels, dim, patch_size, stride=patch_size)

    def forward(self, eeg: torch.Tensor) -> torch.Tensor:
        # (n, channels, times) -> (n, dim, tokens) -> (n, tokens, dim)
        out: torch.Tensor = self.proj(eeg).transpose(1, 2)
        return out


class EEGEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """EEG to tokens. The defaults are the reference's: 151.9 million parameters.

    Parameters
    ----------
    in_channels : electrodes.
    n_times : samples in an epoch, a multiple of `patch_size`.
    patch_size : samples in a token.
    embed_dim, depth, num_heads, mlp_ratio : of the transformer.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 128,
        n_times: int = 512,
        patch_size: int = 4,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        if n_times % patch_size:
            raise EpochShapeError(
                f"{n_times} samples cannot be cut into patches of {patch_size}; "
                "choose n_times as a multiple of patch_size."
            )
        self.n_tokens = n_times // patch_size
        self.patch_embed = PatchEmbed(in_channels, patch_size, embed_dim)
        positions = sincos_positions(self.n_tokens, embed_dim)
        self.register_buffer("pos_embed", positions, persistent=False)
        self.blocks = Blocks(Block(embed_dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)
        self.apply(initialise)

    def check(self, eeg: torch.Tensor) -> None:
        """See that epochs (n, channels, times) are what the encoder was built for.

        Raises
        ------
        EpochShapeError
        """
        expected = (self.config.in_channels, self.config.n_times)
        if tuple(eeg.shape[1:]) != expected:
            raise EpochShapeError(
                f"This encoder takes epochs of {expected[0]} channels x {expected[1]} samples, "
                f"not {tuple(eeg.shape[1:])}. Cut epochs by the bundle's epoch_spec.json."
            )

    def embed(self, eeg: torch.Tensor) -> torch.Tensor:
        """Epochs (n, channels, times) to patch tokens with positions (n, tokens, dim)."""
        self.check(eeg)
        out: torch.Tensor = self.patch_embed(eeg) + self.pos_embed
        return out

    def transform(self, tokens: torch.Tensor) -> torch.Tensor:
        """The transformer over any number of tokens (n, tokens, dim), same shape."""
        out: torch.Tensor = self.norm(self.blocks(tokens))
        return out

    def forward(self, eeg: torch.Tensor) -> torch.Tensor:
        """Epochs (n, channels, times) to tokens (n, n_tokens, embed_dim)."""
        return self.transform(self.embed(eeg))
