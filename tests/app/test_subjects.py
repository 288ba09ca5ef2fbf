"""Recordings by person: listed, warned of, given out, and deleted for good."""

from __future__ import annotations

import zipfile
from datetime import date, timedelta
from pathlib import Path

import pytest

from acquisition.xdf_writer import XDFWriter, read_notes
from app import subjects_command
from app.errors import ExitCode, SummaryError
from app.subjects import delete, expired, find_subjects, listing, warn
from tests.app.test_cli import run

TODAY = date(2026, 11, 27)


def record(folder: Path, pseudonym: str, name: str, days: int | None) -> Path:
    (folder / pseudonym).mkdir(parents=True, exist_ok=True)
    path = folder / pseudonym / name
    until = {} if days is None else {"keep_until": (TODAY + timedelta(days=days)).isoformat()}
    XDFWriter(path, {"subject": pseudonym, **until}).close()
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two people, and what is none."""
    monkeypatch.setattr(subjects_command, "_today", lambda: TODAY)
    folder = tmp_path / "recordings"
    record(folder, "P01", "a.xdf", 100)
    record(folder, "P01", "b.xdf", 3)
    record(folder, "P02", "a.xdf", -1)
    record(folder, "P02", "b.xdf", None)
    (folder / "P02" / "c.xdf").write_bytes(b"XDF:?")
    (folder / "P02" / "report").mkdir()
    (folder / "P02" / "report" / "text.md").write_text("report")
    (folder / "not a pseudonym").mkdir()
    (folder / "file").touch()
    return folder


def test_everyone_is_listed_with_the_days_that_are_left(folder: Path) -> None:
    found = find_subjects(folder)
    assert [(s.pseudonym, len(s.recordings)) for s in found] == [("P01", 2), ("P02", 3)]
    lines = listing(found, TODAY).splitlines()
    assert lines[0].startswith("P01: 2 recording(s)")
    assert lines[1].strip() == "a.xdf  kept until 2027-03-07 (100 days)"
    assert lines[2].endswith("(3 days): soon to be deleted")
    assert "was to be deleted by 2026-11-26" in lines[4]
    assert all("says not until when" in line for line in lines[5:])
    assert [r.path.name for r in expired(found, TODAY)] == ["a.xdf"]
    assert find_subjects(folder / "nowhere") == []
    assert listing([], TODAY) == "Nobody was recorded."
    # On its last day a recording may still be there.
    assert expired(found, TODAY - timedelta(days=1)) == []


def test_whoever_serves_is_warned(folder: Path) -> None:
    said: list[str] = []
    warn(folder, TODAY, said.append)
    assert [line.split(" in ")[0] for line in said] == ["1 recording(s)"] * 2
    assert "expire" in said[0]
    assert "within 14 days" in said[1]
    said.clear()
    warn(folder / "nowhere", TODAY, said.append)
    assert said == []


def test_nothing_is_deleted_that_was_only_asked_about(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--recordings", str(folder)]
    assert run(monkeypatch, "subjects", "delete", "P02", *flags) == ExitCode.USAGE
    assert "3 recording(s)" in capsys.readouterr().err
    assert run(monkeypatch, "subjects", "expire", *flags) == ExitCode.USAGE
    assert "Add --yes" in capsys.readouterr().err
    assert run(monkeypatch, "subjects", "delete", "P03", "--yes", *flags) == ExitCode.USAGE
    assert "there is P01, P02" in capsys.readouterr().err
    assert (folder / "P02" / "a.xdf").is_file()
    assert run(monkeypatch, "subjects", "expire", "--yes", *flags) == 0
    assert not (folder / "P02" / "a.xdf").exists()
    assert (folder / "P02" / "b.xdf").is_file()
    assert run(monkeypatch, "subjects", "delete", "P02", "--yes", *flags) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["P01", "file", "not a pseudonym"]
    assert run(monkeypatch, "subjects", "list", *flags) == 0
    assert "P02" not in capsys.readouterr().out


def test_what_is_deleted_was_written_over(folder: Path, tmp_path: Path) -> None:
    path = folder / "P01" / "a.xdf"
    (tmp_path / "link").hardlink_to(path)
    n = path.stat().st_size
    delete(path)
    assert (tmp_path / "link").read_bytes() == bytes(n)


def test_what_a_link_names_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (folder / "P01" / "link.xdf").symlink_to(tmp_path / "mine")
    (folder / "P03").symlink_to(folder / "P02")
    assert [(s.pseudonym, len(s.recordings)) for s in find_subjects(folder)] == [
        ("P01", 2),
        ("P02", 3),
    ]
    delete(folder / "P01")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (folder / "P01").exists()


def test_a_folder_that_cannot_be_read_holds_up_no_session(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SummaryError, match="cannot be listed"):
        find_subjects(folder)
    said: list[str] = []
    warn(folder, TODAY, said.append)
    assert len(said) == 1


def test_all_that_is_a_persons_is_given_out(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to = tmp_path / "p02.zip"
    words = ["subjects", "export", "P02", "--recordings", str(folder), "--to", str(to)]
    assert run(monkeypatch, *words) == 0
    with zipfile.ZipFile(to) as archive:
        assert sorted(archive.namelist()) == [
            "P02/a.xdf",
            "P02/b.xdf",
            "P02/c.xdf",
            "P02/report/text.md",
        ]
        assert archive.read("P02/a.xdf") == (folder / "P02" / "a.xdf").read_bytes()
    assert run(monkeypatch, *words) == ExitCode.OUTPUT
    assert "is there already" in capsys.readouterr().err
    words[-1] = str(tmp_path / "nowhere" / "a.zip")
    assert run(monkeypatch, *words) == ExitCode.OUTPUT
    assert list(tmp_path.glob(".*")) == []


def test_what_cannot_be_deleted_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(SummaryError, match=r"a\.xdf cannot be deleted \(Permission denied\)"):
        delete(folder / "P01" / "a.xdf")


@pytest.mark.parametrize(
    "data",
    [b"", b"XDF:", b"XDF:\x01\x05\x01\x00", b"XDF:\x04\xff\xff\xff\x7f\x01\x00"],
)
def test_what_is_no_header_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.xdf").write_bytes(data)
    with pytest.raises(ValueError, match="no XDF file"):
        read_notes(tmp_path / "a.xdf")
