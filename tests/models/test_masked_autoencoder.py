"""Masking: what is hidden, what is kept, what can be learnt."""

from __future__ import annotations

import pytest
import torch

from models.eeg_encoder import EEGEncoder
from models.errors import EpochShapeError
from models.masked_autoencoder import MaskedAutoencoder


@pytest.fixture
def autoencoder() -> MaskedAutoencoder:
    torch.manual_seed(0)
    encoder = EEGEncoder(4, 64, 4, 32, 1, 2, 1.0)
    return MaskedAutoencoder(encoder, 16, 1, 2)


def test_patches_are_time_before_channel(autoencoder: MaskedAutoencoder) -> None:
    eeg = torch.arange(4 * 64.0).view(1, 4, 64)
    first = autoencoder.patchify(eeg)[0, 0]
    assert first[:4].tolist() == eeg[0, :, 0].tolist()
    assert first[4:8].tolist() == eeg[0, :, 1].tolist()


@pytest.mark.parametrize(("ratio", "n_hidden"), [(0.75, 12), (0.5, 8), (0.1, 2)])
def test_mask_hides_its_share_by_the_order_of_the_noise(
    autoencoder: MaskedAutoencoder, ratio: float, n_hidden: int
) -> None:
    noise = torch.rand(2, 16)
    _, _, mask = autoencoder(torch.randn(2, 4, 64), ratio, noise)
    assert mask.sum(1).tolist() == [n_hidden, n_hidden]
    assert (
        noise[mask == 1]
        .view(2, -1)
        .min(1)
        .values.gt(noise[mask == 0].view(2, -1).max(1).values)
        .all()
    )


def test_hidden_patches_do_not_reach_the_prediction(autoencoder: MaskedAutoencoder) -> None:
    eeg, noise = torch.randn(1, 4, 64), torch.rand(1, 16)
    _, before, mask = autoencoder(eeg, 0.75, noise)
    hidden = mask[0].repeat_interleave(4) == 1
    changed = eeg.clone()
    changed[0, :, hidden] = 99.0
    _, after, _ = autoencoder(changed, 0.75, noise)
    torch.testing.assert_close(before, after)


def test_it_learns_a_rhythm(autoencoder: MaskedAutoencoder) -> None:
    torch.manual_seed(1)
    t = torch.arange(64) / 8
    optimizer = torch.optim.Adam(autoencoder.parameters(), 5e-3)
    losses = []
    for _ in range(200):
        phase = torch.rand(32, 1, 1) * 6.28
        loss, _, _ = autoencoder(torch.sin(6.28 / 3 * t + phase).expand(-1, 4, -1), 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Predicting the mean scores 0.5.
    assert sum(losses[-10:]) / 10 < 0.35


def test_epochs_of_another_shape_are_refused(autoencoder: MaskedAutoencoder) -> None:
    with pytest.raises(EpochShapeError, match="4 channels x 64 samples, not \\(5, 64\\)"):
        autoencoder(torch.randn(1, 5, 64))
    with pytest.raises(EpochShapeError, match="multiple of patch_size"):
        EEGEncoder(4, 66, 4, 32, 1, 2)
