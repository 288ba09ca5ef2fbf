"""A patch embedding that begins by taking out what neighbouring electrodes share.

EEG's electrodes are so alike that what differs between pictures lies in directions of little
variance, which gradient descent finds last. Inputs of unit covariance are learnt from sooner
(LeCun et al. 1998, doi:10.1007/3-540-49430-8_2).
"""

from __future__ import annotations

import torch

from models.eeg_encoder import EEGEncoder

# Of the mean variance; directions with less, as what filters and reference took out, stay small.
FLOOR = 1e-3


@torch.no_grad()
def whiten_patches(encoder: EEGEncoder, eeg: torch.Tensor, seed: int = 0) -> None:
    """Set the encoder's patch embedding so that patches of `eeg` get unit covariance.

    The whitened directions are turned at random, so that none comes first. An encoder that is
    narrower than a patch keeps a random part of them.

    Parameters
    ----------
    eeg : (n, n_channels, n_times) epochs.
    seed : of the turn.
    """
    size, dim = encoder.config.patch_size, encoder.config.embed_dim
    n_channels = eeg.shape[1]
    # (n, channels, tokens, size) -> (n * tokens, channels * size)
    patches = eeg.unfold(2, size, size).permute(0, 2, 1, 3).reshape(-1, n_channels * size)
    variance, directions = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
    whitening = (directions / (variance + FLOOR * variance.mean()).sqrt()).T.float()
    largest = max(dim, len(whitening))
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(largest, largest, generator=generator))
    weight = turn[:dim, : len(whitening)] @ whitening
    projection = encoder.patch_embed.proj
    projection.weight.copy_(weight.view(dim, n_channels, size))
    if projection.bias is not None:
        projection.bias.zero_()
