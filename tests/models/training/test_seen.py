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


def test_blank_windows_show_nothing_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    n = 41
    label, image_id = -np.ones(n, int), -np.ones(n, int)
    is_locked = np.zeros(n, int)
    is_locked[::10] = 1
    label[is_locked == 1], image_id[is_locked == 1] = 0, np.arange(5)
    columns = {
        "is_locked": is_locked,
        "label": label,
        "image_id": image_id,
        "t_onset": np.arange(n) * 0.5 % 10,
        "session": np.arange(n) // 20,
        "subject": np.zeros(n, int),
    }
    epoch_spec = {"n_times": 256, "sfreq": 200.0}
    folder = make_viewed_set(tmp_path / "set", columns=columns, epoch_spec=epoch_spec)
    seen = SeenEpochs(PreparedSet(folder))
    rows = set(seen.blank.tolist())
    for row in range(n):
        times = columns["t_onset"][(is_locked == 1) & (columns["session"] == row // 20)]
        onset = (times >= columns["t_onset"][row]) & (times < columns["t_onset"][row] + 1.28)
        assert (row in rows) == (not is_locked[row] and not onset.any()), row
    # The second session's windows are no part of the first.
    assert set(seen.part(torch.arange(2)).blank.tolist()) == {r for r in rows if r < 20}
