"""LDA whose noise is the same at all times, from few epochs."""

import numpy as np
import pytest

from models.training.lda import Windows
from models.training.personal import Epochs, Method, baselines, fit, methods, stationary

N_CHANNELS, N_WINDOWS = 3, 5


def covariance(rng):
    x = rng.standard_normal((60, N_CHANNELS * N_WINDOWS))
    return x.T @ x / len(x)


def test_blocks_of_a_lag_are_one_block():
    given = covariance(np.random.default_rng(0))
    found = stationary(given, N_CHANNELS).reshape(N_CHANNELS, N_WINDOWS, N_CHANNELS, N_WINDOWS)
    blocks = given.reshape(found.shape)
    for a in range(N_WINDOWS):
        for b in range(N_WINDOWS):
            lag = b - a
            same = [blocks[:, t, :, t + lag] for t in range(N_WINDOWS) if 0 <= t + lag < N_WINDOWS]
            mean = np.mean(same, axis=0) * (1 - abs(lag) / N_WINDOWS)
            assert found[:, a, :, b] == pytest.approx(mean)


@pytest.mark.parametrize("seed", range(5))
def test_it_stays_positive_definite(seed):
    given = covariance(np.random.default_rng(seed))
    found = stationary(given, N_CHANNELS)
    assert found == pytest.approx(found.T)
    assert np.linalg.eigvalsh(found).min() > 0


def made_of(rng, n, n_times=80):
    """Two classes in noise that drifts slowly, the same at all times."""
    label = np.arange(n) % 2
    white = rng.standard_normal((n, 8, 4 * n_times))
    eeg = np.zeros_like(white)
    for t in range(1, white.shape[2]):
        eeg[:, :, t] = 0.95 * eeg[:, :, t - 1] + white[:, :, t]
    eeg = eeg[:, :, -n_times:]
    shape = np.sin(np.arange(n_times) / 4)
    eeg += (label - 0.5)[:, None, None] * np.linspace(-1, 1, 8)[:, None] * shape
    return Epochs(eeg.astype(np.float32), label, np.zeros(n, int))


def test_of_few_epochs_it_learns_more():
    rng = np.random.default_rng(0)
    windows = Windows(0, 80, 4)
    right = {False: [], True: []}
    for _ in range(5):
        few, many = made_of(rng, 40), made_of(rng, 400)
        for is_stationary, found in right.items():
            method = Method(windows=windows, is_stationary=is_stationary)
            said = fit(method, few, 2, None).scores(many.eeg).argmax(axis=1)
            found.append((said == many.label).mean())
    assert np.mean(right[True]) > np.mean(right[False]) + 0.05


def test_a_committee_is_the_mean_of_its_members():
    rng = np.random.default_rng(0)
    epochs = made_of(rng, 60)
    [committee] = methods(80, 0, 80.0, None)
    assert len({str(member) for member in committee.members}) == len(committee.members) == 4
    said = fit(committee, epochs, 2, None).scores(epochs.eeg)
    each = [fit(member, epochs, 2, None).scores(epochs.eeg) for member in committee.members]
    assert said == pytest.approx(np.mean(each, axis=0), abs=1e-3)


def test_a_baseline_has_neither_committee_nor_stationary_noise():
    tried = baselines(256, 25, 250.0)
    assert not any(method.is_stationary or method.members for method in tried)
    assert len({str(method) for method in tried}) == len(tried)
