"""The commands `phosphene subjects ...`: who was recorded, and how to give it out or delete it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from app.errors import SettingsError
from app.settings import Settings
from app.settings_flags import takes_settings
from app.terminal import say

app = typer.Typer(help="Recordings by person: list, export, delete.", no_args_is_help=True)

PSEUDONYM = typer.Argument(help="As P01.")


def _today() -> date:
    return datetime.now(UTC).date()


@app.command("list")
@takes_settings("recordings")
def list_(settings: Settings) -> None:
    """Say who was recorded, how much of it there is, and until when it may be kept."""
    from app.subjects import find_subjects, listing

    print(listing(find_subjects(Path(settings.recordings)), _today()))


@app.command()
@takes_settings("recordings")
def export(
    settings: Settings,
    pseudonym: Annotated[str, PSEUDONYM],
    to: Annotated[Path, typer.Option(help="ZIP file that is written.")],
) -> None:
    """Put everything of a person into a ZIP file."""
    from app.subjects import export, find_subject

    n = export(find_subject(Path(settings.recordings), pseudonym), to)
    say(f"{to} holds {n} file(s) of {pseudonym}.")


@app.command()
@takes_settings("recordings")
def delete(
    settings: Settings,
    pseudonym: Annotated[str, PSEUDONYM],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only said.")] = False,
) -> None:
    """Delete everything of a person, for good."""
    from app.subjects import delete, find_subject

    subject = find_subject(Path(settings.recordings), pseudonym)
    what = f"{len(subject.recordings)} recording(s), {subject.n_bytes / 1e6:.1f} MB, of {pseudonym}"
    if not yes:
        raise SettingsError(f"This would delete {what}, for good. Add --yes to do it.")
    delete(subject.folder)
    say(f"Deleted {what}.")


@app.command()
@takes_settings("recordings")
def expire(
    settings: Settings,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only said.")] = False,
) -> None:
    """Delete the recordings whose date is over, for good."""
    from app.subjects import delete, expired, find_subjects

    over = expired(find_subjects(Path(settings.recordings)), _today())
    for recording in over:
        say(f"{recording.path} was to be deleted by {recording.keep_until}.")
    if over and not yes:
        raise SettingsError(f"This would delete {len(over)} recording(s). Add --yes to do it.")
    for recording in over:
        delete(recording.path)
    say(f"Deleted {len(over)} recording(s).")
