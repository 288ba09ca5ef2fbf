"""The figure of pictures side by side."""

import numpy as np
import torch

from app.results.steps import COLUMNS, MARGIN, SIDE, draw


def test_every_trial_stands_in_one_column_of_its_band() -> None:
    # Each trial has a brightness of its own, each line a colour.
    light = torch.linspace(0.2, 1, 12)[:, None, None, None].expand(12, 3, 8, 8)
    red, blue = (light * torch.tensor(c)[:, None, None] for c in ((1.0, 0, 0), (0, 0, 1.0)))
    rows = torch.arange(12).flip(0)
    sheet = np.asarray(draw({"seen": red, "2": blue}, rows))
    band = 2 * SIDE + SIDE // 4
    assert sheet.shape == (2 * band, MARGIN + COLUMNS * SIDE, 3)
    for place, trial in enumerate(rows.tolist()):
        top, left = place // COLUMNS * band, MARGIN + place % COLUMNS * SIDE
        value = round(255 * float(light[trial, 0, 0, 0]))
        assert sheet[top + SIDE // 2, left + SIDE // 2].tolist() == [value, 0, 0]
        assert sheet[top + SIDE + SIDE // 2, left + SIDE // 2].tolist() == [0, 0, value]
