"""What a user would try first instead of our decoder: two linear decoders, tuned alike.

All learn from the same training epochs and choose what little they have to choose by their
accuracy on the same validation epochs. `models.training.eegnet` is the third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy import linalg
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from models.pipeline import EEGToImagePipeline
from models.training.lda import Windows, classifier
from models.training.seen import SeenEpochs

# Epochs that are worked on together: all at once would need several times their memory.
PART = 2048
# Of the mean power, added to each electrode's: a dead one has none to divide by.
RIDGE = 1e-6

Features = Callable[[np.ndarray], np.ndarray]
"""Epochs (n, n_channels, n_times) to features (n, n_features)."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Epochs with what was seen.

    Attributes
    ----------
    eeg : (n, n_channels, n_times), float32.
    label : (n,), numbers of classes from 0.
    """

    eeg: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, seen: SeenEpochs) -> Labelled:
        """All of a prepared set's, read into memory."""
        eeg = np.empty((len(seen), *seen.epochs.shape("eeg")), np.float32)
        for places in torch.arange(len(seen)).split(PART):
            eeg[places.numpy()] = seen.eeg(places).numpy()
        return cls(eeg, seen.label.numpy())

    def at(self, channels: list[int]) -> Labelled:
        """With these channels alone."""
        return Labelled(self.eeg[:, channels], self.label)


class Predictor(Protocol):
    """A trained decoder.

    Attributes
    ----------
    chosen : what was chosen on the validation epochs, in a few words.
    """

    @property
    def chosen(self) -> str: ...

    def predict(self, eeg: np.ndarray) -> np.ndarray:
        """Epochs (n, n_channels, n_times) to probabilities (n, n_classes)."""
        ...


def parts(eeg: np.ndarray) -> Iterable[np.ndarray]:
    """Epochs, some at a time."""
    return (eeg[first : first + PART] for first in range(0, len(eeg), PART))


def accuracy(predictor: Predictor, data: Labelled) -> float:
    """Share of epochs whose likeliest class is the label."""
    return float((predictor.predict(data.eeg).argmax(axis=1) == data.label).mean())


@dataclass(frozen=True, slots=True, eq=False)
class LinearPredictor:
    """Shrinkage LDA on features of epochs; see `Predictor`."""

    chosen: str
    features: Features
    model: LinearDiscriminantAnalysis

    def predict(self, eeg: np.ndarray) -> np.ndarray:
        """Epochs (n, n_channels, n_times) to probabilities (n, n_classes)."""
        said = self.model.predict_proba(_all(self.features, eeg))
        # A class that training has no epoch of is never named.
        out = np.zeros((len(eeg), int(self.model.classes_.max()) + 1))
        out[:, self.model.classes_] = said
        return out


def _all(features: Features, eeg: np.ndarray) -> np.ndarray:
    return np.concatenate([features(part) for part in parts(eeg)]).astype(np.float32)


def _best(
    choices: Iterable[tuple[str, Features]], train: Labelled, validation: Labelled
) -> LinearPredictor:
    """The features with which LDA is right most often on the validation epochs."""
    best, highest = None, -1.0
    for chosen, features in choices:
        model = classifier().fit(_all(features, train.eeg), train.label)
        tried = LinearPredictor(chosen, features, model)
        if (found := accuracy(tried, validation)) > highest:
            best, highest = tried, found
    if best is None:
        raise ValueError("there are no features to choose from")
    return best


def _words(windows: Windows) -> str:
    baseline = f", baseline of {windows.n_baseline}" if windows.n_baseline else ""
    return f"means of {windows.width} samples from {windows.start} to {windows.end}{baseline}"


def fit_windows(
    train: Labelled, validation: Labelled, windows: Iterable[Windows]
) -> LinearPredictor:
    """Window means and shrinkage LDA (`models.training.lda`).

    Parameters
    ----------
    windows : to choose from on the validation epochs, as `models.training.lda.candidates`.
    """
    return _best(((_words(each), each) for each in windows), train, validation)


def xdawn_filters(data: Labelled, n_filters: int) -> np.ndarray:
    """Spatial filters in which each class's mean response is strongest beside everything else.

    xDAWN (Rivet et al. 2009, doi:10.1109/TBME.2009.2012869), for epochs that do not overlap:
    the generalised eigenvectors of the covariances of a class's mean epoch and of all epochs,
    as mne finds them where every channel of an epoch has the mean 0.

    Parameters
    ----------
    n_filters : for each class.

    Returns
    -------
    array of shape (n_classes * n_filters, n_channels).
    """
    n_channels, n_times = data.eeg.shape[1:]
    power = np.zeros((n_channels, n_channels))
    for part in parts(data.eeg):
        samples = part.transpose(1, 0, 2).reshape(n_channels, -1).astype(float)
        power += samples @ samples.T / (len(data.eeg) * n_times)
    power += RIDGE * np.trace(power) / n_channels * np.eye(n_channels)
    filters = []
    for label in np.unique(data.label):
        evoked = data.eeg[data.label == label].mean(axis=0, dtype=float)
        evoked -= evoked.mean(axis=1, keepdims=True)
        _, vectors = linalg.eigh(evoked @ evoked.T / n_times, power)
        filters.append(vectors[:, ::-1].T[:n_filters])
    return np.concatenate(filters)


@dataclass(frozen=True, slots=True, eq=False)
class FilteredWindows:
    """Window means of spatially filtered epochs, (n, n_filters * n_windows).

    Attributes
    ----------
    filters : (n_filters, n_channels).
    windows : of the means.
    """

    filters: np.ndarray
    windows: Windows

    def __call__(self, eeg: np.ndarray) -> np.ndarray:
        # Both are linear, so the means, of which there are fewer, are filtered.
        means = self.windows(eeg).reshape(*eeg.shape[:2], -1)
        return np.asarray((self.filters @ means).reshape(len(eeg), -1))


def fit_xdawn(
    train: Labelled,
    validation: Labelled,
    windows: Iterable[Windows],
    n_filters: Iterable[int] = (1, 2, 3),
) -> LinearPredictor:
    """Spatial filters of xDAWN, window means and shrinkage LDA.

    Parameters
    ----------
    windows, n_filters : to choose from on the validation epochs; filters for each class.
    """
    found = {n: xdawn_filters(train, n) for n in n_filters}
    choices = (
        (f"{n} filters per class, {_words(each)}", FilteredWindows(filters, each))
        for each in windows
        for n, filters in found.items()
    )
    return _best(choices, train, validation)


class NearestConcept:
    """A bundle's own answer, the concept nearest to the EEG; see `Predictor`.

    Parameters
    ----------
    pipeline : with concepts, in the order of the labels.
    """

    chosen = "as trained"

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        self._pipeline = pipeline

    def predict(self, eeg: np.ndarray) -> np.ndarray:
        """Epochs (n, n_channels, n_times) to probabilities (n, n_concepts)."""
        encoded = (self._pipeline.encode(torch.from_numpy(part)) for part in parts(eeg))
        return np.concatenate([torch.as_tensor(e.probabilities).cpu().numpy() for e in encoded])
