"""The painter's arithmetic on latents, with no state and no model."""

from __future__ import annotations

import torch


def statistics(latents: torch.Tensor) -> torch.Tensor:
    """Mean and spread of each channel, (2, n, 4, 1, 1)."""
    std, mean = torch.std_mean(latents, dim=(2, 3), keepdim=True)
    return torch.stack([mean, std.clamp(min=1e-6)])


def pulled(
    latents: torch.Tensor, anchor: torch.Tensor, colours: torch.Tensor, share: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and colours, nearer to the anchor and to its own by a share."""
    nearer = latents + share * (anchor - latents)
    return nearer, colours + share * (statistics(anchor) - colours)


def recoloured(
    latents: torch.Tensor, colours: torch.Tensor, before: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of these colours, and by what share of their length they differ from those before.

    Without this colours drift, a little each time around.
    """
    mean, std = statistics(latents).unbind()
    wanted_mean, wanted_std = colours.unbind()
    out = (latents - mean) / std * wanted_std + wanted_mean
    return out, (out - before).norm() / out.norm()


def slerp(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """Latents on the way from `a` to `b` as a whole, of a length on the way too."""
    length_a, length_b = a.norm(), b.norm()
    angle = torch.arccos((a * b).sum().div(length_a * length_b).clamp(-1, 1))
    if not float(angle) > 1e-4:  # nor where one is zero
        return a + share * (b - a)
    ahead = torch.sin((1 - share) * angle) / length_a
    behind = torch.sin(share * angle) / length_b
    length = length_a + share * (length_b - length_a)
    out: torch.Tensor = (ahead * a + behind * b) / torch.sin(angle) * length
    return out
