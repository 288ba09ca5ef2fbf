"""Whether a confidence is what it says: the share of answers that are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.training.metrics import DRAWS, Score

N_BINS = 5
TWINS = 200


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about the same confidence.

    Attributes
    ----------
    low, high : edges; the last bin has its upper one, too.
    confidence : mean.
    right : share of right answers.
    """

    low: float
    high: float
    confidence: float
    right: Score


def reliability(confidence: np.ndarray, right: np.ndarray, picture: np.ndarray) -> list[Bin]:
    """Share of right answers in equally wide bins of confidence; empty bins are left out.

    Parameters
    ----------
    confidence : (n,), 0 to 1.
    right : (n,) bool.
    picture : (n,), which picture each answer is about: answers about the same one are not
        independent.
    """
    place = _place(confidence)
    edges = np.arange(N_BINS + 1) / N_BINS
    return [
        Bin(
            float(edges[number]),
            float(edges[number + 1]),
            float(confidence[place == number].mean()),
            Score.of(right[place == number].astype(float), picture[place == number]),
        )
        for number in np.unique(place)
    ]


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error over the same bins.

    Mean distance of confidence and share of right answers, bins weighted by their answers
    (Naeini et al. 2015, doi 10.1609/aaai.v29i1.9602).

    >>> right = np.array([True, True, False, False])
    >>> round(calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), right), 3)
    0.1
    """
    place = _place(confidence)
    gap = np.bincount(place, confidence - right, minlength=N_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def calibration_score(confidence: np.ndarray, right: np.ndarray, picture: np.ndarray) -> Score:
    """The same with its 95 % interval, by the bootstrap over pictures.

    What is drawn again is never as calibrated as what it is drawn from, so the interval errs to
    larger errors.

    Parameters
    ----------
    picture : (n,), which picture each answer is about.

    >>> calibration_score(np.full(3, 0.9), np.full(3, True), np.arange(3)).interval
    'bootstrap over pictures'
    """
    names, group = np.unique(picture, return_inverse=True)
    n = len(names)
    gap = np.zeros((n, N_BINS))
    np.add.at(gap, (group, _place(confidence)), confidence - right)
    count = np.bincount(group)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(n, size=n) for _ in range(DRAWS)]
    errors = [np.abs(gap[rows].sum(axis=0)).sum() / count[rows].sum() for rows in drawn]
    low, high = np.percentile(errors, [2.5, 97.5])
    value = calibration_error(confidence, right)
    return Score(value, float(low), float(high), len(right), n, "bootstrap over pictures")


def error_of_chance(confidence: np.ndarray, seed: int = 0) -> float:
    """Expected calibration error that as many answers show if the confidence is perfect.

    Few answers are right more or less often than they should be, which is no fault.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.random((TWINS, len(confidence))) < confidence
    return float(np.mean([calibration_error(confidence, right) for right in drawn]))


def _place(confidence: np.ndarray) -> np.ndarray:
    return np.asarray(np.minimum((confidence * N_BINS).astype(int), N_BINS - 1))
