"""What is said of a person's bundle, and where it comes from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import SettingsError
from app.personal import bundle_says, find_sessions, read_report, serve_command
from app.settings import Settings
from tests.personal_report import accuracy, write_report


def test_only_what_decodes_and_can_be_trusted_goes_unsaid(tmp_path: Path) -> None:
    assert bundle_says(tmp_path) == ""
    write_report(tmp_path)
    assert bundle_says(tmp_path) == ""
    write_report(tmp_path, verdict="not above chance")
    assert "is not above chance: what it paints tells nothing" in bundle_says(tmp_path)
    write_report(tmp_path, verdict="a little", accuracy=accuracy(0.14))
    assert "decodes a little: 14% were right" in bundle_says(tmp_path)
    assert bundle_says(tmp_path).endswith("chance alone gives 10.0%.")
    write_report(tmp_path, warnings=["This cannot be trusted."])
    assert bundle_says(tmp_path) == "This cannot be trusted."


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"verdict": "decodes"}'])
def test_a_damaged_report_is_told_and_ends_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(SettingsError, match="Train again"):
        read_report(tmp_path)
    assert bundle_says(tmp_path).startswith("Nobody knows what this model is worth.")


def test_sessions_are_a_persons_recordings_in_their_order(tmp_path: Path) -> None:
    for name in ("2026-02.xdf", "2026-01.xdf", "report.json"):
        (tmp_path / "P01").mkdir(exist_ok=True)
        (tmp_path / "P01" / name).touch()
    found = find_sessions(Settings(recordings=str(tmp_path)), "P01")
    assert [path.name for path in found] == ["2026-01.xdf", "2026-02.xdf"]


def test_the_command_names_what_is_near_as_one_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(recordings=str(tmp_path / "recordings"), source="xdf:a?speed=2&loop=true")
    assert serve_command(settings, "P01") == (
        "phosphene serve --bundle recordings/P01/bundle --source 'xdf:a?speed=2&loop=true'"
    )


def test_the_trainer_gives_way_before_libraries_begin_threads() -> None:
    code = "import app.trainer, sys; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
