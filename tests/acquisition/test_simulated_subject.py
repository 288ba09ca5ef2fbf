"""The simulated subject: seeded, varied, as hard to decode as it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochStream
from acquisition.montage import Montage
from acquisition.simulated_subject import (
    BLOCK,
    CH_NAMES,
    SFREQ,
    SimulatedSubject,
)
from acquisition.simulation_parameters import SimulationParameters
from acquisition.source import Chunk, Marker
from acquisition.stimuli import Composition, features, random_composition
from acquisition.stream_info import StreamInfo

Event = tuple[int, str, Composition | None]


def record(subject: SimulatedSubject, seconds: int) -> tuple[np.ndarray, list[Event]]:
    blocks, events = [], []
    for _ in range(seconds):
        data, some = subject.next_block()
        blocks.append(data)
        events += some
    return np.concatenate(blocks, axis=1), events


def test_the_same_seed_gives_the_same_samples_and_another_others() -> None:
    a, b = (record(SimulatedSubject(seed=4), 5) for _ in range(2))
    np.testing.assert_array_equal(a[0], b[0])
    assert a[1] == b[1]
    assert not np.array_equal(a[0], record(SimulatedSubject(seed=5), 5)[0])


def test_a_picture_is_seen_for_two_seconds_then_nothing_for_half_to_one_and_a_half() -> None:
    _, events = record(SimulatedSubject(seed=2), 120)
    onsets = [s for s, label, _ in events if label.startswith("onset/")]
    ends = [s for s, label, _ in events if label == "offset"]
    assert len(onsets) >= 35
    np.testing.assert_array_equal(np.array(ends) - onsets[: len(ends)], 2 * SFREQ)
    gaps = np.array(onsets[1 : len(ends) + 1]) - ends[: len(onsets) - 1]
    assert gaps.min() >= 0.5 * SFREQ - 1
    assert gaps.max() <= 1.5 * SFREQ + 1
    assert gaps.std() > 0.1 * SFREQ


def test_every_concept_comes_once_before_any_comes_again() -> None:
    _, events = record(SimulatedSubject(seed=3), 140)
    shown = [c.label for _, _, c in events if c is not None]
    assert sorted(shown[:40]) == list(range(40))
    assert shown[:40] != sorted(shown[:40])


def test_amplitudes_are_those_of_scalp_eeg() -> None:
    data, _ = record(SimulatedSubject(seed=1), 120)
    sos = signal.butter(2, [1.0, 40.0], "bandpass", fs=SFREQ, output="sos")
    filtered = signal.sosfilt(sos, data, axis=1)[:, 2 * BLOCK :]
    spread = np.median(np.abs(filtered), axis=1) / 0.6745
    assert spread.min() > 3
    assert spread.max() < 40
    # Blinks: frontal, above a hundred microvolts.
    frontal = filtered[CH_NAMES.index("Fp1")]
    assert np.abs(frontal).max() > 80
    assert np.abs(frontal).max() > 2 * np.abs(filtered[CH_NAMES.index("Pz")]).max()


def test_spectrum_falls_and_has_alpha_and_mains() -> None:
    data, _ = record(SimulatedSubject(seed=1), 120)
    frequency, power = signal.welch(data[CH_NAMES.index("Oz")], SFREQ, nperseg=500)

    def at(hz: float) -> float:
        return float(power[np.argmin(np.abs(frequency - hz))])

    assert at(2) > at(20) > at(35)
    assert at(10) > 2 * at(15)
    assert at(50) > 5 * at(45)


def test_alpha_drops_while_a_picture_is_seen() -> None:
    parameters = replace(SimulationParameters(), alpha_uv=60.0, early_uv=0.0, late_uv=0.0)
    parameters = replace(parameters, sustained_uv=0.0, blinks_per_minute=0.0)
    data, events = record(SimulatedSubject(seed=1, parameters=parameters), 240)
    sos = signal.butter(2, [8.0, 12.0], "bandpass", fs=SFREQ, output="sos")
    alpha = signal.sosfiltfilt(sos, data, axis=1).std(axis=0)
    seen = np.zeros(data.shape[1], bool)
    for sample, label, _ in events:
        if label.startswith("onset/"):
            seen[sample + 125 : sample + 500] = True
    assert alpha[seen].mean() < 0.9 * alpha[~seen].mean()


def test_appearance_drives_the_early_response_and_the_concept_the_late_one() -> None:
    subject = SimulatedSubject()
    rng = np.random.default_rng(0)
    a, b = random_composition(rng, 0), random_composition(rng, 0)
    base = subject.response(features(a), 0)
    early, late = slice(18, 29), slice(60, 110)

    def change(other: np.ndarray, when: slice) -> float:
        return float(np.abs(other - base)[:, when].max())

    other_look = subject.response(features(b), 0)
    other_concept = subject.response(features(a), 1)
    assert change(other_look, early) > 1.0
    assert change(other_concept, early) < change(other_look, early)
    assert change(other_concept, late) > 2 * change(other_look, late)
    assert np.abs(base[:, :10]).max() < 0.2


def test_trials_of_the_same_picture_vary() -> None:
    subject = SimulatedSubject()
    rng = np.random.default_rng(0)
    picture = features(random_composition(rng, 0))
    trials = np.stack([subject.response(picture, 0, rng) for _ in range(20)])
    peaks = trials.max(axis=(1, 2))
    assert peaks.std() / peaks.mean() > 0.1


def test_sessions_differ_and_subjects_differ_more() -> None:
    picture = features(random_composition(np.random.default_rng(0), 0))

    def responses(subject: int, session: int) -> np.ndarray:
        one = SimulatedSubject(subject, session)
        return np.concatenate([one.response(picture, k) for k in range(40)])

    def likeness(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    base = responses(0, 0)
    session, subject = likeness(base, responses(0, 1)), likeness(base, responses(1, 0))
    assert 0.8 < session < 0.999
    assert subject < session - 0.1


def test_digest_changes_with_any_parameter() -> None:
    digest = SimulationParameters().digest()
    assert digest == SimulationParameters().digest()
    assert digest != replace(SimulationParameters(), blink_uv=141.0).digest()


def session_epochs(session: int, n_per_concept: int) -> tuple[np.ndarray, np.ndarray]:
    """Window means (64 ms) of marker-locked epochs, and labels, of subject 0."""
    spec = EpochSpec(ch_names=CH_NAMES)
    info = StreamInfo("simulated subject", CH_NAMES, SFREQ, "simulated")
    montage = Montage.from_channels(CH_NAMES, spec)
    stream = EpochStream(info, spec, montage, kinds=("marker-locked",))
    subject = SimulatedSubject(0, session)
    x, y = [], []
    for block in range(int(3.1 * 40 * n_per_concept)):
        data, events = subject.next_block()
        markers = [
            Marker(s / SFREQ, label, {"label": c.label}) for s, label, c in events if c is not None
        ]
        times = (block * BLOCK + np.arange(BLOCK)) / SFREQ
        for epoch in stream.push(Chunk(data, times, block * BLOCK), markers):
            assert epoch.marker is not None
            x.append(epoch.data.reshape(len(CH_NAMES), -1, 16).mean(axis=2).ravel())
            y.append(epoch.marker.details["label"])
    return np.stack(x), np.array(y)


def shrinkage_lda(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """Labels by linear discriminants with Ledoit and Wolf's shrinkage (2004)."""
    means = np.stack([x[y == k].mean(axis=0) for k in range(40)])
    within = x - means[y]
    n, d = within.shape
    covariance = within.T @ within / n
    mu = np.trace(covariance) / d
    distance = ((covariance - mu * np.eye(d)) ** 2).sum()
    spread = (np.sum((within**2).sum(axis=1) ** 2) / n - (covariance**2).sum()) / n
    shrinkage = min(1.0, spread / distance)
    covariance = (1 - shrinkage) * covariance + shrinkage * mu * np.eye(d)
    weights = np.linalg.solve(covariance, means.T)
    scores = x_new @ weights - 0.5 * np.einsum("kd,dk->k", means, weights)
    labels: np.ndarray = scores.argmax(axis=1)
    return labels


@pytest.mark.slow
def test_shrinkage_lda_names_a_quarter_to_a_half_of_another_session() -> None:
    x, y = session_epochs(session=0, n_per_concept=20)
    x_new, y_new = session_epochs(session=60, n_per_concept=8)
    accuracy = float((shrinkage_lda(x, y, x_new) == y_new).mean())
    assert 0.25 <= accuracy <= 0.5
    # Chance is 2.5 %: shuffled labels must not do better than that allows.
    shuffled = np.random.default_rng(0).permutation(y)
    assert float((shrinkage_lda(x, shuffled, x_new) == y_new).mean()) < 0.08
