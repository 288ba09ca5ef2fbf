"""Rows of a prepared set for training, validation and test that keep groups apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from models.errors import SplitError
from models.training.confounding import Columns

By = Literal["split", "session", "run", "block", "position", "image"]

# The columns that make a group; rows in which the last of them is negative have none.
_GROUPS: dict[str, tuple[str, ...]] = {
    "session": ("subject", "session"),
    "run": ("subject", "session", "run"),
    "position": ("position",),
    "image": ("image_id",),
}
_REMEDY = f"Split by another of {', '.join(get_args(By))}, or record more."


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Which rows train, which validate and which test.

    Attributes
    ----------
    by, seed : as asked for.
    train, validation, test : each (n,) int64, sorted; disjoint.
    n_groups : of each of the three.
    n_left_out : rows that are in none of them, as they have no group.
    """

    by: By
    seed: int
    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor
    n_groups: tuple[int, int, int]
    n_left_out: int

    @property
    def sentence(self) -> str:
        """For people and result files."""
        parts = ", ".join(
            f"{len(rows)} for {name} ({n} groups)"
            for name, rows, n in zip(
                ("training", "validation", "test"),
                (self.train, self.validation, self.test),
                self.n_groups,
                strict=True,
            )
        )
        left = f"; {self.n_left_out} have no group and are left out" if self.n_left_out else ""
        return f"Rows are split by {self.by}, seed {self.seed}: {parts}{left}."


def split_rows(
    columns: Columns, by: By, shares: tuple[float, float] = (0.1, 0.1), seed: int = 0
) -> Split:
    """Split the rows of a prepared set so that no group is in two parts.

    Parameters
    ----------
    columns : of the set's epochs, each of shape (n,).
    by : what makes a group.

        - "split": as the data set's makers told (column `split`); others are left out.
        - "session", "run": of a subject.
        - "block": neighbouring rows of a run with the same label; what a block design needs.
        - "position": the trial's place in its run; what is needed where the order of trials
          is the same in all runs, as there the same place is the same trial. Sliding epochs
          have no place and are left out.
        - "image": the picture; rows without one are left out.
    shares : of validation and test among groups; at least one group each (none where the
        share is 0). Where each group holds one label, labels are split alike.
    seed : of the choice.

    Raises
    ------
    SplitError
        The groups are not told or too few, or a part would hold labels that training lacks.
    """
    if by == "split":
        return _as_told(columns, seed)
    label = _column(columns, "label")
    group = _blocks(columns, label) if by == "block" else _groups(columns, by)
    rows = np.flatnonzero(group >= 0)
    if not len(rows):
        raise SplitError(f"No row of the set tells its {by}. {_REMEDY}")
    found, first = np.unique(group[rows], return_index=True)
    rng = np.random.default_rng(seed)
    own = label[rows[first]]
    is_pure = bool((own[np.searchsorted(found, group[rows])] == label[rows]).all())
    strata = [found[own == value] for value in np.unique(own)] if is_pure else [found]
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for stratum in strata:
        for part, groups in zip(parts, _deal(rng.permutation(stratum), shares, by), strict=True):
            part.append(groups)
    chosen = [np.concatenate(part) for part in parts]
    train, validation, test = (np.flatnonzero(np.isin(group, groups)) for groups in chosen)
    _check_labels(label, train, np.concatenate([validation, test]), by)
    return Split(
        by,
        seed,
        torch.from_numpy(train),
        torch.from_numpy(validation),
        torch.from_numpy(test),
        n_groups=(len(chosen[0]), len(chosen[1]), len(chosen[2])),
        n_left_out=len(label) - len(rows),
    )


def _deal(
    groups: np.ndarray, shares: tuple[float, float], by: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test of shuffled groups."""
    n_validation, n_test = (max(1, round(s * len(groups))) if s > 0 else 0 for s in shares)
    n_train = len(groups) - n_validation - n_test
    if n_train < 1:
        raise SplitError(
            f"Splitting by {by} needs at least {1 + (shares[0] > 0) + (shares[1] > 0)} groups (of "
            f"each label, where a group holds one label); found {len(groups)}. {_REMEDY}"
        )
    return (
        groups[:n_train],
        groups[n_train : n_train + n_validation],
        groups[n_train + n_validation :],
    )


def _column(columns: Columns, name: str) -> np.ndarray:
    return np.asarray(columns[name])


def _groups(columns: Columns, by: str) -> np.ndarray:
    """Number of each row's group; -1 where it has none."""
    parts = [_column(columns, name) for name in _GROUPS[by]]
    _, group = np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)
    return np.where(parts[-1] >= 0, group.reshape(-1), -1)


def _blocks(columns: Columns, label: np.ndarray) -> np.ndarray:
    """Number of each row's block; -1 where nothing was seen or the time is not told."""
    names = ("t_onset", "run", "session", "subject")
    keys = [_column(columns, name) for name in names]
    told = np.flatnonzero((label >= 0) & np.isfinite(keys[0]) & (keys[1] >= 0))
    order = told[np.lexsort([key[told] for key in keys])]
    is_new = label[order][1:] != label[order][:-1]
    for key in keys[1:]:
        is_new |= key[order][1:] != key[order][:-1]
    group = np.full(len(label), -1)
    group[order] = np.concatenate([[0], np.cumsum(is_new)])[: len(order)]
    return group


def _as_told(columns: Columns, seed: int) -> Split:
    told = _column(columns, "split")
    train, validation, test = (np.flatnonzero(told == number) for number in range(3))
    if not len(train) or not len(test):
        raise SplitError(
            f"The set tells of {len(train)} rows for training and {len(test)} for test. {_REMEDY}"
        )
    return Split(
        "split",
        seed,
        torch.from_numpy(train),
        torch.from_numpy(validation),
        torch.from_numpy(test),
        n_groups=(1, int(len(validation) > 0), 1),
        n_left_out=int((told < 0).sum()),
    )


def _check_labels(label: np.ndarray, train: np.ndarray, others: np.ndarray, by: str) -> None:
    lacking = sorted(set(label[others].tolist()) - set(label[train].tolist()) - {-1})
    if lacking:
        raise SplitError(
            f"Split by {by}, training would lack {len(lacking)} labels that validation or test "
            f"hold ({', '.join(map(str, lacking[:8]))}): they occur in too few groups, as in a "
            f"block design. {_REMEDY}"
        )
