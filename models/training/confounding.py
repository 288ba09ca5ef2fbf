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

_NAMES = ("label", "image_id", "subject", "session", "run", "position", "t_onset", "is_locked")

ADVICE = (
    "A decoder may read the time instead of the image (Li et al., TPAMI 2020, "
    "doi 10.1109/TPAMI.2020.2973153): keep blocks, runs or sessions apart when splitting (places, "
    "where the order of labels is the same in all runs), and claim nothing that this could explain."
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
    places_alike : share of pairs of trials, in the same place of one run and the next of a
        subject, that have the same label; None where there is no such pair.
    """

    is_block_design: bool | None
    n_trials: int
    n_labels: int
    n_runs: int
    neighbours_alike: Measured | None
    labels_in_one_run: Measured | None
    places_alike: Measured | None

    @property
    def is_confounded(self) -> bool:
        measured = (self.neighbours_alike, self.labels_in_one_run, self.places_alike)
        return bool(self.is_block_design) or any(m is not None and m.is_too_high for m in measured)

    @property
    def sentence(self) -> str:
        """What was measured, in words."""
        if self.neighbours_alike is None:
            return (
                "The order of trials is not told, so it cannot be measured whether label and time "
                "are confounded."
            )
        parts = [f"Of neighbouring trials {_shares(self.neighbours_alike)}"]
        if self.labels_in_one_run is not None:
            m = self.labels_in_one_run
            parts.append(
                f"{m.value:.0f} of {m.most:.0f} labels occur in one run only, against "
                f"{m.expected:.1f} ({m.low:.0f} to {m.high:.0f})"
            )
        if self.places_alike is not None:
            parts.append(f"in the same place of two runs {_shares(self.places_alike)}")
        parts.append(f"{self.n_trials} trials of {self.n_labels} labels in {self.n_runs} runs.")
        return "; ".join(parts)

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


def _shares(m: Measured) -> str:
    return (
        f"{m.value:.1%} have the same label, against {m.expected:.1%} "
        f"({m.low:.1%} to {m.high:.1%}) in random order"
    )


def confounding(
    columns: Columns, is_block_design: bool | None = None, seed: int = 0
) -> Confounding:
    """Measure whether label and time are confounded.

    Neighbours in time with the same label, labels that occur in one run only, and equal
    labels in the same place of two runs are counted and compared with 1000 random
    permutations of each subject's labels.

    Parameters
    ----------
    columns : all but `eeg` of a set's epochs, each of shape (n,).
    is_block_design : as `spec.json` says.
    seed : of the permutations.
    """
    c = {name: np.asarray(columns[name]) for name in _NAMES}
    order = np.lexsort((c["t_onset"], c["run"], c["session"], c["subject"]))
    c = {name: column[order] for name, column in c.items()}
    c["run"] = np.where(c["run"] >= 0, _numbered(c["subject"], c["session"], c["run"]), -1)
    trials = _trials(c)
    c = {name: column[trials] for name, column in c.items()}
    run, subject, (_, label) = (
        _numbered(c["run"]), _numbered(c["subject"]), np.unique(c["label"], return_inverse=True)
    )  # fmt: skip
    neighbours = np.flatnonzero(run[1:] == run[:-1])
    if not len(neighbours):
        return Confounding(is_block_design, 0, 0, 0, None, None, None)
    n_labels, n_runs, n_subjects = (int(x.max()) + 1 for x in (label, run, subject))
    # Trials in the same place of neighbouring runs: neighbours when sorted by place, then run.
    by_place = np.lexsort((run, c["position"], subject))
    is_pair = c["position"][by_place][1:] >= 0
    for key in (subject, c["position"]):
        is_pair &= key[by_place][1:] == key[by_place][:-1]
    pairs = by_place[1:][is_pair], by_place[:-1][is_pair]

    def measure(label: np.ndarray) -> tuple[float, float, float]:
        occurs = np.zeros((n_subjects * n_labels, n_runs), bool)
        occurs[subject * n_labels + label, run] = True
        return (
            float((label[neighbours] == label[neighbours + 1]).mean()),
            float((occurs.sum(axis=1) == 1).sum()),
            float((label[pairs[0]] == label[pairs[1]]).mean()) if len(pairs[0]) else 0.0,
        )

    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(subject == s) for s in range(n_subjects)]
    permuted = np.empty((N_PERMUTATIONS, 3))
    shuffled = label.copy()
    for i in range(N_PERMUTATIONS):
        for of_subject in rows:
            shuffled[of_subject] = rng.permutation(label[of_subject])
        permuted[i] = measure(shuffled)
    most = (1.0, float(len(np.unique(subject * n_labels + label))), 1.0)
    found = [
        Measured.against(value, permuted[:, i], most[i]) for i, value in enumerate(measure(label))
    ]
    return Confounding(
        is_block_design=is_block_design,
        n_trials=len(label),
        n_labels=n_labels,
        n_runs=n_runs,
        neighbours_alike=found[0],
        labels_in_one_run=found[1] if n_runs > n_subjects else None,
        places_alike=found[2] if len(pairs[0]) else None,
    )


def _numbered(*keys: np.ndarray) -> np.ndarray:
    """Rows with equal keys get equal numbers, counted from 0 in the keys' order."""
    _, number = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)
    return number.reshape(-1)


def _trials(c: dict[str, np.ndarray]) -> np.ndarray:
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
    for key in ("image_id", "run"):
        is_new[1:] &= c[key][seen][1:] == c[key][seen][:-1]
    is_new[1:] = ~is_new[1:]
    return seen[is_new]
