"""What is said of held-out predictions: of those that decode, and of those that do not."""

import numpy as np
import pytest

from app.verdict import (
    Accuracy,
    accuracy,
    beside_baseline,
    difference,
    growth,
    p_value,
    sentence,
    shuffled,
    verdict,
)
from models.training.lda import Windows
from models.training.personal import Epochs, Method, hold_out


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


def test_intervals_of_differences_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(4), 25)
    hits = 0
    for seed in range(200):
        # Both are right of 0.5, and then ours of 0.2 more.
        other = rng.random(100) < 0.5
        ours = other | (rng.random(100) < 0.4)
        found = difference(ours, other, label, seed)
        hits += found.low <= 0.2 <= found.high
    assert hits >= 180
    swapped = difference(other, ours, label)
    assert swapped.value == -found.value
    assert swapped.high < 0


def test_a_difference_of_none_in_few_trials_is_not_certain():
    label, right = np.repeat([0, 1], 10), np.arange(20) % 3 == 0
    few = difference(right, right, label)
    assert few.low < -0.05 < few.value == 0
    assert "may be worse" in beside_baseline(few)
    many = difference(*np.tile([right, right], 20), np.tile(label, 20))
    assert "not worse" in beside_baseline(many)


def test_of_two_trials_of_each_class_a_difference_is_seen():
    label = np.arange(64) % 40
    ours, other = answers(label, 0.3, 1) == label, answers(label, 0.04, 2) == label
    found = difference(ours, other, label)
    assert found.low > 0
    assert abs((found.low + found.high) / 2 - found.value) < 0.05


def test_all_right_is_not_certain():
    label, _ = trials(2, 5)
    assert accuracy(np.ones(10, bool), label).low < 1
    label, _ = trials(3, 24)
    assert 0.95 < accuracy(np.ones(72, bool), label).low < 0.99
    assert 0.01 < accuracy(np.zeros(72, bool), label).high < 0.05


def test_classes_of_few_trials_do_not_move_the_interval():
    label = np.arange(80) % 40
    found = accuracy(answers(label, 0.3) == label, label)
    middle = (found.low + found.high) / 2
    assert abs(middle - found.value) < 0.02


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


def test_what_is_learnt_from_shuffled_labels_is_chance():
    """The whole way, with few classes and runs, where folds that teach each other mislead most."""
    rng = np.random.default_rng(0)
    fold = np.repeat([0, 1, 2], 20)
    method = Method(windows=Windows(0, 8, 4))
    small = 0
    for seed in range(300):
        eeg = rng.standard_normal((60, 3, 8)).astype(np.float32)
        label = np.concatenate([rng.permutation(np.tile(np.arange(4), 5)) for _ in range(3)])
        epochs = Epochs(eeg, label, fold)
        said = hold_out(epochs, 4, [method], None, fold, is_forward=True).said
        assert (said[fold == 0] == -1).all()
        small += p_value(said, label, fold, fold, 99, seed) <= 0.1
    # 30 are expected, with a standard deviation of 5.
    assert 12 <= small <= 45


def test_nothing_said_is_nothing_shown():
    label, run = trials()
    assert p_value(np.full(len(label), -1), label, run, run) == 1


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
