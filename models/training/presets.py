"""Named sizes of the EEG encoder and of the decoder that pre-training throws away."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.eeg_encoder import EEGEncoder
from models.errors import TrainingError
from models.masked_autoencoder import MaskedAutoencoder
from models.training.config import PresetName


@dataclass(frozen=True, slots=True)
class Preset:
    """Sizes of a masked autoencoder.

    Attributes
    ----------
    patch_size, embed_dim, depth, num_heads, mlp_ratio : of the encoder.
    decoder_embed_dim, decoder_depth, decoder_num_heads : of the decoder.
    has_cls_token : whether pre-training puts a token before the kept patches that
        fine-tuning then does without, as the reference does.
    """

    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    decoder_embed_dim: int
    decoder_depth: int
    decoder_num_heads: int
    has_cls_token: bool = False


PRESETS: dict[PresetName, Preset] = {
    # The authors' code: config.py and mae_for_eeg.py of DreamDiffusion.
    "reference": Preset(4, 1024, 24, 16, 1.0, 512, 8, 16, has_cls_token=True),
    # The same sizes, and the same function in pre-training and fine-tuning.
    "phosphene": Preset(4, 1024, 24, 16, 1.0, 512, 8, 16),
    # The scale model's: tokens of 64 ms at 250 Hz.
    "scale": Preset(16, 256, 6, 8, 4.0, 128, 2, 4),
    # For a handful of electrodes and a few hundred trials: tokens of 62 ms at 64 Hz.
    "headset": Preset(4, 64, 2, 4, 2.0, 32, 1, 4),
    "tiny": Preset(8, 32, 1, 2, 1.0, 16, 1, 2),
}


def build_encoder(
    preset: PresetName, n_channels: int, n_times: int, mlp_ratio: float = 0.0
) -> EEGEncoder:
    """An encoder with random weights for epochs of (n_channels, n_times).

    Parameters
    ----------
    mlp_ratio : in place of the preset's; 0 keeps that.

    Raises
    ------
    TrainingError
        The epochs cannot be cut into the preset's patches.
    """
    p = PRESETS[preset]
    if n_times % p.patch_size:
        raise TrainingError(
            f"Epochs of {n_times} samples cannot be cut into patches of {p.patch_size} (preset "
            f"{preset}). Prepare epochs whose n_times is a multiple of it."
        )
    encoder: EEGEncoder = EEGEncoder(
        n_channels,
        n_times,
        p.patch_size,
        p.embed_dim,
        p.depth,
        p.num_heads,
        mlp_ratio or p.mlp_ratio,
    )
    return encoder


def build_autoencoder(
    preset: PresetName, n_channels: int, n_times: int, mlp_ratio: float = 0.0, seed: int = 0
) -> MaskedAutoencoder:
    """A masked autoencoder with random weights from `seed`."""
    p = PRESETS[preset]
    torch.manual_seed(seed)
    return MaskedAutoencoder(
        build_encoder(preset, n_channels, n_times, mlp_ratio),
        p.decoder_embed_dim,
        p.decoder_depth,
        p.decoder_num_heads,
        p.has_cls_token,
    )
