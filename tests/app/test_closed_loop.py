"""The whole loop, short: a stranger is shown pictures, calibrated, and read when shown others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acquisition.ideal_observer import ELECTRODES
from app.bundle import read_epoch_spec
from app.calibrate import Progress, calibrate
from app.rehearse_session import Sitting, rehearse_session
from app.settings import ROOT
from benchmarks.closed_loop import named, watch
from benchmarks.flatter import TODAY
from models.pipeline import load_bundle

pytestmark = pytest.mark.slow

BUNDLE = ROOT / "weights" / "scale-model"
MINUTES = 3.0
STRANGER = Sitting(20, ch_names=ELECTRODES[8])


@pytest.fixture(scope="module")
def calibrated(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], Path, list[float]]:
    """The report, its folder, and how far it was said to be."""
    if not (BUNDLE / "reader").is_dir():
        pytest.skip("weights/scale-model has no reader, so that nobody gets a bundle of their own")
    folder = tmp_path_factory.mktemp("recordings") / "simulated-20"
    rehearse_session(folder / "a.xdf", STRANGER, BUNDLE, MINUTES, TODAY)
    done: list[float] = []

    def tell(progress: Progress) -> None:
        done.append(progress.done)

    return calibrate([folder / "a.xdf"], BUNDLE, folder, tell), folder, done


def test_the_report_says_what_was_learnt(
    calibrated: tuple[dict[str, Any], Path, list[float]],
) -> None:
    report, folder, done = calibrated
    assert json.loads((folder / "report.json").read_text()) == report
    assert report["honesty"] == "simulated"
    assert report["verdict"] in ("decodes", "a little")
    assert report["electrodes"] == list(ELECTRODES[8])
    assert report["warnings"] == [] or "one run" in report["warnings"][0]
    assert report["accuracy"]["low"] > 2 * report["chance"]
    assert report["shuffled"]["value"] < 2 * report["chance"]
    assert report["p_value"] < 0.01
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 1)


def test_its_bundle_names_what_is_shown_anew(
    calibrated: tuple[dict[str, Any], Path, list[float]],
) -> None:
    report, _, _ = calibrated
    personal = Path(report["bundle"])
    anew = Sitting(20, seed=1, ch_names=ELECTRODES[8])
    test = watch(anew, 3.0, BUNDLE, read_epoch_spec(personal))
    said = named(load_bundle(personal), test.eeg)
    as_shipped = named(load_bundle(BUNDLE), test.eeg)
    right = (said == test.label).mean()
    # 105 pictures of 40 concepts: three are right by chance.
    assert right > 0.15
    assert right > (as_shipped == test.label).mean()
    assert (said == np.random.default_rng(0).permutation(test.label)).mean() < 0.1
