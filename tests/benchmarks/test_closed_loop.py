"""What is measured of strangers at the headset, and of sessions in which nothing can be read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acquisition.ideal_observer import ELECTRODES
from acquisition.simulated_subject import CH_NAMES
from app.bundle import read_epoch_spec
from app.rehearse_session import Sitting, plan_of, record, rehearse_session
from app.session_epochs import read_sessions
from app.settings import ROOT
from benchmarks.closed_loop import Cell, Listened, learn_lda, read, tables, watch, write
from benchmarks.flatter import (
    FEW,
    TODAY,
    Flattered,
    blocked_plan,
    say_of_shuffled,
    shuffled_plan,
)
from benchmarks.measured import write_section
from tests.sessions import write_session

BUNDLE = ROOT / "weights" / "scale-model"
SPEC = read_epoch_spec(BUNDLE)


def test_what_is_watched_is_what_was_recorded(tmp_path: Path) -> None:
    sitting = Sitting(20, seed=2, ch_names=ELECTRODES[8])
    watched = watch(sitting, 2.0, BUNDLE, SPEC)
    rehearse_session(tmp_path / "a.xdf", sitting, BUNDLE, 2.0, TODAY)
    recorded = read_sessions([tmp_path / "a.xdf"], SPEC, ())
    names = [recorded.classes[k] for k in recorded.label]
    plan, _ = plan_of(BUNDLE, 2.0, seed=2)
    told = [trial.picture.class_name for trial in plan if not trial.is_catch]
    # Epochs of movement are left out there.
    kept = recorded.trial
    assert names == [told[i] for i in kept]
    np.testing.assert_allclose(watched.eeg[kept], recorded.locked, atol=1e-4)
    assert [trial.picture.label for trial in plan if not trial.is_catch] == watched.label.tolist()
    assert set(watched.run) == {1}


def test_lda_reads_a_stranger_and_no_other_subject() -> None:
    spec = replace(SPEC, ch_names=ELECTRODES[8])
    sitting = Sitting(21, seed=0, ch_names=ELECTRODES[8])
    trained = watch(sitting, 4.0, BUNDLE, spec)
    test = watch(replace(sitting, seed=1), 2.0, BUNDLE, spec)
    said = learn_lda(trained, test, spec, 40)
    right = (said == test.label).mean()
    shuffled = (said == np.random.default_rng(0).permutation(test.label)).mean()
    assert right > 0.15 > shuffled


def cell(subject: int, minutes: float, n_right: int, electrodes: int = 8) -> Cell:
    label = [i % 40 for i in range(80)]
    said = [k if i < n_right else (k + 1) % 40 for i, k in enumerate(label)]
    wrong = [(k + 1) % 40 for k in label]
    sure = [i % 4 > 0 for i in range(80)]
    listened = Listened(label, list(range(80)), said, wrong, [0.5] * 80, sure, [False] * 9 + [True])
    return Cell(
        subject, electrodes, minutes, "decodes", 60.0 + minutes, subject != 21, label,
        list(range(80)), said, label, [0.75] * 80, wrong, label, wrong, label,
        listened,
    )  # fmt: skip


def test_the_table_joins_subjects_and_stands_in_its_order(tmp_path: Path) -> None:
    cells = [cell(20, 5, 20), cell(21, 5, 60), cell(20, 2, 10), cell(20, 2, 10, 32)]
    write(tmp_path / "a" / "b.json", cells)
    assert read(tmp_path / "a" / "b.json") == cells
    assert read(tmp_path / "c.json") == []
    found, of_windows = tables(cells)
    assert [row[:2] for row in found.rows] == [["32", "2"], ["8", "2"], ["8", "5"]]
    row = dict(zip(found.header, found.rows[2], strict=True))
    assert row["pictures, by the judge"].startswith("50.0% (")
    assert row["concept named"].startswith("100.0%")
    assert row["LDA"].startswith("0.0%")
    # All are named rightly, three of four are expected.
    assert row[found.header[-1]].startswith("0.250 (0.0")
    assert row["pictures less LDA"].startswith("+50.0%")
    assert row["pictures, of the observer's"] == "0.50"
    assert row["named on another day"].startswith("0.0%")
    assert "20, 21" in found.notes[0]
    assert "4 calibrations 4" in found.notes[1]
    assert "longest took 65 s. 1 gave no bundle" in found.notes[1]
    row = dict(zip(of_windows.header, of_windows.rows[2], strict=True))
    assert row["concept named"].startswith("50.0% (")
    assert row["each alone"].startswith("0.0%")
    # Half are right and as many expected.
    assert row[of_windows.header[5]].startswith("0.000 (0.0")
    assert row["not sure, of what was shown"].startswith("25.0%")
    assert row["not sure, of nothing"] == "90.0% of 20"


def test_a_section_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\nText.\n\n## One\n\nold\n\n### Inside\n\n## Two\n\nstays\n")
    write_section(page, "One", "new")
    write_section(page, "Three", "last\n\n")
    write_section(page, "Three", "last")
    assert page.read_text() == (
        "# Page\n\nText.\n\n## One\n\nnew\n\n## Two\n\nstays\n\n## Three\n\nlast\n"
    )


# Sessions in which nothing can be read


def test_of_shuffled_labels_it_is_not_said_that_they_are_read(tmp_path: Path) -> None:
    found = read_sessions([rehearsed(tmp_path, FEW)], SPEC, ())
    said = say_of_shuffled(found, SPEC, 20, seed=0)
    assert said.total() == 20
    assert said["decodes"] == 0
    assert said["a little"] <= 1


def test_labels_that_are_exchanged_in_no_way_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the test above would say nothing."""
    found = read_sessions([rehearsed(tmp_path, FEW)], SPEC, ())
    monkeypatch.setattr("benchmarks.flatter.exchanged", lambda label, run, rng: label)
    assert say_of_shuffled(found, SPEC, 1, seed=0) == Counter({"decodes": 1})


def rehearsed(folder: Path, classes: tuple[str, ...]) -> Path:
    file = folder / "session.xdf"
    rehearse_session(file, Sitting(20, ch_names=ELECTRODES[16]), BUNDLE, 3.0, TODAY, classes)
    return file


def test_a_shuffled_session_shows_something_else_than_it_says(tmp_path: Path) -> None:
    plan, stimuli = plan_of(BUNDLE, 4.0, 0, FEW)
    told, seen = shuffled_plan(plan, stimuli, seed=0)
    shown = [seen[trial.picture.name] for trial in told]
    for run in {trial.run for trial in plan}:
        before = [stimuli[trial.picture.name] for trial in plan if trial.run == run]
        now = [c for c, trial in zip(shown, told, strict=True) if trial.run == run]
        assert Counter(before) == Counter(now)
        assert before != now
    same = np.mean([c.label == trial.picture.label for c, trial in zip(shown, told, strict=True)])
    assert 0.1 < same < 0.4
    record(tmp_path / "a.xdf", Sitting(20), told, seen, SPEC, TODAY)
    found = read_sessions([tmp_path / "a.xdf"], SPEC, ())
    assert found.electrodes == list(CH_NAMES)
    assert found.n_trials == len(plan)


def test_classes_in_blocks_are_warned_of(tmp_path: Path) -> None:
    plan, stimuli = plan_of(BUNDLE, 2.0, 0, FEW)
    for name, shown, n_warnings in (("mixed", plan, 0), ("blocks", blocked_plan(plan), 1)):
        file = tmp_path / f"{name}.xdf"
        record(file, Sitting(20, ch_names=ELECTRODES[4]), shown, stimuli, SPEC, TODAY)
        warnings = read_sessions([file], SPEC, ()).warnings
        assert len([text for text in warnings if "confounded" in text]) == n_warnings


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    found = Flattered({"not above chance": 197, "a little": 2, "decodes": 1}, ["a little"], [])
    assert found.wrong("decodes", "a little") == (3, pytest.approx(0.0383, abs=2e-4))
    assert found.wrong("decodes") == (1, pytest.approx(0.0235, abs=2e-4))
    assert "said of 1: at most 2.3%" in found.markdown()
    assert "said of 3: at most 3.8%" in found.markdown()
    assert found.to_dict()["decodes"][0] == 1
    assert "no warning" in found.markdown()


def test_a_made_session_is_read_as_well(tmp_path: Path) -> None:
    file = write_session(tmp_path / "P01" / "a.xdf", n_classes=3, trials_per_class=10)
    found = read_sessions([file], SPEC, ())
    assert sum(say_of_shuffled(found, SPEC, 2, seed=1).values()) == 2
