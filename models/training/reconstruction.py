"""What masked signal modelling must beat: guesses of the hidden patches that learn nothing.

Each takes epochs and a mask as `MaskedAutoencoder` does and is scored by the same
L_EEG_recon, over masked tokens only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from models.losses import eeg_recon_loss

Guess = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def hidden_samples(mask: torch.Tensor, n_times: int) -> torch.Tensor:
    """Which samples are hidden, (n, n_times) bool, from a mask of tokens (n, n_tokens)."""
    return (mask > 0).repeat_interleave(n_times // mask.shape[1], dim=1)


def mean_of_kept(eeg: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Each channel's mean over what is kept of its epoch, everywhere.

    Parameters
    ----------
    eeg : (n, n_channels, n_times).
    mask : (n, n_tokens), 1 where a token is hidden; at least one must be kept.

    Returns
    -------
    tensor of the shape of `eeg`.
    """
    kept = ~hidden_samples(mask, eeg.shape[2])[:, None]
    mean = (eeg * kept).sum(2, keepdim=True) / kept.sum(2, keepdim=True)
    return mean.expand_as(eeg)


def linear_interpolation(eeg: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Straight lines over the gaps, from the last kept sample before to the first behind.

    Before the first kept sample and behind the last, that sample's value. Parameters and
    result as of `mean_of_kept`.

    >>> eeg = torch.tensor([[[0.0, 1, 9, 9, 4, 5, 9, 9]]])
    >>> linear_interpolation(eeg, torch.tensor([[0.0, 1, 0, 1]]))
    tensor([[[0., 1., 2., 3., 4., 5., 5., 5.]]])
    """
    n_times = eeg.shape[2]
    hidden = hidden_samples(mask, n_times)
    place = torch.arange(n_times, device=eeg.device).expand_as(hidden)
    # The nearest kept sample at or before each, and at or behind it; -1 and n_times for none.
    before = place.masked_fill(hidden, -1).cummax(1).values
    behind = place.masked_fill(hidden, n_times).flip(1).cummin(1).values.flip(1)
    left = torch.where(before < 0, behind, before)
    right = torch.where(behind == n_times, before, behind)
    share = ((place - left) / (right - left).clamp(min=1)).to(eeg.dtype)[:, None]
    first = eeg.gather(2, left[:, None].expand_as(eeg))
    last = eeg.gather(2, right[:, None].expand_as(eeg))
    return first + share * (last - first)


GUESSES: dict[str, Guess] = {
    "mean": mean_of_kept,
    "linear interpolation": linear_interpolation,
}


def guess_losses(
    eeg: torch.Tensor, mask: torch.Tensor, patchify: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, float]:
    """L_EEG_recon of each guess, by name.

    Parameters
    ----------
    eeg, mask : see `mean_of_kept`.
    patchify : of the masked autoencoder that is compared.
    """
    return {
        name: float(eeg_recon_loss(patchify(eeg), patchify(guess(eeg, mask)), mask))
        for name, guess in GUESSES.items()
    }
