"""Making a reader of templates (`models.template_reader`) from labelled epochs.

A template is a concept's mean epoch, at one lag. Of a person with few epochs it is a posterior mean
(`models.training.population`) instead. What is common to all concepts is part of each: so templates
also tell something from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from models.errors import TrainingError
from models.template_reader import TemplateReader
from models.window_filter import WindowFilter

# Of the mean variance, added to each feature's.
RIDGE = 3e-3
# Share of epochs that are taken for EEG.
BELIEVED = 0.99
# Of blank windows may be answered.
FALSE_ANSWERS = 0.1
# So many windows say something of one in ten.
MANY = 40
# What a log likelihood ratio is worth in a stream of windows, and how far it is trusted: what is
# tried.
STREAM_WEIGHTS = (0.7, 1.0, 1.5, 3.0)
STREAM_TRUSTS = tuple(np.geomspace(0.02, 1, 18).round(3).tolist())
# Of a probability whose logarithm is taken.
LEAST = 1e-9


def means_of(eeg: np.ndarray, width: int) -> np.ndarray:
    """Epochs (n, n_channels, n_times) to means of `width` samples, (n, n_channels, n_windows)."""
    n, n_channels, n_times = eeg.shape
    n_windows = n_times // width
    cut = eeg[:, :, : n_windows * width].reshape(n, n_channels, n_windows, width)
    return np.asarray(cut.mean(axis=3, dtype=np.float32))


def features_of(means: np.ndarray) -> np.ndarray:
    """Window means (n, n_channels, n_windows) to features as the reader's, (n, n_features)."""
    centred = means - means.mean(axis=2, keepdims=True)
    return np.asarray(centred.reshape(len(means), means.shape[1] * means.shape[2]))


def ridged(covariance: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """A covariance with an inverse."""
    n = len(covariance)
    return np.asarray(covariance + ridge * np.trace(covariance) / n * np.eye(n))


def discriminant(centres: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and constants of log likelihood ratios to no response at all.

    Parameters
    ----------
    centres : (n, n_features).
    covariance : (n_features, n_features).
    """
    weights = np.linalg.solve(covariance, centres.T).T
    return weights, -0.5 * (weights * centres).sum(axis=1)


def set_locked(reader: TemplateReader, weights: np.ndarray, constants: np.ndarray) -> None:
    """Let a reader read marker-locked epochs by these."""
    reader.locked.weight.data = torch.from_numpy(weights).float()
    reader.locked.bias.data = torch.from_numpy(constants).float()


def set_lags(reader: TemplateReader, at_lags: np.ndarray, covariance: np.ndarray) -> None:
    """Let a reader read sliding windows by templates, in the space in which they differ most.

    Parameters
    ----------
    at_lags : (n_lags, n_concepts, n_features).
    covariance : of windows around their template.
    """
    centres = at_lags.reshape(-1, at_lags.shape[2])
    whitener = np.linalg.cholesky(np.linalg.inv(covariance))
    white = centres @ whitener
    _, _, directions = np.linalg.svd(white, full_matrices=False)
    kept = directions[: reader.config.rank].T
    placed = white @ kept
    reader.projection.weight.data = torch.from_numpy((whitener @ kept).T.copy()).float()
    reader.lags.weight.data = torch.from_numpy(placed).float()
    reader.lags.bias.data = torch.from_numpy(-0.5 * (placed**2).sum(axis=1)).float()


class Slots(NamedTuple):
    """What captions say beside the concept.

    Attributes
    ----------
    words : (n, n_slots), which word fills each slot of each caption.
    sizes : how many words there are for each slot.
    """

    words: np.ndarray
    sizes: tuple[int, ...]

    def one_hot(self) -> np.ndarray:
        """(n, n_words), slot by slot."""
        each = [np.eye(n)[of] for n, of in zip(self.sizes, self.words.T, strict=True)]
        return np.concatenate([np.zeros((len(self.words), 0)), *each], axis=1)


def slots_of(captions: list[str], label: np.ndarray) -> Slots:
    """Find the slots of captions: places at which those of one concept differ.

    Parameters
    ----------
    label : (n,), the concepts.

    Raises
    ------
    TrainingError
        Captions are not of one form.
    """
    split = [caption.split() for caption in captions]
    if len({len(words) for words in split}) > 1:
        raise TrainingError(
            "Captions are of different lengths, so it is not known which of their words say the "
            "same. Prepare the set with `phosphene prepare`."
        )
    words, sizes = [], []
    for place in np.array(split).T:
        names, number = np.unique(place, return_inverse=True)
        if any(len(np.unique(number[label == k])) > 1 for k in np.unique(label)):
            words.append(number)
            sizes.append(len(names))
    return Slots(np.array(words).reshape(len(words), len(captions)).T, tuple(sizes))


def set_words(
    reader: TemplateReader,
    features: np.ndarray,
    concept: np.ndarray,
    slots: Slots,
    contexts: np.ndarray,
) -> None:
    """Let a reader tell looks: the words of a caption, each read by linear discriminants.

    A response is taken to be the concept's, and something of each word; a caption's context, too.

    Parameters
    ----------
    reader : with `contexts`.
    features : (n, n_features) of marker-locked epochs.
    concept : (n,), labels.
    slots : of the captions of what was seen.
    contexts : (n, n_context, dim), of these captions.
    """
    n_concepts = reader.config.n_concepts
    centres = np.array(
        [features[concept == k].mean(axis=0, dtype=float) for k in range(n_concepts)]
    )
    is_said = slots.one_hot()
    rest = features - centres[concept]
    effects = _effects(slots.sizes, is_said, rest)
    within = rest - is_said @ effects
    weights, constants = discriminant(effects, ridged(within.T @ within / len(within)))
    reader.words.weight.data = torch.from_numpy(weights).float()
    reader.words.bias.data = torch.from_numpy(constants + np.log(is_said.mean(axis=0))).float()
    reader.of_concept.data = torch.from_numpy(-centres @ weights.T).float()
    said = (contexts - reader.contexts.data.numpy()[concept]).reshape(len(contexts), -1)
    told = _effects(slots.sizes, is_said, said).reshape(-1, *contexts.shape[1:])
    reader.told.data = torch.from_numpy(told).float()


def _effects(sizes: tuple[int, ...], is_said: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What each word adds to the mean of `y` (n, k), (n_words, k), by least squares."""
    share = is_said.mean(axis=0)
    design = is_said - share
    out = np.linalg.pinv(design.T @ design) @ (design.T @ y)
    for slot in np.split(np.arange(len(out)), np.cumsum(sizes)[:-1]):
        out[slot] -= share[slot] @ out[slot]
    return np.asarray(out)


def set_farthest(reader: TemplateReader, eeg: torch.Tensor) -> None:
    """Take nearly all epochs (n, n_channels, n_times) for EEG, and what lies beyond for none."""
    distance = torch.cat([reader.distance(part) for part in eeg.split(512)])
    reader.farthest.data = distance.quantile(BELIEVED)


class Heard(NamedTuple):
    """Windows of a stream, each read with those before it.

    Attributes
    ----------
    probabilities : (n, n_concepts).
    log_odds : (n,), that anything is seen.
    is_seen : (n,) bool, whether that is said.
    """

    probabilities: np.ndarray
    log_odds: np.ndarray
    is_seen: np.ndarray


def heard(reader: TemplateReader, eeg: torch.Tensor, first_sample: np.ndarray) -> Heard:
    """Read windows one after the other, as live.

    Parameters
    ----------
    eeg : (n, n_channels, n_times), in the order of their time.
    first_sample : (n,), of each; where stretches follow each other, of another part of the grid.
    """
    listening = WindowFilter(reader)
    n = len(eeg)
    out = Heard(np.zeros((n, reader.config.n_concepts)), np.zeros(n), np.zeros(n, bool))
    # By places: of no windows torch makes one part, an empty one.
    for i, first in enumerate(first_sample.tolist()):
        reading = listening.read(eeg[i : i + 1], first)
        out.probabilities[i] = reading.probabilities[0].numpy()
        out.log_odds[i] = listening.log_odds
        out.is_seen[i] = bool(reading.is_seen)
    return out


def stream_losses(
    reader: TemplateReader, eeg: torch.Tensor, first_sample: np.ndarray, label: np.ndarray
) -> np.ndarray:
    """Negative log probabilities of what was seen, summed, by what `fit_stream` chooses from.

    Parameters
    ----------
    reader : that never saw these windows; it is changed.
    eeg, first_sample : as of `heard`.
    label : (n,), of what each answers to; negative where that is not known.

    Returns
    -------
    (n_weights, n_trusts).
    """
    reader.register_to_config(stream_trust=1.0)
    known = np.flatnonzero(label >= 0)
    losses = np.zeros((len(STREAM_WEIGHTS), len(STREAM_TRUSTS)))
    for i, weight in enumerate(STREAM_WEIGHTS):
        reader.register_to_config(stream_weight=weight)
        said = np.log(np.maximum(heard(reader, eeg, first_sample).probabilities[known], LEAST))
        for j, trust in enumerate(STREAM_TRUSTS):
            logits = trust * said
            of_label = logits[np.arange(len(known)), label[known]]
            losses[i, j] = (np.logaddexp.reduce(logits, axis=1) - of_label).sum()
    return losses


def fit_stream(reader: TemplateReader, losses: np.ndarray) -> None:
    """Let a reader weigh a stream of windows as costs least; `losses` as of `stream_losses`."""
    i, j = np.unravel_index(losses.argmin(), losses.shape)
    reader.register_to_config(stream_weight=STREAM_WEIGHTS[i], stream_trust=STREAM_TRUSTS[j])


def backwards(eeg: torch.Tensor, first_sample: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Windows (n, n_channels, n_times) and their first samples (n,), the last sample first."""
    return eeg.flip(0, 2), -(first_sample[::-1] + eeg.shape[2])


def set_stream(
    reader: TemplateReader, eeg: torch.Tensor, first_sample: np.ndarray, is_nothing: np.ndarray
) -> None:
    """Let one in ten windows of nothing be answered where windows are read with those before.

    Parameters
    ----------
    eeg, first_sample : as of `heard`.
    is_nothing : (n,) bool, which are of nothing. Of fewer than `MANY` too little is learnt: then
        the EEG stands for it, with time running backwards. That is as loud and as slow, and holds
        no response as the reader knows them.
    """
    if reader.config.n_lags == 1 or not len(eeg):
        return
    if is_nothing.sum() < MANY:
        odds = heard(reader, *backwards(eeg, first_sample)).log_odds
    else:
        # Of all: what was seen before is remembered for a while.
        odds = heard(reader, eeg, first_sample).log_odds[is_nothing]
    reader.register_to_config(stream_odds=float(np.quantile(odds, 1 - FALSE_ANSWERS)))


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """Held-out epochs of one kind, as reader and encoder see them.

    Attributes
    ----------
    scores, encoder : (n, n_concepts), of the reader, and the encoder's probabilities.
    label : (n,).
    odds : (n,), the encoder's log odds that anything was seen.
    blank_scores, blank_odds : of epochs of nothing.
    """

    scores: torch.Tensor
    encoder: torch.Tensor
    label: torch.Tensor
    odds: torch.Tensor
    blank_scores: torch.Tensor
    blank_odds: torch.Tensor


def set_weights(reader: TemplateReader, row: int, w: Weighed) -> None:
    """Weigh reader and encoder so that confidence is the share of right answers.

    Also finds what tells something from nothing, so that one in ten blank windows is answered.

    Parameters
    ----------
    row : 0 for marker-locked epochs, 1 for sliding windows.
    """
    reads, said = w.scores.log_softmax(1), w.encoder.clamp_min(1e-9).log()
    log_weights = torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        a, b = log_weights.exp()
        loss = torch.nn.functional.cross_entropy(a * reads + b * said, w.label)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    reader.weights.data[row] = log_weights.detach().exp()
    if not len(w.blank_scores):
        reader.seen.data[row] = torch.tensor([0.0, 0.0, 1.0])
        return
    answered = torch.stack([w.scores.logsumexp(1), w.odds], 1)
    blank = torch.stack([w.blank_scores.logsumexp(1), w.blank_odds], 1)
    both = torch.cat([answered, blank]).double().numpy()
    # What is the same for all epochs tells nothing.
    deviation = np.where((spread := both.std(axis=0)) > 1e-9, spread, 1.0)
    is_seen = np.arange(len(both)) < len(answered)
    model = LogisticRegression(class_weight="balanced").fit(both / deviation, is_seen)
    slopes = torch.from_numpy(model.coef_[0] / deviation).float()
    constant = -(blank @ slopes).quantile(1 - FALSE_ANSWERS)
    # The reader's own odds are less the number of concepts.
    constant = constant + slopes[0] * np.log(w.scores.shape[1])
    reader.seen.data[row] = torch.stack([*slopes, constant])
