import numpy as np

from models.training.gaussian_epochs import GaussianEpochs, choose_kept
from models.training.lda import Windows, candidates, choose_windows, decide

N_CLASSES, N_CHANNELS, N_TIMES = 4, 3, 16


def made(n: int, size: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Epochs with correlated noise; classes differ late, classes 0 and 1 only a little."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % N_CLASSES
    eeg = rng.standard_normal((n, N_CHANNELS, N_TIMES)).cumsum(axis=2)
    eeg[:, 0, 10:] += size * (label >= 2)[:, None]
    eeg[:, 1, 10:] += 0.3 * size * (label % 2)[:, None]
    return eeg, label


def test_window_means_and_baseline() -> None:
    eeg = np.arange(8.0).reshape(1, 1, 8)
    assert Windows(2, 7, 2)(eeg).tolist() == [[2.5, 4.5]]
    assert Windows(2, 6, 4, n_baseline=2)(eeg).tolist() == [[3.5 - 0.5]]


def test_candidates_hold_whole_windows_behind_the_onset() -> None:
    found = candidates(32, 6, 64.0)
    assert all(w.start == 6 and w.width <= w.end - w.start <= 26 for w in found)
    assert {w.n_baseline for w in found} == {0, 6}
    assert {w.n_baseline for w in candidates(32, 0, 64.0)} == {0}


def test_lda_tells_what_differs_and_nothing_where_nothing_does() -> None:
    fold = np.arange(240) // 4 % 5
    windows = [Windows(0, 16, 2), Windows(8, 16, 4)]
    for size, is_told in ((6.0, True), (0.0, False)):
        eeg, label = made(240, size)
        probabilities, chosen = decide(eeg, label, fold, windows)
        right = (probabilities.argmax(axis=1) == label).mean()
        assert right > 0.4 if is_told else right < 0.35
        assert len(chosen) == 5
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_windows_are_chosen_without_the_test_fold() -> None:
    eeg, label = made(200, 6.0)
    fold = np.arange(200) // 4 % 5
    windows = [Windows(0, 4, 2), Windows(10, 16, 3)]
    best, score = choose_windows(eeg, label, fold, windows)
    assert best == windows[1]
    assert 0.4 < score <= 1
    # The held-out fold alone would choose the other: its early samples give labels away.
    spoilt = eeg.copy()
    spoilt[fold == 0, :, :4] += 1000 * label[fold == 0][:, None, None]
    assert decide(spoilt, label, fold, windows)[1][0][0] == windows[1]


def test_drawn_epochs_have_the_means_and_the_covariance_they_were_fitted_to() -> None:
    eeg, label = made(2000, 5.0)
    model = GaussianEpochs.fit(eeg, label, np.arange(N_CLASSES), kept=1.0)
    told = np.repeat(np.arange(N_CLASSES), 4000)
    drawn = model.draw(told, np.random.default_rng(0))
    assert drawn.dtype == np.float32
    for c in range(N_CLASSES):
        np.testing.assert_allclose(drawn[told == c].mean(0), eeg[label == c].mean(0), atol=0.25)
    ours, theirs = drawn[told == 0].std(0), eeg[label == 0].std(0)
    np.testing.assert_allclose(ours, theirs, rtol=0.15, atol=0.05)
    right = (model.log_likelihood(drawn).argmax(axis=1) == told).mean()
    assert right > 0.5


def test_classes_of_a_family_come_nearer_where_less_is_believed() -> None:
    eeg, label = made(400, 5.0)
    family = np.array([0, 0, 1, 1])
    whole = GaussianEpochs.fit(eeg, label, family, kept=1.0).mean
    half = GaussianEpochs.fit(eeg, label, family, kept=0.5).mean
    np.testing.assert_allclose(half[0] - half[1], 0.5 * (whole[0] - whole[1]))
    np.testing.assert_allclose(half[:2].mean(0), whole[:2].mean(0))


def test_little_is_believed_of_differences_that_are_noise() -> None:
    fold = np.arange(120) // 4 % 5
    family = np.array([0, 0, 1, 1])
    eeg, label = made(120, 0.0)
    assert choose_kept(eeg, label, fold, family) in (1.0, 0.6, 0.3, 0.1)
    eeg, label = made(480, 12.0)
    assert choose_kept(eeg, label, np.arange(480) // 4 % 5, family) >= 0.6
