"""Peers find a planted difference, and nothing where labels are permuted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest
import torch

from models.errors import TrainingError
from models.training.eegnet import EEGNet, EEGNetConfig, EEGNetPredictor, fit_eegnet, settle
from models.training.lda import Windows
from models.training.peers import (
    Labelled,
    Predictor,
    accuracy,
    fit_windows,
    fit_xdawn,
    xdawn_filters,
)

N_CLASSES, N_CHANNELS, N_TIMES = 4, 6, 64
CHANCE = 1 / N_CLASSES
WINDOWS = [Windows(0, 16, 8), Windows(32, 64, 8)]
SCHEDULE = EEGNetConfig(steps=60, batch=32, save_every=30, warmup=5)


def made(n: int, seed: int) -> Labelled:
    """Noise, and late in the epoch a wave over electrodes that differs by class."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % N_CLASSES)
    topography = np.random.default_rng(9).standard_normal((N_CLASSES, N_CHANNELS))
    wave = np.hanning(32) * 1.5
    eeg = rng.standard_normal((n, N_CHANNELS, N_TIMES))
    eeg[:, :, 32:] += topography[label][:, :, None] * wave
    return Labelled(eeg.astype(np.float32), label)


def permuted(data: Labelled) -> Labelled:
    return Labelled(data.eeg, np.random.default_rng(5).permutation(data.label))


TRAIN, VALIDATION, TEST = made(240, 0), made(80, 1), made(400, 2)


def fit(kind: str, train: Labelled, validation: Labelled, out: Path) -> Predictor:
    if kind == "windows":
        return fit_windows(train, validation, WINDOWS)
    if kind == "xDAWN":
        return fit_xdawn(train, validation, WINDOWS, (1, 2))
    return fit_eegnet(train, validation, 128.0, out, SCHEDULE, {}, lambda _: None, (1e-2,))


@pytest.mark.parametrize("kind", ["windows", "xDAWN", "EEGNet"])
def test_a_peer_tells_classes_and_cannot_tell_permuted_labels(kind: str, tmp_path: Path) -> None:
    able = fit(kind, TRAIN, VALIDATION, tmp_path / "able")
    assert accuracy(able, TEST) > 2 * CHANCE
    np.testing.assert_allclose(able.predict(TEST.eeg[:5]).sum(axis=1), 1, rtol=1e-5)
    misled = fit(kind, permuted(TRAIN), permuted(VALIDATION), tmp_path / "misled")
    # 400 test epochs: 0.09 is four standard errors.
    assert abs(accuracy(misled, permuted(TEST)) - CHANCE) < 0.09


def test_what_is_best_on_validation_is_chosen_though_training_says_otherwise() -> None:
    assert fit_windows(TRAIN, VALIDATION, WINDOWS).features == WINDOWS[1]
    # Only early windows give away the labels of these, in training also.
    early = [Labelled(x.eeg.copy(), x.label) for x in (TRAIN, VALIDATION)]
    for data in early:
        data.eeg[:, :, 32:] = 0
        data.eeg[:, 0, :16] += 2 * data.label[:, None]
    assert fit_windows(early[0], early[1], WINDOWS).features == WINDOWS[0]
    assert fit_windows(early[0], VALIDATION, WINDOWS[::-1]).features == WINDOWS[1]


def test_a_class_without_epochs_is_never_named() -> None:
    some = TRAIN.label != 1
    model = fit_windows(Labelled(TRAIN.eeg[some], TRAIN.label[some]), VALIDATION, WINDOWS)
    said = model.predict(TEST.eeg)
    assert said.shape == (len(TEST.label), N_CLASSES)
    assert (said[:, 1] == 0).all()


def test_filters_are_those_of_mne() -> None:
    # Epochs without means, as normalised ones are: mne takes the mean over all off.
    eeg = TRAIN.eeg - TRAIN.eeg.mean(axis=2, keepdims=True)
    found = xdawn_filters(Labelled(eeg, TRAIN.label), 2)
    theirs = mne.decoding.XdawnTransformer(n_components=2).fit(eeg.astype(float), TRAIN.label)
    wanted = theirs.filters_[:, :2].reshape(-1, N_CHANNELS)
    assert found.shape == (N_CLASSES * 2, N_CHANNELS)
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(np.abs(cosine / np.linalg.norm(wanted, axis=1)), 1, atol=1e-3)


def test_a_dead_electrode_does_not_stop_the_filters() -> None:
    eeg = TRAIN.eeg.copy()
    eeg[:, 2] = 0
    assert np.isfinite(xdawn_filters(Labelled(eeg, TRAIN.label), 1)).all()


def test_eegnet_has_the_papers_size_and_limits_its_filters() -> None:
    network = EEGNet(22, 256, 4, 128.0)
    n = sum(p.numel() for p in network.parameters())
    # Filters, two numbers for each normalised map, and a dense layer of 16 * 8 to 4.
    assert n == 8 * 64 + 16 * 22 + 16 * 16 + 16 * 16 + 2 * (8 + 16 + 16) + 4 * 128 + 4
    with torch.no_grad():
        network.spatial.weight.fill_(1)
        network.head.weight.fill_(1)
    network.train()(torch.randn(2, 22, 256))
    assert network.spatial.weight.flatten(1).norm(dim=1).max() < 1.001
    assert network.head.weight.norm(dim=1).max() < 0.2501


def test_what_eegnet_says_of_an_epoch_does_not_depend_on_the_others() -> None:
    network = EEGNet(N_CHANNELS, N_TIMES, N_CLASSES, 128.0)
    settle(network, TRAIN.eeg)
    predictor = EEGNetPredictor("", network)
    together = predictor.predict(TEST.eeg[:8])
    np.testing.assert_allclose(predictor.predict(TEST.eeg[:1]), together[:1], rtol=1e-4)
    settle(network, TRAIN.eeg)
    np.testing.assert_array_equal(predictor.predict(TEST.eeg[:8]), together)


class StopError(Exception):
    pass


def stop(_line: str) -> None:
    raise StopError


def test_eegnet_resumed_is_the_same_and_other_data_is_refused(tmp_path: Path) -> None:
    def run(
        name: str, data: str = "a", say: Callable[[str], None] = lambda _: None
    ) -> EEGNetPredictor:
        config = EEGNetConfig(steps=9, batch=16, save_every=3, warmup=0)
        identity = {"training": data}
        return fit_eegnet(TRAIN, VALIDATION, 128.0, tmp_path / name, config, identity, say, (1e-2,))

    whole = run("whole")
    # The first line comes behind the first checkpoint.
    with pytest.raises(StopError):
        run("cut", say=stop)
    resumed = run("cut")
    assert resumed.chosen == whole.chosen
    np.testing.assert_array_equal(resumed.predict(TEST.eeg), whole.predict(TEST.eeg))
    with pytest.raises(TrainingError, match="was begun with training="):
        run("whole", "b")
