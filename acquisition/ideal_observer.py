"""What the best possible decoder of the simulated subject would know.

It is given everything but the trial: the generator, its parameters, the subject's and the
session's patterns. What it cannot tell apart, no decoder can, so its accuracy is the
ruler for all others.

After linear filters an epoch is gain * (A(t) picture + b(t)) + Gaussian noise. Noise has
a known covariance, so the likelihood of a picture, latency and gain is a normal density;
over these it is averaged by Monte Carlo, as nobody tells the observer which picture of a
concept was shown. Blinks, muscle and electrode pops are rejected: they come independently
of everything else, so epochs without any are those of a subject who has none, and the
observer is for them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from scipy import fft, linalg, signal
from scipy.special import logsumexp
from scipy.stats import norm

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochKind
from acquisition.errors import EpochSpecError
from acquisition.filters import design_filter
from acquisition.simulated_subject import (
    CH_NAMES,
    SFREQ,
    NoiseSource,
    SimulatedSubject,
)
from acquisition.simulation_parameters import without_artefacts
from acquisition.stimuli import N_FEATURES, concepts, features, random_composition

# Behind the edge of the band, where the causal filter still lets something through.
BAND_MARGIN_HZ = 3.0
# The filters have forgotten what was longer ago (0.5 Hz: 1 % after 3.9 s).
HISTORY_S = 6.0
N_DRAWS = 1024
N_DELAYS = 16
LAG_STEP = 2  # samples; half and twice as many give the same figures
N_VIEWINGS = 300
CHUNK = 64

# Nested choices of the 32 electrodes, from the back of the head outwards as in caps with fewer.
ELECTRODES = {
    32: CH_NAMES,
    16: (
        "T7", "T8", "CP5", "CP1", "CP2", "CP6", "P7", "P3", "Pz", "P4", "P8",
        "PO3", "PO4", "O1", "Oz", "O2",
    ),
    8: ("P7", "Pz", "P8", "PO3", "PO4", "O1", "Oz", "O2"),
    4: ("P7", "P8", "O1", "O2"),
}  # fmt: skip


class IdealObserver:
    """Posterior over concepts of epochs of a simulated subject.

    Parameters
    ----------
    subject : whose generator it knows; the state of its session does not matter.
    spec : how epochs are cut; its electrodes, a choice of the subject's 32, are all that
        the observer sees.
    kind : "marker-locked" epochs have a known onset; a "sliding" one lies anywhere within
        a viewing, and the observer averages over where.
    n_draws : pictures, latencies and amplitudes drawn for each concept.
    seed : of the draws.
    n_before : samples before a sliding window that it remembers, and that its epochs begin with.
        As many as a viewing is longer than the window, and it has seen the picture appear.

    Attributes
    ----------
    spec : of the epochs that `posterior` takes: in microvolts, `n_before` samples longer.

    Raises
    ------
    EpochSpecError
        The specification asks for electrodes or a rate that the subject does not have.
    """

    def __init__(
        self,
        subject: SimulatedSubject,
        spec: EpochSpec,
        kind: EpochKind = "marker-locked",
        n_draws: int = N_DRAWS,
        seed: int = 0,
        n_before: int = 0,
    ) -> None:
        n_window = spec.n_times
        self.spec = spec = replace(spec, normalisation="none", n_times=n_window + n_before)
        missing = [name for name in spec.ch_names if name not in CH_NAMES]
        if missing or spec.sfreq != SFREQ:
            raise EpochSpecError(
                f"The ideal observer sees the simulated subject's electrodes at {SFREQ:g} Hz; "
                f"found {', '.join(missing) or f'{spec.sfreq:g} Hz'}. "
                "Take a specification with these alone."
            )
        p = subject.parameters
        if kind == "marker-locked":
            self._lags = [round(spec.tmin * SFREQ)]
        else:
            latest = round(p.viewing * SFREQ) - n_window
            self._lags = [lag - n_before for lag in range(0, latest + 1, LAG_STEP)]
        # Only lag minus latency matters to a sliding epoch, and the lags are fine.
        n_delays = N_DELAYS if kind == "marker-locked" else 1
        quantiles = norm.ppf((np.arange(n_delays) + 0.5) / n_delays)
        delays = p.latency_jitter * quantiles

        self._rows = [CH_NAMES.index(name) for name in spec.ch_names]
        self._space = _reference_basis(len(self._rows), spec.reference)
        n_basis = 1 + round(2 * spec.n_times / SFREQ * (spec.h_freq + BAND_MARGIN_HZ))
        self._time = fft.dct(np.eye(spec.n_times), norm="ortho", axis=0)[:n_basis]
        self._sos = design_filter(SFREQ, spec.l_freq, spec.h_freq, spec.notch_freqs)
        covariance = self._covariance(subject)
        self._factor = linalg.cholesky(covariance, lower=True, overwrite_a=True)
        self._whitened = self._responses(subject, delays)
        self._amplitude_jitter = p.amplitude_jitter
        self.draw(n_draws, seed)

    def _project(self, data: np.ndarray) -> np.ndarray:
        """(n, electrodes of the specification, n_times) to (n, dimensions)."""
        out = np.einsum("sc,nct,kt->nsk", self._space, data, self._time, optimize=True)
        return np.asarray(out.reshape(len(data), -1))

    def whiten(self, epochs: np.ndarray) -> np.ndarray:
        """Epochs in coordinates in which noise is white and of unit variance.

        Parameters
        ----------
        epochs : array of shape (n, n_channels, n_times), microvolts.

        Returns
        -------
        array of shape (n, n_dimensions).
        """
        projected = self._project(epochs)
        return np.asarray(linalg.solve_triangular(self._factor, projected.T, lower=True).T)

    def _covariance(self, subject: SimulatedSubject) -> np.ndarray:
        """Of noise and of what earlier pictures left behind."""
        alpha, before = self._viewings(subject)
        projected = self._project(before)
        out = projected.T @ projected / len(projected)
        for source in subject.noise_sources():
            space = self._space @ source.topographies[self._rows]
            time = self._time @ self._autocovariance(source, alpha) @ self._time.T
            out += np.kron(space @ space.T, time)
        return np.asarray(out)

    def _viewings(self, subject: SimulatedSubject) -> tuple[np.ndarray, np.ndarray]:
        """What differs from viewing to viewing, from a session without noise.

        Returns
        -------
        second moment of the factor on alpha, (history + n_times,) squared.
        responses to earlier pictures, (n, electrodes, n_times).
        """
        p = replace(
            without_artefacts(subject.parameters),
            background_uv=0.0, sensor_uv=0.0, alpha_uv=0.0, drift_uv=0.0, mains_uv=0.0,
        )  # fmt: skip
        silent = SimulatedSubject(subject.subject, subject.session, seed=1, parameters=p)
        n_history, n_times = round(HISTORY_S * SFREQ), self.spec.n_times
        seconds = round(N_VIEWINGS * (p.viewing + (p.gap_min + p.gap_max) / 2))
        blocks, ramps, onsets = [], [], []
        for _ in range(seconds):
            data, events = silent.next_block()
            blocks.append(data[self._rows])
            ramps.append(silent.alpha_ramp)
            onsets += [sample for sample, _, composition in events if composition is not None]
        evoked, ramp = np.concatenate(blocks, axis=1), np.concatenate(ramps)
        rng = np.random.default_rng(0)
        levels, before = [], []
        last = max(self._lags) + n_times
        onsets = [o for o in onsets if n_history <= o <= evoked.shape[1] - last]
        for onset in onsets:
            first = onset + int(rng.choice(self._lags))
            levels.append(ramp[first - n_history : first + n_times])
            # A response is over when the next picture comes.
            earlier = evoked[:, first - n_history : first + n_times].astype(float)
            earlier[:, onset - first + n_history :] = 0
            before.append(signal.sosfilt(self._sos, earlier, axis=1)[:, n_history:])
        alpha = np.stack(levels)
        return alpha.T @ alpha / len(onsets), np.stack(before)

    def _autocovariance(self, source: NoiseSource, alpha: np.ndarray) -> np.ndarray:
        """Of one of the source's signals behind the filters, (n_times, n_times)."""
        n_times = self.spec.n_times
        if not source.is_alpha:
            both = np.concatenate([source.sos, self._sos])
            return np.asarray(linalg.toeplitz(_autocorrelation(both, n_times)))
        n = len(alpha)
        filtered = linalg.toeplitz(_impulse_response(self._sos, n), np.zeros(n))[-n_times:]
        inside = linalg.toeplitz(_autocorrelation(source.sos, n)) * alpha
        return np.asarray(filtered @ inside @ filtered.T)

    def _responses(self, subject: SimulatedSubject, delays: np.ndarray) -> np.ndarray:
        """Whitened responses to each feature and to each concept.

        Returns
        -------
        array of shape (lags * delays, features + concepts, dimensions).
        """
        gain = subject.gain[self._rows, None]
        n_times = self.spec.n_times
        lead = max(0, -min(self._lags))
        length = lead + max(self._lags) + n_times
        nothing = np.zeros(N_FEATURES)
        nodes = []
        for delay in delays:
            blank = [subject.mean_response(nothing, k, delay) for k in range(len(concepts()))]
            looks = [subject.mean_response(f, 0, delay) - blank[0] for f in np.eye(N_FEATURES)]
            scalp = gain * np.stack([*looks, *blank])[:, self._rows]
            scalp = np.pad(scalp, ((0, 0), (0, 0), (lead, 0)))[:, :, :length]
            scalp = signal.sosfilt(self._sos, scalp, axis=2)
            for lag in self._lags:
                first = lead + lag
                nodes.append(self.whiten(scalp[:, :, first : first + n_times]))
        return np.stack(nodes)

    def draw(self, n_draws: int, seed: int = 0) -> None:
        """Draw pictures and amplitudes anew; all lags and latencies get as many."""
        n_nodes = len(self._whitened)
        n_each = -(-n_draws // n_nodes)
        pictures = _drawn_pictures(n_each * n_nodes, seed)
        rng = np.random.default_rng([seed, 1])
        gains = np.exp(rng.normal(0, self._amplitude_jitter, pictures.shape[:2]))
        shape = (len(concepts()), n_nodes, n_each)
        self._pictures = (gains[..., None] * pictures).reshape(*shape, N_FEATURES)
        self._gains = gains.reshape(shape)
        gram = np.einsum("nfd,ngd->nfg", self._whitened, self._whitened, optimize=True)
        looks, own = gram[:, :N_FEATURES], gram[:, N_FEATURES:, N_FEATURES:]
        label = np.arange(len(concepts()))
        across = looks[:, :, N_FEATURES:]
        power = np.einsum(
            "knmf,nfg,knmg->knm", self._pictures, looks[:, :, :N_FEATURES], self._pictures,
            optimize=True,
        )  # fmt: skip
        power += 2 * self._gains * np.einsum("knmf,nfk->knm", self._pictures, across)
        power += self._gains**2 * own[:, label, label].T[:, :, None]
        self._half_power = (power / 2).astype(np.float32)
        self._pictures = self._pictures.astype(np.float32)
        self._gains = self._gains.astype(np.float32)

    def log_likelihood(self, epochs: np.ndarray) -> np.ndarray:
        """Log of p(epoch | concept) over that of noise alone.

        Parameters
        ----------
        epochs : array of shape (n, n_channels, n_times), microvolts.

        Returns
        -------
        array of shape (n, 40).
        """
        n_concepts, n_nodes, n_each = self._gains.shape
        found = []
        for first in range(0, len(epochs), CHUNK):
            part = self.whiten(epochs[first : first + CHUNK].astype(float))
            seen = np.einsum("nfd,ed->nef", self._whitened, part, optimize=True).astype(np.float32)
            nodes = np.empty((n_nodes, len(part), n_concepts), np.float32)
            for node in range(n_nodes):
                looks, own = seen[node, :, :N_FEATURES], seen[node, :, N_FEATURES:]
                exponent = np.einsum("ef,kmf->ekm", looks, self._pictures[:, node], optimize=True)
                exponent += own[:, :, None] * self._gains[:, node]
                exponent -= self._half_power[:, node]
                top = exponent.max(axis=2, keepdims=True)
                nodes[node] = top[:, :, 0] + np.log(np.exp(exponent - top).sum(axis=2))
            found.append(logsumexp(nodes.astype(float), axis=0) - np.log(n_nodes * n_each))
        return np.concatenate(found)

    def posterior(self, epochs: np.ndarray) -> np.ndarray:
        """Probability of each concept, all being equally likely before.

        Parameters
        ----------
        epochs : array of shape (n, n_channels, n_times), microvolts, cut by `self.spec`.

        Returns
        -------
        array of shape (n, 40).
        """
        log = self.log_likelihood(epochs)
        return np.asarray(np.exp(log - logsumexp(log, axis=1, keepdims=True)))


def _reference_basis(n_channels: int, reference: str) -> np.ndarray:
    """Orthonormal rows that span what the reference leaves."""
    if reference == "none":
        return np.eye(n_channels)
    return np.asarray(linalg.null_space(np.ones((1, n_channels))).T)


def _impulse_response(sos: np.ndarray, n: int) -> np.ndarray:
    impulse = np.zeros(n)
    impulse[0] = 1
    return np.asarray(signal.sosfilt(sos, impulse))


def _autocorrelation(sos: np.ndarray, n: int) -> np.ndarray:
    """Of filtered white noise of unit variance at the lags 0 to n - 1."""
    response = _impulse_response(sos, 2**15)
    spectrum = np.abs(fft.rfft(response, 2**16)) ** 2
    return np.asarray(fft.irfft(spectrum)[:n])


@cache
def _drawn_pictures(n_draws: int, seed: int) -> np.ndarray:
    """Features of random compositions, (concepts, n_draws, features)."""
    rng = np.random.default_rng([seed, 0])
    drawn = [random_composition(rng, 0) for _ in range(n_draws)]
    return np.array(
        [[features(replace(c, label=k)) for c in drawn] for k in range(len(concepts()))]
    )
