"""Recordings by person: who is on the disk, for how long, and away for good.

A folder for each pseudonym in the folder of recordings (`app.recorder`). Until when a recording may
be kept stands in its header.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from acquisition.xdf_writer import read_notes
from app.errors import SettingsError, SummaryError
from app.recorder import is_pseudonym

# Days before its end in which a recording is warned of.
WARNED = 14


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of a person.

    Attributes
    ----------
    path : of the file.
    n_bytes : of it.
    keep_until : as its header says; None where it does not.
    """

    path: Path
    n_bytes: int
    keep_until: date | None

    def days_left(self, today: date) -> int | None:
        """Until it is to be deleted; below 0 afterwards."""
        return (self.keep_until - today).days if self.keep_until else None


@dataclass(frozen=True, slots=True)
class Subject:
    """A person under their pseudonym.

    Attributes
    ----------
    pseudonym : name of their folder.
    folder : of all that is theirs.
    recordings : in the order of their names, which begin with the time.
    n_bytes : of everything in the folder.
    """

    pseudonym: str
    folder: Path
    recordings: list[Recording] = field(default_factory=list)
    n_bytes: int = 0


def find_subjects(folder: Path) -> list[Subject]:
    """Everyone who is in a folder of recordings.

    Raises
    ------
    SummaryError
        It cannot be read.
    """
    if not folder.is_dir():
        return []
    try:
        paths = [path for path in sorted(folder.iterdir()) if is_pseudonym(path.name)]
        return [_subject(path) for path in paths if path.is_dir() and not path.is_symlink()]
    except OSError as error:
        raise SummaryError(
            f"The recordings in {folder} cannot be listed ({error.strerror}: {error.filename}). "
            "Give yourself the right to, or name another folder with --recordings."
        ) from error


def _subject(folder: Path) -> Subject:
    recordings = [
        Recording(file, file.stat().st_size, _keep_until(file))
        for file in sorted(_files(folder))
        if file.parent == folder and file.suffix == ".xdf"
    ]
    return Subject(
        folder.name, folder, recordings, sum(file.stat().st_size for file in _files(folder))
    )


def find_subject(folder: Path, pseudonym: str) -> Subject:
    """One of them.

    Raises
    ------
    SettingsError
        There is nobody of this name.
    """
    everyone = find_subjects(folder)
    for subject in everyone:
        if subject.pseudonym == pseudonym:
            return subject
    names = ", ".join(subject.pseudonym for subject in everyone) or "nobody"
    raise SettingsError(f"There is no '{pseudonym}' in {folder}; there is {names}.")


def _files(folder: Path) -> Iterator[Path]:
    # A link leads to what is somebody else's: it goes with the folder, and what it names stays.
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _keep_until(path: Path) -> date | None:
    try:
        return date.fromisoformat(read_notes(path).get("keep_until", ""))
    # Another program's file, or a damaged one: nothing is known of it.
    except (OSError, ValueError, ElementTree.ParseError):
        return None


def listing(subjects: list[Subject], today: date) -> str:
    """What is there, line by line."""
    lines = []
    for subject in subjects:
        n = len(subject.recordings)
        lines.append(f"{subject.pseudonym}: {n} recording(s), {subject.n_bytes / 1e6:.1f} MB")
        lines += [f"  {each.path.name}  {_left(each, today)}" for each in subject.recordings]
    return "\n".join(lines) or "Nobody was recorded."


def _left(recording: Recording, today: date) -> str:
    left = recording.days_left(today)
    if left is None:
        return "says not until when it may be kept"
    if left < 0:
        return f"was to be deleted by {recording.keep_until}: run `phosphene subjects expire`"
    warning = ": soon to be deleted" if left <= WARNED else ""
    return f"kept until {recording.keep_until} ({left} days){warning}"


def expired(subjects: list[Subject], today: date) -> list[Recording]:
    """Recordings whose time is over."""
    return [
        recording
        for subject in subjects
        for recording in subject.recordings
        if (left := recording.days_left(today)) is not None and left < 0
    ]


def warn(folder: Path, today: date, say: Callable[[str], None]) -> None:
    """Say what is over, or soon will be."""
    try:
        subjects = find_subjects(folder)
    except SummaryError as error:
        say(str(error))
        return
    over = len(expired(subjects, today))
    left = [r.days_left(today) for s in subjects for r in s.recordings]
    soon = sum(1 for days in left if days is not None and 0 <= days <= WARNED)
    if over:
        say(
            f"{over} recording(s) in {folder} were to be deleted by now. "
            "`phosphene subjects expire` deletes them."
        )
    if soon:
        say(f"{soon} recording(s) in {folder} are to be deleted within {WARNED} days.")


def delete(path: Path) -> None:
    """Take a file, or a folder and all in it, off the disk for good.

    Files are written over before they go. On disks that never write to the same place twice (SSDs,
    snapshots, backups) copies may outlive it, as everywhere.

    Raises
    ------
    SummaryError
        Something cannot be deleted.
    """
    try:
        for file in [path] if path.is_file() else list(_files(path)):
            with file.open("r+b") as opened:
                left = file.stat().st_size
                while left:
                    left -= opened.write(bytes(min(left, 1 << 20)))
                opened.flush()
                os.fsync(opened.fileno())
            file.unlink()
        if path.is_dir():
            shutil.rmtree(path)
    except OSError as error:
        raise SummaryError(
            f"{error.filename or path} cannot be deleted ({error.strerror}). Give yourself the "
            "right to, and run it again: what is left is still listed."
        ) from error


def export(subject: Subject, to: Path) -> int:
    """Put all that is a person's into a ZIP file; the number of files.

    Raises
    ------
    SummaryError
        The file is there already, or cannot be written.
    """
    unfinished = to.with_name(f".{to.name}.part")
    try:
        if to.exists():
            raise SummaryError(f"{to} is there already. Give another name with --to.")
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            files = sorted(_files(subject.folder))
            for file in files:
                archive.write(file, Path(subject.pseudonym) / file.relative_to(subject.folder))
        unfinished.chmod(0o600)
        unfinished.replace(to)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SummaryError(
            f"{to} cannot be written ({error.strerror}). Make room, or name another file with --to."
        ) from error
    return len(files)
