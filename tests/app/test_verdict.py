"""What is said of held-out predictions: of those that decode, and of those that do not."""

import numpy as np
import pytest

from app.verdict import Accuracy, accuracy, growth, p_value, sentence, shuffled, verdict


def trials(n_classes=4, n_each=40, n_runs=4, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat(np.arange(n_classes), n_each))
    return label, np.arange(len(label)) * n_runs // len(label)


def answers(label, share, seed=1):
    """Right for a share of trials, and else another class."""
    rng = np.random.default_rng(seed)
    wrong = (label + rng.integers(1, label.max() + 1, len(label))) % (label.max() + 1)
    return np.where(rng.random(len(label)) < share, label, wrong)


def test_classes_count_the_same_however_often_they_were_shown():
    label = np.repeat([0, 1], [90, 10])
    found = accuracy(np.zeros(100, int) == label, label)
    assert found.value == 0.5
    assert found.low <= 0.5 <= found.high


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(4), 25)
    hits = 0
    for seed in range(200):
        found = accuracy(rng.random(100) < 0.6, label, seed)
        hits += found.low <= 0.6 <= found.high
    assert hits >= 180


def test_all_right_is_not_certain():
    label, _ = trials(2, 5)
    assert accuracy(np.ones(10, bool), label).low < 1


@pytest.mark.parametrize(
    ("share", "said"), [(0.8, "decodes"), (0.34, "a little"), (0.25, "not above chance")]
)
def test_verdicts(share, said):
    label, run = trials(n_each=120)
    given = answers(label, share)
    found = accuracy(given == label, label)
    assert verdict(found, 0.25, p_value(given, label, run, run // 2, 999)) == said
    text = sentence(said, found, 0.25, 4)
    assert ("not work" in text) == (said == "not above chance")
    assert "25.0%" in text


def test_chance_is_rarely_called_decoding():
    """Of people of whom nothing can be read, one in a hundred is told otherwise."""
    rng = np.random.default_rng(0)
    wrong = 0
    for seed in range(200):
        label, run = trials(n_each=15, seed=seed)
        said = rng.integers(4, size=len(label))
        wrong += p_value(said, label, run, run // 2, 199, seed) <= 0.01
    assert wrong <= 7


def test_answers_that_only_know_the_run_are_chance():
    """Class 0 is more frequent in run 0: who answers by the run is right more often than chance."""
    run = np.repeat([0, 1], 100)
    label = np.concatenate([np.arange(100) % 10 >= 8, np.arange(100) % 10 >= 2]).astype(int)
    assert accuracy(run == label, label).value > 0.7
    assert p_value(run, label, run, run, 199) > 0.5


def test_folds_that_teach_each_other_are_not_taken_for_two_witnesses():
    """Answers of two folds that go wrong or right together, by nothing but chance.

    In each session both folds give one class too often, by luck the right one in both or in none.
    Taken as independent they would be called decoding far more often than one time in a hundred.
    """
    wrong = 0
    run = np.repeat([0, 1], 40)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        label = rng.permutation(np.tile(np.arange(4), 20))
        half = rng.integers(4, size=40)
        # What one fold answers to a trial decides what the other does.
        said = np.concatenate([half, half])
        label[40:] = np.where(rng.random(40) < 0.8, label[:40], label[40:])
        wrong += p_value(said, label, run, run, 199, seed) <= 0.01
    assert wrong <= 6


def test_shuffled_labels_are_chance():
    label, run = trials(n_each=200)
    found = shuffled(label, label, run)
    assert found.value == pytest.approx(0.25, abs=0.05)


def point(minutes, value):
    return {"minutes": minutes, "n_trials": 10 * minutes, "accuracy": {"value": value}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.4, 0.5), "would add about"),
        ((0.5, 0.5), "hardly help"),
        ((0.25, 0.26), "may or may not"),
    ],
)
def test_more_minutes(values, said):
    curve = [point(minutes, value) for minutes, value in zip((5, 10), values, strict=True)]
    assert said in growth(curve, 0.25)
    assert "too few" in growth(curve[1:], 0.25)


def test_an_accuracy_in_words():
    assert str(Accuracy(0.5, 0.4, 0.6)) == "50% (40% to 60%)"
