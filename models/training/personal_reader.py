"""A person's reader as bundles have it, of what was learnt from their epochs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.covariance import ledoit_wolf

from models.template_reader import TemplateReader
from models.training.personal import Epochs, Linear, Method, fit
from models.training.population import Population, Responses
from models.training.templates import features_of, means_of, ridged, set_lags, set_locked

# Windows of a template before a picture, and behind the end of what was recorded of the response,
# at which sliding ones may begin and end: there nothing answers to it.
BEFORE, BEHIND = 10, 12
RIDGE = 5e-3
RANK = 128
# A class that was never shown is not named.
NEVER = -1e4


def make_reader(
    model: Linear, epochs: Epochs, base: TemplateReader, shown: np.ndarray
) -> TemplateReader:
    """A reader of one's own; not weighed with an encoder yet.

    Sliding windows are read by one's responses at every lag: where a population is known, by those
    that follow from it, else by means of the epochs.

    Parameters
    ----------
    epochs : that `model` learnt from.
    base : of the bundle that paints, which says how concepts are told to it.
    shown : numbers of the classes that may be named.
    """
    c = base.config
    if model.responses is not None and model.covariance is not None:
        width, covariance = model.width, model.covariance
        at_lags = _at_lags(model.responses.mean, _n_windows(model))
    else:
        width = c.width
        at_lags, covariance = own_lags(epochs, c.n_concepts, width)
    reader: TemplateReader = TemplateReader(
        c.n_channels,
        c.n_times,
        width,
        model.width,
        c.n_concepts,
        len(at_lags),
        min(RANK, *at_lags.reshape(-1, at_lags.shape[2]).shape),
        n_context=c.n_context,
        cross_attention_dim=c.cross_attention_dim,
    )
    reader.contexts.data = base.contexts.data.float().clone()
    never = np.setdiff1d(np.arange(c.n_concepts), shown)
    set_locked(reader, model.weights, model.constants)
    reader.locked.bias.data[never] = NEVER
    set_lags(reader, at_lags, covariance)
    reader.lags.bias.data.view(len(at_lags), -1)[:, never] = NEVER
    return reader


def own_lags(epochs: Epochs, n_classes: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of sliding windows at every lag, by means of a person's own epochs.

    Returns
    -------
    (n_lags, n_classes, n_features), and the covariance of features around them.
    """
    means = means_of(epochs.eeg, width)
    responses = Responses.of(means, epochs.label, n_classes).mean
    rest = features_of(means - responses[epochs.label]).astype(np.float64)
    deviation = np.maximum(rest.std(axis=0), 1e-9)
    shrunk, _ = ledoit_wolf(rest / deviation, assume_centered=True)
    covariance = ridged(shrunk * np.outer(deviation, deviation), RIDGE)
    padded = np.pad(responses, ((0, 0), (0, 0), (0, BEHIND)))
    return _at_lags(padded, means.shape[2]), covariance


def _n_windows(model: Linear) -> int:
    assert model.responses is not None
    return int(model.weights.shape[1] // model.responses.mean.shape[1])


def _at_lags(responses: np.ndarray, n_windows: int) -> np.ndarray:
    """Features of sliding windows at every lag, (n_lags, n_classes, n_features)."""
    padded = np.pad(responses, ((0, 0), (0, 0), (BEFORE, 0)))
    lags = range(padded.shape[2] - n_windows + 1)
    return np.array([features_of(padded[:, :, lag : lag + n_windows]) for lag in lags])


def held_out_readers(
    method: Method,
    epochs: Epochs,
    base: TemplateReader,
    population: Population | None,
    fold: np.ndarray,
) -> Iterator[tuple[int, TemplateReader]]:
    """Each fold, and the reader that all others teach.

    Parameters
    ----------
    fold : (n,), of the epochs.
    """
    for number in np.unique(fold):
        others = epochs.at(fold != number)
        model = fit(method, others, base.config.n_concepts, population)
        yield int(number), make_reader(model, others, base, np.unique(epochs.label))
