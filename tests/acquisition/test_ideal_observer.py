"""The ideal observer: its noise is the subject's, its probabilities are frequencies."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochKind
from acquisition.errors import EpochSpecError
from acquisition.filters import CausalFilter
from acquisition.ideal_observer import ELECTRODES, IdealObserver
from acquisition.simulated_subject import CH_NAMES, SFREQ, SimulatedSubject
from acquisition.simulation_parameters import SimulationParameters, without_artefacts

# Half a second at eight electrodes: small, and the same code.
SPEC = EpochSpec(ELECTRODES[8], n_times=128)
PARAMETERS = without_artefacts(SimulationParameters(early_uv=6.0, late_uv=8.0))
N_VIEWINGS = 150


@cache
def viewings(is_silent: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Microvolts behind filter and reference; onsets; what was seen."""
    parameters = PARAMETERS
    if is_silent:
        parameters = replace(parameters, early_uv=0.0, late_uv=0.0, sustained_uv=0.0)
    subject = SimulatedSubject(parameters=parameters)
    causal = CausalFilter(32, SFREQ, SPEC.l_freq, SPEC.h_freq, SPEC.notch_freqs)
    blocks, onsets, labels = [], [], []
    for _ in range(3 * N_VIEWINGS):
        data, events = subject.next_block()
        blocks.append(causal.push(data)[[CH_NAMES.index(name) for name in SPEC.ch_names]])
        onsets += [sample for sample, _, seen in events if seen]
        labels += [seen.label for _, _, seen in events if seen]
    data = np.concatenate(blocks, axis=1)
    data -= data.mean(axis=0)
    # The filters settle, and the last one is whole.
    kept = slice(2, -1)
    return data, np.array(onsets)[kept], np.array(labels)[kept]


def epochs(
    kind: EpochKind, is_silent: bool = False, n_before: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    data, onsets, labels = viewings(is_silent)
    lags = np.full(len(onsets), round(SPEC.tmin * SFREQ))
    if kind == "sliding":
        lags = np.random.default_rng(0).integers(0, 501 - SPEC.n_times, len(onsets))
    first = onsets + lags
    return np.stack([data[:, f - n_before : f + SPEC.n_times] for f in first]), labels


@cache
def observer(kind: EpochKind) -> IdealObserver:
    return IdealObserver(SimulatedSubject(parameters=PARAMETERS), SPEC, kind, n_draws=256)


@pytest.mark.parametrize("kind", ["marker-locked", "sliding"])
def test_what_it_calls_probable_is_as_often_right(kind: EpochKind) -> None:
    data, label = epochs(kind)
    posterior = observer(kind).posterior(data)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    right = posterior.argmax(axis=1) == label
    called = posterior.max(axis=1)
    # Under its own probabilities the count of right ones has this spread.
    spread = np.sqrt((called * (1 - called)).sum())
    assert abs(right.sum() - called.sum()) < 3 * spread
    assert right.mean() > (0.5 if kind == "marker-locked" else 0.2)


def test_one_that_remembers_the_onset_is_right_more_often_and_as_often_as_it_says() -> None:
    n_before = 500 - SPEC.n_times
    subject = SimulatedSubject(parameters=PARAMETERS)
    one = IdealObserver(subject, SPEC, "sliding", n_draws=256, n_before=n_before)
    assert one.spec.n_times == 500
    data, label = epochs("sliding", n_before=n_before)
    posterior = one.posterior(data)
    right = posterior.argmax(axis=1) == label
    called = posterior.max(axis=1)
    assert abs(right.sum() - called.sum()) < 3 * np.sqrt((called * (1 - called)).sum())
    alone = observer("sliding").posterior(epochs("sliding")[0]).argmax(axis=1) == label
    assert right.mean() > alone.mean() + 0.2


def test_more_draws_change_nothing() -> None:
    data, label = epochs("marker-locked")
    one = observer("marker-locked")
    few = one.posterior(data)
    one.draw(2048, seed=1)
    many = one.posterior(data)
    assert np.abs(few - many).mean() < 0.01
    assert abs((few.argmax(1) == label).mean() - (many.argmax(1) == label).mean()) <= 0.02


def test_it_beats_lda_that_learned_from_the_other_trials() -> None:
    data, label = epochs("marker-locked")
    x = data.reshape(len(data), len(SPEC.ch_names), -1, 16).mean(axis=3).reshape(len(data), -1)
    # Three times all concepts, but for the first two viewings.
    n = 3 * 40 - 2
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5).fit(x[:n], label[:n])
    observed = observer("marker-locked").posterior(data[n:]).argmax(axis=1)
    assert len(observed) > 20
    assert (observed == label[n:]).mean() > (lda.predict(x[n:]) == label[n:]).mean() + 0.1


def test_noise_is_whitened_and_nothing_is_named_from_it() -> None:
    data, label = epochs("marker-locked", is_silent=True)
    one = observer("marker-locked")
    white = one.whiten(data)
    assert (white**2).mean() == pytest.approx(1, abs=0.03)
    assert (one.posterior(data).argmax(axis=1) == label).mean() < 0.1


def test_fewer_electrodes_know_less() -> None:
    data, label = epochs("marker-locked")
    spec = replace(SPEC, ch_names=ELECTRODES[4])
    rows = [SPEC.ch_names.index(name) for name in spec.ch_names]
    fewer = IdealObserver(SimulatedSubject(parameters=PARAMETERS), spec, n_draws=512)
    four = data[:, rows] - data[:, rows].mean(axis=1, keepdims=True)
    loss = {
        n: -np.log(posterior[np.arange(len(label)), label]).mean()
        for n, posterior in (
            (8, observer("marker-locked").posterior(data)),
            (4, fewer.posterior(four)),
        )
    }
    assert loss[8] < loss[4] < np.log(40)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (EpochSpec(("Oz", "TP9", "FCz")), "TP9, FCz"),
        (EpochSpec(("Oz", "O1"), sfreq=256.0), "256 Hz"),
    ],
)
def test_electrodes_and_rates_that_the_subject_lacks_are_refused(
    spec: EpochSpec, found: str
) -> None:
    with pytest.raises(EpochSpecError, match=rf"250 Hz; found {found}\. Take a specification"):
        IdealObserver(SimulatedSubject(), spec)
