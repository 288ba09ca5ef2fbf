"""The part "Calibration": new subjects, minutes of them, and who learns from these."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.epoch_spec import EpochSpec
from acquisition.simulated_subject import CH_NAMES
from acquisition.simulation_parameters import DIFFICULTIES
from acquisition.stimuli import random_composition
from app.bundle import read_epoch_spec
from app.results import calibration
from app.results.part import Part
from app.results.stream import Sessions
from models.pipeline import load_bundle
from models.training.clip import Words, build_clip, save_clip
from models.training.judge import Judge
from models.training.prepared import PreparedSet
from models.training.scale_config import AlignConfig
from models.training.scorers import JudgeClassifier
from models.training.trials import Options
from tests.tiny_bundle import TinySizes, make_tiny_bundle

DEMO = DIFFICULTIES["demo"]
CONFIG = AlignConfig(steps=2, batch=8, warmup=1, lr=1e-3, precision="fp32", save_every=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, CLIP and judge, small and untrained."""
    folder = tmp_path_factory.mktemp("files")
    make_tiny_bundle(folder / "bundle", TinySizes(context=16, cross=128, clip=128))
    rng = np.random.default_rng(0)
    words = Words.of([random_composition(rng, i % 40).caption for i in range(4000)])
    torch.manual_seed(0)
    save_clip(build_clip(words), words, folder / "clip")
    Judge(width=8).save_pretrained(folder / "judge")
    return folder


def test_new_subjects_are_decoded_before_and_after_some_minutes(
    folder: Path, tmp_path: Path
) -> None:
    bundle = folder / "bundle"
    judge = JudgeClassifier(str(folder / "judge"), torch.device("cpu"))
    out = tmp_path / "calibration"
    (out / "subject-31-1").mkdir(parents=True)  # of a run that was stopped
    before = load_bundle(bundle).eeg_encoder.blocks[0].mlp.fc1.weight.clone()
    pipeline = load_bundle(bundle)
    part = calibration.measure(
        pipeline,
        bundle,
        judge,
        Sessions(DEMO, subject=0, numbers=[100], n_trials=12),
        [31, 32],
        read_epoch_spec(bundle),
        folder / "clip",
        Options(steps=1, guidance=1.0, batch=16, seed=5),
        out,
        minutes=(1,),
        config=CONFIG,
    )
    text = json.dumps(part.to_dict(), allow_nan=False)
    assert Part.from_dict(json.loads(text)).markdown() == part.markdown()
    [table] = part.tables
    assert [row[0] for row in table.rows] == ["0", "1"]
    assert all(len(row) == len(table.header) for row in table.rows)
    assert table.rows[0][5:] == ["–"] * 3, "nothing was learnt from yet"
    assert set(part.values) == {"0", "1"}
    n = part.values["1"]["ours, pictures"]["n"]
    assert n > 10
    assert "LDA" not in part.values["1"], "each concept was seen but once"
    assert len(part.values["1"]["subjects"]) == 2
    # The bundle is left as it was; what learnt went on from it, and from nothing.
    assert torch.equal(pipeline.eeg_encoder.blocks[0].mlp.fc1.weight, before)
    learnt = {
        who: calibration._with(pipeline, out / "subject-31-1" / who)
        for who in (calibration.OURS, calibration.NOTHING)
    }
    moved = {
        who: (each.eeg_encoder.blocks[0].mlp.fc1.weight - before).abs().max().item()
        for who, each in learnt.items()
    }
    assert 0 < moved[calibration.OURS] < 0.02 < moved[calibration.NOTHING]
    # Nobody learns from the session that is measured.
    sources = PreparedSet(out / "subject-31-1" / "set").spec["sources"]
    assert [(row["subject"], row["session"], row["seconds"]) for row in sources] == [(31, 0, 60.0)]
    assert calibration.TESTED not in {row["session"] for row in sources}


def test_lda_learns_from_the_same_minutes(tmp_path: Path) -> None:
    sessions = Sessions(DEMO, subject=0, numbers=[100], n_trials=60)
    spec = EpochSpec(CH_NAMES)
    data = calibration._prepare(tmp_path, spec, sessions, 31, 8)
    tested = Sessions(DEMO, 31, [calibration.TESTED], 60).record(spec)["marker-locked"]
    right = calibration._lda(data, spec, tested)[calibration.LDA]
    assert right.shape == (len(tested),)
    assert right.mean() > 0.07, "thrice its chance"


def test_shuffled_labels_are_of_the_same_concepts() -> None:
    from app.results.answers import Answers
    from tests.app.test_results_live import epochs

    label = list(range(30))
    some = epochs([3.0 * i for i in label], label, label)
    answers = Answers(np.array(label), np.ones(30), np.array(label))
    right = calibration._right("ours", answers, some)
    assert right["ours, pictures"].all()
    assert right["ours, pictures, shuffled"].mean() < 0.2
