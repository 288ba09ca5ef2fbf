"""All three stages of training with one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.pictures import FontMissingError, glyph
from app.rehearse import QUICK, rehearse
from app.settings import Settings
from models.pipeline import load_bundle


def test_a_rehearsal_goes_from_simulated_eeg_to_a_report_and_is_resumed(tmp_path: Path) -> None:
    try:
        glyph("1F408")
    except FontMissingError as error:
        pytest.skip(str(error))
    lines: list[str] = []
    settings = Settings(epochs="marker-locked")
    text = rehearse(settings, tmp_path, QUICK, lines.append)
    assert "simulated EEG" in text
    assert "shuffled EEG" in text
    assert "nan" not in text
    scores = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert scores["honesty"] == "simulated"
    assert scores["trials"] == QUICK.trials
    pipeline = load_bundle(tmp_path / "finetune" / "bundle")
    assert pipeline.concepts is not None
    again: list[str] = []
    assert rehearse(settings, tmp_path, QUICK, again.append) == text
    assert sum("going on from step 2" in line for line in again) == 4
