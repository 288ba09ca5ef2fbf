"""The simulated subject as a source: real time, one name, wrong parameters refused."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from acquisition.errors import SourceError
from acquisition.simulated import SimulatedSource, open_simulated
from acquisition.simulated_subject import CH_NAMES, SFREQ, SimulatedSubject
from acquisition.simulation_parameters import DIFFICULTIES
from acquisition.source import Marker, SourceOptions
from acquisition.stimuli import concepts, read_stimuli

STIMULI = Path(__file__).parents[2] / "weights" / "scale-model" / "stimuli"


class Clock:
    """A session clock that only sleeping moves."""

    def __init__(self) -> None:
        self.t = 100.0

    def now(self) -> float:
        return self.t

    def sleep(self, seconds: float) -> None:
        self.t += seconds


def source_of(subject: SimulatedSubject) -> tuple[SimulatedSource, Clock]:
    clock = Clock()
    return SimulatedSource(subject, now=clock.now, sleep=clock.sleep), clock


def test_samples_do_not_depend_on_how_they_are_read() -> None:
    quick, clock = source_of(SimulatedSubject(seed=1))
    chunks = [c for _ in range(30) for c in quick.read(1.0).chunks]
    late, clock = source_of(SimulatedSubject(seed=1))
    clock.t += 2.4
    [chunk] = late.read(1.0).chunks
    data = np.concatenate([c.data for c in chunks], axis=1)
    assert chunk.n_times == data.shape[1] == 600
    np.testing.assert_array_equal(data, chunk.data)
    assert [c.first_sample for c in chunks] == list(range(0, 600, 20))


def test_what_is_due_is_not_waited_for_longer() -> None:
    source, clock = source_of(SimulatedSubject(seed=1))
    start = clock.t
    lengths = [source.read(1.0, n_due).chunks[0].n_times for n_due in (3, 1, 40, None)]
    assert lengths == [3, 1, 20, 20]
    assert clock.t - start == pytest.approx(44 / SFREQ)


def test_source_runs_in_real_time_and_says_it_is_simulated() -> None:
    source, clock = source_of(SimulatedSubject(seed=1))
    assert source.info.honesty == "simulated"
    assert source.info.ch_names == CH_NAMES
    start = clock.t
    n = sum(c.n_times for _ in range(100) for c in source.read(1.0).chunks)
    assert n / SFREQ == pytest.approx(clock.t - start)
    assert source.read(0.001).chunks == ()


def test_markers_carry_the_onset_s_time_and_what_is_shown() -> None:
    source, clock = source_of(SimulatedSubject(seed=2))
    start = clock.t
    markers: list[Marker] = []
    while len(markers) < 2:
        markers += source.read(1.0).markers
    alone = SimulatedSubject(seed=2)
    events = [event for _ in range(10) for event in alone.next_block()[1]]
    assert markers[0].label == events[0][1]
    assert markers[0].timestamp == pytest.approx(start + events[0][0] / SFREQ)
    assert concepts()[markers[0].details["label"]].name == markers[0].label.removeprefix("onset/")
    assert markers[1].label == "offset"


def test_a_bundles_stimuli_are_shown_and_named_and_no_others() -> None:
    stimuli = read_stimuli(STIMULI)
    source = open_simulated("", {"seed": "3"}, SourceOptions(stimuli=STIMULI))
    clock = Clock()
    source._now, source._sleep, source._start = clock.now, clock.sleep, clock.t
    shown = [m for _ in range(4000) for m in source.read(1.0).markers if m.details]
    assert len(shown) > 40
    for marker in shown:
        composition = stimuli[marker.details["picture"]]
        assert marker.details["composition"] == composition.to_dict()
        assert marker.label == f"onset/{composition.concept.name}"
    # Each concept once before any comes again, and of one concept not always the same picture.
    assert len({m.label for m in shown[:40]}) == 40
    assert len({m.details["picture"] for m in shown}) > 40


@pytest.mark.parametrize(
    ("target", "parameters", "options", "sentence"),
    [
        ("", {"sead": "1"}, SourceOptions(), "has no parameter 'sead'"),
        ("", {"seed": "x"}, SourceOptions(), "whole numbers"),
        ("", {"seed": "-1"}, SourceOptions(), "from zero upwards"),
        ("", {"difficulty": "hard"}, SourceOptions(), "Take demo or literature"),
        ("me", {}, SourceOptions(), "follow a question mark"),
        ("", {}, SourceOptions(unit="V"), "leave --unit out"),
        ("", {}, SourceOptions(ch_names=("Oz", "X9")), "no electrode X9"),
        ("", {}, SourceOptions(ch_names=("Oz", "Oz")), "named twice"),
    ],
)
def test_wrong_parameters_get_their_sentence(
    target: str, parameters: dict[str, str], options: SourceOptions, sentence: str
) -> None:
    with pytest.raises(SourceError, match=sentence):
        open_simulated(target, parameters, options)


def test_the_difficulty_is_named_and_changes_responses_alone() -> None:
    by_name = {
        name: open_simulated("", parameters, SourceOptions())
        for name, parameters in (
            ("demo", {}),
            ("literature", {"difficulty": "literature", "seed": "3"}),
        )
    }
    for name, source in by_name.items():
        assert source.info.name == f"simulated, {name}"
    demo, literature = DIFFICULTIES["demo"], DIFFICULTIES["literature"]
    changed = {n for n, value in asdict(demo).items() if asdict(literature)[n] != value}
    assert changed == {"early_uv", "late_uv", "sustained_uv"}
    assert literature.to_dict() == {
        "difficulty": "literature",
        "parameters_version": literature.version,
        "parameters": literature.digest(),
    }
    assert replace(demo, blink_uv=1.0).difficulty == "other"


def test_a_headset_has_some_of_the_electrodes() -> None:
    some = ("Oz", "Fp1", "O2")
    rows = [CH_NAMES.index(name) for name in some]
    sources = []
    for ch_names in (CH_NAMES, some):
        clock = Clock()
        subject = SimulatedSubject(seed=1)
        sources.append(
            SimulatedSource(subject, now=clock.now, sleep=clock.sleep, ch_names=ch_names)
        )
    [every], [chosen] = (source.read(1.0).chunks for source in sources)
    assert sources[1].info.ch_names == some
    np.testing.assert_array_equal(chosen.data, every.data[rows])
    opened = open_simulated("", {}, SourceOptions(ch_names=some))
    assert opened.info.ch_names == some
