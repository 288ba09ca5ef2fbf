"""A simulated subject who looks at pictures: what their EEG is made of.

32 electrodes, 250 Hz, microvolts. Every sample is made up; streams, files and pages
that carry it say "simulated". The subject sees one of 40 concepts for two seconds, then
nothing for 0.5 to 1.5 s. What a picture looks like (`acquisition.stimuli.features`)
drives occipital dipoles from about 90 ms, what it is drives temporal and parietal ones
from about 200 ms, both leave a sustained part; single trials vary in latency and
amplitude. On top lie 1/f noise, alpha, blinks, muscle, mains, drift and electrode pops.

Markers `onset/<concept>` and `offset` say what is shown. Viewers and recorders see
them; the decoder never does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import signal

from acquisition.simulation_parameters import SimulationParameters
from acquisition.stimuli import N_FEATURES, Composition, concepts, features, random_composition

CH_NAMES = (
    "Fp1", "Fp2", "AF3", "AF4", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6",
    "T7", "C3", "Cz", "C4", "T8", "CP5", "CP1", "CP2", "CP6", "P7", "P3", "Pz", "P4", "P8",
    "PO3", "PO4", "O1", "Oz", "O2",
)  # fmt: skip
SFREQ = 250.0
# Noise is drawn block by block, so that the samples do not depend on how they are read.
BLOCK = 250
# Sessions below this number are for training and its tests; the live default lies above.
LIVE_SESSION = 10_000


@cache
def _leadfield() -> Mapping[str, np.ndarray]:
    with np.load(Path(__file__).with_name("leadfield.npz")) as file:
        return {name: file[name] for name in file.files}


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSource:
    """White noise of unit variance, filtered, and how it reaches the electrodes.

    Attributes
    ----------
    topographies : array of shape (32, n), microvolts with the session's gains.
    sos : array of shape (n_sections, 6) that colours each of the n.
    is_alpha : whether `SimulatedSubject.alpha_ramp` multiplies it.
    """

    topographies: np.ndarray
    sos: np.ndarray
    is_alpha: bool = False


# Concepts of one group share a part of their late response.
_GROUPS = {
    "animal": "dog cat butterfly horse monkey elephant panda fish",
    "vehicle": "airplane canoe car train rocket bicycle parachute",
    "device": "phone computer watch camera antenna piano guitar pistol billiards",
    "food or plant": "banana pizza flower mushroom pumpkin coffee teapot",
    "household": "broom chair basket postbox gloves shirt shoe tent golf",
}


def _mix(population: np.ndarray, own: np.ndarray, share: float) -> np.ndarray:
    """Both of unit variance; `share` of the result's variance is `own`."""
    mixed: np.ndarray = math.sqrt(1 - share) * population + math.sqrt(share) * own
    return mixed


class _Patterns:
    """Random response patterns of the population, one subject or one session."""

    def __init__(
        self, rng: np.random.Generator, n_visual: int, n_category: int, n_late: int
    ) -> None:
        n_concepts = len(concepts())
        self.visual_axis = rng.normal(size=(n_visual, 3))
        self.category_axis = rng.normal(size=(n_category, 3))
        self.early_weights = rng.normal(size=(n_visual, N_FEATURES)) / math.sqrt(N_FEATURES)
        self.early_delay = rng.normal(size=n_visual)
        self.late_weights = rng.normal(size=(n_concepts, n_category, n_late))
        self.group_weights = rng.normal(size=(len(_GROUPS), n_category, n_late))

    def mixed(self, own: _Patterns, share: float) -> _Patterns:
        mixed = object.__new__(_Patterns)
        for name, value in vars(self).items():
            setattr(mixed, name, _mix(value, getattr(own, name), share))
        return mixed


class SimulatedSubject:
    """Generates a session's EEG, block by block.

    Parameters
    ----------
    subject, session : numbers; the same give the same head and, with the same `seed`,
        the same samples.
    seed : of pictures, noise and artefacts; by default the session's number.
    parameters : what the subject is made of.
    shown : the pictures that are shown, of every concept at least one; by default every picture
        is another.
    looks : whether pictures are shown by themselves; if not, `attend` says when one is seen, and
        its response is for whoever shows it to add (`acquisition.simulated_viewer`).

    Attributes
    ----------
    gain : array of shape (32,), factor of the session on each electrode.
    alpha_ramp : array of shape (250,), factor on alpha in the newest block.
    """

    def __init__(
        self,
        subject: int = 0,
        session: int = LIVE_SESSION,
        seed: int | None = None,
        parameters: SimulationParameters | None = None,
        shown: Iterable[Composition] = (),
        looks: bool = True,
    ) -> None:
        self.parameters = p = parameters or SimulationParameters()
        self.subject, self.session = subject, session
        self.seed = session if seed is None else seed
        field = _leadfield()
        n_visual, n_category = field["visual"].shape[1], field["category"].shape[1]
        sizes = (n_visual, n_category, len(p.late_latencies))

        def patterns(*key: int) -> _Patterns:
            return _Patterns(np.random.default_rng([7919, *key]), *sizes)

        own = patterns(0).mixed(patterns(1, subject), p.subject_share)
        own = own.mixed(patterns(2, subject, session), p.session_share)
        self._visual = _topographies(field["visual"], own.visual_axis)
        self._category = _topographies(field["category"], own.category_axis)
        self._early_weights = own.early_weights
        self._early_peak = p.early_latency + p.early_spread * own.early_delay
        group_of = {n: i for i, names in enumerate(_GROUPS.values()) for n in names.split()}
        groups = np.array([group_of[c.name] for c in concepts()])
        self._late_weights = _mix(own.late_weights, own.group_weights[groups], p.group_share)

        head = np.random.default_rng([104729, subject, session])
        self.gain = np.exp(head.normal(0, 0.05, len(CH_NAMES)))
        background = field["background"].reshape(len(CH_NAMES), -1).astype(float)
        covariance = background @ background.T
        covariance *= len(CH_NAMES) / np.trace(covariance)
        self._background = np.linalg.cholesky(covariance + 1e-6 * np.eye(len(CH_NAMES)))
        self._alpha = _topographies(field["visual"][:, 2:6], head.normal(size=(4, 3)))
        self._blink = _spread_from(("Fp1", "Fp2"), 0.05)
        self._temples = (_spread_from(("T7", "F7"), 0.04), _spread_from(("T8", "F8"), 0.04))
        self._mains = p.mains_uv * np.exp(head.normal(0, 0.5, len(CH_NAMES)))

        self._background_sos = _pink_filter(p.background_exponent)
        self._background_scale = _output_std(self._background_sos)
        self._background_zi = np.zeros((len(self._background_sos), len(CH_NAMES), 2))
        self._alpha_sos = signal.butter(
            1,
            [p.alpha_hz - p.alpha_width_hz, p.alpha_hz + p.alpha_width_hz],
            "bandpass",
            fs=SFREQ,
            output="sos",
        )
        self._alpha_scale = _output_std(self._alpha_sos)
        self._alpha_zi = np.zeros((len(self._alpha_sos), self._alpha.shape[1], 2))
        self._burst_sos = signal.butter(2, 20.0, "highpass", fs=SFREQ, output="sos")
        self._drift = np.zeros(len(CH_NAMES))
        self._attention = 0.0
        self._alpha_level = 1.0
        self.alpha_ramp = np.ones(BLOCK)

        self._schedule = np.random.default_rng([15485863, self.seed, 0])
        self._block = 0
        self._pending = np.zeros((len(CH_NAMES), 4 * BLOCK))
        self._next_onset = int(self._schedule.uniform(1.0, 2.0) * SFREQ)
        self._looks = looks
        self._viewing: tuple[int, int] | None = None
        self._order: list[int] = []
        self._shown: dict[int, list[Composition]] = {}
        for composition in shown:
            self._shown.setdefault(composition.label, []).append(composition)

    def attend(self, is_seeing: bool) -> None:
        """Say, of a subject who does not look by itself, whether a picture is seen from now on."""
        first = self._block * BLOCK
        self._viewing = (first, first) if is_seeing else None

    def next_block(self) -> tuple[np.ndarray, list[tuple[int, str, Composition | None]]]:
        """The next second.

        Returns
        -------
        data : array of shape (32, 250), float32, microvolts.
        events : (sample index in the session, marker label, composition at an onset).
        """
        p = self.parameters
        first = self._block * BLOCK
        rng = np.random.default_rng([self.seed, self.subject, self.session, self._block])
        events = self._show(first)
        self._add_artefacts(rng)
        data = self._pending[:, :BLOCK] + self._noise(rng, first)
        self._pending[:, :-BLOCK] = self._pending[:, BLOCK:]
        self._pending[:, -BLOCK:] = 0
        self._block += 1
        phase = 2 * math.pi * p.mains_hz * (first + np.arange(BLOCK)) / SFREQ
        data = data * self.gain[:, None] + self._mains[:, None] * np.sin(phase)
        return data.astype(np.float32), events

    def _show(self, first: int) -> list[tuple[int, str, Composition | None]]:
        """Onsets and ends within the block; their responses go to `_pending`."""
        p = self.parameters
        events: list[tuple[int, str, Composition | None]] = []
        while self._looks:
            if self._viewing and self._viewing[1] < first + BLOCK:
                events.append((self._viewing[1], "offset", None))
                self._viewing = None
            if self._next_onset >= first + BLOCK:
                return events
            if not self._order:
                # Every concept once, in random order: labels are not confounded with time.
                self._order = self._schedule.permutation(len(concepts())).tolist()
            composition = self._choose(self._order.pop())
            response = self.response(features(composition), composition.label, self._schedule)
            at = self._next_onset - first
            self._pending[:, at : at + response.shape[1]] += response
            end = self._next_onset + round(p.viewing * SFREQ)
            events.append((self._next_onset, f"onset/{composition.concept.name}", composition))
            self._viewing = (self._next_onset, end)
            self._next_onset = end + round(self._schedule.uniform(p.gap_min, p.gap_max) * SFREQ)
        return events

    def _choose(self, label: int) -> Composition:
        if not self._shown:
            return random_composition(self._schedule, label)
        shown = self._shown[label]
        return shown[int(self._schedule.integers(len(shown)))]

    def response(
        self,
        picture: np.ndarray,
        label: int,
        rng: np.random.Generator | None = None,
        viewing: float | None = None,
    ) -> np.ndarray:
        """The scalp's response to a picture.

        Parameters
        ----------
        picture : array of shape (14,), what it looks like (`stimuli.features`).
        label : which concept it shows.
        rng : draws this trial's latency and amplitude; None gives the mean response.
        viewing : seconds for which it is shown; by default the parameters'.

        Returns
        -------
        array of shape (32, n_times), microvolts, from the onset until 0.5 s after the end.
        """
        p = self.parameters
        if rng is None:
            return self.mean_response(picture, label, viewing=viewing)
        delay = rng.normal(0, p.latency_jitter)
        return math.exp(rng.normal(0, p.amplitude_jitter)) * self.mean_response(
            picture, label, delay, viewing
        )

    def mean_response(
        self,
        picture: np.ndarray,
        label: int,
        delay: float = 0.0,
        viewing: float | None = None,
    ) -> np.ndarray:
        """`response` that comes `delay` seconds late, at the usual amplitude.

        It is linear in `picture`, plus what the concept adds.
        """
        p = self.parameters
        viewing = p.viewing if viewing is None else viewing
        t = np.arange(round((viewing + 0.5) * SFREQ)) / SFREQ - delay
        early = self._early_weights @ picture
        late = self._late_weights[label]
        out = self._visual @ (
            p.early_uv
            * early[:, None]
            * (
                _bump(t, self._early_peak, p.early_width)
                - p.offset_share * _bump(t - viewing, self._early_peak, p.early_width)
            )
        )
        components = _bump(t, np.array(p.late_latencies), p.late_width)
        out += self._category @ (p.late_uv * late @ components)
        since = np.clip(t - p.early_latency, 0, None)
        lasting = (1 - np.exp(-since / p.sustained_rise)) * np.exp(-since / p.sustained_decay)
        lasting *= 1 / (1 + np.exp((t - viewing - p.early_latency) / 0.03))
        lasting_late = late.mean(axis=1) * math.sqrt(late.shape[1])
        out += p.sustained_uv * np.outer(
            self._visual @ early + self._category @ lasting_late, lasting
        )
        return np.asarray(out)

    def noise_sources(self) -> tuple[NoiseSource, ...]:
        """What the noise is made of, for whoever must know its distribution."""
        p, gain = self.parameters, self.gain[:, None]
        each = np.diag(self.gain)
        share = p.alpha_uv / self._alpha_scale / math.sqrt(self._alpha.shape[1])
        background = gain * self._background * (p.background_uv / self._background_scale)
        leak = math.exp(-1 / (60 * SFREQ))
        return (
            NoiseSource(background, self._background_sos),
            NoiseSource(p.sensor_uv * each, np.array([[1.0, 0, 0, 1, 0, 0]])),
            NoiseSource(share * gain * self._alpha, self._alpha_sos, is_alpha=True),
            NoiseSource(p.drift_uv / math.sqrt(SFREQ) * each, np.array([[1.0, 0, 0, 1, -leak, 0]])),
        )

    def _noise(self, rng: np.random.Generator, first: int) -> np.ndarray:
        p = self.parameters
        white = rng.normal(size=(len(CH_NAMES), BLOCK))
        pink, self._background_zi = signal.sosfilt(
            self._background_sos, white, zi=self._background_zi
        )
        out = self._background @ pink * (p.background_uv / self._background_scale)
        out += p.sensor_uv * rng.normal(size=out.shape)
        white = rng.normal(size=(self._alpha.shape[1], BLOCK))
        alpha, self._alpha_zi = signal.sosfilt(self._alpha_sos, white, zi=self._alpha_zi)
        keep = math.exp(-BLOCK / SFREQ / p.attention_time)
        self._attention = keep * self._attention + math.sqrt(1 - keep**2) * rng.normal()
        attended = 1 / (1 + math.exp(-1.5 - self._attention))
        seen = self._viewing is not None and self._viewing[0] <= first + BLOCK // 2
        level = 1 - (1 - p.alpha_viewing) * attended if seen else 1.0
        self.alpha_ramp = np.linspace(self._alpha_level, level, BLOCK)
        self._alpha_level = level
        share = p.alpha_uv / self._alpha_scale / math.sqrt(self._alpha.shape[1])
        out += self._alpha @ alpha * (share * self.alpha_ramp)
        steps = rng.normal(0, p.drift_uv / math.sqrt(SFREQ), (len(CH_NAMES), BLOCK))
        # A leak of a minute keeps the walk within the amplifier's range.
        drift = self._drift[:, None] * math.exp(-1 / 60) + steps.cumsum(1)
        self._drift = drift[:, -1]
        return np.asarray(out + drift)

    def _add_artefacts(self, rng: np.random.Generator) -> None:
        p = self.parameters
        seconds = BLOCK / SFREQ

        def starts(per_minute: float) -> list[int]:
            n = rng.poisson(per_minute * seconds / 60)
            return [int(v) for v in rng.integers(0, BLOCK, n)]

        for at in starts(p.blinks_per_minute):
            t = np.arange(round(0.6 * SFREQ)) / SFREQ
            height = p.blink_uv * math.exp(rng.normal(0, 0.2))
            wave = height * np.exp(-0.5 * ((t - 0.25) / p.blink_width) ** 2)
            self._pending[:, at : at + len(t)] += np.outer(self._blink, wave)
        for at in starts(p.bursts_per_minute):
            n = int(rng.uniform(0.4, 1.5) * SFREQ)
            wave = signal.sosfilt(self._burst_sos, rng.normal(size=n)) * np.hanning(n)
            side = self._temples[int(rng.integers(2))]
            self._pending[:, at : at + n] += np.outer(side, 2 * p.burst_uv * wave)
        for at in starts(p.pops_per_minute):
            t = np.arange(round(2.5 * SFREQ)) / SFREQ
            wave = rng.choice([-1, 1]) * p.pop_uv * np.exp(-t / p.pop_decay)
            self._pending[int(rng.integers(len(CH_NAMES))), at : at + len(t)] += wave


def _topographies(gain: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Dipoles (n_channels, n, 3) along axes (n, 3) to (n_channels, n), each of height one."""
    unit = axis / np.linalg.norm(axis, axis=1, keepdims=True)
    out = np.einsum("cnd,nd->cn", gain, unit)
    scaled: np.ndarray = out / np.abs(out).max(axis=0)
    return scaled


def _bump(t: np.ndarray, peak: np.ndarray, width: float) -> np.ndarray:
    bump: np.ndarray = np.exp(-0.5 * ((t[None, :] - peak[:, None]) / width) ** 2)
    return bump


@cache
def _positions() -> Mapping[str, np.ndarray]:
    return dict(zip(CH_NAMES, _leadfield()["positions"], strict=True))


def _spread_from(names: tuple[str, ...], length: float) -> np.ndarray:
    """Falls off with the distance (metres) from the nearest of the electrodes `names`."""
    where = _positions()
    distance = [min(float(np.linalg.norm(where[c] - where[n])) for n in names) for c in CH_NAMES]
    return np.exp(-np.array(distance) / length)


def _pink_filter(exponent: float) -> np.ndarray:
    """Second-order sections whose power falls as 1/f**exponent from 0.5 to 100 Hz.

    Poles and zeros spaced evenly in log frequency, one pair to an octave (Plaszczynski
    2007, arXiv astro-ph/0510081).
    """
    frequencies = 0.4 * 2.0 ** np.arange(8)
    poles = np.exp(-2 * math.pi * frequencies / SFREQ)
    zeros = np.exp(-2 * math.pi * frequencies * 2 ** (exponent / 2) / SFREQ)
    return np.asarray(signal.zpk2sos(zeros, poles, 1.0))


def _output_std(sos: np.ndarray) -> float:
    """Standard deviation of the filter's output for white input of unit variance."""
    impulse = np.zeros(4096)
    impulse[0] = 1
    return float(np.sqrt((signal.sosfilt(sos, impulse) ** 2).sum()))
