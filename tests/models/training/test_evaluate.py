"""Decoders whose scores are known, from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from models.errors import EpochShapeError, PreparedSetError
from models.keyframes import KeyframePainter
from models.training import report
from models.training.comparison import SEEN, Metric
from models.training.evaluate import Evaluation, by_appearance, evaluate
from models.training.prepared import PreparedSet
from models.training.scorers import NotMeasured, Scorers
from models.training.seen import unit_pictures
from models.training.trials import SAME_CONCEPT, Options, Trials
from tests.viewed_set import N_LABELS, make_viewed_set

CONTROLS = ("shuffled EEG", "noise EEG", "zero EEG")
OPTIONS = Options(steps=2, guidance=1.0, batch=7)
MADE_WITH = {"bundle": "test", "bundle_sha256": "0", "versions": {"python": "3"}}
NONE = NotMeasured("none was given")


def encode(pictures: torch.Tensor) -> torch.Tensor:
    """Stands for CLIP: 4 x 4 colours."""
    return F.adaptive_avg_pool2d(pictures, 4).flatten(1) - 0.5


class Colours:
    """Stands for a classifier: the labels' colours, and a class that no label has."""

    name = "the test's classifier"
    is_of_labels = False

    def __init__(self, pictures: torch.Tensor, label: torch.Tensor) -> None:
        self._means = torch.stack(
            [encode(pictures[label == n]).mean(0) for n in range(N_LABELS)] + [torch.ones(48)]
        )

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        return (-4 * torch.cdist(encode(pictures), self._means)).softmax(1)

    def classes_of(self, labels: Sequence[str]) -> np.ndarray:
        return np.array([n if n < N_LABELS else -1 for n in range(len(labels))])


class MeanColour(nn.Module):
    num_features = 3

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean((2, 3))


class Decoder:
    """Stands for a bundle: paints the picture that `choose` finds by the EEG and the noise."""

    concepts: Any = None

    def __init__(
        self, pictures: torch.Tensor, choose: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> None:
        self.pictures, self.choose = pictures, choose

    def latent_shape(self, n: int) -> tuple[int, int, int, int]:
        return n, 4, 2, 2

    def __call__(
        self,
        eeg: torch.Tensor,
        num_inference_steps: int,
        guidance_scale: float,
        generator: torch.Generator,
        latents: torch.Tensor,
        output_type: str,
        is_locked: bool,
    ) -> Any:
        assert is_locked
        ids = self.choose(eeg, latents).long() % len(self.pictures)
        images = self.pictures[ids]
        embeds = encode(images)
        said = self.concepts(embeds) if self.concepts else None
        return SimpleNamespace(images=images, clip_embeds=embeds, concept_probabilities=said)


def read(eeg: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """What the set's EEG says outright."""
    return eeg[:, 0, 0]


def guess(eeg: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """Something that has nothing to do with it."""
    return (eeg[:, 3, 1:9] * 1e4).sum(1).abs()


@pytest.fixture
def data(tmp_path: Path) -> PreparedSet:
    return PreparedSet(make_viewed_set(tmp_path / "set", n_images=60, n_channels=4, n_times=32))


def run(
    data: PreparedSet,
    out: Path,
    choose: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    options: Options = OPTIONS,
    **scorers: Any,
) -> Evaluation:
    shards = data.pictures()
    pictures = unit_pictures(shards, torch.arange(len(shards)))
    all_scorers: dict[str, Any] = {
        "classifier": Colours(pictures, shards["label"]),
        "encoder": encode,
        "inception": MeanColour(),
    }
    decoder: Any = Decoder(pictures, choose)
    out.mkdir()
    return evaluate(decoder, data, out, options, Scorers(**(all_scorers | scorers)))


def metric(e: Evaluation, name: str) -> Metric:
    found = e.metrics[name]
    assert isinstance(found, Metric)
    return found


def test_a_perfect_decoder_is_perfect_and_its_controls_are_at_chance(
    data: PreparedSet, tmp_path: Path
) -> None:
    e = run(data, tmp_path / "out", read)
    perfect = {
        "n_way_label_top_1": 1 / 6,
        "n_way_paper_top_1": 1 / 6,
        "n_way_label_top_5": 5 / 6,
        "n_way_paper_top_5": 5 / 6,
        "clip_two_way": 0.5,
        "pixel_two_way": 0.5,
        "retrieval_top_1": 1 / 60,
        "retrieval_top_5": 5 / 60,
        "clip_similarity": None,
        "pixcorr": None,
        "ssim": None,
    }
    assert set(e.metrics) == {*perfect, "label_probability", "nearest_concept", "fid"}
    for name, chance in perfect.items():
        found = metric(e, name)
        assert found.scores["EEG"].value == pytest.approx(1, abs=1e-5), name
        assert (found.scores["EEG"].n, found.scores["EEG"].n_images) == (60, 60)
        assert found.chance == pytest.approx(chance)
        for control in CONTROLS:
            score = found.scores[control]
            assert score.low is not None
            assert score.high is not None
            # The sixth class is far from all pictures: five of six always hold the right one.
            assert score.value < 0.99 or name.endswith("top_5")
            assert score.n == 60
            if chance == 0.5:
                assert score.low <= 0.5 <= score.high
    # Five of six classes are labels, all as frequent: a constant answer is right in a fifth.
    assert metric(e, "n_way_label_top_1").scores["zero EEG"].value == pytest.approx(0.2)
    assert metric(e, "pixel_two_way").scores["zero EEG"].value == pytest.approx(0.5)
    assert metric(e, "n_way_label_top_1").scores[SEEN].value == 1
    assert metric(e, "fid").scores["EEG"].value == pytest.approx(0, abs=1e-4)
    assert metric(e, "fid").scores["zero EEG"].value > 0.05
    assert metric(e, "fid").scores["EEG"].low is None
    assert "60 decoded and 60 seen" in metric(e, "fid").what


def test_a_decoder_that_ignores_the_eeg_scores_as_its_shuffled_self(
    data: PreparedSet, tmp_path: Path
) -> None:
    e = run(data, tmp_path / "out", guess)
    for name in ("n_way_label_top_1", "clip_two_way", "pixel_two_way", "pixcorr", "ssim"):
        (low, high), (shuffled_low, shuffled_high) = (
            (score.low or 0, score.high or 0)
            for score in map(metric(e, name).scores.__getitem__, ("EEG", "shuffled EEG"))
        )
        assert max(low, shuffled_low) <= min(high, shuffled_high), name
    assert metric(e, "n_way_label_top_1").scores["EEG"].value < 0.5


class PixelReader:
    """Stands for the judge: reads the mean red, green, blue, and three more of their mixtures."""

    name = "the test's judge"

    def appearance(self, pictures: torch.Tensor) -> torch.Tensor:
        colour = pictures.mean((2, 3)) - pictures.mean()
        return torch.cat([colour, colour @ torch.randn(3, 3, generator=SEEDED.clone_state())], 1)


SEEDED = torch.Generator().manual_seed(0)


def test_appearance_is_that_of_the_seen_picture_and_of_no_other(
    data: PreparedSet, tmp_path: Path
) -> None:
    judge: Any = PixelReader()
    c = run(data, tmp_path / "out", read).comparison
    appearance = c.look_at_seen(judge.appearance)
    found = by_appearance(c, judge, appearance)
    assert set(found) == {"hue_error", *(f"{n}_correlation" for n in ("value", "size", "x", "y"))}
    for name, each in found.items():
        assert isinstance(each, Metric)
        good, shuffled = each.scores["EEG"].value, each.scores["shuffled EEG"]
        if name == "hue_error":
            assert good == pytest.approx(0, abs=2)
            assert shuffled.value > 30
        else:
            assert good == pytest.approx(1, abs=0.01)
            assert (shuffled.low or 0) < 0.3
            assert each.scores["zero EEG"].value == pytest.approx(0, abs=1e-6)


def test_the_same_concept_keeps_the_label_and_nothing_else_of_the_picture(
    data: PreparedSet, tmp_path: Path
) -> None:
    pictures = unit_pictures(data.pictures(), torch.arange(len(data.pictures())))
    decoder: Any = Decoder(pictures, read)
    decoder.concepts = Table(data)
    classifier = Colours(pictures, data.pictures()["label"])
    scorers = Scorers(classifier=classifier, encoder=NONE, inception=NONE)
    (tmp_path / "out").mkdir()
    e = evaluate(decoder, data, tmp_path / "out", OPTIONS, scorers)
    assert metric(e, "nearest_concept").scores["EEG"].value == 1
    assert metric(e, "n_way_label_top_1").scores[SAME_CONCEPT].value == 1
    assert metric(e, "pixcorr").scores["EEG"].value == pytest.approx(1, abs=1e-5)
    assert metric(e, "pixcorr").scores[SAME_CONCEPT].value < 0.9


class Table:
    """Stands for a bundle's concepts: the labels' colours."""

    device = torch.device("cpu")

    def __init__(self, data: PreparedSet) -> None:
        shards = data.pictures()
        pictures = unit_pictures(shards, torch.arange(len(shards)))
        self._colours = Colours(pictures, shards["label"])
        self.config = SimpleNamespace(names=data.spec["concepts"])

    def __call__(self, embeds: torch.Tensor) -> torch.Tensor:
        return (-4 * torch.cdist(embeds, self._colours._means)).softmax(1)


def test_of_several_samples_the_mean_counts_and_not_the_best(
    data: PreparedSet, tmp_path: Path
) -> None:
    first_noise = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(OPTIONS.seed))

    def right_at_first(eeg: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        # Whichever is wrong is the next picture, of another label.
        return eeg[:, 0, 0] + (not torch.equal(latents[:1], first_noise))

    options = Options(steps=2, guidance=1.0, samples=3)
    e = run(data, tmp_path / "out", right_at_first, options)
    assert metric(e, "retrieval_top_1").scores["EEG"].value == pytest.approx(1 / 3)
    assert metric(e, "n_way_label_top_1").scores["EEG"].value == pytest.approx(1 / 3)
    assert metric(e, "n_way_label_top_1").scores["EEG"].n == 60


def test_the_report_says_everything_with_chance_intervals_and_controls(
    data: PreparedSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    e = run(data, out, read, inception=NotMeasured("the weights cannot be had"))
    e.warnings.append("labels and time are confounded.")
    text = report.write(e, MADE_WITH, out)

    assert text == (out / "report.md").read_text(encoding="utf-8")
    assert "# test: evaluation on simulated EEG" in text
    assert "> **Warning.** labels and time are confounded." in text
    assert "The prepared set has no splits" in text
    assert "*fid*: not measured: the weights cannot be had." in text
    assert "| 6-way top-1 | 100.0% (94.0% to 100.0%) |" in text
    assert "(not 50: it has no more classes)" in text
    assert "Nothing was taken for anything else." in text
    scores = json.loads((out / "scores.json").read_text())
    assert scores["honesty"] == "simulated"
    assert scores["options"]["seed"] == 0
    assert scores["metrics"]["fid"] == {"not_measured": "the weights cannot be had"}
    for found in scores["metrics"].values():
        if "scores" in found:
            assert set(found["scores"]) >= {"EEG", *CONTROLS}
            assert {"value", "low", "high", "n", "n_images", "interval"} == set(
                found["scores"]["EEG"]
            )
            assert "chance" in found
    by_trial = json.loads((out / "trials.json").read_text())
    assert {len(column) for column in by_trial.values()} == {60}
    assert by_trial["said"] == by_trial["label"]
    for name in ("grid.png", "confusion.png"):
        with Image.open(out / name) as image:
            assert min(image.size) > 300


def test_best_median_and_worst_are_those_by_score(data: PreparedSet, tmp_path: Path) -> None:
    def often(eeg: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        ids = eeg[:, 0, 0]
        return torch.where(ids % 3 == 0, ids + 1, ids)

    out = tmp_path / "out"
    e = run(data, out, often)
    report.write(e, MADE_WITH, out)
    grid = json.loads((out / "scores.json").read_text())["grid"]
    values = np.array(json.loads((out / "trials.json").read_text())["label_probability"])
    assert grid["by"] == "probability of the label"
    best, median, worst = (values[grid[name]] for name in ("best", "median", "worst"))
    rest = np.delete(values, grid["best"] + grid["worst"])
    assert best.min() >= rest.max()
    assert worst.max() <= rest.min()
    assert best.min() > worst.max()
    np.testing.assert_array_equal(np.sort(values)[26:34], np.sort(median))
    # A third is wrong, and it is the worst that are.
    text = (out / "report.md").read_text()
    assert "20 of 60 pictures were taken for something else by the test's classifier." in text
    assert "dog for cat (4 of 12)" in text
    by_trial = json.loads((out / "trials.json").read_text())
    wrong = np.flatnonzero(np.not_equal(by_trial["said"], by_trial["label"]))
    assert set(grid["worst"]) <= set(wrong)


def test_of_a_classifier_of_labels_only_those_in_the_set_are_compared(
    data: PreparedSet, tmp_path: Path
) -> None:
    class Judge(Colours):
        is_of_labels = True

        def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
            # Sure of a class that the set has not got.
            return torch.cat([0.01 * super().__call__(pictures), torch.ones(len(pictures), 1)], 1)

    shards = data.pictures()
    pictures = unit_pictures(shards, torch.arange(len(shards)))
    e = run(data, tmp_path / "out", read, classifier=Judge(pictures, shards["label"]))
    found = metric(e, "n_way_label_top_1")
    assert found.title == f"{N_LABELS}-way top-1"
    assert found.chance == 1 / N_LABELS
    assert found.scores["EEG"].value == 1


def test_without_a_classifier_the_report_says_so_and_orders_by_clip(
    data: PreparedSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    e = run(data, out, read, classifier=NONE)
    text = report.write(e, MADE_WITH, out)
    assert "*n way*: not measured: none was given." in text
    assert "Nothing could name the pictures" in text
    assert not (out / "confusion.png").exists()
    assert report.ordering(e)[0] == "CLIP similarity"


def test_labels_without_a_class_leave_the_papers_score(data: PreparedSet, tmp_path: Path) -> None:
    class Foreign(Colours):
        def classes_of(self, labels: Sequence[str]) -> np.ndarray:
            return np.array([-1 if n == 2 else n for n in range(len(labels))])

    shards = data.pictures()
    pictures = unit_pictures(shards, torch.arange(len(shards)))
    e = run(data, tmp_path / "out", read, classifier=Foreign(pictures, shards["label"]))
    label = e.metrics["n_way_label"]
    assert isinstance(label, NotMeasured)
    assert "no class for 1 of the set's labels, as 'butterfly'" in label.reason
    assert metric(e, "n_way_paper_top_1").scores["EEG"].value == 1


def test_a_space_of_other_size_is_not_searched(data: PreparedSet, tmp_path: Path) -> None:
    e = run(data, tmp_path / "out", read, encoder=lambda x: encode(x)[:, :7])
    found = e.metrics["retrieval_top_1"]
    assert isinstance(found, NotMeasured)
    assert "a space of 48 dimensions, CLIP puts pictures into one of 7" in found.reason
    assert metric(e, "clip_similarity").scores["EEG"].value == pytest.approx(1, abs=1e-6)


def test_pictures_of_other_size_are_compared_at_the_decoded_ones(
    data: PreparedSet, tmp_path: Path
) -> None:
    shards = data.pictures()
    pictures = F.interpolate(unit_pictures(shards, torch.arange(len(shards))), scale_factor=2)
    decoder: Any = Decoder(pictures, read)
    e = evaluate(decoder, data, tmp_path, OPTIONS, Scorers(NONE, NONE, NONE))
    found = metric(e, "ssim").scores
    assert found["EEG"].value > 0.7
    assert found["shuffled EEG"].value < found["EEG"].value - 0.3
    assert isinstance(e.metrics["clip"], NotMeasured)


def test_the_same_seed_gives_the_same_report(data: PreparedSet, tmp_path: Path) -> None:
    options = Options(steps=2, guidance=1.0, limit=20, seed=3)
    texts = []
    for name in ("one", "two"):
        e = run(data, tmp_path / name, guess, options)
        report.write(e, MADE_WITH, tmp_path / name)
        texts.append((tmp_path / name / "scores.json").read_text())
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["trials"] == 20


# A real bundle


def test_pictures_are_those_that_the_page_would_show(tiny_bundle: Path, tmp_path: Path) -> None:
    data = PreparedSet(make_viewed_set(tmp_path / "set", n_images=9))
    painter = KeyframePainter.from_bundle(tiny_bundle, seed=4, device="cpu")
    options = Options(painter.num_inference_steps, painter.guidance_scale, batch=4, seed=4)
    e = evaluate(painter.pipeline, data, tmp_path, options, Scorers(NONE, NONE, NONE))
    decoded = e.comparison.painted["EEG"].rows("images", torch.arange(9)).numpy()
    for row in range(9):
        eeg = data.epochs().rows("eeg", torch.tensor([row]))[0].numpy()
        expected = painter.paint(eeg)[1].rgb
        assert np.abs(decoded[row].astype(int) - expected).max() <= 1
    nearest = metric(e, "nearest_concept")
    # Of the forty the set has five.
    assert nearest.chance == 1 / 5
    assert nearest.scores["EEG"].n == 9


def test_epochs_of_another_shape_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    data = PreparedSet(make_viewed_set(tmp_path / "set", n_channels=8))
    painter = KeyframePainter.from_bundle(tiny_bundle, device="cpu")
    with pytest.raises(EpochShapeError, match=r"32 channels x 256 samples, not \(8, 256\)"):
        evaluate(painter.pipeline, data, tmp_path, OPTIONS, Scorers(NONE, NONE, NONE))


# Which trials


def choose(folder: Path, **options: Any) -> Trials:
    return Trials.choose(PreparedSet(folder), Options(2, 1.0, **options))


def test_trials_come_from_the_split_that_is_asked_for(tmp_path: Path) -> None:
    split = np.append(np.arange(40) % 4 - 1, 2)
    folder = make_viewed_set(tmp_path / "set", 40, 1, 2, 8, {"split": split})
    assert choose(folder).rows.tolist() == list(range(3, 40, 4))
    assert choose(folder, split="train").rows.tolist() == list(range(1, 40, 4))
    assert len(choose(folder, split="all")) == 40
    assert choose(folder).warnings == ()
    no_test = make_viewed_set(tmp_path / "other", 40, 1, 2, 8, {"split": np.zeros(41, np.int64)})
    with pytest.raises(
        PreparedSetError, match=r"no marker-locked epochs of the split 'test'.*--sp"
    ):
        choose(no_test)


def test_trials_of_a_picture_share_it(tmp_path: Path) -> None:
    folder = make_viewed_set(tmp_path / "set", 10, 3, 2, 8)
    trials = choose(folder)
    assert trials.image.tolist() == np.repeat(np.arange(10), 3).tolist()
    drawn = choose(folder, limit=5, seed=1)
    assert len(drawn) == 5
    assert drawn.rows.tolist() == choose(folder, limit=5, seed=1).rows.tolist()
    assert drawn.rows.tolist() != choose(folder, limit=5, seed=2).rows.tolist()
    assert drawn.images[torch.from_numpy(drawn.image)].tolist() == (drawn.rows // 3).tolist()


def test_a_set_that_cannot_be_scored_gets_its_sentence(tmp_path: Path) -> None:
    folder = make_viewed_set(tmp_path / "set", 4, 1, 2, 8)
    with pytest.raises(PreparedSetError, match=r"saw one picture only.*--limit or --split"):
        choose(folder, limit=1)
    with pytest.raises(PreparedSetError, match=r"no epoch that names the picture.*--images"):
        choose(folder, epochs="sliding")
    (folder / "pictures-00000.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(PreparedSetError, match=r"holds no pictures-\*.safetensors.*--images"):
        choose(folder)
    locked = make_viewed_set(tmp_path / "locked", 4, 1, 2, 8, {"is_locked": np.ones(5, np.int64)})
    with pytest.raises(PreparedSetError, match=r"no sliding epochs"):
        choose(locked, epochs="sliding")
    lost = make_viewed_set(tmp_path / "lost", 4, 1, 2, 8, {"image_id": np.arange(5) * 3})
    with pytest.raises(PreparedSetError, match=r"epochs of picture 9, and only 4 pictures"):
        choose(lost)
