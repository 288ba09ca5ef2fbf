"""A person's reader of sliding windows, from their own epochs alone."""

import numpy as np
import pytest
import torch

from models.template_reader import TemplateReader
from models.training.personal import Epochs, fit, methods
from models.training.personal_reader import BEFORE, NEVER, held_out_readers, make_reader
from models.training.templates import (
    STREAM_TRUSTS,
    STREAM_WEIGHTS,
    fit_stream,
    heard,
    stream_losses,
)

N_CHANNELS, N_TIMES, WIDTH, HOP, ONSET = 4, 64, 8, 16, 16
N_CLASSES = 3
# Of five concepts three were shown.
N_CONCEPTS = 5


@pytest.fixture(scope="module")
def responses():
    rng = np.random.default_rng(0)
    slow = rng.standard_normal((N_CLASSES, N_CHANNELS, 4))
    return np.repeat(slow, WIDTH, axis=2)


def recorded(responses, n, seed):
    """EEG (n_channels, n_times) in which a class appears every 96 samples, labels, onsets."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % N_CLASSES)
    onset = 96 * (1 + np.arange(n)) + rng.integers(0, 16, n)
    eeg = 1.5 * rng.standard_normal((N_CHANNELS, 96 * (n + 2)))
    for k, t in zip(label, onset, strict=True):
        eeg[:, t : t + responses.shape[2]] += responses[k]
    return eeg.astype(np.float32), label, onset


def epochs_of(eeg, label, onset, run):
    cut = [eeg[:, t - ONSET : t - ONSET + N_TIMES] for t in onset]
    return Epochs(np.array(cut), label, run)


def windows_of(eeg, onset):
    """Windows, their first samples, and which trial the last one in each is; -1 for none."""
    first = np.arange(0, eeg.shape[1] - N_TIMES + 1, HOP)
    windows = torch.from_numpy(np.array([eeg[:, t : t + N_TIMES] for t in first]))
    trial = np.searchsorted(onset, first + N_TIMES - 24) - 1
    age = first - onset[np.maximum(trial, 0)]
    return windows, first, np.where((trial >= 0) & (age < 16), trial, -1)


@pytest.fixture(scope="module")
def base():
    return TemplateReader(
        N_CHANNELS, N_TIMES, WIDTH, WIDTH, N_CONCEPTS, 1, 4, n_context=2, cross_attention_dim=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def method():
    return methods(N_TIMES, ONSET, 256.0, None)[-1]


def test_sliding_windows_are_read_by_ones_own_means(responses, base, method):
    eeg, label, onset = recorded(responses, 150, 1)
    epochs = epochs_of(eeg, label, onset, np.zeros(150, int))
    model = fit(method, epochs, N_CONCEPTS, None)
    reader = make_reader(model, epochs, base, np.unique(label))
    assert reader.config.n_lags > BEFORE
    anew, truth, appeared = recorded(responses, 90, 2)
    windows, first, trial = windows_of(anew, appeared)
    known = trial >= 0
    alone = reader.scores(windows, False).argmax(1).numpy()
    said = heard(reader, windows, first).probabilities
    right = truth[trial[known]]
    assert (alone[known] == right).mean() > 0.55
    assert (said.argmax(axis=1)[known] == right).mean() > 0.6
    # What was never shown is never named.
    assert reader.scores(windows, False)[:, N_CLASSES:].max() < NEVER / 2
    shuffled = np.random.default_rng(3).permutation(right)
    assert (alone[known] == shuffled).mean() < 0.45


def test_of_no_windows_nothing_is_heard(base):
    found = heard(base, torch.zeros(0, N_CHANNELS, N_TIMES), np.zeros(0, int))
    assert [len(part) for part in found] == [0, 0, 0]


def test_a_part_is_read_by_what_the_others_teach(responses, base, method):
    eeg, label, onset = recorded(responses, 60, 4)
    fold = np.arange(60) // 20
    epochs = epochs_of(eeg, label, onset, fold)
    # The labels of the first part say nothing of its own reader.
    other = Epochs(epochs.eeg, np.where(fold == 0, (label + 1) % N_CLASSES, label), fold)
    of_both = [dict(held_out_readers(method, each, base, None, fold)) for each in (epochs, other)]
    assert sorted(of_both[0]) == [0, 1, 2]
    windows = torch.from_numpy(epochs.eeg)
    for number in (0, 1):
        a, b = (readers[number].scores(windows, False) for readers in of_both)
        assert torch.allclose(a, b) == (number == 0)


def quieter(reader):
    """It takes the noise for a quarter of what it is."""
    for values in (reader.lags.weight, reader.lags.bias):
        values.data *= 4
    return reader


def test_confidence_in_a_stream_is_the_share_of_right_answers(responses, base, method):
    faint = 0.6 * responses
    eeg, label, onset = recorded(faint, 240, 5)
    fold = np.arange(240) // 80
    epochs = epochs_of(eeg, label, onset, fold)
    windows, first, trial = windows_of(eeg, onset)
    losses = np.zeros((len(STREAM_WEIGHTS), len(STREAM_TRUSTS)))
    for number, reader in held_out_readers(method, epochs, base, None, fold):
        quieter(reader)
        own = fold[np.maximum(trial, 0)] == number
        of_window = np.where(trial >= 0, label[trial], -1)[own]
        losses += stream_losses(reader, windows[own], first[own], of_window)
    model = fit(method, epochs, N_CONCEPTS, None)
    reader = quieter(make_reader(model, epochs, base, np.unique(label)))
    anew, truth, appeared = recorded(faint, 150, 6)
    windows, first, trial = windows_of(anew, appeared)
    known = trial >= 0

    def too_sure():
        said = heard(reader, windows, first).probabilities
        right = said.argmax(axis=1)[known] == truth[trial[known]]
        return said.max(axis=1)[known].mean() - right.mean()

    reader.register_to_config(stream_weight=max(STREAM_WEIGHTS), stream_trust=1.0)
    assert too_sure() > 0.1
    fit_stream(reader, losses)
    assert abs(too_sure()) < 0.07
