"""The three losses against their formulas."""

from __future__ import annotations

import pytest
import torch

from models.losses import clip_loss, eeg_recon_loss, sd_loss


def test_reconstruction_counts_masked_tokens_only() -> None:
    x = torch.zeros(1, 3, 2)
    x_hat = torch.tensor([[[1.0, 1.0], [2.0, 4.0], [9.0, 9.0]]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    # (1 + (4 + 16) / 2) / 2
    assert eeg_recon_loss(x, x_hat, mask).item() == pytest.approx(5.5)


def test_sd_loss_is_the_weighted_mean_squared_error() -> None:
    target, predicted = torch.zeros(2, 2), torch.tensor([[3.0, 3.0], [1.0, 3.0]])
    assert sd_loss(target, predicted, torch.ones(2)).item() == pytest.approx((9 + 5) / 2)
    assert sd_loss(target, predicted, torch.tensor([1.0, 0.0])).item() == pytest.approx(4.5)


def test_clip_loss_is_one_minus_cosine_whatever_the_lengths() -> None:
    image = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert clip_loss(image, 5 * image).item() == pytest.approx(0.0, abs=1e-6)
    assert clip_loss(image, -image).item() == pytest.approx(2.0)
    assert clip_loss(image, image.flip(0)).item() == pytest.approx(1.0)
