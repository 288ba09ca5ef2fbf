"""The part "Calibration": new subjects, minutes of them, and who learns from these."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acquisition.simulation_parameters import DIFFICULTIES
from app.bundle import read_epoch_spec
from app.person import POPULATION
from app.results import calibration
from app.results.part import Part
from app.results.stream import Sessions
from models.errors import BundleError
from models.pipeline import EEGToImagePipeline, load_bundle
from models.template_reader import TemplateReader
from models.training.judge import Judge
from models.training.population import fit_population
from models.training.scorers import JudgeClassifier
from models.training.trials import CONDITIONS, Options
from tests.tiny_bundle import TINY, make_tiny_bundle, tiny_parts

DEMO = DIFFICULTIES["demo"]
N_CHANNELS, N_LOCKED, WIDTH = 32, 16, 16
OPTIONS = Options(steps=1, guidance=1.0, batch=16, seed=5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small and untrained, with a population that nobody belongs to."""
    folder = make_tiny_bundle(tmp_path_factory.mktemp("bundle"))
    reader = TemplateReader(
        n_lags=1, rank=4, n_context=TINY.context, cross_attention_dim=TINY.cross
    )
    EEGToImagePipeline(**tiny_parts(), reader=reader).save_pretrained(folder)
    rng = np.random.default_rng(0)
    label = np.tile(np.arange(40), 2)
    subjects = [(rng.standard_normal((80, N_CHANNELS, 20)), label) for _ in range(4)]
    fit_population(subjects, 40, N_LOCKED, WIDTH).save(folder / POPULATION)
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> JudgeClassifier:
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    Judge(width=8).save_pretrained(folder)
    return JudgeClassifier(str(folder), torch.device("cpu"))


def test_new_subjects_are_decoded_before_and_after_some_minutes(
    bundle: Path, judge: JudgeClassifier
) -> None:
    pipeline = load_bundle(bundle)
    reader = pipeline.reader
    sessions = Sessions(DEMO, subject=0, numbers=[100], n_trials=12)
    part = calibration.measure(
        pipeline, bundle, judge, sessions, [31, 32], read_epoch_spec(bundle), OPTIONS, (1, 5)
    )
    text = json.dumps(part.to_dict(), allow_nan=False)
    assert Part.from_dict(json.loads(text)).markdown() == part.markdown()
    [table] = part.tables
    ours = [calibration.PICTURES, calibration.CONCEPT]
    # After a minute each concept was seen once, or never.
    decoders = {"0": [*ours, calibration.BUNDLE], "1": ours, "5": [*ours, calibration.LDA]}
    assert [row[:2] for row in table.rows] == [
        [m, who] for m, each in decoders.items() for who in each
    ]
    assert all(len(row) == len(table.header) for row in table.rows)
    for m, each in decoders.items():
        for who in each:
            found = part.values[m][who]
            assert found["EEG"]["n"] == found["EEG"]["n_images"] > 10
            assert set(found) == {*CONDITIONS, "subjects"}
            assert len(found["subjects"]) == 2
    assert pipeline.reader is reader, "the bundle is left as it was"


def test_more_minutes_are_learnt_from_an_earlier_session(bundle: Path) -> None:
    sessions = Sessions(DEMO, subject=0, numbers=[100], n_trials=12)
    spec = read_epoch_spec(bundle)
    known, moments, deviation = calibration._learnt(sessions, 31, spec, 2)
    tested = Sessions(DEMO, 31, [calibration.TESTED], 12).record(spec)["marker-locked"]
    assert 30 < len(known) <= 40
    assert 100 < moments.max() < 125
    np.testing.assert_allclose(known.eeg.std(axis=2), 1, atol=1e-3)
    assert (deviation > 3).all()
    # Nobody learns from the session that is measured.
    same = np.abs(known.eeg[:, None] - tested.data[None, :5]).max(axis=(2, 3)) < 1e-3
    assert not same.any()


def test_a_bundle_without_a_population_is_refused(judge: JudgeClassifier, tmp_path: Path) -> None:
    folder = make_tiny_bundle(tmp_path)
    sessions = Sessions(DEMO, subject=0, numbers=[100], n_trials=12)
    with pytest.raises(BundleError, match="no reader and population"):
        calibration.measure(
            load_bundle(folder), folder, judge, sessions, [31], read_epoch_spec(folder), OPTIONS
        )
