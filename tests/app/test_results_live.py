"""The part "Live": windows and pictures, waiting, confidence, and the whole with a tiny bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from acquisition.epoch_spec import EpochSpec
from acquisition.simulated_subject import CH_NAMES, SFREQ, SimulatedSubject
from acquisition.simulation_parameters import DIFFICULTIES
from acquisition.stimuli import concepts
from app.bundle import read_epoch_spec
from app.errors import SettingsError
from app.results import listening, live, unsure
from app.results.answers import Answers, concept_table
from app.results.bars import at_least, at_most
from app.results.controls import Controlled
from app.results.intervals import median, ratio
from app.results.live import accuracy, confidence, measure, waiting
from app.results.part import Part
from app.results.reliability import (
    calibration_error,
    calibration_score,
    error_of_chance,
    reliability,
)
from app.results.stream import KINDS, Epochs, Sessions, record
from app.results.unsure import open_inputs, railed_inputs
from app.results.waiting import time_to_right
from app.settings import ROOT
from models.errors import BundleError
from models.pipeline import EEGToImagePipeline, load_bundle
from models.training.judge import Judge
from models.training.scorers import JudgeClassifier
from models.training.trials import CONDITIONS, Options

SPEC = EpochSpec(CH_NAMES)
DEMO = DIFFICULTIES["demo"]
N_CONCEPTS = len(concepts())


def epochs(
    first: Sequence[float], picture: Sequence[int], label: Sequence[int], length: float = 1.0
) -> Epochs:
    """Epochs without EEG; picture p is seen from 3 p to 3 p + 2 seconds."""
    onset = 3.0 * np.arange(len(label))
    return Epochs(
        data=np.zeros((len(first), 1, 1), np.float32),
        first=np.array(first),
        last=np.array(first) + length,
        picture=np.array(picture),
        onset=onset,
        offset=onset + 2,
        label=np.array(label),
    )


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> EEGToImagePipeline:
    return load_bundle(tiny_bundle)


def test_epochs_are_told_apart_by_what_they_overlap() -> None:
    some = epochs([-0.5, 0.0, 0.9, 1.5, 2.2, 2.4, 0.5], [0, 0, 0, 0, 0, 1, -1], [7, 8])
    assert some.inside().first.tolist() == [0.0, 0.9]
    assert some.during().first.tolist() == [-0.5, 0.0, 0.9, 2.4]
    assert some.in_gaps(0.1).first.tolist() == [2.2]
    assert some.in_gaps(0.3).first.tolist() == []
    assert some.take(some.picture >= 0).truth.tolist() == [7, 7, 7, 7, 7, 8]


def test_sessions_are_joined_with_their_pictures_numbered_through() -> None:
    joined = Epochs.joined([epochs([0.0, 3.0], [-1, 1], [5, 6]), epochs([0.0, 0.5], [0, -1], [7])])
    assert joined.picture.tolist() == [-1, 1, 2, -1]
    assert joined.label.tolist() == [5, 6, 7]
    assert joined.take(joined.picture >= 0).truth.tolist() == [6, 7]


def test_a_session_is_cut_into_windows_of_whole_pictures() -> None:
    recorded = record(SimulatedSubject(3, 100, parameters=DEMO), SPEC, 8)
    again = SimulatedSubject(3, 100, parameters=DEMO)
    events = [event for _ in range(24) for event in again.next_block()[1]]
    shown = {sample / SFREQ: c.label for sample, _, c in events if c is not None}
    ended = [sample / SFREQ for sample, _, c in events if c is None]
    sliding, locked = recorded["sliding"], recorded["marker-locked"]
    assert set(recorded) == set(KINDS)
    assert [shown[onset] for onset in sliding.onset] == sliding.label.tolist()
    assert set(sliding.offset) <= set(ended)
    np.testing.assert_allclose(sliding.offset - sliding.onset, DEMO.viewing)
    # The first picture comes before the filters have settled.
    assert sliding.onset[0] > min(shown)
    np.testing.assert_allclose(np.diff(sliding.last), SPEC.hop / SFREQ)
    # 500 samples of a viewing hold 7 or 8 ends of windows, and 3 or 4 whole windows.
    assert set(np.bincount(sliding.during().picture).tolist()) <= {7, 8}
    assert set(np.bincount(sliding.inside().picture).tolist()) <= {3, 4}
    mine = locked.take(locked.picture >= 0)
    assert mine.picture.tolist() == list(range(len(mine.label)))
    np.testing.assert_allclose(mine.first - mine.onset[mine.picture], SPEC.tmin)


def test_a_session_without_a_whole_picture_is_refused() -> None:
    with pytest.raises(SettingsError, match="A session of about 1 pictures is too short"):
        record(SimulatedSubject(3, 100, parameters=DEMO), SPEC, 1)


def test_time_to_right_needs_three_in_a_row_while_the_picture_is_seen() -> None:
    yes, no = True, False
    frames = [
        ([no, yes, yes, no, yes, yes, yes], 1.25),  # the second run is long enough
        ([no, no, no, no, no, yes, yes], np.inf),  # ends too soon, and goes on with the next
        ([yes, yes, yes, no, no, no, no], 0.25),
        ([yes, yes], np.inf),
    ]
    right = np.concatenate([f for f, _ in frames])
    picture = np.repeat(np.arange(4), [len(f) for f, _ in frames])
    onset = 3.0 * np.arange(5)
    last = np.concatenate(
        [3 * p + 0.25 * (1 + np.arange(len(f))) for p, (f, _) in enumerate(frames)]
    )
    times = time_to_right(right, last, picture, onset)
    # The fifth picture got no frame.
    assert times.tolist() == [*(expected for _, expected in frames), np.inf]


def test_a_median_may_be_infinite_and_its_interval_too() -> None:
    score = median(np.array([1.0] * 45 + [2.0] * 10 + [np.inf] * 45))
    assert (score.value, score.low, score.high, score.n) == (2.0, 1.0, np.inf, 100)
    assert median(np.array([1.0, np.inf, np.inf])).value == np.inf
    assert median(np.full(9, 3.0)).high == 3.0


def test_a_ratio_draws_both_of_the_same_pictures() -> None:
    rng = np.random.default_rng(0)
    picture = np.repeat(np.arange(100), 3)
    ideal = (rng.random(300) < 0.8).astype(float)
    half = ratio(ideal / 2, ideal, picture)
    # Whatever is drawn, the one is half of the other.
    assert (half.value, half.low, half.high) == pytest.approx((0.5, 0.5, 0.5))
    other = ratio((rng.random(300) < 0.4).astype(float), ideal, picture)
    assert other.low is not None
    assert other.high is not None
    assert 0.3 < other.low < other.value < other.high < 0.7
    assert ratio(ideal, np.zeros(300), picture).value == np.inf


def test_reliability_and_its_error() -> None:
    sure = np.array([0.1] * 10 + [0.5] * 10 + [1.0] * 10)
    right = np.array([False] * 9 + [True] + [True] * 8 + [False] * 2 + [True] * 10)
    bins = reliability(sure, right, np.arange(30))
    np.testing.assert_allclose([(b.low, b.high) for b in bins], [(0, 0.2), (0.4, 0.6), (0.8, 1)])
    assert [b.confidence for b in bins] == pytest.approx([0.1, 0.5, 1.0])
    assert [(b.right.value, b.right.n, b.right.interval) for b in bins] == [
        (0.1, 10, "Wilson"), (0.8, 10, "Wilson"), (1.0, 10, "Wilson"),
    ]  # fmt: skip
    assert calibration_error(sure, right) == pytest.approx(0.3 / 3)
    # Answers about the same picture are drawn together.
    assert reliability(sure, right, np.arange(30) // 2)[1].right.interval.startswith("bootstrap")


def test_the_error_of_a_confidence_has_an_interval_over_pictures() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.2, 1, 3000)
    right = rng.random(3000) < sure - 0.1
    score = calibration_score(sure, right, np.arange(3000) // 3)
    assert score.value == calibration_error(sure, right)
    assert (score.n, score.n_images) == (3000, 1000)
    assert score.low is not None
    assert score.high is not None
    assert 0.07 < score.low < score.value < score.high < 0.13
    # Answers about one picture that are all alike say no more than one of them.
    alike = np.repeat(sure[:100], 30), np.repeat(right[:100], 30)
    widths = []
    for picture in (np.arange(3000) // 30, np.arange(3000)):
        found = calibration_score(*alike, picture)
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[0] > 3 * widths[1]


def test_a_perfect_confidence_shows_an_error_that_falls_with_the_answers() -> None:
    few, many = (error_of_chance(np.linspace(0, 1, n)) for n in (50, 5000))
    assert 0.05 < few < 0.15
    assert many < 0.02


def test_bars_are_met_at_their_value() -> None:
    assert [at_least(v, 0.9, ".0%").split(": ")[1] for v in (0.9, 0.89)] == ["met", "missed"]
    assert [at_most(v, 0.05).split(": ")[1] for v in (0.05, 0.051)] == ["met", "missed"]


def test_accuracy_is_beside_chance_controls_and_the_ideal_observer() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(400) % N_CONCEPTS
    inside = epochs(np.zeros(1200).tolist(), np.repeat(np.arange(400), 3).tolist(), label.tolist())
    truth = inside.truth
    ideal = np.where(rng.random(1200) < 0.8, truth, -1)
    said = np.where(rng.random(1200) < 0.6, truth, -1)
    answers = Answers(ideal, np.ones(1200), said)
    noise = Answers(np.arange(40), np.ones(40), np.arange(40))
    zero = Answers(np.array([3]), np.ones(1), np.array([4]))
    observed = Controlled.of((ideal, noise.concept, zero.concept), truth, inside.picture)
    table, values = accuracy(inside, answers, noise, zero, observed)
    painted = values["sliding"]["painted"]
    assert painted["EEG"]["value"] == (said == truth).mean()
    assert painted["EEG"]["interval"] == "bootstrap over pictures"
    assert painted["shuffled EEG"]["value"] < 0.06
    assert painted["noise EEG"]["value"] < 0.06
    assert painted["zero EEG"]["value"] == 1 / 40
    assert painted["ratio"]["value"] == pytest.approx(
        (said == truth).sum() / (ideal == truth).sum()
    )
    assert values["sliding"]["concept"]["ratio"]["value"] == 1
    of_observer = values["sliding"]["ideal observer"]
    assert of_observer["EEG"]["value"] == (ideal == truth).mean()
    assert max(of_observer[name]["value"] for name in CONDITIONS[1:]) < 0.06
    assert table.rows[0][-1] == "at least 0.65: met"


def test_waiting_tells_both_kinds_and_shuffled_labels() -> None:
    n = 40
    picture = np.repeat(np.arange(n), 7)
    first = 3.0 * picture + 0.25 * np.tile(np.arange(7), n) - 0.8
    frames = epochs(first.tolist(), picture.tolist(), list(range(n)))
    # Right from the third frame on; a quarter of the pictures never is.
    is_right = (np.tile(np.arange(7), n) >= 2) & (picture % 4 > 0)
    said = np.where(is_right, frames.truth, -1)
    locked = epochs((3.0 * np.arange(n) - 0.1).tolist(), list(range(n)), list(range(n)))
    of_frames = Controlled.of((said, np.arange(40), np.array([4])), frames.truth, picture)
    of_locked = Controlled.of([np.zeros(n, int)] * 3, locked.truth, locked.picture)
    table, values = waiting(frames, of_frames, SPEC, (locked, of_locked))
    times = values["time to the right picture"]
    assert times["sliding, EEG"]["median"]["value"] == pytest.approx(0.7)
    assert times["sliding, EEG"]["never"]["value"] == 0.25
    for eeg in CONDITIONS[1:]:
        assert times[f"sliding, {eeg}"]["never"]["value"] > 0.9
        assert times[f"sliding, {eeg}"]["median"]["value"] is None
    # Nothing looks always like the fifth picture's concept.
    assert times["sliding, zero EEG"]["never"]["value"] == 1 - 1 / n
    assert times["marker-locked, EEG"]["never"]["value"] == 1 - 1 / n
    assert times["end of a marker-locked epoch"] == pytest.approx(0.9)
    assert table.rows[0][2] == "0.70 s (0.70 s to 0.70 s)"
    assert [row[1] for row in table.rows[::2]] == list(CONDITIONS)
    assert table.rows[2][2] == "never (never to never)"


def test_confidence_is_of_the_concept_that_is_shown() -> None:
    some = epochs([0.0] * 10, list(range(10)), list(range(10)))
    concept = np.where(np.arange(10) < 7, some.truth, -1)
    answers = Answers(concept, np.full(10, 0.7), np.zeros(10, int))
    noise = Answers(np.full(10, -1), np.full(10, 0.6), np.zeros(10, int))
    zero = Answers(np.array([3]), np.array([0.5]), np.array([0]))
    table, values = confidence("epochs", some, answers, noise, zero)
    error = {name: score["value"] for name, score in values["confidence, epochs"]["error"].items()}
    assert error["EEG"] == pytest.approx(0)
    assert error["shuffled EEG"] > 0.4
    assert error["noise EEG"] == pytest.approx(0.6)
    assert error["zero EEG"] == pytest.approx(0.4)
    assert table.rows[0][:2] == ["60% to 80%", "70.0%"]
    assert "at most 0.05: met" in table.notes[0]


def test_spoilt_electrodes_give_noise_or_nothing_and_leave_the_others() -> None:
    data = np.full((32, 4000), 5.0, np.float32)
    rows = np.array([3, 30])
    for spoil, std in ((open_inputs(rows, 0), unsure.OPEN_UV), (railed_inputs(rows), 0.0)):
        out = spoil(data)
        assert out[rows].std() == pytest.approx(std, rel=0.05)
        assert (np.delete(out, rows, axis=0) == 5).all()
        assert out.dtype == data.dtype
    assert (data == 5).all()


def test_not_sure_is_below_the_bundles_threshold(
    pipeline: EEGToImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two that are well on the side of something seen, and two that are not.
    embeds = torch.tensor([[0.1], [0.3], [-0.1], [-0.3]]).expand(-1, 8)
    monkeypatch.setattr(pipeline, "conditioner", lambda _: (embeds, embeds, embeds))
    assert pipeline.concepts is not None
    seen = pipeline.concepts.seen
    monkeypatch.setattr(seen.weight, "data", torch.ones(1, 8))
    monkeypatch.setattr(seen.bias, "data", torch.zeros(1))
    some = epochs([0.0] * 4, list(range(4)), list(range(4)))
    some = replace(some, data=np.zeros((4, 32, 256), np.float32))
    assert unsure.alone(pipeline)(some).tolist() == [True, True, False, False]


def test_windows_that_are_read_with_those_before(
    pipeline: EEGToImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = ROOT / "weights"
    judge = JudgeClassifier(str(weights / "training" / "judge"), torch.device("cpu"))
    monkeypatch.setattr(live, "IdealObserver", KnowsNothing)
    KnowsNothing.n_samples.clear()
    sessions = Sessions(DEMO, subject=0, numbers=[100], n_trials=30)
    options = Options(steps=2, guidance=1.0, batch=32)
    bundle = weights / "scale-model"
    shipped = load_bundle(bundle)
    part = listening.measure(
        shipped, read_epoch_spec(bundle), judge, sessions, options, lambda _: None
    )
    page = json.dumps(part.to_dict(), allow_nan=False)
    assert Part.from_dict(json.loads(page)).markdown() == part.markdown()
    # Two seconds: since the picture appeared, whenever a window within its viewing ends.
    assert KnowsNothing.n_samples == {512}
    told = part.values["sliding"]
    assert told["painted"]["EEG"]["value"] > 0.3
    assert told["concept"]["EEG"]["value"] > 0.3
    assert told["painted"]["shuffled EEG"]["value"] < 0.2
    assert told["painted"]["noise EEG"]["value"] < 0.2
    unsure_of = part.values["not sure"]
    assert unsure_of["a subject who sees nothing"]["score"]["value"] > 0.7
    assert unsure_of["all electrodes off, inputs open"]["score"]["value"] == 1
    assert unsure_of["inside a viewing, without artefacts"]["score"]["value"] < 0.4
    # The tiny bundle has no reader.
    read_alone = listening.measure(pipeline, SPEC, judge, sessions, options, lambda _: None)
    assert "alone" in read_alone.markdown()


def test_a_bundle_without_concepts_is_refused() -> None:
    class Without:
        concepts = None

    with pytest.raises(BundleError, match="Give one of the scale model"):
        concept_table(Without())  # type: ignore[arg-type]


class KnowsNothing:
    """Stands for the ideal observer, which takes minutes to build."""

    n_samples: ClassVar[set[int]] = set()

    def __init__(
        self, subject: SimulatedSubject, spec: EpochSpec, kind: str, n_before: int = 0
    ) -> None:
        assert kind == "sliding"
        assert subject.parameters.blinks_per_minute == 0
        self.spec = replace(spec, normalisation="none", n_times=spec.n_times + n_before)

    def posterior(self, data: np.ndarray) -> np.ndarray:
        self.n_samples.add(data.shape[2])
        # Microvolts, not what is normalised; or nothing.
        assert data.std() > 2 or not data.any()
        return np.full((len(data), N_CONCEPTS), 1 / N_CONCEPTS)


def test_the_part_is_measured_with_a_tiny_bundle(
    tiny_bundle: Path,
    pipeline: EEGToImagePipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    Judge(width=8).save_pretrained(tmp_path / "judge")
    judge = JudgeClassifier(str(tmp_path / "judge"), torch.device("cpu"))
    monkeypatch.setattr(live, "IdealObserver", KnowsNothing)
    KnowsNothing.n_samples.clear()
    said: list[str] = []
    spec = read_epoch_spec(tiny_bundle)
    sessions = Sessions(DEMO, subject=5, numbers=[100], n_trials=12)
    options = Options(steps=1, guidance=1.0, batch=32)
    part = measure(pipeline, spec, judge, sessions, options, said.append)
    page = json.dumps(part.to_dict(), allow_nan=False)
    assert Part.from_dict(json.loads(page)).markdown() == part.markdown()
    assert [table.title for table in part.tables] == [
        "Sliding windows fully inside a viewing",
        "Time to the right picture",
        "Confidence, marker-locked epochs",
        "Confidence, sliding windows fully inside a viewing",
        'Windows that are answered with "not sure"',
    ]
    assert all(len(row) == len(table.header) for table in part.tables for row in table.rows)
    assert part.values["sessions"] == [100]
    unsure_of = part.values["not sure"]
    assert unsure_of["a subject who sees nothing"]["bar"].startswith("at least 90%")
    assert unsure_of["inside a viewing, without artefacts"]["bar"].startswith("at most 15%")
    assert unsure_of["a subject who sees nothing"]["score"]["n"] > 20
    assert any("marker-locked epochs are painted" in line for line in said)
