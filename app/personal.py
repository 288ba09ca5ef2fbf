"""A person's folder: the sessions to learn from, the report, and what is said of their bundle."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from app.bundle import find_bundle
from app.errors import SettingsError
from app.recorder import is_pseudonym
from app.settings import Settings

# In a person's folder, and again in the bundle that was made there.
REPORT = "report.json"
# In a bundle: what everyone who watches must know of it, as text.
NOTICE = "notice.txt"
# What a report holds at least; `app.calibrate` writes it.
FIELDS = {
    "honesty", "sentence", "verdict", "warnings", "electrodes", "minutes", "n_trials",
    "n_dropped", "dropped", "n_runs", "classes", "chance", "accuracy", "shuffled", "baseline",
    "less_baseline", "beside_baseline", "p_value", "learning_curve", "more", "per_class",
    "bundle", "no_bundle",
}  # fmt: skip


def find_sessions(settings: Settings, subject: object) -> list[Path]:
    """Recordings that a bundle for this pseudonym can be trained on, oldest first.

    Raises
    ------
    SettingsError
        It is no pseudonym, nothing was recorded, or the session's bundle is itself a person's.
    """
    if not isinstance(subject, str) or not is_pseudonym(subject):
        raise SettingsError(
            "Say for whom: a pseudonym has 1 to 32 letters, digits, - and _, and begins with no "
            f"sign, as P01; found {subject!r}."
        )
    if (find_bundle(settings.bundle) / REPORT).is_file():
        raise SettingsError(
            "This session paints with a bundle that was trained for one person, and from that none "
            "is trained. Start it with the bundle of all, as --bundle weights/scale-model."
        )
    sessions = sorted((Path(settings.recordings) / subject).glob("*.xdf"))
    if not sessions:
        raise SettingsError(
            f"Nothing was recorded of {subject} in {settings.recordings}. Record a presentation "
            "first, or correct the pseudonym."
        )
    return sessions


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report in a person's folder or bundle; None where there is none.

    Raises
    ------
    SettingsError
        It cannot be read, or is none.
    """
    path = folder / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        missing = FIELDS - report.keys()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(
            f"The report {path} cannot be read ({error.strerror}). Correct its permissions."
        ) from error
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"{path} holds no report. Train again to get one.") from error
    if missing:
        raise SettingsError(
            f"The report {path} lacks {', '.join(sorted(missing))}. Train again to get a whole one."
        )
    return dict(report)


def bundle_says(bundle: Path) -> str:
    """What everyone who watches must know of a bundle; "" where there is nothing to say.

    The person is not named: not everyone who watches may know who it is.
    """
    try:
        report = read_report(bundle)
    except SettingsError as error:
        return f"Nobody knows what this model is worth. {error}"
    if report is None:
        notice = bundle / NOTICE
        return (
            notice.read_text(encoding="utf-8", errors="replace").strip() if notice.is_file() else ""
        )
    said = {
        "not above chance": "This model was trained for one person and is not above chance: what "
        "it paints tells nothing of what they see.",
        "a little": "This model was trained for one person and decodes a little: "
        f"{report['accuracy']['value']:.0%} were right when it was tested, and chance alone gives "
        f"{report['chance']:.1%}.",
    }
    return " ".join([said.get(report["verdict"], ""), *report["warnings"]]).strip()


def serve_command(settings: Settings, subject: str) -> str:
    """How to watch with a person's bundle and the source of this session."""
    bundle = Path(settings.recordings) / subject / "bundle"
    near = Path(os.path.relpath(bundle))
    shown = bundle if ".." in near.parts else near
    return shlex.join(["phosphene", "serve", "--bundle", str(shown), "--source", settings.source])
