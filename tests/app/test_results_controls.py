"""Right answers beside those to shuffled, noise and zero EEG."""

from __future__ import annotations

import numpy as np

from app.results.controls import Controlled, exchanged, nothing_like
from models.training.trials import CONDITIONS


def test_labels_are_exchanged_picture_by_picture() -> None:
    # Numbers of pictures need not be in order, nor without gaps.
    picture = np.repeat(np.random.default_rng(1).permutation(90)[:30], 3)
    label = picture * 2
    other = exchanged(label, picture).reshape(30, 3)
    assert (other == other[:, :1]).all()
    assert sorted(other[:, 0]) == sorted(label[::3])
    assert 0 < (other[:, 0] == label[::3]).mean() < 0.2 or (other[:, 0] != label[::3]).all()


def test_noise_has_each_channels_mean_and_deviation() -> None:
    rng = np.random.default_rng(0)
    eeg = rng.normal([[[3.0], [-1.0], [0.0]]], [[[2.0], [1.0], [0.0]]], (40, 3, 200))
    noise, zero = nothing_like(eeg.astype(np.float32))
    assert noise.shape == eeg.shape
    np.testing.assert_allclose(noise.mean(axis=(0, 2)), [3, -1, 0], atol=0.1)
    np.testing.assert_allclose(noise.std(axis=(0, 2)), [2, 1, 0], atol=0.1)
    assert zero.shape == (1, 3, 200)
    assert not zero.any()


def test_a_decoder_that_knows_is_right_of_the_eeg_alone() -> None:
    label = np.arange(400) % 40
    named = Controlled.of((label, np.arange(40)[::-1], np.array([7])), label, np.arange(400))
    scores = named.scores()
    assert tuple(scores) == CONDITIONS
    assert scores["EEG"].value == 1
    assert scores["shuffled EEG"].value < 0.1
    # Each answer to noise stands for ten epochs, none of its concept, and that to nothing for all.
    assert scores["noise EEG"].value == 0
    assert scores["zero EEG"].value == 1 / 40
    assert {score.n for score in scores.values()} == {400}


def test_sessions_keep_their_pictures_and_answers_apart() -> None:
    def session(answer: int) -> Controlled:
        label = np.full(4, answer)
        return Controlled.of((label, label[:1], label[:1]), label, np.array([0, 0, 1, 3]))

    both = Controlled.joined([session(5), session(6)])
    assert both.picture.tolist() == [0, 0, 1, 3, 4, 4, 5, 7]
    # What stands for a session's epochs are its own answers.
    assert all(score.value == 1 for name, score in both.scores().items() if "shuf" not in name)
    assert both.scores()["EEG"].n_images == 6
