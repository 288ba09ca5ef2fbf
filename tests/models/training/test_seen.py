"""Epochs that were seen: how they are drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.training.prepared import PreparedSet
from models.training.seen import SeenEpochs
from tests.viewed_set import make_viewed_set


def test_of_both_kinds_half_is_drawn_each_and_of_one_kind_all(tmp_path: Path) -> None:
    is_locked = np.array([1] * 8 + [0] * 33)
    folder = make_viewed_set(tmp_path / "set", columns={"is_locked": is_locked})
    seen = SeenEpochs(PreparedSet(folder))
    chosen = seen.draw(torch.Generator().manual_seed(0), 101)
    locked = torch.from_numpy(is_locked == 1)[seen.index[chosen]]
    assert int(locked.sum()) == 51
    assert set(seen.image_id[chosen[locked]].tolist()) <= set(range(8))
    # A part of one kind, and a set of one kind.
    part = seen.part(torch.arange(10, 20))
    of_part = part.draw(torch.Generator().manual_seed(0), 500)
    assert sorted(set(of_part.tolist())) == list(range(10))
    alone = SeenEpochs(PreparedSet(folder), "sliding")
    assert len(alone) == 32
    assert set(alone.draw(torch.Generator(), 500).tolist()) == set(range(32))
