"""Right answers beside those to EEG that says nothing: shuffled, noise and zero."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from models.training.metrics import Score
from models.training.trials import CONDITIONS, noise_like


def exchanged(label: np.ndarray, picture: np.ndarray, seed: int = 0) -> np.ndarray:
    """Labels (n,) of epochs after those of the pictures were exchanged.

    Parameters
    ----------
    picture : (n,), which one each epoch is of.
    """
    _, first, place = np.unique(picture, return_index=True, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(label[first])[place])


def nothing_like(eeg: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with each channel's mean and deviation in epochs (n, n_channels, n_times), as many,
    and one epoch of zeros.
    """
    noise = noise_like(torch.from_numpy(eeg), seed).numpy()
    return noise, np.zeros_like(noise[:1])


@dataclass(frozen=True, slots=True, eq=False)
class Controlled:
    """What a decoder names in n epochs, and in EEG that says nothing.

    Attributes
    ----------
    said : (n,).
    noise, zero : (n,), what it names in noise and zero EEG, one answer for each epoch.
    label, picture : (n,), what is right, and which picture each epoch is of.
    """

    said: np.ndarray
    noise: np.ndarray
    zero: np.ndarray
    label: np.ndarray
    picture: np.ndarray

    @classmethod
    def of(cls, answers: Iterable[np.ndarray], label: np.ndarray, picture: np.ndarray) -> Self:
        """Of answers to the EEG, to noise and to zero EEG.

        Of fewer to noise and zero EEG than epochs each stands for several.
        """
        said, noise, zero = answers
        n = len(said)
        return cls(said, np.resize(noise, n), np.resize(zero, n), label, picture)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Those of several sessions, their pictures numbered through."""
        before = np.cumsum([0, *(1 + int(part.picture.max()) for part in parts)])
        columns = ("said", "noise", "zero", "label")
        values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        picture = [part.picture + n for part, n in zip(parts, before, strict=False)]
        return cls(picture=np.concatenate(picture), **values)

    def right(self) -> dict[str, np.ndarray]:
        """Whether each answer is right, (n,) bool, by `CONDITIONS`."""
        others = exchanged(self.label, self.picture)
        answers = (self.said, self.said, self.noise, self.zero)
        truths = (self.label, others, self.label, self.label)
        each = zip(CONDITIONS, answers, truths, strict=True)
        return {name: np.asarray(said == truth) for name, said, truth in each}

    def scores(self) -> dict[str, Score]:
        """Shares of right answers, by `CONDITIONS`."""
        right = self.right().items()
        return {name: Score.of(each.astype(float), self.picture) for name, each in right}
