import pytest
import torch

from models.eeg_encoder import EEGEncoder
from models.masked_autoencoder import MaskedAutoencoder
from models.training.reconstruction import guess_losses, linear_interpolation, mean_of_kept


def patchify(eeg: torch.Tensor) -> torch.Tensor:
    encoder = EEGEncoder(eeg.shape[1], eeg.shape[2], 4, 16, 1, 2, 1.0)
    return MaskedAutoencoder(encoder, 16, 1, 2).patchify(eeg)


def test_the_mean_is_that_of_what_is_kept() -> None:
    eeg = torch.tensor([[[1.0, 3, 100, 100], [5, 5, -7, -7]]])
    mean = mean_of_kept(eeg, torch.tensor([[0.0, 1]]))
    assert mean.tolist() == [[[2.0] * 4, [5.0] * 4]]


def test_interpolation_restores_straight_lines_and_looks_at_kept_samples_only() -> None:
    eeg = torch.linspace(0, 31, 32).expand(3, 2, 32).clone()
    mask = torch.zeros(3, 8)
    mask[0, 2] = mask[1, 3:6] = mask[2, [1, 4, 6]] = 1
    spoilt = eeg.masked_fill((mask > 0).repeat_interleave(4, 1)[:, None], torch.nan)
    torch.testing.assert_close(linear_interpolation(spoilt, mask), eeg)


def test_ends_keep_the_nearest_value() -> None:
    eeg = torch.tensor([[[9.0, 9, 2, 3, 9, 9]]])
    out = linear_interpolation(eeg, torch.tensor([[1.0, 0, 1]]))
    assert out.tolist() == [[[2.0, 2, 2, 3, 3, 3]]]


def test_losses_count_hidden_tokens_only() -> None:
    eeg = torch.zeros(1, 2, 32)
    eeg[:, :, 8:12] = 3.0
    mask = torch.zeros(1, 8)
    mask[:, 2] = 1
    assert guess_losses(eeg, mask, patchify) == pytest.approx(
        {"mean": 9.0, "linear interpolation": 9.0}
    )
    mask[:, 5] = 1
    assert guess_losses(eeg, mask, patchify)["mean"] == pytest.approx(4.5)


def test_interpolation_beats_the_mean_where_the_signal_is_slow() -> None:
    time = torch.arange(128) / 128
    eeg = torch.sin(2 * torch.pi * time)[None, None].repeat(4, 3, 1)
    mask = (torch.rand(4, 32, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    losses = guess_losses(eeg, mask, patchify)
    assert losses["linear interpolation"] < 0.2 * losses["mean"]
