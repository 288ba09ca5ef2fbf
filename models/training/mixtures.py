"""Mixtures of what pictures are told by, in which their own weighs most.

What EEG says is uncertain: its mean lies between what several pictures are told by. So that a
painter paints the likeliest there and no blend, some pictures are trained under a mixture;
half of these mixtures are of one concept.
"""

from __future__ import annotations

import torch

from models.training.stage import Rows

# Others that a picture's own is mixed with, the least share of its own, and the most that another
# may weigh beside that.
OTHERS = 3
LEAST_SHARE = 0.4
MOST_OF_OWN = 0.8


class Mixtures:
    """Draws mixtures.

    Parameters
    ----------
    label : of the pictures, (n,).
    mixed : share of pictures that are trained under a mixture.
    """

    def __init__(self, label: torch.Tensor, mixed: float) -> None:
        self._label, self._mixed = label, mixed
        # Pictures sorted by label, and where each label begins.
        self._order = label.argsort()
        counts = label.bincount()
        self._count, self._first = counts, counts.cumsum(0) - counts

    def draw(self, generator: torch.Generator, index: torch.Tensor) -> Rows:
        """Others of pictures `index` (n,), (n, OTHERS), and shares of all, (n, 1 + OTHERS)."""
        n = len(index)
        place = torch.rand(n, OTHERS, generator=generator)
        label = self._label[index][:, None]
        same = self._order[self._first[label] + (place * self._count[label]).long()]
        any_one = (place * len(self._label)).long()
        is_same = torch.rand(n, 1, generator=generator) < 0.5
        own = 1 - (1 - LEAST_SHARE) * torch.rand(n, 1, generator=generator)
        own[torch.rand(n, 1, generator=generator) >= self._mixed] = 1.0
        rest = -torch.rand(n, OTHERS, generator=generator).clamp_min(1e-6).log()
        rest *= (1 - own) / rest.sum(1, keepdim=True)
        rest = rest.minimum(MOST_OF_OWN * own)
        shares = torch.cat([own, rest], 1)
        return {
            "others": torch.where(is_same, same, any_one),
            "shares": shares / shares.sum(1, keepdim=True),
        }
