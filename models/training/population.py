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
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from models.errors import TrainingError
from models.training.templates import ridged

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
    noise : (n_channels, n_locked, n_channels, n_locked) covariance of single marker-locked epochs,
        which are the first windows, around their mean response; each channel's mean over the
        windows is taken off.
    width : samples of a window.
    """

    mean: np.ndarray
    own: np.ndarray
    common: np.ndarray
    noise: np.ndarray
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
        return Population(mean, each(self.own), each(self.common), noise, self.width)

    def save(self, path: Path) -> None:
        """Write it, in half precision."""
        names = ("mean", "own", "common", "noise")
        arrays = {name: getattr(self, name).astype(np.float16) for name in names}
        save_file(arrays, path, {"width": str(self.width)})

    @classmethod
    def load(cls, path: Path) -> Population:
        """Read what `save` wrote.

        Raises
        ------
        TrainingError
            It is damaged.
        """
        try:
            arrays = {name: a.astype(np.float64) for name, a in load_file(path).items()}
            with safe_open(path, framework="numpy") as file:
                return cls(**arrays, width=int(file.metadata()["width"]))
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
    subjects: list[tuple[np.ndarray, np.ndarray]], n_concepts: int, n_locked: int, width: int
) -> Population:
    """From window means (n, n_channels, n_windows) and labels (n,) of each subject.

    Parameters
    ----------
    n_locked : of the windows, those of a marker-locked epoch.
    """
    found = [Responses.of(means, label, n_concepts) for means, label in subjects]
    shape = found[0].mean.shape[1:]
    n_features = shape[0] * shape[1]
    noise, n_free = np.zeros((n_features, n_features)), 0
    for (means, label), response in zip(subjects, found, strict=True):
        rest = (means - response.mean[label]).astype(np.float64).reshape(len(means), -1)
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
        _root(covariance, noise, RANK).reshape(*shape, -1),
        np.concatenate(
            [_root(common, noise, COMMON_RANK), grand.mean(axis=0)[:, None]], axis=1
        ).reshape(*shape, -1),
        _centred(_centred(noise.reshape(*shape, *shape)[:, :n_locked, :, :n_locked], 1), 3),
        width,
    )


def _centred(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(values - values.mean(axis=axis, keepdims=True))


def _root(covariance: np.ndarray, noise: np.ndarray, rank: int) -> np.ndarray:
    """(n, rank) whose product with itself is a covariance where it stands out of the noise most."""
    colour = np.linalg.cholesky(ridged(noise))
    white = np.linalg.solve(colour, np.linalg.solve(colour, covariance).T)
    values, vectors = np.linalg.eigh((white + white.T) / 2)
    kept = np.argsort(values)[::-1][:rank]
    return np.asarray(colour @ vectors[:, kept] * np.sqrt(np.clip(values[kept], 0, None)))


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


def posterior(population: Population, own: Responses, noise: np.ndarray) -> Posterior:
    """A subject's responses, from their own mean ones in some windows.

    Parameters
    ----------
    population : as the subject's electrodes see it.
    own : of marker-locked epochs; what is constant over their windows counts for nothing.
    noise : (n_features, n_features) covariance of single ones, likewise.
    """
    n_locked = own.mean.shape[2]
    n_concepts = len(population.mean)
    rank = population.own.shape[2]
    flat = _centred(population.own[:, :n_locked], 1).reshape(-1, rank)
    common = _centred(population.common[:, :n_locked], 1).reshape(len(flat), -1)
    strays = _centred(own.mean - population.mean[:, :, :n_locked], 2).reshape(n_concepts, -1)
    precision = np.linalg.inv(noise)
    # The grand mean first: it is known from all epochs together.
    weight = own.n / max(1, own.n.sum())
    grand = weight @ strays
    spread = noise / max(1, own.n.sum()) + flat @ flat.T * (weight**2).sum()
    coordinates = np.zeros(common.shape[1] - 1)
    if own.n.sum():
        gain = common[:, :-1].T @ np.linalg.inv(spread)
        coordinates = np.linalg.solve(
            gain @ common[:, :-1] + np.eye(len(coordinates)), gain @ (grand - common[:, -1])
        )
    of_all = population.common @ np.append(coordinates, 1.0)
    expected = common @ np.append(coordinates, 1.0)
    if own.n.sum():
        # Where it was recorded it is known; no population of some dozens spans it.
        of_all[:, :n_locked] += (grand - expected).reshape(len(of_all), n_locked)
        expected = grand
    information = flat.T @ precision @ flat
    means, roots = [], []
    for k in range(n_concepts):
        seen = strays[k] - expected
        covariance = np.linalg.inv(np.eye(rank) + own.n[k] * information)
        z = covariance @ (own.n[k] * (flat.T @ (precision @ seen)))
        means.append(population.mean[k] + of_all + population.own @ z)
        roots.append(population.own @ np.linalg.cholesky(covariance))
    return Posterior(np.array(means), np.array(roots))
