"""Patch embeddings that whiten."""

from __future__ import annotations

import pytest
import torch

from models.eeg_encoder import EEGEncoder
from models.training.whitening import whiten_patches


def correlated_eeg() -> torch.Tensor:
    """(400, 4, 32): four electrodes that share nearly everything."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(400, 1, 32, generator=generator).cumsum(2)
    return shared + 0.3 * torch.randn(400, 4, 32, generator=generator)


@pytest.mark.parametrize("dim", [16, 24])
def test_patches_of_correlated_electrodes_get_unit_covariance(dim: int) -> None:
    eeg = correlated_eeg()
    encoder = EEGEncoder(4, 32, 4, dim, 1, 2, 1.0)
    whiten_patches(encoder, eeg)
    tokens = encoder.patch_embed(eeg).detach().reshape(-1, dim)
    strength = torch.linalg.eigvalsh(tokens.T @ tokens / len(tokens))
    # 16 values to a patch: all of unit variance, and none where there are more dimensions.
    assert strength[-16:].min() > 0.7
    assert strength.max() < 1.01
    assert strength[:-16].abs().sum() < 1e-3


def test_a_narrow_encoder_keeps_a_part() -> None:
    encoder = EEGEncoder(4, 32, 4, 8, 1, 2, 1.0)
    whiten_patches(encoder, correlated_eeg())
    tokens = encoder.patch_embed(correlated_eeg()).detach().reshape(-1, 8)
    assert torch.linalg.eigvalsh(tokens.T @ tokens / len(tokens)).min() > 0.7
