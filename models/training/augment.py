"""EEG varied as other sessions vary: electrodes fall silent, gains and latencies differ."""

from __future__ import annotations

import torch

# At strength 1: share of electrodes silenced in half of the epochs, standard deviation of
# the gains' logarithm, largest shift as a share of the epoch, and size of white noise beside
# the unit variance of normalised epochs.
SILENCED = 0.1
GAIN = 0.1
SHIFT = 1 / 64
NOISE = 0.2


def draw_augmentation(
    generator: torch.Generator, batch: int, n_channels: int, strength: float
) -> dict[str, torch.Tensor]:
    """Random values for `augment`, a row for each epoch.

    Returns
    -------
    dict of `gain` (batch, n_channels), 0 where an electrode is silenced; `shift` (batch,) in
    shares of the epoch; `noise_seed` (batch,).
    """
    some = torch.rand(batch, 1, generator=generator) < 0.5
    is_silent = torch.rand(batch, n_channels, generator=generator) < SILENCED * strength
    gain = torch.exp(GAIN * strength * torch.randn(batch, n_channels, generator=generator))
    shift = SHIFT * strength * (2 * torch.rand(batch, generator=generator) - 1)
    seed = torch.randint(2**31, (batch,), generator=generator)
    return {"gain": gain.masked_fill(some & is_silent, 0.0), "shift": shift, "noise_seed": seed}


def augment(eeg: torch.Tensor, drawn: dict[str, torch.Tensor], strength: float) -> torch.Tensor:
    """Vary epochs (n, n_channels, n_times) by what `draw_augmentation` drew."""
    out = eeg * drawn["gain"][:, :, None]
    n_times = eeg.shape[2]
    for row, shift, seed in zip(
        out, drawn["shift"].tolist(), drawn["noise_seed"].tolist(), strict=True
    ):
        row.copy_(row.roll(round(shift * n_times), dims=1))
        generator = torch.Generator().manual_seed(seed)
        row += NOISE * strength * torch.randn(row.shape, generator=generator)
    return out
