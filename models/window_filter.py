"""What is seen, from sliding windows that follow each other: a filter over concept and lag.

A window tells little of a picture whose response began before it. But the windows before it saw
that response, and what is seen does not change from one to the next without a new picture. So the
probability of every concept at every lag is carried along (the forward algorithm of a hidden Markov
model; Rabiner 1989, doi:10.1109/5.18626): a lag grows with the time; behind the last lag nothing is
seen; a new picture comes at some rate, and hardly ever sooner than pictures follow each other. Of a
window as much of the evidence counts as it has new samples, since the rest was weighed before.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from models.template_reader import Reading, TemplateReader

# Rates for each length of a window (a second): that a new picture appears, sooner than pictures
# follow each other, when they do, and while none are shown; that they are no longer shown. Tuned on
# the sessions 50 to 57 of the simulated subject 0.
EARLY, NEXT, BEGUN, ENDED = 0.02, 2.0, 0.02, 0.02
# Added to probabilities that may be zero.
LEAST = 1e-30


class WindowFilter:
    """Carries what sliding windows said; used by one thread.

    Parameters
    ----------
    reader : with templates at lags.
    """

    def __init__(self, reader: TemplateReader) -> None:
        self._reader = reader
        c = reader.config
        self._shape = c.n_lags, c.n_concepts
        self._is_early = np.arange(c.n_lags) < c.stream_apart
        self._n_after = max(0, c.stream_apart - c.n_lags)
        self.restart()

    def restart(self) -> None:
        """Forget every window."""
        self._first: int | None = None
        # Of concepts at lags; of lags behind them, at which no new picture is due; of one that is
        # due; of none being shown.
        self._at_lags = np.zeros(self._shape)
        self._after = np.zeros(self._n_after)
        self._due = 0.0
        self._nothing = 1.0

    def read(self, eeg: torch.Tensor, first_sample: int) -> Reading:
        """Read the next window.

        Parameters
        ----------
        eeg : (1, n_channels, n_times).
        first_sample : of the window, on the stream's grid.
        """
        c = self._reader.config
        passed = c.n_times if self._first is None else first_sample - self._first
        if not 0 < passed <= c.n_lags * c.width or passed % c.width:
            self.restart()
            passed = c.n_times
        self._first = first_sample
        self._pass(passed // c.width, passed / c.n_times)
        is_eeg = float(self._reader.distance(eeg)) <= float(self._reader.farthest)
        if is_eeg:
            self._weigh(self._reader.by_lag(eeg)[0].double().numpy(force=True), passed / c.n_times)
        concepts = self._at_lags.sum(axis=0)
        is_seen = is_eeg and self.log_odds > c.stream_odds
        # Where nothing is seen for certain, no concept is likelier than another.
        likely = (concepts + LEAST) ** c.stream_trust
        share = torch.from_numpy(likely / likely.sum()).float()
        return Reading(share[None], torch.tensor([is_seen]))

    @property
    def log_odds(self) -> float:
        """That anything is seen."""
        unseen = float(self._after.sum()) + self._due + self._nothing
        return math.log(float(self._at_lags.sum()) + LEAST) - math.log(unseen + LEAST)

    def _pass(self, n_lags: int, windows: float) -> None:
        """Let time go by, so many lags or lengths of a window."""
        early, due, begun, ended = (
            1 - math.exp(-rate * windows) for rate in (EARLY, NEXT, BEGUN, ENDED)
        )
        n = min(n_lags, self._shape[0])
        replaced = np.where(self._is_early, early, due)[:, None]
        appeared = (
            float((self._at_lags * replaced).sum() + self._after.sum() * early)
            + self._due * due
            + self._nothing * begun
        )
        kept = self._at_lags * (1 - replaced)
        older = np.zeros(self._shape)
        older[n:] = kept[:-n]
        # A new picture appeared at any moment that went by, and is any concept.
        older[:n] += appeared / (n * self._shape[1])
        after = np.concatenate([kept[-n:].sum(axis=1), self._after * (1 - early)])
        waiting = self._due * (1 - due)
        self._nothing = self._nothing * (1 - begun) + waiting * ended
        self._due = waiting * (1 - ended) + float(after[self._n_after :].sum())
        self._at_lags, self._after = older, after[: self._n_after]

    def _weigh(self, ratios: np.ndarray, share: float) -> None:
        """Take in log likelihood ratios (n_lags, n_concepts) to nothing, as far as they are new."""
        evidence = ratios * float(self._reader.config.stream_weight) * min(1.0, share)
        most = max(0.0, float(evidence.max()))
        rest = math.exp(-most)
        self._at_lags *= np.exp(evidence - most)
        self._after *= rest
        total = float(self._at_lags.sum() + self._after.sum()) + (self._due + self._nothing) * rest
        self._at_lags /= total
        self._after /= total
        self._due *= rest / total
        self._nothing *= rest / total
