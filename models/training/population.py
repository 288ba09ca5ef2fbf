"""What the responses of many subjects say of a new one's, before and after some minutes.

Every subject's mean response to a concept is the population's, and what is the subject's own: drawn
from a normal distribution whose covariance other subjects tell (empirical Bayes; Efron and Morris
1973, doi:10.1080/01621459.1973.10481350). From a new subject's epochs follow their responses, also
at lags that nobody has recorded of them, and how sure they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models.errors import TrainingError
from models.training.templates import means_of

RANK = 128
# Of a subject's grand mean response.
COMMON_RANK = 32


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Responses of a population, as window means of long epochs.

    Attributes
    ----------
    mean : (n_concepts, n_channels, n_windows), microvolts; its mean over concepts is `common`.
    own : (n_channels, n_windows, rank); how a subject's response to one concept deviates, for
        independent coordinates of variance one.
    common : (n_channels, n_windows, rank + 1); how the grand mean does, the last is the mean.
    noise : (n_channels, n_windows, n_channels, n_windows) covariance of single epochs around their
        mean response.
    before : windows before the picture appears.
    width : samples of a window.
    """

    mean: np.ndarray
    own: np.ndarray
    common: np.ndarray
    noise: np.ndarray
    before: int
    width: int

    def seen_by(self, matrix: np.ndarray) -> Population:
        """As other electrodes see it.

        Parameters
        ----------
        matrix : (n_seen, n_channels).
        """
        def each(values: np.ndarray) -> np.ndarray:
            return np.asarray(np.einsum("ij,j...->i...", matrix, values))

        noise = each(each(self.noise).transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1)
        mean = np.einsum("ij,kjt->kit", matrix, self.mean)
        return Population(mean, each(self.own), each(self.common), noise, self.before, self.width)

    def save(self, path: Path) -> None:
        """Write it, in half precision."""
        names = ("mean", "own", "common", "noise")
        arrays = {name: getattr(self, name).astype(np.float16) for name in names}
        notes = {"before": str(self.before), "width": str(self.width)}
        save_file(arrays, path, notes)

    @classmethod
    def load(cls, path: Path) -> Population:
        """Read what `save` wrote.

        Raises
        ------
        TrainingError
            It is damaged.
        """
        from safetensors import safe_open

        try:
            arrays = {name: a.astype(np.float64) for name, a in load_file(path).items()}
            with safe_open(path, framework="numpy") as file:
                notes = file.metadata()
            return cls(**arrays, before=int(notes["before"]), width=int(notes["width"]))
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise TrainingError(
                f"{path} does not hold a population ({error}). Fetch the bundle again."
            ) from error


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """Mean responses of one subject.

    Attributes
    ----------
    mean : (n_concepts, n_channels, n_windows).
    n : (n_concepts,), epochs of each.
    """

    mean: np.ndarray
    n: np.ndarray

    @classmethod
    def of(cls, means: np.ndarray, label: np.ndarray, n_concepts: int) -> Responses:
        """From window means (n, n_channels, n_windows) and labels (n,)."""
        n = np.bincount(label, minlength=n_concepts)
        total = np.zeros((n_concepts, *means.shape[1:]))
        np.add.at(total, label, means)
        return cls(total / np.maximum(n, 1)[:, None, None], n)


def fit_population(
    subjects: list[tuple[np.ndarray, np.ndarray]], n_concepts: int, before: int, width: int
) -> Population:
    """From window means (n, n_channels, n_windows) and labels (n,) of each subject."""
    found = [Responses.of(means, label, n_concepts) for means, label in subjects]
    shape = found[0].mean.shape[1:]
    n_features = shape[0] * shape[1]
    noise, n_free = np.zeros((n_features, n_features)), 0
    for (means, label), response in zip(subjects, found, strict=True):
        rest = (means - response.mean[label]).reshape(len(means), -1).astype(np.float64)
        noise += rest.T @ rest
        n_free += len(means) - int((response.n > 0).sum())
    noise /= n_free
    each = np.array([response.mean.reshape(n_concepts, -1) for response in found])
    grand = each.mean(axis=1)
    own = each - grand[:, None]
    mean = own.mean(axis=0)
    strays = (own - mean).reshape(-1, n_features)
    per_concept = 1 / np.mean([1 / response.n.clip(1) for response in found])
    degrees = (len(subjects) - 1) / len(subjects) * (n_concepts - 1) / n_concepts
    covariance = strays.T @ strays / len(strays) / degrees - noise / per_concept
    centred = grand - grand.mean(axis=0)
    common = np.cov(centred.T) - noise / (per_concept * n_concepts)
    return Population(
        mean.reshape(n_concepts, *shape),
        _root(covariance, RANK).reshape(*shape, -1),
        np.concatenate([_root(common, COMMON_RANK), grand.mean(axis=0)[:, None]], axis=1).reshape(
            *shape, -1
        ),
        noise.reshape(*shape, *shape),
        before,
        width,
    )


def _root(covariance: np.ndarray, rank: int) -> np.ndarray:
    """(n, rank) whose product with itself is nearest to a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    kept = np.argsort(values)[::-1][:rank]
    return np.asarray(vectors[:, kept] * np.sqrt(np.clip(values[kept], 0, None)))


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """What is known of a subject's responses.

    Attributes
    ----------
    mean : (n_concepts, n_channels, n_windows), of all windows of the population.
    root : (n_concepts, n_channels, n_windows, rank), whose product with itself is the
        covariance of what is not known.
    """

    mean: np.ndarray
    root: np.ndarray


def posterior(
    population: Population, own: Responses, start: int, noise: np.ndarray
) -> Posterior:
    """A subject's responses, from their own mean ones in some windows.

    Parameters
    ----------
    population : as the subject's electrodes see it.
    own : window means from window `start` of the population on; the same number for all.
    noise : (n_features, n_features) covariance of single epochs in these windows.
    """
    n_windows = own.mean.shape[2]
    part = slice(start, start + n_windows)
    n_concepts = len(population.mean)
    rank = population.own.shape[2]
    flat = population.own[:, part].reshape(-1, rank)
    common = population.common[:, part].reshape(len(flat), -1)
    precision = np.linalg.inv(noise)
    # The grand mean first: it is known from all epochs together.
    weight = own.n / max(1, own.n.sum())
    grand = np.einsum("k,kct->ct", weight, own.mean - population.mean[:, :, part]).ravel()
    spread = noise / max(1, own.n.sum()) + flat @ flat.T * (weight**2).sum()
    coordinates = np.zeros(common.shape[1] - 1)
    if own.n.sum():
        gain = common[:, :-1].T @ np.linalg.inv(spread)
        coordinates = np.linalg.solve(
            gain @ common[:, :-1] + np.eye(len(coordinates)), gain @ (grand - common[:, -1])
        )
    of_all = population.common @ np.append(coordinates, 1.0)
    expected = common @ np.append(coordinates, 1.0)
    information = flat.T @ precision @ flat
    means, roots = [], []
    for k in range(n_concepts):
        seen = own.mean[k].ravel() - population.mean[k][:, part].ravel() - expected
        covariance = np.linalg.inv(np.eye(rank) + own.n[k] * information)
        z = covariance @ (own.n[k] * (flat.T @ (precision @ seen)))
        means.append(population.mean[k] + of_all + population.own @ z)
        roots.append(population.own @ np.linalg.cholesky(covariance))
    return Posterior(np.array(means), np.array(roots))


def long_means(eeg: np.ndarray, width: int) -> np.ndarray:
    """Long epochs in microvolts to their window means."""
    return means_of(eeg.astype(np.float32), width)
