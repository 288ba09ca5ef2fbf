"""Whether a prepared set's labels and its time can be told apart.

Where all trials of a label stand together in time, as in a block design, whatever drifts
slowly tells the label: a decoder may read the block instead of the image, and do so on any
test set that shares blocks with the training set (Li et al., "The Perils and Pitfalls of
Block Design for EEG Classification Experiments", TPAMI 2020, doi 10.1109/TPAMI.2020.2973153).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

# Below a tenth of the way from random order to blocks, an order that is significantly not
# random (every pseudo-random one is, with enough trials) gives a decoder next to nothing.
NEGLIGIBLE = 0.1
N_PERMUTATIONS = 1000

ADVICE = (
    "A decoder may read the time instead of the image (Li et al., TPAMI 2020, "
    "doi 10.1109/TPAMI.2020.2973153): keep blocks, runs or sessions apart when splitting, and "
    "claim nothing that this could explain."
)


class Columns(Protocol):
    """The columns of a prepared set by name; `Shards`, or a dictionary of arrays."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """A number, and what it would be if the order of labels were random.

    Attributes
    ----------
    value : as it is.
    expected : mean over permutations of the labels.
    low, high : 2.5th and 97.5th percentile of the permutations.
    most : the largest that it can be.
    """

    value: float
    expected: float
    low: float
    high: float
    most: float

    @classmethod
    def against(cls, value: float, permuted: np.ndarray, most: float) -> Measured:
        low, high = np.percentile(permuted, [2.5, 97.5])
        return cls(float(value), float(permuted.mean()), float(low), float(high), float(most))

    @property
    def is_too_high(self) -> bool:
        """Significantly above random order, and by more than a negligible part."""
        room = self.most - self.expected
        return self.value > self.high and self.value - self.expected >= NEGLIGIBLE * room > 0


@dataclass(frozen=True, slots=True)
class Confounding:
    """How far label and time are confounded in a prepared set.

    Attributes
    ----------
    is_block_design : what the data set's makers say; None where they say nothing.
    n_trials, n_labels, n_runs : that were looked at; 0 where the order of trials is not told.
    neighbours_alike : share of neighbouring trials of a run that have the same label.
    labels_in_one_run : number of labels (of each subject) that occur in one run only; None
        where no subject has several runs.
    """

    is_block_design: bool | None
    n_trials: int
    n_labels: int
    n_runs: int
    neighbours_alike: Measured | None
    labels_in_one_run: Measured | None

    @property
    def is_confounded(self) -> bool:
        measured = (self.neighbours_alike, self.labels_in_one_run)
        return bool(self.is_block_design) or any(m is not None and m.is_too_high for m in measured)

    @property
    def sentence(self) -> str:
        """What was measured, in words."""
        a, b = self.neighbours_alike, self.labels_in_one_run
        if a is None:
            return "The order of trials is not told, so it cannot be measured whether label and " \
                   "time are confounded."  # fmt: skip
        text = (
            f"Of neighbouring trials {a.value:.1%} have the same label, against {a.expected:.1%} "
            f"({a.low:.1%} to {a.high:.1%}) in random order"
        )
        if b is not None:
            text += (
                f"; {b.value:.0f} of {b.most:.0f} labels occur in one run only, against "
                f"{b.expected:.1f} ({b.low:.0f} to {b.high:.0f})"
            )
        return f"{text}; {self.n_trials} trials of {self.n_labels} labels in {self.n_runs} runs."

    @property
    def warning(self) -> str:
        """What to print, and to put into result files; empty where there is nothing to warn of."""
        if not self.is_confounded:
            return ""
        start = "WARNING: label and time are confounded"
        if self.is_block_design:
            start += " by the design of the experiment (blocks of one label)"
        return f"{start}. {self.sentence} {ADVICE}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values only, for result files."""
        return {**asdict(self), "is_confounded": self.is_confounded,
                "sentence": self.sentence, "warning": self.warning}  # fmt: skip


def confounding(
    columns: Columns, is_block_design: bool | None = None, seed: int = 0
) -> Confounding:
    """Measure whether label and time are confounded.

    Neighbours in time with the same label, and labels that occur in one run only, are
    counted and compared with 1000 random permutations of each subject's labels.

    Parameters
    ----------
    columns : `label`, `image_id`, `subject`, `session`, `run`, `t_onset`, `is_locked`, each
        of shape (n,).
    is_block_design : as `spec.json` says.
    seed : of the permutations.
    """
    names = ("label", "image_id", "subject", "session", "run", "t_onset", "is_locked")
    c = {name: np.asarray(columns[name]) for name in names}
    order = np.lexsort((c["t_onset"], c["run"], c["session"], c["subject"]))
    c = {name: column[order] for name, column in c.items()}
    is_same_run = np.ones(max(0, len(order) - 1), bool)
    for name in ("subject", "session", "run"):
        is_same_run &= c[name][1:] == c[name][:-1]
    run = np.concatenate([[0], np.cumsum(~is_same_run)])[: len(order)]
    trials = _trials(c, run)
    if len(trials) < 2:
        return Confounding(is_block_design, 0, 0, 0, None, None)
    label, run, subject = c["label"][trials], run[trials], c["subject"][trials]
    _, label = np.unique(label, return_inverse=True)
    _, run = np.unique(run, return_inverse=True)
    _, subject = np.unique(subject, return_inverse=True)
    n_labels, n_runs, n_subjects = label.max() + 1, run.max() + 1, subject.max() + 1
    is_neighbour = run[1:] == run[:-1]
    if not is_neighbour.any():
        return Confounding(is_block_design, 0, 0, 0, None, None)

    def alike(label: np.ndarray) -> float:
        return float((label[1:] == label[:-1])[is_neighbour].mean())

    def in_one_run(label: np.ndarray) -> int:
        occurs = np.zeros((n_subjects * n_labels, n_runs), bool)
        occurs[subject * n_labels + label, run] = True
        return int((occurs.sum(axis=1) == 1).sum())

    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(subject == s) for s in range(n_subjects)]
    permuted = np.empty((N_PERMUTATIONS, 2))
    shuffled = label.copy()
    for i in range(N_PERMUTATIONS):
        for of_subject in rows:
            shuffled[of_subject] = rng.permutation(label[of_subject])
        permuted[i] = alike(shuffled), in_one_run(shuffled)
    n_pairs = len(np.unique(subject * n_labels + label))
    return Confounding(
        is_block_design=is_block_design,
        n_trials=len(trials),
        n_labels=int(n_labels),
        n_runs=int(n_runs),
        neighbours_alike=Measured.against(alike(label), permuted[:, 0], 1.0),
        labels_in_one_run=(
            Measured.against(in_one_run(label), permuted[:, 1], n_pairs)
            if n_runs > n_subjects
            else None
        ),
    )


def _trials(c: dict[str, np.ndarray], run: np.ndarray) -> np.ndarray:
    """One row for each trial whose place in time is told.

    Marker-locked epochs are trials; of sliding ones, which overlap, the first that holds
    each picture is.
    """
    told = (c["label"] >= 0) & np.isfinite(c["t_onset"]) & (c["run"] >= 0)
    locked = np.flatnonzero(told & (c["is_locked"] == 1))
    if len(locked):
        return locked
    seen = np.flatnonzero(told & (c["image_id"] >= 0))
    is_new = np.ones(len(seen), bool)
    image_id = c["image_id"][seen]
    is_new[1:] = (image_id[1:] != image_id[:-1]) | (run[seen][1:] != run[seen][:-1])
    return seen[is_new]
