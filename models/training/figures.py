"""The pictures of a report: a grid of trials chosen by rule, and what was taken for what."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from models.training.comparison import Naming
from models.training.evaluate import Evaluation
from models.training.seen import unit_pictures

# Pictures of each kind in the grid.
COLUMNS = 8
# More names could not be read.
LABELS_SHOWN = 60


def choose(values: np.ndarray, seed: int, n: int = COLUMNS) -> dict[str, np.ndarray]:
    """Trials for the grid: the best, those around the median, the worst, and some by seed.

    >>> {name: rows.tolist() for name, rows in choose(np.array([0.1, 0.9, 0.5]), 0, 1).items()}
    {'best': [1], 'median': [2], 'worst': [0], 'drawn by seed': [2]}
    """
    best_first = np.argsort(-values, kind="stable")
    n = min(n, len(values))
    middle = (len(values) - n) // 2
    return {
        "best": best_first[:n],
        "median": best_first[middle : middle + n],
        "worst": best_first[len(values) - n :],
        "drawn by seed": np.random.default_rng(seed).permutation(len(values))[:n],
    }


def confusion_matrix(truth: np.ndarray, said: np.ndarray, n_labels: int) -> np.ndarray:
    """Counts (n_labels, n_labels) of what (row) was taken for what (column).

    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    counts = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(counts, (truth, said), 1)
    return counts


def draw_grid(e: Evaluation, by: str, values: np.ndarray, chosen: dict[str, np.ndarray]) -> Figure:
    """Seen pictures above decoded ones, with what was seen and what it was taken for.

    Parameters
    ----------
    by, values : what the trials were chosen by, and its value for each (n,).
    chosen : trials of each kind, as `choose` gives them.
    """
    c = e.comparison
    n = len(chosen["best"])
    size = (0.5 + 1.25 * n, 0.6 + 3.1 * len(chosen))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    figure.suptitle(f"{e.honesty} EEG: seen above, decoded below\n{by}", fontsize=10)
    axes = figure.subplots(len(chosen), 1, squeeze=False)[:, 0]
    for axis, (kind, rows) in zip(axes, chosen.items(), strict=True):
        ids = c.trials.images[torch.from_numpy(c.trials.image[rows])]
        decoded = unit_pictures(
            c.painted["EEG"], torch.from_numpy(c.conditions["EEG"].index[0][rows])
        )
        side = decoded.shape[-2:]
        seen = F.interpolate(unit_pictures(c.seen, ids), side, mode="bilinear", antialias=True)
        # One axis for each kind: with axes of their own, 64 pictures take seconds to lay out.
        width, gap = side[1] * 1.08, side[0] * 0.2
        for line, pictures in enumerate((seen, decoded)):
            for column, picture in enumerate(pictures):
                x, y = column * width, line * (side[0] + gap)
                place = (x, x + side[1], y + side[0], y)
                axis.imshow(picture.permute(1, 2, 0).numpy(), extent=place)
        for column, row in enumerate(rows.tolist()):
            said = f"{e.names[e.naming.label[row]]} " if isinstance(e.naming, Naming) else ""
            x = column * width + side[1] / 2
            above = {"ha": "center", "va": "bottom", "fontsize": 7}
            axis.text(x, -0.02 * side[0], e.names[c.trials.label[row]], **above)
            axis.text(x, side[0] + 0.95 * gap, f"{said}{values[row]:.2f}", **above)
        axis.set(xlim=(0, n * width), ylim=(2 * side[0] + gap, -gap))
        axis.set_title(kind, fontsize=10, fontweight="bold", loc="left")
        axis.set_axis_off()
    return figure


def draw_confusion(e: Evaluation, naming: Naming) -> Figure:
    """The confusion matrix, each row as shares of the trials that saw it."""
    truth = e.comparison.trials.label
    labels = np.unique(np.concatenate([truth, naming.label]))
    counts = confusion_matrix(truth, naming.label, len(e.names))[np.ix_(labels, labels)]
    n_shown = counts.sum(1, keepdims=True)
    # Grey where nothing was shown: no trial is not the same as no success.
    shares = np.ma.masked_where(np.repeat(n_shown == 0, len(counts), 1), counts / n_shown.clip(1))
    side = 2.5 + 0.18 * min(len(labels), LABELS_SHOWN)
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor("lightgrey")
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    axis.set(xlabel=f"taken for, by {naming.by}", ylabel="seen", xticks=[], yticks=[])
    axis.set_title(f"{e.honesty} EEG, {len(truth)} trials", fontsize=10)
    if len(labels) <= LABELS_SHOWN:
        names = [e.names[label] for label in labels]
        axis.set_xticks(range(len(labels)), names, rotation=90, fontsize=7)
        axis.set_yticks(range(len(labels)), names, fontsize=7)
    figure.colorbar(image, ax=axis, shrink=0.6, label="share of the trials in the row")
    return figure
