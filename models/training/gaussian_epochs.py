"""More training epochs than were recorded: drawn from the Gaussian model behind LDA.

A few hundred trials do not teach a network what is noise. Linear discriminant analysis
assumes that epochs scatter around their class's mean with one covariance, estimated with
shrinkage (Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4); here epochs are drawn
from that very model, fitted to the training epochs alone. A network that learns them
learns the same decision, and goes on from there with the recorded ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf


@dataclass(frozen=True, slots=True, eq=False)
class GaussianEpochs:
    """Means of classes and one covariance, of epochs whose values were scaled.

    Attributes
    ----------
    mean : (n_classes, n_channels * n_times).
    covariance : (n_channels * n_times, n_channels * n_times).
    scale : (n_channels, n_times), standard deviation of each value.
    """

    mean: np.ndarray
    covariance: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(
        cls, eeg: np.ndarray, label: np.ndarray, family: np.ndarray, kept: float
    ) -> GaussianEpochs:
        """Fit to training epochs.

        Parameters
        ----------
        eeg : (n, n_channels, n_times).
        label : (n,), 0 to n_classes - 1, each at least once.
        family : (n_classes,), family of each class.
        kept : share of a class's difference from its family's mean that is believed, since
            means of few trials scatter more than the classes differ; 1 believes all.
        """
        scale = np.maximum(eeg.std(axis=0), 1e-6)
        values = (eeg / scale).reshape(len(eeg), -1)
        mean = np.stack([values[label == c].mean(axis=0) for c in range(len(family))])
        covariance, _ = ledoit_wolf(values - mean[label], assume_centered=True)
        # The means were fitted to the same epochs.
        covariance *= len(eeg) / (len(eeg) - len(family))
        for number in np.unique(family):
            ours = family == number
            common = mean[ours].mean(axis=0)
            mean[ours] = common + kept * (mean[ours] - common)
        return cls(mean, covariance, scale)

    def log_likelihood(self, eeg: np.ndarray) -> np.ndarray:
        """Of epochs under each class, up to a constant, (n, n_classes)."""
        values = (eeg / self.scale).reshape(len(eeg), -1)
        weights = np.linalg.solve(self.covariance, self.mean.T)
        return np.asarray(values @ weights - 0.5 * (self.mean.T * weights).sum(axis=0))

    def draw(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An epoch for each label (n,): (n, n_channels, n_times), float32."""
        root = np.linalg.cholesky(self.covariance)
        noise = rng.standard_normal((len(label), len(root))) @ root.T
        epochs = (self.mean[label] + noise).reshape(len(label), *self.scale.shape)
        return np.asarray((epochs * self.scale).astype(np.float32))


def choose_kept(
    eeg: np.ndarray,
    label: np.ndarray,
    fold: np.ndarray,
    family: np.ndarray,
    shares: tuple[float, ...] = (1.0, 0.6, 0.3, 0.1),
) -> float:
    """The share `kept` with which inner folds of training data are told best.

    Parameters
    ----------
    eeg, label, family : see `GaussianEpochs.fit`.
    fold : (n,) inner fold of each epoch.
    """
    right = {}
    for kept in shares:
        hits = []
        for number in np.unique(fold):
            test = fold == number
            model = GaussianEpochs.fit(eeg[~test], label[~test], family, kept)
            hits.append(model.log_likelihood(eeg[test]).argmax(axis=1) == label[test])
        right[kept] = float(np.concatenate(hits).mean())
    return max(right, key=lambda kept: right[kept])
