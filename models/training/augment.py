"""EEG varied as other sessions vary: electrodes fall silent, gains and latencies differ."""

from __future__ import annotations

from functools import cache

import torch

# At strength 1: share of electrodes silenced in half of the epochs, standard deviation of
# the gains' logarithm, largest shift as a share of the epoch, and size of white noise beside
# the unit variance of normalised epochs.
SILENCED = 0.1
GAIN = 0.1
SHIFT = 1 / 64
NOISE = 0.2
# Values of noise that are kept.
NOISE_BANK = 2**22


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
    _, n_channels, n_times = eeg.shape
    times = torch.arange(n_times) - (drawn["shift"] * n_times).round().long()[:, None]
    shifted = eeg.gather(2, (times % n_times)[:, None].expand(-1, n_channels, -1))
    out = torch.mul(shifted, drawn["gain"][:, :, None], out=shifted)
    if strength:
        bank = _noise()
        size = n_channels * n_times
        first = drawn["noise_seed"] % (len(bank) - size)
        noise = torch.stack([bank[a : a + size] for a in first.tolist()])
        out.add_(noise.view_as(out), alpha=NOISE * strength)
    return out


@cache
def _noise() -> torch.Tensor:
    """White noise, of which every epoch gets a piece: to draw it anew took longer than a step."""
    return torch.randn(NOISE_BANK, generator=torch.Generator().manual_seed(0))
