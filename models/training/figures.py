"""The pictures of a report: a grid of trials chosen by rule, and what was taken for what."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from models.training.comparison import Naming, load
from models.training.evaluate import Evaluation

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
    """Seen pictures above decoded ones, with what was seen and what it was taken for."""
    c = e.comparison
    n = len(chosen["best"])
    figure = Figure(
        figsize=(1.25 * max(n, 4), 3.1 * len(chosen) + 0.4), dpi=100, layout="constrained"
    )
    figure.suptitle(f"{e.honesty} EEG: seen above, decoded below\n{by}", fontsize=10)
    blocks = figure.subfigures(len(chosen), 1)
    for block, (name, rows) in zip(blocks, chosen.items(), strict=True):
        block.suptitle(name, fontsize=10, fontweight="bold")
        index = torch.from_numpy(rows)
        ids = c.trials.images[torch.from_numpy(c.trials.image[rows])]
        decoded = torch.from_numpy(c.conditions["EEG"].index[0][rows])
        axes = block.subplots(2, n, squeeze=False)
        for line, pictures in enumerate((load(c.seen, ids), load(c.painted["EEG"], decoded))):
            for axis, picture in zip(axes[line], pictures, strict=True):
                axis.imshow(picture.permute(1, 2, 0).numpy())
                axis.set_axis_off()
        for column, row in enumerate(index.tolist()):
            axes[0, column].set_title(e.names[c.trials.label[row]], fontsize=7, pad=2)
            said = e.names[e.naming.label[row]] + " " if isinstance(e.naming, Naming) else ""
            axes[1, column].set_title(f"{said}{values[row]:.2f}", fontsize=7, pad=2)
    return figure


def draw_confusion(e: Evaluation, naming: Naming) -> Figure:
    """The confusion matrix, each row as shares of the trials that saw it."""
    truth = e.comparison.trials.label
    counts = confusion_matrix(truth, naming.label, len(e.names))
    n_shown = counts.sum(1, keepdims=True)
    # Grey where nothing was shown: no trial is not the same as no success.
    shares = np.ma.masked_where(np.repeat(n_shown == 0, len(counts), 1), counts / n_shown.clip(1))
    side = 2.5 + 0.18 * len(e.names)
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor("lightgrey")
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    axis.set(xlabel=f"taken for, by {naming.by}", ylabel="seen")
    axis.set_title(f"{e.honesty} EEG, {len(truth)} trials", fontsize=10)
    if len(e.names) <= LABELS_SHOWN:
        axis.set_xticks(range(len(e.names)), e.names, rotation=90, fontsize=7)
        axis.set_yticks(range(len(e.names)), e.names, fontsize=7)
    figure.colorbar(image, ax=axis, shrink=0.6, label="share of the trials in the row")
    return figure
