"""The answer to "does it work for me?": what held-out predictions of a person's EEG are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import chi2

Verdict = Literal["decodes", "a little", "not above chance"]

# One in so many people whom nothing can be read of would be told something else.
ALPHA = 0.01
N_PERMUTATIONS = 1999
N_BOOTSTRAP = 2000
# Of the way from chance to always right, which the interval's lower end must have gone.
ENOUGH = 0.1
# So much worse than LDA a decoder may be at most, by the interval's lower end.
WORSE = -0.05


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of right answers, every class counting the same, with its 95 % interval.

    Attributes
    ----------
    value, low, high : the interval is by the bootstrap over trials of each class.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self:.0%}"

    def __format__(self, form: str) -> str:
        form = form or ".0%"
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def accuracy(right: np.ndarray, label: np.ndarray, seed: int = 0) -> Accuracy:
    """Of right answers (n,) bool to trials of classes `label` (n,)."""
    rng = np.random.default_rng(seed)
    of_class = [right[label == k] for k in np.unique(label)]
    # Always right of few is not right for certain (Jeffreys); a class of few is like the others.
    usual = (right.sum() + 0.5) / (len(right) + 1)
    shares = [(r.sum() + usual) / (len(r) + 1) + usual - right.mean() for r in of_class]
    # n draws of n answers of which a share is right.
    drawn = np.mean(
        [
            rng.binomial(len(r), np.clip(share, 0, 1), N_BOOTSTRAP) / len(r)
            for r, share in zip(of_class, shares, strict=True)
        ],
        axis=0,
    )
    low, high = np.quantile(drawn, (0.025, 0.975))
    value = float(np.mean([r.mean() for r in of_class]))
    return Accuracy(value, min(value, float(low)), max(value, float(high)))


def difference(ours: np.ndarray, other: np.ndarray, label: np.ndarray, seed: int = 0) -> Accuracy:
    """How much more is right of `ours` than of `other`, (n,) bool each, of the same trials."""
    rng = np.random.default_rng(seed)
    drawn, values = [], []
    # As for a share: that none differed of few is not for certain either.
    every = _outcomes(ours.astype(int) - other)
    usual = (every + 0.5) / (every + 0.5).sum()
    shift = usual - every / every.sum()
    for k in np.unique(label):
        more = ours[label == k].astype(int) - other[label == k]
        shares = np.maximum((_outcomes(more) + usual) / (len(more) + 1) + shift, 0)
        times = rng.multinomial(len(more), shares / shares.sum(), N_BOOTSTRAP)
        drawn.append((times[:, 0] - times[:, 2]) / len(more))
        values.append(more.mean())
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    return Accuracy(float(np.mean(values)), float(low), float(high))


def _outcomes(more: np.ndarray) -> np.ndarray:
    """How often the first alone was right, both or none were, the other alone was."""
    return np.array([(more == sign).sum() for sign in (1, 0, -1)])


def shuffled(said: np.ndarray, label: np.ndarray, run: np.ndarray, seed: int = 0) -> Accuracy:
    """Of the same answers to labels that are exchanged within each run."""
    others = exchanged(label, run, np.random.default_rng(seed))
    return accuracy(said == others, others, seed)


def p_value(
    said: np.ndarray,
    label: np.ndarray,
    run: np.ndarray,
    fold: np.ndarray,
    n: int = N_PERMUTATIONS,
    seed: int = 0,
) -> float:
    """How often chance alone would do as well.

    Labels are exchanged within each run of a fold, so that what changes from run to run is no
    reason (blocked permutation; Ojala and Garriga 2010, jmlr.org/papers/v11/ojala10a.html). Given
    what earlier folds taught, that is exact for one fold, and independent of theirs: so Fisher's
    sum of logarithms joins them. Of folds that teach each other it would not hold.

    Parameters
    ----------
    said : (n,), by what was learnt from folds before; -1 where nothing was said.
    label, run, fold : (n,).
    n : exchanges.
    """
    rng = np.random.default_rng(seed)
    of_folds = [
        _p_of_fold(said[fold == k], label[fold == k], run[fold == k], n, rng)
        for k in np.unique(fold[said >= 0])
    ]
    if not of_folds:
        return 1.0
    return float(chi2.sf(-2 * np.log(of_folds).sum(), 2 * len(of_folds)))


def _p_of_fold(
    said: np.ndarray, label: np.ndarray, run: np.ndarray, n: int, rng: np.random.Generator
) -> float:
    weight = 1 / np.maximum(np.bincount(label), 1)
    observed = weight[label][said == label].sum()
    as_good = sum(
        bool(weight[other][said == other].sum() >= observed - 1e-9)
        for other in (exchanged(label, run, rng) for _ in range(n))
    )
    return (1 + as_good) / (1 + n)


def exchanged(label: np.ndarray, run: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels (n,) in another order within each run."""
    out = label.copy()
    for number in np.unique(run):
        places = np.flatnonzero(run == number)
        out[places] = rng.permutation(label[places])
    return out


def verdict(found: Accuracy, chance: float, p: float) -> Verdict:
    """What is said of it."""
    if p > ALPHA:
        return "not above chance"
    return "decodes" if found.low >= chance + ENOUGH * (1 - chance) else "a little"


def sentence(said: Verdict, found: Accuracy, chance: float, n_classes: int) -> str:
    """The same for people."""
    if said == "not above chance":
        return (
            f"It does not work yet: of {n_classes} classes the right one was named in "
            f"{found.value:.0%} of trials that were held out, and chance alone gives {chance:.1%}."
        )
    how = "It works" if said == "decodes" else "It works a little"
    return (
        f"{how}: of {n_classes} classes the right one was named in {found} of trials that were "
        f"held out; chance alone gives {chance:.1%}."
    )


def beside_baseline(less: Accuracy) -> str:
    """What the difference to LDA means."""
    if less.low >= WORSE:
        return f"Beside LDA: {less:+.1%}, not worse."
    return f"Beside LDA: {less:+.1%}; it may be worse than LDA by more than {-WORSE:.0%}."


def growth(curve: list[dict[str, Any]], chance: float) -> str:
    """What more minutes would bring, by a learning curve whose last point has all of them."""
    if len(curve) < 2:
        return "There are too few trials to say whether more would help."
    before, now = (point["accuracy"]["value"] for point in curve[-2:])
    minutes = curve[-1]["minutes"]
    if now <= chance * 1.2:
        return "Nothing was learnt yet, so more minutes may or may not help."
    doubled = (now - before) / np.log(curve[-1]["n_trials"] / curve[-2]["n_trials"]) * np.log(2)
    if doubled < 0.01:
        return f"More than these {minutes:.0f} minutes would hardly help: the curve is flat."
    return (
        f"{minutes:.0f} more minutes would add about {doubled:.0%}, if the curve goes on as it did."
    )


def in_words(report: Mapping[str, Any]) -> str:
    """A report of `app.calibrate` for the terminal, line by line."""
    shown = {name: Accuracy(**report[name]) for name in ("accuracy", "shuffled", "baseline")}
    lines = [f"EEG: {report['honesty']}."] if report["honesty"] == "simulated" else []
    lines += [f"WARNING: {text}" for text in report["warnings"]]
    lines += report["dropped"]
    lines += [
        f"Held out: {shown['accuracy']}; shuffled EEG {shown['shuffled']}; LDA "
        f"{shown['baseline']}; chance {report['chance']:.1%}; p = {report['p_value']:.2g}.",
        report["beside_baseline"],
        report["more"],
        report["no_bundle"] or f"Watch with it: phosphene serve --bundle {report['bundle']}",
    ]
    return "\n".join(line for line in lines if line)
