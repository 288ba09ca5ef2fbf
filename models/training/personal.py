"""What a person's own epochs teach, and how well that is known to work on other ones of theirs.

A reader for a person is made from minutes of their EEG. Whether what other subjects' responses say
is believed, and how much, is chosen on their training runs alone; what is reported of a run comes
from readers that never saw it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from sklearn.covariance import ledoit_wolf

from models.training.lda import Windows
from models.training.population import Population, Posterior, Responses, posterior
from models.training.templates import discriminant, features_of, means_of, ridged

# Shares of the population's noise in a person's; the rest is their own.
SHARES = (1.0, 0.7, 0.4)
# At most so much of it at other lags: whoever blinks otherwise than others would seem to see much.
LAGS_SHARE = 0.7
RIDGE = 5e-3
# Seconds of a window of a committee's members.
COMMITTEE_S = 0.03
# At most so many parts, of whole runs, are held out one after the other.
MOST_FOLDS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Epochs:
    """Marker-locked epochs of a person.

    Attributes
    ----------
    eeg : (n, n_channels, n_times), float32, as the bundle wants them.
    label, run : (n,).
    """

    eeg: np.ndarray
    label: np.ndarray
    run: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def at(self, which: np.ndarray) -> Epochs:
        """Those at places, or where it is true."""
        return Epochs(self.eeg[which], self.label[which], self.run[which])


@dataclass(frozen=True, slots=True)
class Method:
    """One way to make a reader.

    Attributes
    ----------
    share : of the population's noise, for a reader that believes the population; None: none is.
    windows : whose means LDA reads, for one that does not.
    is_stationary : whether its noise is taken to be the same at every time; see `stationary`.
    members : methods with windows whose scores are averaged, for a committee.
    """

    share: float | None = None
    windows: Windows | None = None
    is_stationary: bool = False
    members: tuple[Method, ...] = ()

    def __str__(self) -> str:
        if self.share is not None:
            return f"responses of other subjects as a prior, {self.share:.0%} of their noise"
        if self.members:
            return f"the mean of {', '.join(map(str, self.members))}"
        assert self.windows is not None
        w = self.windows
        baseline = ", less the baseline" if w.n_baseline else ""
        noise = ", stationary noise" if self.is_stationary else ""
        return f"LDA of means of {w.width} samples, {w.start} to {w.end}{baseline}{noise}"


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Log likelihood ratios, linear in the means of `width` samples.

    Attributes
    ----------
    weights, constants : (n_classes, n_features), (n_classes,).
    responses : with a population, what is known of the person's.
    covariance : of features around them, likewise, for sliding windows.
    """

    weights: np.ndarray
    constants: np.ndarray
    width: int
    responses: Posterior | None = None
    covariance: np.ndarray | None = None

    def scores(self, eeg: np.ndarray) -> np.ndarray:
        """Epochs (n, n_channels, n_times) to (n, n_classes)."""
        features = features_of(means_of(eeg, self.width))
        return np.asarray(features @ self.weights.T + self.constants)


def methods(n_times: int, onset: int, sfreq: float, population: Population | None) -> list[Method]:
    """What is tried: the population believed to several degrees, and a committee of LDA.

    Parameters
    ----------
    onset : sample of an epoch at which the picture appears.
    """
    width = max(1, round(COMMITTEE_S * sfreq))
    committee = tuple(
        Method(windows=Windows(onset, end, width), is_stationary=is_stationary)
        for end in (onset + (n_times - onset) // 2, n_times)
        for is_stationary in (False, True)
    )
    of_others = [Method(share) for share in SHARES] if population else []
    return [*of_others, Method(members=committee)]


def baselines(n_times: int, onset: int, sfreq: float) -> list[Method]:
    """What a user would try first: LDA of several windows; parameters as `methods`."""
    return [
        Method(windows=Windows(onset, end, max(1, round(seconds * sfreq)), n_baseline))
        for seconds in (0.03, 0.06)
        for end in (onset + (n_times - onset) // 2, n_times)
        for n_baseline in ((0, onset) if onset else (0,))
    ]


def fit(method: Method, epochs: Epochs, n_classes: int, population: Population | None) -> Linear:
    """Make a reader of epochs.

    Parameters
    ----------
    population : as the person's electrodes see it, in the epochs' units.
    """
    if method.members:
        found = [fit(member, epochs, n_classes, None) for member in method.members]
        weights = np.mean([each.weights for each in found], axis=0)
        return Linear(weights, np.mean([each.constants for each in found], axis=0), 1)
    if method.share is None:
        return _fit_windows(method, epochs, n_classes)
    assert population is not None
    means = means_of(epochs.eeg, population.width)
    own = Responses.of(means, epochs.label, n_classes)
    rest = features_of(means - own.mean[epochs.label]).astype(np.float64)
    n_free = max(1, len(epochs) - int((own.n > 0).sum()))
    n_features = rest.shape[1]
    of_others = population.noise.reshape(n_features, n_features)
    own_noise = (rest.T @ rest) / n_free

    def mixed(share: float) -> np.ndarray:
        return share * of_others + (1 - share) * own_noise

    noise = mixed(method.share)
    known = posterior(population, own, ridged(noise, RIDGE))
    n_windows = means.shape[2]
    roots = known.root[:, :, :n_windows]
    flat = (roots - roots.mean(axis=2, keepdims=True)).reshape(n_classes, n_features, -1)
    unknown = np.einsum("kir,kjr->ij", flat, flat, optimize=True) / n_classes
    covariance = ridged(noise + unknown, RIDGE)
    centres = features_of(known.mean[:, :, :n_windows])
    at_lags = ridged(mixed(min(method.share, LAGS_SHARE)) + unknown, RIDGE)
    return Linear(*discriminant(centres, covariance), population.width, known, at_lags)


def _fit_windows(method: Method, epochs: Epochs, n_classes: int) -> Linear:
    windows = method.windows
    assert windows is not None
    n_channels, n_times = epochs.eeg.shape[1:]
    features = windows(epochs.eeg).astype(np.float64)
    classes, place = np.unique(epochs.label, return_inverse=True)
    centres = np.array([features[place == k].mean(axis=0) for k in range(len(classes))])
    # Pooled, since a class may have two epochs (Ledoit and Wolf 2004).
    rest = features - centres[place]
    deviation = np.maximum(rest.std(axis=0), 1e-9)
    shrunk, _ = ledoit_wolf(rest / deviation, assume_centered=True)
    covariance = shrunk * np.outer(deviation, deviation)
    if method.is_stationary:
        covariance = stationary(covariance, n_channels)
    weights, constants = discriminant(centres, covariance)
    # Window means are linear in the samples, so are the discriminants.
    of_one = windows(np.eye(n_times)[:, None])
    by_channel = weights.reshape(len(weights), n_channels, -1) @ of_one.T
    out = np.zeros((n_classes, n_channels * n_times))
    level = np.full(n_classes, -np.inf)
    out[classes] = by_channel.reshape(len(weights), -1)
    level[classes] = constants
    return Linear(out, level, 1)


def stationary(covariance: np.ndarray, n_channels: int) -> np.ndarray:
    """The covariance of windows whose noise is the same at all times, so of far fewer numbers.

    Block-Toeplitz LDA of Sosulski and Tangermann 2022 (doi:10.1088/1741-2552/ac9c98): blocks of
    the same lag are averaged, and tapered by the lag, which keeps the matrix positive definite.

    Parameters
    ----------
    covariance : (n_channels * n_windows, n_channels * n_windows), windows of a channel together.
    """
    n_windows = len(covariance) // n_channels
    blocks = covariance.reshape(n_channels, n_windows, n_channels, n_windows)
    out = np.zeros_like(blocks)
    for lag in range(n_windows):
        first = np.arange(n_windows - lag)
        # Advanced indices with a slice between come first: (n, n_channels, n_channels).
        block = blocks[:, first, :, first + lag].sum(axis=0) / n_windows
        out[:, first, :, first + lag] = block
        out[:, first + lag, :, first] = block.T
    return out.reshape(covariance.shape)


def folds(run: np.ndarray) -> np.ndarray:
    """The part in which each epoch is held out, (n,): whole runs, or stretches of the only one."""
    runs, place = np.unique(run, return_inverse=True)
    if len(runs) == 1:
        return np.arange(len(run)) * 5 // len(run)
    return np.asarray(place * min(len(runs), MOST_FOLDS) // len(runs))


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What readers that never saw an epoch's run say of it.

    Attributes
    ----------
    scores : (n, n_classes).
    chosen : method of each fold.
    """

    scores: np.ndarray
    chosen: list[Method]

    @property
    def said(self) -> np.ndarray:
        """(n,) classes; -1 where nothing was said."""
        return np.where(np.isinf(self.scores).all(axis=1), -1, self.scores.argmax(axis=1))


def hold_out(
    epochs: Epochs,
    n_classes: int,
    candidates: list[Method],
    population: Population | None,
    fold: np.ndarray,
    share: float = 1.0,
    is_forward: bool = False,
    tell: Callable[[float], None] = lambda _: None,
) -> HeldOut:
    """Read every fold by what the others teach; the method is chosen on the others, too.

    Parameters
    ----------
    fold : (n,).
    share : of the training epochs that are used, the first ones of each fold.
    is_forward : whether only folds before it teach one. Then none is both teacher and pupil of
        another, and their results are independent where nothing can be learnt. What had no
        teachers enough keeps scores of minus infinity.
    tell : told the share of folds that are done.
    """
    scores = np.full((len(epochs), n_classes), -np.inf)
    chosen = []
    numbers = np.unique(fold)
    for done, number in enumerate(numbers):
        tell(done / len(numbers))
        train = (fold < number if is_forward else fold != number) & _first(fold, share)
        if is_forward and not all(can_learn(each, epochs.at(train)) for each in candidates):
            continue
        best = choose(epochs.at(train), n_classes, candidates, population, fold[train])
        model = fit(best, epochs.at(train), n_classes, population)
        scores[fold == number] = model.scores(epochs.eeg[fold == number])
        chosen.append(best)
    return HeldOut(scores, chosen)


def _first(fold: np.ndarray, share: float) -> np.ndarray:
    """Whether each epoch is among the first `share` of its fold."""
    out = np.zeros(len(fold), bool)
    for number in np.unique(fold):
        places = np.flatnonzero(fold == number)
        out[places[: max(1, round(share * len(places)))]] = True
    return out


def choose(
    epochs: Epochs,
    n_classes: int,
    candidates: list[Method],
    population: Population | None,
    fold: np.ndarray,
) -> Method:
    """The method that is right most often across the parts of what it may learn from.

    A part that lacks a class, or has all epochs of one, can teach LDA nothing: then the first
    candidate is taken.
    """
    if len(candidates) == 1:
        return candidates[0]
    if len(np.unique(fold)) == 1:
        # Of two runs one is held out: of the other, stretches.
        fold = folds(fold)
    best, highest = candidates[0], -1.0
    for method in candidates:
        said = np.zeros(len(epochs), int)
        for number in np.unique(fold):
            train = fold != number
            if not can_learn(method, epochs.at(train)):
                break
            model = fit(method, epochs.at(train), n_classes, population)
            said[~train] = model.scores(epochs.eeg[~train]).argmax(axis=1)
        else:
            if (found := balanced(said == epochs.label, epochs.label)) > highest:
                best, highest = method, found
    return best


def can_learn(method: Method, epochs: Epochs) -> bool:
    """Whether there are epochs enough for it."""
    if not len(epochs):
        return False
    n_classes = len(np.unique(epochs.label))
    return method.share is not None or (n_classes > 1 and len(epochs) > n_classes)


def balanced(right: np.ndarray, label: np.ndarray) -> float:
    """Share of right answers, every class counting the same."""
    n = np.bincount(label)
    of_class = np.bincount(label, weights=right)[n > 0] / n[n > 0]
    return float(of_class.mean())


def scaled(population: Population, matrix: np.ndarray, deviation: np.ndarray) -> Population:
    """A population as a person's epochs show it.

    Parameters
    ----------
    matrix : (n_channels, n_channels), from the population's electrodes to those of the epochs.
    deviation : (n_channels,), microvolts; what the epochs were divided by, typically.
    """
    return replace(population.seen_by(matrix / deviation[:, None]))
