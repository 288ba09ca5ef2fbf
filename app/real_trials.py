"""The trials of a real case, in folds whose trials nothing was chosen or learnt on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.muse import SPECS, Case
from models.training.prepared import PreparedSet

N_FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """The trials of a case.

    Attributes
    ----------
    eeg : (n, n_channels, n_times), float32, by the name of the specification.
    label, position, run : (n,).
    group : (n,), what must be held out together.
    fold : (n,).
    """

    eeg: dict[str, np.ndarray]
    label: np.ndarray
    position: np.ndarray
    run: np.ndarray
    group: np.ndarray
    fold: np.ndarray


def folds_of(label: np.ndarray, group: np.ndarray, n_folds: int, seed: int = 0) -> np.ndarray:
    """Fold of each trial; groups stay whole, and those of one label are dealt out alike.

    >>> folds_of(np.array([0, 0, 1, 1]), np.array([5, 6, 7, 8]), 2).tolist() in (
    ...     [[0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]])
    True
    """
    rng = np.random.default_rng(seed)
    found, first = np.unique(group, return_index=True)
    fold = np.empty(len(found), np.int64)
    for value in np.unique(label[first]):
        ours = rng.permutation(np.flatnonzero(label[first] == value))
        fold[ours] = np.arange(len(ours)) % n_folds
    return fold[np.searchsorted(found, group)]


def load_trials(case: Case, data: Path, out: Path) -> Recorded:
    """The trials of a case by every specification, with their folds; sets are made once.

    At a recording's ends a specification may get a trial that another does not; only trials
    that all of them have are taken.
    """
    sets = {name: PreparedSet(case.prepare(data, out, s)).epochs() for name, s in SPECS.items()}
    places = {
        name: list(zip(epochs["run"].tolist(), epochs["position"].tolist(), strict=True))
        for name, epochs in sets.items()
    }
    common = set.intersection(*(set(places[name]) for name in sets))
    rows = {name: [i for i, place in enumerate(places[name]) if place in common] for name in sets}
    first = next(iter(sets))
    label, position, run = (
        sets[first][column].numpy()[rows[first]] for column in ("label", "position", "run")
    )
    group = position if case.held_out == "position" else run
    if case.held_out == "run":
        fold = np.unique(group, return_inverse=True)[1]
    else:
        fold = folds_of(label, group, N_FOLDS)
    eeg = {name: epochs["eeg"].numpy()[rows[name]] for name, epochs in sets.items()}
    return Recorded(eeg, label, position, run, group, fold)


def permute_labels(trials: Recorded, rng: np.random.Generator) -> np.ndarray:
    """Labels of other trials: positions change places, alike in all runs, or trials in a run."""
    label = trials.label.copy()
    if len(np.unique(trials.group)) > len(np.unique(trials.run)):
        found, first = np.unique(trials.group, return_index=True)
        shuffled = rng.permutation(trials.label[first])
        return shuffled[np.searchsorted(found, trials.group)]
    for run in np.unique(trials.run):
        label[trials.run == run] = rng.permutation(label[trials.run == run])
    return label
