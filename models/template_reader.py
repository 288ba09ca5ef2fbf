"""What was seen, read by templates: responses to each concept, at every lag since it appeared.

Window means of an epoch are taken to be a concept's mean response, some time after the picture
appeared, and Gaussian noise: linear discriminant analysis (Blankertz et al. 2011,
doi:10.1016/j.neuroimage.2010.06.048) where the lag is known, as in marker-locked epochs, and its
sum over all lags where it is not. The encoder's own answer is weighed in.

A linear reader and the encoder err on different epochs, and a reader can be made of minutes of a
person's EEG (`models.training.templates`), when the encoder cannot learn yet.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class Reading(NamedTuple):
    """What is read in n epochs.

    Attributes
    ----------
    probabilities : (n, n_concepts).
    is_seen : (n,) bool, whether anything was seen.
    """

    probabilities: torch.Tensor
    is_seen: torch.Tensor


def window_means(eeg: torch.Tensor, width: int) -> torch.Tensor:
    """Epochs (n, n_channels, n_times) to means of `width` samples without each channel's own.

    Returns
    -------
    (n, n_channels * n_times // width).
    """
    means = eeg.unflatten(2, (-1, width)).mean(3)
    out: torch.Tensor = (means - means.mean(2, keepdim=True)).flatten(1)
    return out


class TemplateReader(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Reads the concept in an epoch, and what the U-Net is told of it.

    Parameters
    ----------
    n_channels, n_times : of epochs, as the encoder's.
    width, locked_width : samples of a window whose mean is taken: for sliding windows and looks,
        and for marker-locked epochs.
    n_concepts : that are told apart.
    n_lags : at which templates are compared with sliding windows.
    rank : of the space in which they are.
    n_context, cross_attention_dim : of the U-Net's context; on the image route one token, CLIP's
        embedding.
    slots : how many words there are for each slot of a caption, as size, place and colour; none:
        nothing is told but the concept.
    decided : power to which the probabilities of words are raised before they are told: a U-Net
        does not paint what is told half.
    stream_odds, stream_weight : log odds above which `models.window_filter` says that something is
        seen, and how much a log likelihood ratio is worth there.
    stream_trust : power to which it raises its probabilities, so that they are shares of right
        answers.
    stream_apart : lags from the appearance of a picture to that of the next, at least; 0: not
        known, a new one may appear at any moment.

    Attributes
    ----------
    contexts : (n_concepts, n_context, cross_attention_dim), of each concept.
    of_concept : (n_concepts, n_words), what a concept's own response adds to the scores of words.
    told : (n_words, n_context, cross_attention_dim), what a word adds to the context.
    weights : (2, 2), of the reader's and the encoder's log probabilities: of marker-locked
        epochs, then of sliding windows.
    seen : (2, 3), likewise: of the reader's log odds that anything was seen, of the encoder's, and
        a constant.
    farthest : squared distance from all templates, in their space, of an epoch that can still be
        EEG; open inputs lie beyond it, and a likelihood ratio means nothing there.
    """

    @register_to_config
    def __init__(
        self,
        n_channels: int = 32,
        n_times: int = 256,
        width: int = 8,
        locked_width: int = 8,
        n_concepts: int = 40,
        n_lags: int = 53,
        rank: int = 128,
        n_context: int = 16,
        cross_attention_dim: int = 128,
        slots: tuple[int, ...] = (),
        decided: float = 3.0,  # noqa: ARG002 - kept in the config
        stream_odds: float = 0.1,  # noqa: ARG002 - likewise
        stream_weight: float = 1.0,  # noqa: ARG002 - likewise
        stream_trust: float = 1.0,  # noqa: ARG002 - likewise
        stream_apart: int = 0,  # noqa: ARG002 - likewise
    ) -> None:
        super().__init__()
        n_features = n_channels * (n_times // width)
        self.locked = nn.Linear(n_channels * (n_times // locked_width), n_concepts)
        self.projection = nn.Linear(n_features, rank, bias=False)
        self.lags = nn.Linear(rank, n_lags * n_concepts)
        if n_words := sum(slots):
            self.words = nn.Linear(n_features, n_words)
            self.of_concept = nn.Parameter(torch.zeros(n_concepts, n_words))
            self.told = nn.Parameter(torch.zeros(n_words, n_context, cross_attention_dim))
        self.contexts = nn.Parameter(torch.zeros(n_concepts, n_context, cross_attention_dim))
        self.weights = nn.Parameter(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        self.seen = nn.Parameter(torch.zeros(2, 3))
        self.farthest = nn.Parameter(torch.tensor(torch.inf))
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.lags.weight)
        nn.init.zeros_(self.lags.bias)
        self.requires_grad_(False)

    def scores(self, eeg: torch.Tensor, is_locked: bool) -> torch.Tensor:
        """Log likelihood ratios (n, n_concepts) of each concept to nothing at all."""
        if is_locked:
            return _linear(self.locked, window_means(eeg.float(), self.config.locked_width))
        by_lag = self.by_lag(eeg)
        out: torch.Tensor = by_lag.logsumexp(1) - math.log(by_lag.shape[1])
        return out

    def by_lag(self, eeg: torch.Tensor) -> torch.Tensor:
        """The same of sliding windows (n, n_lags, n_concepts), for each time since it appeared."""
        every: torch.Tensor = _linear(self.lags, self._place(eeg))
        out: torch.Tensor = every.unflatten(1, (-1, self.config.n_concepts))
        return out

    def distance(self, eeg: torch.Tensor) -> torch.Tensor:
        """Squared distance (n,) of epochs from the nearest template, or nothing; see `farthest`."""
        place = self._place(eeg)
        nearest = _linear(self.lags, place).amax(1).clamp_min(0)
        out: torch.Tensor = place.square().sum(1) - 2 * nearest
        return out

    def _place(self, eeg: torch.Tensor) -> torch.Tensor:
        features = window_means(eeg.float(), self.config.width)
        return F.linear(features, self.projection.weight.float())

    def read(
        self,
        scores: torch.Tensor,
        distance: torch.Tensor,
        encoder_probabilities: torch.Tensor,
        encoder_seen: torch.Tensor,
        is_locked: bool,
    ) -> Reading:
        """Weigh `scores` (n, n_concepts) and what the encoder says.

        Parameters
        ----------
        distance : (n,), of the epochs.
        encoder_probabilities : (n, n_concepts).
        encoder_seen : (n,), log odds that anything was seen.
        """
        row = 0 if is_locked else 1
        of_reader, of_encoder = self.weights[row].float()
        said = encoder_probabilities.float().clamp_min(1e-9).log()
        logits = of_reader * scores.log_softmax(1) + of_encoder * said
        odds = scores.logsumexp(1) - math.log(scores.shape[1])
        own, encoders, constant = self.seen[row].float()
        is_seen = own * odds + encoders * encoder_seen + constant > 0
        return Reading(logits.softmax(1), is_seen & (distance <= self.farthest.float()))

    def context(self, eeg: torch.Tensor, label: torch.Tensor, is_locked: bool) -> torch.Tensor:
        """What the U-Net is told of epochs in which concepts `label` (n,) were read.

        Looks are told of marker-locked epochs alone; of others it is not known when they began.

        Returns
        -------
        (n, n_context, cross_attention_dim).
        """
        context = self.contexts[label].float()
        if is_locked and self.config.slots:
            shares = self.words_of(eeg, label, self.config.decided)
            context = context + torch.einsum("nw,wtd->ntd", shares, self.told.float())
        return context

    def words_of(self, eeg: torch.Tensor, label: torch.Tensor, power: float = 1.0) -> torch.Tensor:
        """Probabilities (n, n_words) of the words of a caption, slot by slot.

        Parameters
        ----------
        eeg : marker-locked epochs (n, n_channels, n_times) in which concepts `label` were read.
        power : to which they are raised.
        """
        scores = _linear(self.words, window_means(eeg.float(), self.config.width))
        scores = power * (scores + self.of_concept[label].float())
        return torch.cat([s.softmax(1) for s in scores.split(list(self.config.slots), 1)], 1)


def _linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    # Sums of a thousand features are no matter for half precision.
    return F.linear(x, layer.weight.float(), layer.bias.float())
