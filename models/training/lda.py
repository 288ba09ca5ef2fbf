"""The simple decoder that others are measured by: window means and shrinkage LDA.

Linear discriminant analysis with a shrunk covariance (Blankertz et al. 2011,
doi:10.1016/j.neuroimage.2010.06.048; shrinkage by Ledoit and Wolf 2004) on the mean of each
channel in each window of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score


@dataclass(frozen=True, slots=True)
class Windows:
    """Which means are taken of an epoch.

    Attributes
    ----------
    start, end : first sample, and the one behind the last.
    width : samples of a window; what is left behind the last whole one is left out.
    n_baseline : samples at the epoch's beginning whose mean is taken off; 0 for none.
    """

    start: int
    end: int
    width: int
    n_baseline: int = 0

    def __call__(self, eeg: np.ndarray) -> np.ndarray:
        """Epochs (n, n_channels, n_times) to features (n, n_channels * n_windows)."""
        if self.n_baseline:
            eeg = eeg - eeg[:, :, : self.n_baseline].mean(axis=2, keepdims=True)
        n_windows = (self.end - self.start) // self.width
        part = eeg[:, :, self.start : self.start + n_windows * self.width]
        means = part.reshape(*part.shape[:2], n_windows, self.width).mean(axis=3)
        return np.asarray(means.reshape(len(eeg), -1))


def candidates(n_times: int, onset: int, sfreq: float) -> list[Windows]:
    """Windows of 15 to 100 ms, to a third, a half and all of an epoch, with and without baseline.

    Parameters
    ----------
    onset : sample of the marker.
    """
    widths = sorted({max(1, round(s * sfreq)) for s in (0.015, 0.03, 0.05, 0.1)})
    ends = sorted({onset + round(share * (n_times - onset)) for share in (1 / 3, 1 / 2, 3 / 4, 1)})
    return [
        Windows(onset, end, width, onset * is_corrected)
        for width, end, is_corrected in product(widths, ends, (0, 1) if onset else (0,))
        if end - onset >= width
    ]


def classifier() -> LinearDiscriminantAnalysis:
    """LDA with Ledoit and Wolf's shrinkage, untrained."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def choose_windows(
    eeg: np.ndarray, label: np.ndarray, fold: np.ndarray, windows: list[Windows]
) -> tuple[Windows, float]:
    """The windows whose labels are told best across inner folds of training data.

    Parameters
    ----------
    fold : (n,) inner fold of each epoch.

    Returns
    -------
    the windows and their balanced accuracy across the inner folds.
    """
    scores = []
    for each in windows:
        features, predicted = each(eeg), np.empty_like(label)
        for number in np.unique(fold):
            test = fold == number
            model = classifier().fit(features[~test], label[~test])
            predicted[test] = model.predict(features[test])
        scores.append(balanced_accuracy_score(label, predicted))
    best = int(np.argmax(scores))
    return windows[best], float(scores[best])


def decide(
    eeg: np.ndarray, label: np.ndarray, fold: np.ndarray, windows: list[Windows]
) -> tuple[np.ndarray, list[tuple[Windows, float]]]:
    """What LDA says of each epoch when its fold is held out.

    The windows are chosen anew for each fold, on the other folds alone.

    Parameters
    ----------
    eeg : (n, n_channels, n_times).
    label : (n,) numbers of classes.
    fold : (n,) of each epoch; epochs that belong together share one.
    windows : to choose from.

    Returns
    -------
    array of shape (n, n_classes) of probabilities, and what `choose_windows` says for each fold.
    """
    probabilities = np.zeros((len(label), len(np.unique(label))))
    chosen = []
    for number in np.unique(fold):
        test = fold == number
        best = choose_windows(eeg[~test], label[~test], fold[~test], windows)
        features = best[0](eeg)
        model = classifier().fit(features[~test], label[~test])
        probabilities[test] = model.predict_proba(features[test])
        chosen.append(best)
    return probabilities, chosen
