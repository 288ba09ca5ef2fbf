"""The whole loop through the page, short: shown, recorded, trained, watched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from app.settings import ROOT
from benchmarks.browser_loop import Loop
from models.training.scorers import JudgeClassifier


@pytest.mark.slow
@pytest.mark.usefixtures("browser")  # skips where there is none
def test_a_stranger_is_read_after_minutes_at_the_page(tmp_path: Path, record_property: Any) -> None:
    weights = ROOT / "weights"
    judge = JudgeClassifier(str(weights / "training" / "judge"), torch.device("cpu"))
    loop = Loop(tmp_path, weights / "scale-model", judge, subject=20, n_electrodes=8, parts=(1.7,))
    loop.record_and_train()
    bundle, report = loop.bundle_of(1)
    assert report["honesty"] == "simulated"
    assert report["electrodes"] == ["P7", "Pz", "P8", "PO3", "PO4", "O1", "Oz", "O2"]
    assert report["n_trials"] > 50
    assert json.loads((bundle / "report.json").read_text())["sentence"] == report["sentence"]
    _, label, painted, named = loop.watch(1, 0.6)
    assert len(label) >= 20
    # A frame came for each, and it shows what the page names.
    assert min(painted) >= 0
    assert sum(a == b for a, b in zip(painted, named, strict=True)) > 0.8 * len(label)
    right = sum(a == b for a, b in zip(painted, label, strict=True))
    record_property("right", f"{right} of {len(label)}")
    # By chance, of 20 pictures of 40 concepts three are right once in 80 times.
    assert right >= 3
