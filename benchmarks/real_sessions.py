"""People's EEG through the commands that anybody would use: imported as sessions, and answered.

`python -m benchmarks.real_sessions ../shared/data` imports the public recordings of seen pictures,
calibrates with each, and writes the answers into docs/calibration.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from app.calibrate import calibrate
from app.import_session import Wanted, import_session
from app.verdict import Accuracy
from benchmarks.measured import write_section

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "calibration.md"
TITLE = "Measured: real EEG"
# Sources of `phosphene import-session`: folders of the data, and what was held out.
SESSIONS = {
    "gratings": ("muse-lsl/spatial_freq", "places in the order of trials, a fifth at a time"),
    "grating-images": ("muse-lsl/spatial_freq", "the same"),
    "faces": ("muse-lsl/N170", "recordings"),
    "faces-expy": ("eeg-expy", "recordings"),
    "cats-dogs": ("muse-lsl/P300", "recordings"),
}
HEADER = (
    "session", "classes", "trials", "held out", "accuracy", "LDA", "ours less LDA",
    "permuted labels", "chance", "p", "answer",
)  # fmt: skip


def answer_all(
    data: Path, bundle: Path, folder: Path, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Reports by session.

    Parameters
    ----------
    data : folder of the public recordings.
    bundle : that is calibrated from.
    folder : for sessions; empty.
    """
    reports = {}
    for name, (place, _) in SESSIONS.items():
        source, now = f"{name}:{data / place}", datetime.now(UTC)
        path = import_session([source], folder, name, 1, False, Wanted(), now)
        reports[name] = calibrate([path], bundle, path.parent)
        say(f"{name}: {reports[name]['sentence']} {reports[name]['beside_baseline']}")
    return reports


def row(name: str, report: Mapping[str, Any]) -> str:
    """Of the table."""

    def written(key: str, form: str = ".1%") -> str:
        return format(Accuracy(**report[key]), form)

    p = report["p_value"]
    cells = (
        name, len(report["classes"]), report["n_trials"], SESSIONS[name][1], written("accuracy"),
        written("baseline"), written("less_baseline", "+.1%"), written("shuffled"),
        f"{report['chance']:.1%}", f"{p:.1g}" if p >= 1e-6 else "below 1e-6", report["verdict"],
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def markdown(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The section."""
    lines = [f"| {' | '.join(HEADER)} |", "|" + " --- |" * len(HEADER)]
    lines += [row(name, report) for name, report in reports.items()]
    return "\n\n".join(
        [
            "\n".join(lines),
            "Public recordings of a Muse with five electrodes, each of one person (`python -m "
            "benchmarks.real_sessions DATA`: `phosphene import-session`, then `phosphene "
            "calibrate`). Every class counts the same; intervals of 95 % over trials, "
            "differences paired by trial. Ours: a committee of four linear decoders, whose "
            "windows were fixed with a look at these recordings, which may flatter it. LDA: of "
            "window means with a shrunk covariance, its windows chosen on the same training "
            "trials. Permuted labels: once, within runs. These people saw other pictures than "
            "the painter knows, so all but the last get an answer and no bundle; who saw cats "
            "and dogs counted the cats, which are rare: that is a part of what is read.",
        ]
    )


def main() -> None:
    """Measure, print, and write it into the page and as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_sessions", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("data", type=Path, help="folder of the public recordings")
    parser.add_argument("--bundle", type=Path, default=ROOT / "weights" / "scale-model")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "real-sessions.json")
    parser.add_argument("--page", type=Path, default=PAGE, help="that takes the answers")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reports = answer_all(a.data, a.bundle, Path(folder), partial(print, flush=True))
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    print(markdown(reports))
    write_section(a.page, TITLE, markdown(reports))


if __name__ == "__main__":
    main()
