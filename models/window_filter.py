"""What is seen, from sliding windows that follow each other: a filter over concept and lag.

A window tells little of a picture whose response began before it. But the windows before it saw
that response, and what is seen does not change from one to the next without a new picture. So the
probability of every concept at every lag is carried along (the forward algorithm of a hidden Markov
model; Rabiner 1989, doi:10.1109/5.18626): a lag grows with the time, a new picture replaces the one
before at some rate, a response that is over is forgotten at another. Of a window as much of the
evidence counts as it has new samples, since the rest was weighed before.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from models.template_reader import Reading, TemplateReader

# Rates for each length of a window (a second): that a new picture appears while something is
# seen, and while nothing is; that a picture whose response is over is gone. Tuned on sessions 50
# and 51 of the simulated subject 0.
REPLACED, BEGUN, GONE = 2.5, 0.02, 2.0
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
        self._shape = reader.config.n_lags, reader.config.n_concepts
        self.restart()

    def restart(self) -> None:
        """Forget every window."""
        self._first: int | None = None
        # Of concepts at lags, of those whose response is over, and of nothing.
        self._at_lags = np.zeros(self._shape)
        self._over = np.zeros(self._shape[1])
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
        concepts = self._at_lags.sum(axis=0) + self._over
        is_seen = is_eeg and self.log_odds > c.stream_odds
        # Where nothing is seen for certain, no concept is likelier than another.
        likely = (concepts + LEAST) ** c.stream_trust
        share = torch.from_numpy(likely / likely.sum()).float()
        return Reading(share[None], torch.tensor([is_seen]))

    @property
    def log_odds(self) -> float:
        """That anything is seen."""
        seen = float(self._at_lags.sum() + self._over.sum())
        return math.log(seen + LEAST) - math.log(self._nothing + LEAST)

    def _pass(self, n_lags: int, windows: float) -> None:
        """Let time go by, so many lags or lengths of a window."""
        replaced, begun, gone = (1 - math.exp(-rate * windows) for rate in (REPLACED, BEGUN, GONE))
        n = min(n_lags, self._shape[0])
        over = self._over + self._at_lags[-n:].sum(axis=0)
        appeared = (1 - self._nothing) * replaced + self._nothing * begun
        older = np.zeros(self._shape)
        older[n:] = self._at_lags[:-n] * (1 - replaced)
        # A new picture appeared at any moment that went by, and is any concept.
        older[:n] += appeared / (n * self._shape[1])
        forgotten = float(over.sum()) * (1 - replaced) * gone
        self._nothing = self._nothing * (1 - begun) + forgotten
        self._at_lags, self._over = older, over * (1 - replaced) * (1 - gone)

    def _weigh(self, ratios: np.ndarray, share: float) -> None:
        """Take in log likelihood ratios (n_lags, n_concepts) to nothing, as far as they are new."""
        evidence = ratios * float(self._reader.config.stream_weight) * min(1.0, share)
        most = max(0.0, float(evidence.max()))
        self._at_lags *= np.exp(evidence - most)
        self._over *= math.exp(-most)
        self._nothing *= math.exp(-most)
        total = float(self._at_lags.sum() + self._over.sum()) + self._nothing
        self._at_lags /= total
        self._over /= total
        self._nothing /= total
