"""`phosphene evaluate`, from the command line to the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from app.errors import ExitCode
from models.training.clip import Words, build_clip
from models.training.judge import Judge
from models.training.report import provenance
from tests.app.test_cli import run
from tests.tiny_bundle import make_tiny_bundle
from tests.viewed_set import make_viewed_set


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a prepared set, a judge and a CLIP, all small and untrained."""
    folder = tmp_path_factory.mktemp("parts")
    make_tiny_bundle(folder / "bundle")
    confounding = {"warning": "WARNING: label and time are confounded. Of neighbouring ..."}
    make_viewed_set(folder / "set", n_images=12, confounding=confounding)
    torch.manual_seed(0)
    Judge(width=8).save_pretrained(folder / "judge")
    build_clip(Words(["cat"]), pixels=32).save_pretrained(folder / "clip")
    return folder


def test_the_command_writes_the_report_and_prints_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parts: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "report"
    code = run(
        monkeypatch, "evaluate", str(parts / "bundle"), str(parts / "set"), str(out),
        "--classifier", f"judge:{parts / 'judge'}", "--clip", str(parts / "clip"),
        "--inception", str(tmp_path / "none.pth"), "--limit", "8", "--samples", "2", "--steps",
        "1", "--guidance", "2", "--seed", "3", "--batch", "5", "--n-way", "10", "--device", "cpu",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out.strip() == (out / "report.md").read_text(encoding="utf-8").strip()
    assert "> **Warning.** Label and time are confounded. Of" in printed.out
    assert "> **Warning.** The prepared set has no splits" in printed.out
    names = {path.name for path in out.iterdir()}
    assert names == {
        "report.md", "scores.json", "trials.json", "grid.png", "confusion.png", "decoded",
    }  # fmt: skip
    scores = json.loads((out / "scores.json").read_text())
    assert scores["options"] == {
        "steps": 1, "guidance": 2.0, "epochs": "marker-locked", "split": "test", "limit": 8,
        "samples": 2, "n_way": 10, "batch": 5, "seed": 3,
    }  # fmt: skip
    assert (scores["bundle"], scores["trials"]) == ("bundle", 8)
    top = scores["metrics"]["n_way_label_top_1"]
    # Of the judge's classes the set has five.
    assert (top["chance"], top["scores"]["EEG"]["n"]) == (0.2, 8)
    assert scores["metrics"]["clip_two_way"]["chance"] == 0.5
    # The tiny bundle's CLIP space has 8 dimensions.
    assert "8 dimensions" in scores["metrics"]["retrieval_top_1"]["not_measured"]
    assert "Inception" in scores["metrics"]["fid"]["not_measured"] or (
        "torch-fidelity" in scores["metrics"]["fid"]["not_measured"]
    )


def test_wrong_input_gets_its_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parts: Path,
    tmp_path: Path,
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "scores.json").write_text("{}")
    (tmp_path / "file").write_text("")
    bundle, prepared, new = str(parts / "bundle"), str(parts / "set"), str(tmp_path / "new")
    nowhere = str(tmp_path / "nowhere")
    cases: list[tuple[tuple[str, ...], ExitCode, str]] = [
        ((bundle, nowhere, new), ExitCode.TRAINING, "is not a prepared set"),
        ((nowhere, prepared, new), ExitCode.BUNDLE, "There is no bundle at"),
        ((bundle, prepared, str(full)), ExitCode.OUTPUT, "holds something already"),
        ((bundle, prepared, str(tmp_path / "file")), ExitCode.OUTPUT, "cannot be written to"),
        ((bundle, prepared, new, "--split", "tset"), ExitCode.USAGE, "--split expects train"),
        ((bundle, prepared, new, "--classifier", "x"), ExitCode.TRAINING, "--classifier expects"),
        (
            (bundle, prepared, new, "--classifier", f"judge:{nowhere}"),
            ExitCode.TRAINING,
            "cannot be loaded",
        ),
        ((bundle, prepared, new, "--clip", nowhere), ExitCode.TRAINING, "cannot be loaded"),
    ]
    for arguments, code, sentence in cases:
        assert run(monkeypatch, "evaluate", *arguments) == code, arguments
        assert sentence in capsys.readouterr().err
        assert not Path(new).exists()
    assert (full / "scores.json").read_text() == "{}"


def test_epochs_cut_for_another_bundle_are_reported(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parts: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(parts / "set", tmp_path / "set")
    spec = json.loads((tmp_path / "set" / "spec.json").read_text())
    expected = json.loads((parts / "bundle" / "epoch_spec.json").read_text())
    spec["epoch_spec"] = {**expected, "ch_names": expected["ch_names"][::-1], "hop": 1}
    (tmp_path / "set" / "spec.json").write_text(json.dumps(spec))
    command = ("evaluate", str(parts / "bundle"), str(tmp_path / "set"), str(tmp_path / "out"))
    assert run(monkeypatch, *command, "--steps", "1", "--limit", "4") == 0
    assert "were cut with another ch_names than the bundle" in capsys.readouterr().out


def test_the_hash_is_of_everything_in_the_bundle(parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts / "bundle", tmp_path / "bundle")
    first = provenance(parts / "bundle")["bundle_sha256"]
    assert provenance(tmp_path / "bundle")["bundle_sha256"] == first
    (tmp_path / "bundle" / "painter.json").write_text("{}")
    assert provenance(tmp_path / "bundle")["bundle_sha256"] != first
