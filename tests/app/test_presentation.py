"""The plan of a presentation, what a page may say of it, and what is made of that."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from acquisition.stimuli import concepts, read_stimuli
from app import feed as feed_module
from app.errors import SettingsError
from app.feed import Feed
from app.flashes import FlashDetector
from app.picture_set import PictureSet, StimulusPicture, find_pictures, read_pictures
from app.presentation import (
    MAX_GAP,
    MIN_DURATION,
    MIN_GAP,
    Presentation,
    Trial,
    make_plan,
    stimulus_marker,
)

BUNDLE = Path(__file__).parents[2] / "weights" / "scale-model"


def picture_set(n_classes: int, n_each: int = 2) -> PictureSet:
    return tuple(
        StimulusPicture(f"c{label}/{k}", f"c{label}", label, Path(f"{label}-{k}.png"))
        for label in range(n_classes)
        for k in range(n_each)
    )


def without_catches(plan: tuple[Trial, ...]) -> list[Trial]:
    return [trial for trial in plan if not trial.is_catch]


# The plan


@pytest.mark.parametrize("n_classes", [2, 3, 40])
@pytest.mark.parametrize("seed", range(3))
def test_every_class_comes_once_a_round_and_never_twice_in_a_row(n_classes: int, seed: int) -> None:
    trials = without_catches(make_plan(picture_set(n_classes), 15, seed))
    labels = [trial.picture.label for trial in trials]
    for first in range(0, len(labels) - n_classes + 1, n_classes):
        assert sorted(labels[first : first + n_classes]) == list(range(n_classes))
    assert all(a != b for a, b in pairwise(labels))
    counts = Counter(labels).values()
    assert max(counts) - min(counts) <= 1


def test_labels_do_not_follow_the_time() -> None:
    trials = without_catches(make_plan(picture_set(10), 15, 0))
    labels = np.array([trial.picture.label for trial in trials])
    places = np.arange(len(labels)) / len(labels)
    means = [places[labels == label].mean() for label in range(10)]
    assert np.ptp(means) < 0.05
    orders = {tuple(labels[first : first + 10]) for first in range(0, len(labels) - 10, 10)}
    assert len(orders) > 0.9 * (len(labels) // 10)


def test_the_pictures_of_a_class_take_turns() -> None:
    trials = without_catches(make_plan(picture_set(4, 3), 10, 1))
    counts = Counter(trial.picture.name for trial in trials).values()
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("minutes", [0.2, 2, 15])
def test_it_is_as_long_as_asked_in_runs_of_two_to_three_minutes(minutes: float) -> None:
    plan = make_plan(picture_set(40), minutes, 5, first_trial=7, first_run=3)
    assert [trial.number for trial in plan] == list(range(7, 7 + len(plan)))
    seconds = [trial.duration + trial.gap for trial in plan]
    assert sum(seconds) == pytest.approx(60 * minutes, rel=0.03, abs=2)
    runs = [trial.run for trial in plan]
    assert runs == sorted(runs)
    assert runs[0] == 3
    assert set(runs) == set(range(3, runs[-1] + 1))
    if minutes >= 2:
        for run in set(runs):
            length = sum(s for s, r in zip(seconds, runs, strict=True) if r == run)
            assert 100 <= length <= 190


def test_one_trial_in_twenty_repeats_the_picture_before_it_in_the_same_run() -> None:
    plan = make_plan(picture_set(40), 15, 2)
    places = [i for i, trial in enumerate(plan) if trial.is_catch]
    assert len(places) == round(len(plan) / 20)
    for i in places:
        assert not plan[i - 1].is_catch
        assert (plan[i].picture, plan[i].run) == (plan[i - 1].picture, plan[i - 1].run)
    # Nobody can count to the next.
    assert len(set(np.diff(places).tolist())) > 5


def test_gaps_are_jittered_and_the_seed_decides_everything() -> None:
    plan = make_plan(picture_set(5), 5, 3, duration=1.5)
    gaps = np.array([trial.gap for trial in plan])
    assert gaps.min() >= MIN_GAP
    assert gaps.max() <= MAX_GAP
    assert gaps.std() > 0.08
    assert {trial.duration for trial in plan} == {1.5}
    assert plan == make_plan(picture_set(5), 5, 3, duration=1.5)
    assert plan != make_plan(picture_set(5), 5, 4, duration=1.5)


def test_at_most_one_flash_in_any_second_even_from_black_to_white() -> None:
    plan = make_plan(picture_set(2), 1, 0, duration=MIN_DURATION)
    detector = FlashDetector()
    black, white = (np.full((8, 8, 3), value, np.uint8) for value in (0, 255))
    t, most = 0.0, 0.0
    for trial in plan:
        most = max(most, detector.add(black, t).general.max())
        t += MIN_GAP
        most = max(most, detector.add(white, t).general.max())
        t += trial.duration
    assert 0 < most <= 1


# What the page says


class Clock:
    t = 1000.0

    def __call__(self) -> float:
        return self.t


def begun(minutes: float = 1) -> tuple[Presentation, dict[str, Any]]:
    presentation = Presentation(picture_set(3), Clock())
    return presentation, presentation.begin({"minutes": minutes, "seed": 1})


def test_the_plan_is_json_with_an_address_for_each_picture() -> None:
    presentation, plan = begun()
    assert json.loads(json.dumps(plan)) == plan
    assert (plan["seed"], plan["n_runs"]) == (1, 1)
    for trial in plan["trials"]:
        place = int(trial["address"].removeprefix("api/pictures/"))
        assert presentation.pictures[place].name == trial["picture"]
        assert presentation.pictures[place].label == trial["label"]
    assert "seed" in presentation.begin({"minutes": 1})


def test_trials_and_runs_of_a_second_presentation_have_other_numbers() -> None:
    presentation, first = begun()
    second = presentation.begin({"minutes": 1})
    assert second["trials"][0]["trial"] == first["trials"][-1]["trial"] + 1
    assert second["trials"][0]["run"] == first["trials"][-1]["run"] + 1
    said = {"event": "shown", "trial": 1, "t": 1000.0, "error_s": 0.01}
    with pytest.raises(ValueError, match="Begin the presentation anew"):
        presentation.check(said)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"minutes": "5"},
        {"minutes": True},
        {"minutes": 0},
        {"minutes": float("nan")},
        {"minutes": 10**400},
        {"minutes": 61},
        {"minutes": 5, "duration": 0.3},
        {"minutes": 5, "duration": None},
        {"minutes": 5, "seed": -1},
        {"minutes": 5, "seed": 1.5},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(wanted: dict[str, Any]) -> None:
    presentation, _ = begun()
    with pytest.raises(ValueError, match=r"expected a number from|whole number"):
        presentation.begin(wanted)
    # What is presented meanwhile goes on.
    presentation.check({"event": "shown", "trial": 1, "t": 1000.0, "error_s": 0.01})


def test_without_pictures_it_is_said_what_to_do() -> None:
    with pytest.raises(ValueError, match="--pictures"):
        Presentation((), Clock()).begin({"minutes": 5})


def test_the_bus_learns_of_a_trial_what_the_plan_says() -> None:
    presentation, plan = begun()
    trial = plan["trials"][2]
    said = {"event": "shown", "trial": 3, "t": 999.98, "error_s": 0.009, "class": "a lie"}
    header = presentation.check(said)
    known = {name: trial[name] for name in ("run", "picture", "class", "label", "is_catch")}
    assert header == {"event": "shown", "trial": 3, **known, "t": 999.98, "error_s": 0.009}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"event": "seen"}, "no event"),
        ({"event": ["shown"]}, "no event"),
        ({"trial": 10_000}, "No trial"),
        ({"trial": True}, "No trial"),
        ({"trial": [1]}, "No trial"),
        ({"t": None}, "t is None"),
        ({"t": float("inf")}, "t is inf"),
        ({"t": 900.0}, "t is 900"),
        ({"t": 1000.5}, "future"),
        ({"error_s": -0.1}, "error_s"),
        ({"error_s": float("nan")}, "error_s"),
        ({"event": "planned", "t": 1000.3}, "0.30 s before"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], expected: str) -> None:
    presentation, _ = begun()
    said = {"event": "shown", "trial": 1, "t": 1000.0, "error_s": 0.01, **change}
    with pytest.raises(ValueError, match=expected):
        presentation.check(said)


def test_onsets_and_ends_become_markers_and_nothing_else_does() -> None:
    presentation, plan = begun()
    first = plan["trials"][0]

    def marker(event: str, t: float) -> Any:
        said = {"event": event, "trial": 1, "t": t, "error_s": 0.01}
        return stimulus_marker(presentation.check(said))

    onset, offset = marker("shown", 999.5), marker("gone", 1000.0)
    assert (onset.timestamp, onset.label) == (999.5, f"onset/{first['class']}")
    names = ("label", "picture", "trial", "run", "is_catch")
    assert onset.details == {**{name: first[name] for name in names}, "error_s": 0.01}
    assert (offset.timestamp, offset.label) == (1000.0, "offset")
    assert offset.details == {"trial": 1, "run": 1}
    others = [("planned", 1000.6), ("response", 1000.0), ("run", 1000.0), ("ended", 1000.0)]
    assert [marker(event, t) for event, t in others] == [None] * 4


# Pictures


def test_a_bundles_stimuli_have_the_labels_of_their_concepts() -> None:
    pictures = find_pictures("", BUNDLE)
    stimuli = read_stimuli(BUNDLE / "stimuli")
    assert len(pictures) == len(stimuli) == 120
    for picture in pictures:
        assert picture.label == stimuli[picture.name].label
        assert picture.class_name == concepts()[picture.label].name
        assert picture.path.is_file()


def test_a_bundle_without_stimuli_has_none(tmp_path: Path) -> None:
    assert find_pictures("", tmp_path) == ()


def test_a_folder_of_folders_is_a_set_of_classes(tmp_path: Path) -> None:
    for name in ("dog/1.jpg", "cat/2.png", "cat/1.JPG", "cat/notes.txt", "empty/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".txt":
            path.touch()
        else:
            Image.new("RGB", (4, 4)).save(path)
    found = [(p.name, p.class_name, p.label) for p in find_pictures(str(tmp_path), BUNDLE)]
    assert found == [
        ("cat/1.JPG", "cat", 0), ("cat/2.png", "cat", 0), ("dog/1.jpg", "dog", 1),
    ]  # fmt: skip


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="There is no folder"):
        read_pictures(tmp_path / "gone")
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cat" / "1.png")
    with pytest.raises(SettingsError, match="at least two"):
        read_pictures(tmp_path)


# The feed


def test_a_slow_reader_is_told_how_much_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MOST_WAITING", 2)

    async def read() -> list[dict[str, Any]]:
        feed = Feed()
        lines = feed.lines()
        found = [json.loads(await anext(lines))]
        for n in range(5):
            feed.add({"n": n})
        found += [json.loads(await anext(lines)) for _ in range(2)]
        feed.add({"n": 5})
        feed.end()
        return found + [json.loads(line) async for line in lines]

    assert asyncio.run(read()) == [
        {"type": "begin"}, {"n": 0}, {"n": 1}, {"type": "missed", "n": 3}, {"n": 5},
    ]  # fmt: skip
