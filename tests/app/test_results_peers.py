"""The results page's part about peers, pictures of classes and fewer electrodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.ideal_observer import ELECTRODES
from acquisition.simulated_subject import CH_NAMES
from acquisition.simulation_parameters import DIFFICULTIES
from app.results import by_class, electrodes, peers
from app.results.intervals import difference
from app.results.part import Part
from app.results.stream import Sessions
from models.errors import PreparedSetError
from models.pipeline import EEGToImagePipeline, load_bundle
from models.training.comparison import Comparison, Metric
from models.training.eegnet import EEGNetConfig
from models.training.evaluate import by_appearance
from models.training.judge import Judge
from models.training.prepared import PreparedSet
from models.training.scorers import JudgeClassifier
from models.training.trials import CONDITIONS, Condition, Options, Trials
from tests.viewed_set import N_LABELS, make_viewed_set

SPEC = {"ch_names": list(CH_NAMES), "sfreq": 250.0, "n_times": 256, "tmin": -0.1}
SHORT = EEGNetConfig(steps=2, batch=16, save_every=2)
COMPOSITION = {"hue": 0.1, "saturation": 0.9, "value": 0.5, "size": 0.5, "x": 0.3, "y": 0.7}
N = 60


class Knows:
    """A decoder whose answers are told beforehand."""

    chosen = "by the test"

    def __init__(self, answer: Callable[[np.ndarray], np.ndarray]) -> None:
        self._answer = answer

    def predict(self, eeg: np.ndarray) -> np.ndarray:
        return np.eye(40)[self._answer(eeg)]


def labels(eeg: np.ndarray) -> np.ndarray:
    """The label of an epoch of `made`: its picture's number says it."""
    return np.asarray(eeg[:, 0, 0].round().astype(int) % N_LABELS)


PERFECT = Knows(labels)
WRONG = Knows(lambda eeg: (labels(eeg) + 1) % N_LABELS)


def made(folder: Path, seed: int = 0, **spec: object) -> PreparedSet:
    """Pictures of different looks, and epochs in which a class is one channel's offset."""
    rng = np.random.default_rng(seed)
    label = np.append(np.arange(N) % N_LABELS, -1)
    eeg = rng.standard_normal((N + 1, 32, 256)).astype(np.float32)
    eeg[np.arange(N), CH_NAMES.index("Oz") - label[:-1], 100:] += 1.5
    eeg[:, 0, 0] = np.append(np.arange(N), -1)
    columns = {"eeg": eeg, "subject": np.arange(N + 1) % 2}
    for name in ("session", "run", "t_onset"):
        columns[name] = np.zeros(N + 1)
    make_viewed_set(folder, N, columns=columns, epoch_spec=SPEC, **spec)
    looks = [{k: v + 0.2 * rng.random() for k, v in COMPOSITION.items()} for _ in range(N)]
    (folder / "compositions.json").write_text(json.dumps(looks))
    return PreparedSet(folder)


@pytest.fixture
def pipeline(tiny_bundle: Path) -> EEGToImagePipeline:
    return load_bundle(tiny_bundle)


def test_peers_learn_and_are_measured_beside_ours(
    pipeline: EEGToImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of 32 choices of windows the last two: one LDA takes a second.
    choices = peers.choices
    monkeypatch.setattr(peers, "choices", lambda data: choices(data)[-2:])
    train, held, test = (made(tmp_path / name, i) for i, name in enumerate("abc"))
    said: list[str] = []
    found = peers.train_peers(train, held, tmp_path / "stages", SHORT, said.append)
    assert list(found) == [peers.WINDOWS, peers.XDAWN, peers.EEGNET]
    part = peers.measure(pipeline, found, {"new sessions": test})
    values = part.values["new sessions"]
    for who in (peers.WINDOWS, peers.XDAWN):
        assert values[who]["EEG"]["value"] > 0.6
        assert values[who]["shuffled EEG"]["value"] < 0.4
        # Noise says nothing, and zero one class for all.
        assert values[who]["noise EEG"]["value"] < 0.4
        assert values[who]["zero EEG"]["value"] == pytest.approx(1 / N_LABELS)
    assert not values["is_met"]
    assert [row[0] for row in part.tables[0].rows] == [peers.OURS, *found]
    assert {len(row) for row in part.tables[0].rows} == {len(part.tables[0].header)}
    assert Part.from_dict(json.loads(json.dumps(part.to_dict()))).markdown() == part.markdown()


def test_the_bar_is_met_by_what_is_as_good(
    pipeline: EEGToImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = {"test": made(tmp_path / "set")}
    for ours, other, is_met in ((PERFECT, PERFECT, True), (WRONG, PERFECT, False)):
        monkeypatch.setattr(peers, "our_decoder", lambda *_, ours=ours: ours)
        part = peers.measure(pipeline, {"peer": other}, test)
        values = part.values["test"]
        assert values["is_met"] is is_met
        assert ("met: below that of peer" in part.markdown()) != is_met
        minus = values["peer"]["ours minus this one"]
        assert minus["value"] == values[peers.OURS]["EEG"]["value"] - 1
        assert values["peer"]["subjects"] == [1, 1]


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    right, picture = rng.random(400) < 0.5, np.arange(400)
    better = right.copy()
    better[:10] = ~right[:10] | right[:10]
    found = difference(better, right, picture)
    gain = (better & ~right).sum() / 400
    assert found.value == pytest.approx(gain, abs=1e-3)
    # Unpaired, the interval of either is 0.05 to each side.
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low < 0.03


def test_a_set_of_other_concepts_is_refused(pipeline: EEGToImagePipeline, tmp_path: Path) -> None:
    other = made(tmp_path / "set", concepts=["left", "right"])
    with pytest.raises(PreparedSetError, match="others than the labels of"):
        peers.measure(pipeline, {}, {"test": other})


def test_pictures_of_a_class_stand_beside_those_of_the_eeg(
    pipeline: EEGToImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_class, "our_decoder", lambda *_: WRONG)
    train, test = made(tmp_path / "train"), made(tmp_path / "test", 1)
    torch.manual_seed(0)
    Judge().save_pretrained(tmp_path / "judge")
    judge = JudgeClassifier(str(tmp_path / "judge"), torch.device("cpu"))
    options = Options(steps=2, guidance=1.0, split="all")
    trials = Trials.choose(test, options)
    pictures = test.pictures()
    # A bundle that paints what was seen.
    painted = Condition("EEG", trials.images[torch.from_numpy(trials.image)].numpy()[None])
    comparison = Comparison(
        trials, options, pictures, {"EEG": pictures}, dict.fromkeys(CONDITIONS, painted)
    )
    part = by_class.measure(
        pipeline, judge, {"perfect": PERFECT}, train, test, comparison, tmp_path / "painted"
    )
    who = [
        by_class.PAINTED, f"{peers.OURS}, painted by class", "perfect, painted by class"
    ]  # fmt: skip
    wanted = [[name, eeg] for eeg in CONDITIONS for name in who]
    assert [list(row[:2]) for row in part.tables[0].rows] == [*wanted, ["chance", "–"]]
    assert {len(row) for row in part.tables[0].rows} == {7}
    by_perfect = part.values["perfect, painted by class"]
    ours = part.values[by_class.PAINTED]
    for name in ("hue_error", "value_correlation"):
        gain = ours["EEG"][name]["value"] - by_perfect["EEG"][name]["value"]
        assert by_perfect["ours minus this one"][name]["value"] == pytest.approx(gain, abs=1e-3)
    scores = by_appearance(comparison, judge, test.appearance()[trials.images].numpy())
    assert isinstance(scores["hue_error"], Metric)
    assert ours["EEG"]["hue_error"]["value"] == scores["hue_error"].scores["EEG"].value
    # All pictures of nothing are the same one, whose hue says nothing of what was seen.
    zero = by_perfect["zero EEG"]
    assert zero["x_correlation"]["value"] == 0
    assert zero["hue_error"] != by_perfect["EEG"]["hue_error"]
    # The untrained painter's pictures of the classes differ a little, so other answers show.
    assert by_perfect != part.values[f"{peers.OURS}, painted by class"]
    json.dumps(part.to_dict())


def test_silent_electrodes_are_zero() -> None:
    eeg = np.ones((2, 4, 3), np.float32)
    assert electrodes.silenced(eeg, [1, 3])[0, :, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.slow
def test_fewer_electrodes_are_measured_beside_the_observer(
    pipeline: EEGToImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = peers.choices
    monkeypatch.setattr(electrodes, "choices", lambda data: choices(data)[-1:])
    train, held, test = (made(tmp_path / name, i) for i, name in enumerate("abc"))
    sessions = Sessions(DIFFICULTIES["demo"], 0, [100, 101], 15)
    said: list[str] = []
    part = electrodes.measure(pipeline, train, held, test, sessions, said.append, [8, 4])
    assert len(said) == 2
    assert {len(row) for row in part.tables[0].rows} == {len(electrodes.HEADER)}
    # Oz is one of the eight, not of the four, so what tells label 0 goes.
    eight, four = (part.values[n][electrodes.LDA]["EEG"]["value"] for n in ("8", "4"))
    assert "Oz" in ELECTRODES[8]
    assert "Oz" not in ELECTRODES[4]
    assert eight > four
    observed = part.values["8"][electrodes.OBSERVER]
    assert observed["EEG"]["n"] == observed["EEG"]["n_images"] >= 20
    assert observed["EEG"]["value"] > 0.2 > max(observed[name]["value"] for name in CONDITIONS[1:])
    share = part.values["8"][electrodes.LDA]["share of the ideal"]
    assert share["value"] == pytest.approx(eight / observed["EEG"]["value"])
    assert share["low"] < share["value"]
