"""Drift since calibration: followed without labels, and told by how much."""

import numpy as np
import pytest

from app.bundle import read_epoch_spec
from models.drift import Drift
from models.frames import Listener
from models.networks import EagerNetworks
from models.pipeline import load_bundle

N_CHANNELS, N_TIMES = 6, 32


def epochs(rng, n, mixing=None):
    """Noise of another size in every channel, mixed, with what all pictures have in common."""
    white = rng.standard_normal((n, N_CHANNELS, N_TIMES)) * np.arange(1, N_CHANNELS + 1)[:, None]
    common = np.sin(np.arange(N_TIMES) / 5) * np.linspace(-1, 1, N_CHANNELS)[:, None]
    out = white + common
    return (out if mixing is None else mixing @ out).astype(np.float32)


@pytest.fixture
def drift():
    return Drift.of(epochs(np.random.default_rng(0), 200), hop=8)


def test_a_mean_that_moves_is_followed(drift):
    rng = np.random.default_rng(1)
    moved = epochs(rng, 400) + 3 * np.cos(np.arange(N_TIMES) / 3).astype(np.float32)
    followed = np.array([drift.follow(epoch, True) for epoch in moved])
    before = drift.mean.numpy()
    # At first nothing is known of it; then all but a few per cent is taken off.
    assert np.abs(moved[:5].mean(0) - followed[:5].mean(0)).max() < 0.5
    gone = np.abs(followed[300:].mean(0) - before).mean()
    assert gone < 0.25 * np.abs(moved[300:].mean(0) - before).mean()


def test_where_nothing_moves_epochs_stay_nearly_as_they_are(drift):
    rng = np.random.default_rng(2)
    same = epochs(rng, 300)
    followed = np.array([drift.follow(epoch, True) for epoch in same])
    assert np.std(followed - same) < 0.1 * np.std(same)
    assert drift.amount < 2 * drift.config.usual


def test_how_far_it_moved_is_told(drift):
    assert drift.amount == 0
    assert 0 < drift.config.usual < 0.2
    rng = np.random.default_rng(3)
    # One electrode hears its neighbour: of both kinds of epochs it shows.
    mixing = np.eye(N_CHANNELS)
    mixing[0, 5] = 0.8
    for is_locked in (True, False):
        drift.restart()
        amounts = []
        for epoch in epochs(rng, 600, mixing):
            drift.follow(epoch, is_locked)
            amounts.append(drift.amount)
        assert amounts[-1] > 3 * drift.config.usual
        assert amounts[20] < amounts[100] < amounts[-1]


def test_sliding_windows_and_foreign_epochs_stay_as_they_are(drift):
    rng = np.random.default_rng(4)
    for epoch in epochs(rng, 50) + 5:
        assert drift.follow(epoch, False) is epoch
    foreign = np.zeros((N_CHANNELS, N_TIMES + 1), np.float32)
    assert drift.follow(foreign, True) is foreign


def test_a_bundle_keeps_it_and_begins_anew(tiny_bundle, tmp_path):
    pipeline = load_bundle(tiny_bundle)
    rng = np.random.default_rng(5)
    spec = read_epoch_spec(tiny_bundle)
    shape = (30, spec.n_channels, spec.n_times)
    calibration = rng.standard_normal(shape).astype(np.float32)
    pipeline.register_modules(drift=Drift.of(calibration, hop=8))
    pipeline.save_pretrained(tmp_path / "own")
    for name in ("epoch_spec.json", "painter.json"):
        if (tiny_bundle / name).is_file():
            (tmp_path / "own" / name).write_bytes((tiny_bundle / name).read_bytes())
    own = load_bundle(tmp_path / "own")
    assert own.drift.config.usual == pipeline.drift.config.usual
    others = 3 + rng.standard_normal(shape).astype(np.float32)
    listener = Listener(own, EagerNetworks(own))
    first = [listener.read(epoch)[1].drift for epoch in others]
    listener.restart()
    assert [listener.read(epoch)[1].drift for epoch in others] == first
    assert first[0][0] < first[-1][0]
    shared = load_bundle(tiny_bundle)
    listener = Listener(shared, EagerNetworks(shared))
    assert listener.read(others[0])[1].drift is None
