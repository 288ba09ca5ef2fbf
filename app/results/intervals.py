"""Scores beyond a mean: a median of waiting times, a ratio of two shares, a paired difference."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from models.training.metrics import DRAWS, Score, bootstrap

METHOD = "bootstrap over pictures"


def finite(score: Score) -> dict[str, Any]:
    """A score as a dictionary for JSON, which has no infinity: None."""
    return {
        name: None if isinstance(v, float) and math.isinf(v) else v
        for name, v in asdict(score).items()
    }


def median(values: np.ndarray, seed: int = 0) -> Score:
    """Median of one value for each picture, with its 95 % bootstrap interval.

    Parameters
    ----------
    values : (n,); infinite where something never happened.
    seed : of the draws.

    >>> median(np.array([1.0, 1.0, np.inf])).value
    1.0
    """
    n = len(values)
    rng = np.random.default_rng(seed)
    drawn = [np.median(values[rng.integers(n, size=n)]) for _ in range(DRAWS)]
    # One of the draws each: between a finite and an infinite one nothing can be interpolated.
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    return Score(float(np.median(values)), float(low), float(high), n, n, METHOD)


def ratio(values: np.ndarray, others: np.ndarray, picture: np.ndarray, seed: int = 0) -> Score:
    """Mean of `values` over that of `others`, with its 95 % bootstrap interval.

    Both are of the same pictures, which are drawn together.

    Parameters
    ----------
    values, others, picture : (n,); the ratio is infinite where all `others` are 0.
    seed : of the draws.

    >>> ratio(np.array([1.0, 1.0]), np.array([2.0, 2.0]), np.array([0, 1])).low
    0.5
    """
    _, group = np.unique(picture, return_inverse=True)
    top, bottom = np.bincount(group, values), np.bincount(group, others)
    n = len(top)
    rng = np.random.default_rng(seed)
    rows = [np.arange(n), *(rng.integers(n, size=n) for _ in range(DRAWS))]
    above, below = (np.array([sums[row].sum() for row in rows]) for sums in (top, bottom))
    ratios = np.divide(above, below, out=np.full(len(rows), np.inf), where=below > 0)
    low, high = np.quantile(ratios[1:], [0.025, 0.975], method="inverted_cdf")
    return Score(float(ratios[0]), float(low), float(high), len(values), n, METHOD)


def unpaired_ratio(
    values: np.ndarray,
    picture: np.ndarray,
    others: np.ndarray,
    other_picture: np.ndarray,
    seed: int = 0,
) -> Score:
    """Mean of `values` over that of `others`, with its 95 % bootstrap interval.

    They need not be of the same pictures: those of each are drawn apart, which makes the interval
    wider where both are right of the same.

    Parameters
    ----------
    values, picture : (n,).
    others, other_picture : (m,); some of `others` must be above 0.
    seed : of the draws.

    >>> unpaired_ratio(np.ones(2), np.arange(2), np.full(3, 2.0), np.arange(3)).high
    0.5
    """
    rng = np.random.default_rng(seed)
    above, below = _drawn(values, picture, rng), _drawn(others, other_picture, rng)
    ratios = np.divide(above, below, out=np.full(DRAWS, np.inf), where=below > 0)
    low, high = np.quantile(ratios, [0.025, 0.975], method="inverted_cdf")
    n_images = len(np.unique(picture))
    value = float(values.mean() / others.mean())
    return Score(value, float(low), float(high), len(values), n_images, METHOD)


def _drawn(values: np.ndarray, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means (DRAWS,) of pictures that are drawn again."""
    _, group = np.unique(picture, return_inverse=True)
    total, count = np.bincount(group, values), np.bincount(group)
    rows = (rng.integers(len(total), size=len(total)) for _ in range(DRAWS))
    return np.array([total[row].sum() / count[row].sum() for row in rows])


def difference(ours: np.ndarray, other: np.ndarray, picture: np.ndarray) -> Score:
    """Mean of paired differences (n,), and its interval over pictures.

    >>> difference(np.ones(4), np.zeros(4), np.arange(4)).low
    1.0
    """
    values = ours.astype(float) - other.astype(float)
    low, high = bootstrap(values, picture)
    return Score(float(values.mean()), low, high, len(values), len(np.unique(picture)), METHOD)
