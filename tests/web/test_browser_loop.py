"""The whole loop through the page, short: shown, recorded, trained, watched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from app.settings import ROOT
from benchmarks.browser_loop import Loop
from models.training.scorers import JudgeClassifier


@pytest.mark.slow
def test_a_stranger_is_read_after_minutes_at_the_page(
    browser: Any, tmp_path: Path, record_property: Any
) -> None:
    @contextmanager
    def opens() -> Iterator[Any]:
        page = browser.new_page()
        yield page
        page.close()

    weights = ROOT / "weights"
    judge = JudgeClassifier(str(weights / "training" / "judge"), torch.device("cpu"))
    loop = Loop(tmp_path, weights / "scale-model", judge, 20, 8, (1.7,), opens)
    loop.record_and_train()
    bundle, report = loop.bundle_of(1)
    assert report["honesty"] == "simulated"
    assert report["electrodes"] == ["P7", "Pz", "P8", "PO3", "PO4", "O1", "Oz", "O2"]
    assert report["n_trials"] > 50
    assert json.loads((bundle / "report.json").read_text())["sentence"] == report["sentence"]
    _, label, painted, named = loop.watch(1, 0.8)
    assert len(label) >= 28
    # A frame came for each, and it shows what the page names.
    assert min(painted) >= 0
    assert sum(a == b for a, b in zip(painted, named, strict=True)) > 0.8 * len(label)
    right = sum(a == b for a, b in zip(painted, label, strict=True))
    record_property("right", f"{right} of {len(label)}")
    # By chance, of 29 pictures of 40 concepts four are right once in 170 times.
    assert right >= 4
