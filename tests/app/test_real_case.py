import json
from pathlib import Path

import numpy as np
import pytest

from app.errors import SettingsError
from app.muse import CASES, SPEC
from app.real_case import Recorded, folds_of, load_trials, permute_labels, write_fold
from app.real_report import answer, interval, questions
from models.training.prepared import PreparedSet

ROOT = Path(__file__).parents[2]
MUSE = ROOT.parent / "shared" / "data" / "muse-lsl"
needs_data = pytest.mark.skipif(not MUSE.is_dir(), reason="shared/data/muse-lsl is missing")


@pytest.fixture(scope="module")
def gratings(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("gratings")
    return load_trials(CASES["gratings"].prepare(MUSE, folder, lambda _: None), CASES["gratings"])


@needs_data
def test_gratings_are_read_with_pictures_and_positions(gratings: Recorded) -> None:
    # Of 3 x 80 trials the filters' settling costs the first two positions of each run.
    assert gratings.eeg.shape == (3 * 78, len(SPEC.ch_names), SPEC.n_times)
    for run in range(3):
        assert gratings.position[gratings.run == run].tolist() == list(range(2, 80))
    first, second, third = (gratings.label[gratings.run == run] for run in range(3))
    assert first.tolist() == second.tolist() == third.tolist(), "why positions are held out"


@needs_data
def test_no_position_is_in_two_folds_and_folds_are_alike(gratings: Recorded) -> None:
    for position in np.unique(gratings.position):
        assert len(set(gratings.fold[gratings.position == position])) == 1
    for fold in range(5):
        counts = np.bincount(gratings.label[gratings.fold == fold], minlength=8)
        assert set(counts) <= {3, 6}


@needs_data
def test_a_fold_trains_on_nothing_that_it_tests(gratings: Recorded, tmp_path: Path) -> None:
    case = CASES["gratings"]
    write_fold(tmp_path, case, gratings, gratings.label, 1)
    epochs = PreparedSet(tmp_path).epochs()
    split, position = epochs["split"].numpy(), epochs["position"].numpy()
    held_out = set(gratings.position[gratings.fold == 1].tolist())
    assert set(position[split == 2].tolist()) == held_out
    assert not held_out & set(position[split == 0].tolist())
    # Drawn epochs do not change when the test trials do.
    other = gratings.eeg.copy()
    other[gratings.fold == 1] = 100.0
    changed = Recorded(
        other, gratings.label, gratings.position, gratings.run, gratings.group, gratings.fold
    )
    write_fold(tmp_path / "b", case, changed, gratings.label, 1)
    again = PreparedSet(tmp_path / "b").epochs()
    drawn = position == -1
    np.testing.assert_array_equal(epochs["eeg"].numpy()[drawn], again["eeg"].numpy()[drawn])
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec["honesty"] == "replay"


@needs_data
def test_permuted_labels_keep_what_is_held_out_together(gratings: Recorded) -> None:
    label = permute_labels(gratings, np.random.default_rng(0))
    for position in np.unique(gratings.position):
        assert len(set(label[gratings.position == position])) == 1
    assert (label != gratings.label).mean() > 0.7


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"holds no recordings\. Give the folder of muse-lsl"):
        CASES["faces"].prepare(tmp_path, tmp_path / "out")


def test_groups_stay_whole_in_folds() -> None:
    group = np.repeat(np.arange(20), 3)
    label = group % 2
    fold = folds_of(label, group, 5)
    assert all(len(set(fold[group == g])) == 1 for g in range(20))
    assert [int((fold == f).sum()) for f in range(5)] == [12] * 5


def test_every_case_reads_its_own_pictures() -> None:
    for case in CASES.values():
        said = [int(case.read(case.draw(i, None)).argmax()) for i in range(len(case.names))]
        assert said == list(range(len(case.names)))


def test_the_interval_of_a_difference_counts_groups_and_not_trials() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(30) < 0.5, 10)
    low, high = interval(lambda rows: float(right[rows].mean()), np.repeat(np.arange(30), 10))
    assert 0.25 < high - low < 0.45, "30 groups, not 300 trials"


def test_an_answer_says_whether_the_bar_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.real_report.N_BOOTSTRAP", 50)
    (question, *_) = questions(CASES["faces"])
    label = np.arange(200) % 2
    good = np.eye(2)[label]
    bad = np.random.default_rng(0).random((200, 2))
    shuffled = [np.random.default_rng(1).permutation(label)]
    group = np.arange(200) // 4
    better = answer(question, good, bad, label, group, shuffled, [0.5])
    worse = answer(question, bad, good, label, group, shuffled, [0.5])
    assert better["is_bar_met"]
    assert not worse["is_bar_met"]
    assert better["difference"] == pytest.approx(-worse["difference"])
