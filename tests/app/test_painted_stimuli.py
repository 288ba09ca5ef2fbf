"""Stimuli painted from captions, on untrained models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import app.painted_stimuli
from acquisition.stimuli import concepts, read_stimuli
from app.errors import SummaryError
from app.painted_stimuli import paint_stimuli
from models.training.clip import Words, build_clip, save_clip
from tests.tiny_bundle import TinySizes, make_tiny_bundle

PLACES = "a on the of background small medium large top middle bottom left centre right"
COLOURS = "red orange yellow green cyan blue purple pink white grey"


def test_pictures_are_painted_with_what_they_show_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.painted_stimuli, "STEPS", 1)
    torch.manual_seed(0)
    make_tiny_bundle(tmp_path / "base", TinySizes(cross=128))
    words = Words(sorted({*PLACES.split(), *COLOURS.split(), *(c.name for c in concepts())}))
    save_clip(build_clip(words, pixels=32), words, tmp_path / "clip")
    out, lines = tmp_path / "out", list[str]()

    def paint(out: Path, seed: int) -> list[bytes]:
        paint_stimuli(tmp_path / "base", tmp_path / "clip", out, 2, seed, lines.append)
        return [path.read_bytes() for path in sorted(out.glob("*.jpg"))]

    pictures = paint(out, 5)
    stimuli = read_stimuli(out)
    assert len(pictures) == len(stimuli) == 80
    assert {path.stem for path in out.glob("*.jpg")} == set(stimuli)
    assert stimuli["cat 1"] != stimuli["cat 2"]
    assert {stimuli[f"cat {k}"].concept.name for k in (1, 2)} == {"cat"}
    with Image.open(out / "cat 1.jpg") as image:
        assert image.size[0] == image.size[1]
    assert lines[-1].startswith("80 of 80")
    assert paint(tmp_path / "again", 5) == pictures
    assert paint(tmp_path / "other", 6) != pictures
    with pytest.raises(SummaryError, match="holds something already"):
        paint(out, 5)
