"""Confounding of label and time: blocks, runs, random order and what lies between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.training.confounding import confounding


def columns(label: np.ndarray, n_runs: int = 1, **others: np.ndarray) -> dict[str, np.ndarray]:
    """Trials every 2 s, the runs of equal length."""
    n = len(label)
    run = np.arange(n) * n_runs // n
    zeros = np.zeros(n, np.int64)
    return {
        "label": label,
        "image_id": np.arange(n),
        "subject": zeros,
        "session": zeros,
        "run": run,
        "position": np.arange(n) - np.searchsorted(run, run),
        "t_onset": 2.0 * np.arange(n),
        "is_locked": zeros + 1,
        **others,
    }


SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
BLOCKED = np.repeat(np.arange(10), 20)


def test_a_block_design_is_found_and_warned_of() -> None:
    found = confounding(columns(BLOCKED))
    assert found.neighbours_alike is not None
    assert found.neighbours_alike.value == pytest.approx(190 / 199)
    assert found.neighbours_alike.expected == pytest.approx(19 / 199, abs=0.01)
    assert found.neighbours_alike.low < 19 / 199 < found.neighbours_alike.high
    assert found.is_confounded
    assert "95.5% have the same label, against 9." in found.warning
    assert "10.1109/TPAMI.2020.2973153" in found.warning


def test_random_order_is_not() -> None:
    found = [
        confounding(columns(np.random.default_rng(seed).permutation(BLOCKED), n_runs=4))
        for seed in range(20)
    ]
    assert [f.warning for f in found] == [""] * 20
    shares = [f.neighbours_alike.value for f in found if f.neighbours_alike]
    assert np.mean(shares) == pytest.approx(19 / 199, abs=0.01)


def test_two_classes_in_random_order_are_not_and_in_halves_are() -> None:
    two = np.repeat([0, 1], 50)
    assert not confounding(columns(np.random.default_rng(0).permutation(two))).is_confounded
    assert not confounding(columns(np.tile([0, 1], 50))).is_confounded, "they alternate"
    halves = confounding(columns(two))
    assert halves.is_confounded
    assert halves.labels_in_one_run is None, "there is one run"


def test_a_constant_label_cannot_be_confounded() -> None:
    found = confounding(columns(np.zeros(40, np.int64), n_runs=2))
    assert found.neighbours_alike is not None
    assert found.neighbours_alike.value == found.neighbours_alike.expected == 1
    assert found.warning == ""


def test_labels_of_one_run_only_are_found_though_their_order_within_it_is_random() -> None:
    rng = np.random.default_rng(0)
    label = np.concatenate([rng.permutation(np.repeat([r, 5 + r], 10)) for r in range(5)])
    found = confounding(columns(label, n_runs=5))
    assert found.labels_in_one_run is not None
    assert (found.labels_in_one_run.value, found.labels_in_one_run.most) == (10, 10)
    assert found.labels_in_one_run.high <= 1
    assert "10 of 10 labels occur in one run only" in found.warning


def test_an_order_that_is_the_same_in_all_runs_is_found() -> None:
    one = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 10))
    found = confounding(columns(np.tile(one, 3), n_runs=3))
    assert found.places_alike is not None
    assert (found.places_alike.value, found.places_alike.most) == (1, 1)
    assert found.places_alike.expected == pytest.approx(0.25, abs=0.02)
    assert found.neighbours_alike is not None
    assert not found.neighbours_alike.is_too_high
    assert "in the same place of two runs 100.0% have the same label" in found.warning


def test_real_gratings_have_their_trials_in_the_same_order_and_faces_have_not(
    tmp_path: Path,
) -> None:
    if not (SHARED / "muse-lsl").is_dir():
        pytest.skip("no real recordings here")
    sharing = {}
    for name in ("spatial_freq", "N170"):
        parts = []
        for run, path in enumerate(sorted((SHARED / "muse-lsl" / name).glob("*.csv"))):
            titles = path.read_text().partition("\n")[0].strip().split(",")
            table = np.loadtxt(path, delimiter=",", skiprows=1)
            marker = table[:, titles.index("Marker0")]
            onsets = np.flatnonzero((marker == 1) | (marker == 2))
            n = len(onsets)
            parts.append((marker[onsets].astype(int), np.full(n, run), table[onsets, 0], range(n)))
        label, run_of, times, position = (
            np.concatenate([list(p) for p in part]) for part in zip(*parts, strict=True)
        )
        made = columns(label, run=run_of, t_onset=times, position=position)
        sharing[name] = confounding(made)
    gratings, faces = sharing["spatial_freq"], sharing["N170"]
    assert gratings.places_alike is not None
    assert gratings.places_alike.value == 1
    assert gratings.is_confounded
    assert faces.warning == ""


def test_labels_with_few_trials_are_in_one_run_by_chance() -> None:
    label = np.random.default_rng(1).permutation(np.arange(60))  # each once
    found = confounding(columns(label, n_runs=3))
    assert found.labels_in_one_run is not None
    assert found.labels_in_one_run.value == 60
    assert not found.is_confounded


def test_runs_of_other_subjects_are_no_neighbours() -> None:
    label = np.repeat([0, 1], 50)
    subject = np.repeat([0, 1], 50)
    found = confounding(columns(label, subject=subject))
    assert found.neighbours_alike is not None
    assert found.neighbours_alike.value == found.neighbours_alike.expected == 1
    assert (found.n_runs, found.labels_in_one_run) == (2, None)


def test_rows_may_come_in_any_order() -> None:
    c = columns(BLOCKED, n_runs=4)
    order = np.random.default_rng(0).permutation(len(BLOCKED))
    shuffled = {name: column[order] for name, column in c.items()}
    first, second = confounding(c).neighbours_alike, confounding(shuffled).neighbours_alike
    assert first is not None
    assert second is not None
    assert first.value == second.value


def test_of_overlapping_sliding_epochs_each_picture_counts_once() -> None:
    image_id = np.repeat(np.arange(40), 5)
    random = np.random.default_rng(0).integers(0, 8, 40)
    label = random[image_id]
    none = np.zeros(200, np.int64)
    found = confounding(columns(label, image_id=image_id, is_locked=none))
    assert found.n_trials == 40
    assert not found.is_confounded


def test_an_order_that_is_not_told_is_not_measured() -> None:
    untold = np.full(200, np.nan)
    found = confounding(columns(BLOCKED, t_onset=untold))
    assert (found.is_confounded, found.n_trials) == (False, 0)
    assert "cannot be measured" in found.sentence
    found = confounding(columns(BLOCKED, t_onset=untold), is_block_design=True)
    assert "by the design of the experiment" in found.warning
    assert json.loads(json.dumps(found.to_dict()))["is_confounded"] is True


def test_it_is_the_same_each_time_and_json() -> None:
    c = columns(BLOCKED, n_runs=2)
    assert json.dumps(confounding(c).to_dict()) == json.dumps(confounding(c).to_dict())


def test_an_empty_set_is_no_error() -> None:
    assert confounding(columns(np.zeros(0, np.int64))).n_trials == 0
