"""Temporal masked signal modelling around the encoder (arXiv 2306.16934, section 3.1)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from models.eeg_encoder import Block, Blocks, EEGEncoder, initialise, sincos_positions
from models.errors import BundleError
from models.losses import eeg_recon_loss

DECODER = "masked_autoencoder.safetensors"


class MaskedAutoencoder(nn.Module):
    """Hides patches of time and predicts them from the others.

    Parameters
    ----------
    encoder : that is trained.
    decoder_embed_dim, decoder_depth, decoder_num_heads : of the decoder, which is thrown
        away afterwards; the defaults are the reference's.
    has_cls_token : whether a cls token stands before the kept patches, as in the
        reference's pre-training (and not in its fine-tuning).
    """

    cls_token: nn.Parameter | None
    decoder_pos_embed: torch.Tensor

    def __init__(
        self,
        encoder: EEGEncoder,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        has_cls_token: bool = False,
    ) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.patch_size: int = config.patch_size
        self.decoder_num_heads = decoder_num_heads
        dim = decoder_embed_dim
        if has_cls_token:
            self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, config.embed_dim))
        else:
            self.register_parameter("cls_token", None)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.decoder_embed = nn.Linear(config.embed_dim, dim)
        # A cls token has no position: its row is zero.
        positions = [torch.zeros(1, 1, dim)] if has_cls_token else []
        positions.append(sincos_positions(encoder.n_tokens, dim))
        self.register_buffer("decoder_pos_embed", torch.cat(positions, dim=1), persistent=False)
        self.decoder_blocks = Blocks(
            Block(dim, decoder_num_heads, config.mlp_ratio) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder_pred = nn.Linear(dim, config.patch_size * config.in_channels)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            part.apply(initialise)

    def use_gradient_checkpointing(self, is_used: bool) -> None:
        """Compute the blocks' activations again in the backward pass instead of keeping them."""
        self.encoder.blocks.is_checkpointed = is_used
        self.decoder_blocks.is_checkpointed = is_used

    def patchify(self, eeg: torch.Tensor) -> torch.Tensor:
        """(n, channels, times) to (n, tokens, patch_size * channels), time before channel."""
        return eeg.transpose(1, 2).reshape(len(eeg), self.encoder.n_tokens, -1)

    def forward(
        self, eeg: torch.Tensor, mask_ratio: float = 0.75, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruct masked patches.

        Parameters
        ----------
        eeg : (n, channels, times).
        mask_ratio : share of patches that are hidden.
        noise : (n, tokens); the patches with the smallest values are kept. Drawn if None.

        Returns
        -------
        loss, prediction (n, tokens, patch_size * channels), mask (n, tokens; 1 is hidden).
        """
        tokens = self.encoder.embed(eeg)
        n, n_tokens, dim = tokens.shape
        if noise is None:
            noise = torch.rand(n, n_tokens, device=eeg.device)
        n_kept = int(n_tokens * (1 - mask_ratio))
        order = noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        kept = order[:, :n_kept]
        mask = torch.ones(n, n_tokens, device=eeg.device).scatter_(1, kept, 0.0)
        latent = tokens.gather(1, kept[..., None].expand(-1, -1, dim))
        has_cls = self.cls_token is not None
        if self.cls_token is not None:
            latent = torch.cat([self.cls_token.expand(n, -1, -1), latent], dim=1)
        latent = self.decoder_embed(self.encoder.transform(latent))

        hidden = self.mask_token.expand(n, n_tokens - n_kept, -1)
        x = torch.cat([latent[:, int(has_cls) :], hidden], dim=1)
        x = x.gather(1, restore[..., None].expand(-1, -1, x.shape[2]))
        if has_cls:
            x = torch.cat([latent[:, :1], x], dim=1)
        x = x + self.decoder_pos_embed
        x = self.decoder_blocks(x)
        prediction = self.decoder_pred(self.decoder_norm(x))[:, int(has_cls) :]
        return eeg_recon_loss(self.patchify(eeg), prediction, mask), prediction, mask


def save_masked_autoencoder(model: MaskedAutoencoder, folder: Path) -> None:
    """Write `eeg_encoder/`, which fine-tuning starts from, and beside it what is left."""
    model.encoder.save_pretrained(folder / "eeg_encoder")
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("encoder.")}
    config = {
        "decoder_embed_dim": model.decoder_embed.out_features,
        "decoder_depth": len(model.decoder_blocks),
        "decoder_num_heads": model.decoder_num_heads,
        "has_cls_token": model.cls_token is not None,
    }
    save_file(state, folder / DECODER, {"config": json.dumps(config)})


def load_masked_autoencoder(folder: Path) -> MaskedAutoencoder:
    """Read what `save_masked_autoencoder` wrote.

    Raises
    ------
    BundleError
        A part is missing or damaged.
    """
    try:
        encoder = EEGEncoder.from_pretrained(
            folder / "eeg_encoder", local_files_only=True, use_safetensors=True
        )
        with safe_open(folder / DECODER, framework="pt") as file:
            model = MaskedAutoencoder(encoder, **json.loads(file.metadata()["config"]))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict({**model.state_dict(), **state})
    # diffusers and safetensors raise whatever their inner libraries do.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BundleError(
            f"{folder} does not hold a pre-trained encoder with its decoder ({reason}). Import or "
            "pre-train it again."
        ) from error
    return model
