"""The ruler: windows lie inside a viewing, rows say what was found and what chance gives."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from acquisition.simulated_subject import SFREQ, SimulatedSubject
from acquisition.simulation_parameters import DIFFICULTIES
from app.ruler import SPEC, Answers, Ruler, epochs_of, reliability


def test_sliding_windows_lie_fully_inside_the_viewing_that_labels_them() -> None:
    silent = replace(DIFFICULTIES["demo"], early_uv=0.0, late_uv=0.0, sustained_uv=0.0)
    data, label, picture = epochs_of(SimulatedSubject(parameters=silent), SPEC, 20, "sliding")
    one = SimulatedSubject(parameters=silent)
    seen = [event for _ in range(60) for event in one.next_block()[1] if event[2]]
    assert len(data) == len(label) == len(picture)
    assert [seen[p][2].label for p in picture] == label.tolist()  # type: ignore[union-attr]
    # 244 samples are left for the start of a window, which comes every 64.
    per_picture = np.bincount(picture)[2:-1]
    assert set(per_picture.tolist()) <= {3, 4}
    for number, (sample, _, _) in enumerate(seen[2:-2], start=2):
        starts = np.arange(-SPEC.n_times % SPEC.hop, 60 * SFREQ, SPEC.hop)
        inside = (starts >= sample) & (starts + SPEC.n_times <= sample + 2 * SFREQ)
        assert inside.sum() == (picture == number).sum()


def test_a_row_has_interval_subjects_and_shuffled_labels() -> None:
    answers = Answers()
    label = np.repeat(np.arange(40), 5)
    for right in (True, False):
        answers.add(label if right else (label + 1) % 40, (label, label, np.arange(200)))
    row = answers.row("a decoder")
    assert row.startswith("| a decoder | 50.0% (45.1% to 54.9%) | 100 0 | ")
    shuffled = re.findall(r"\| (\d\.\d)% \(", row)[-1]
    assert float(shuffled) < 6


def test_reliability_is_told_in_groups_with_their_error() -> None:
    said: list[str] = []
    posterior = np.array([[0.9, 0.1]] * 10)
    reliability(posterior, np.array([0] * 8 + [1] * 2), said.append)
    assert said[0].startswith("called 90.0% probable: right 80.0% (")
    assert said[1] == "expected calibration error 0.100"


@pytest.mark.slow
def test_observer_and_lda_are_measured_on_the_same_subjects() -> None:
    said: list[str] = []
    ruler = Ruler(DIFFICULTIES["demo"], n_subjects=1, n_trials=60, say=said.append)
    ruler.decode(per_concept=[3], others=[1])
    ruler.observe_elsewhere([1])
    ruler.observe("marker-locked", 4)
    rows = [line.split("|")[1].strip() for line in said]
    assert rows == [
        "LDA, 3 epochs per concept of other sessions",
        "LDA of 1 other subjects, 10 per concept of each",
        "observers that know 1 other session",
        "ideal observer, marker-locked, 4 electrodes",
    ]
    share = [float(re.findall(r"\| (\d+\.\d)% \(", line)[0]) for line in said]
    # It knows more of the subject than sixty-odd trials tell, and all electrodes.
    assert share[2] > max(share[0], share[3])
