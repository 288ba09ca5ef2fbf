"""A report as `app.calibrate` writes it, for tests of what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CLASSES = ("cat", "dog", "fish", "house", "face", "car", "tree", "cup", "bird", "shoe")


def accuracy(value: float, half: float = 0.04) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def make_report(**changes: Any) -> dict[str, Any]:
    """Of ten classes and fifteen minutes; `changes` by field."""
    return {
        "honesty": "simulated",
        "sentence": "It works: of 10 classes the right one was named in 46% (42% to 50%) of trials "
        "that were held out; chance alone gives 10.0%.",
        "verdict": "decodes",
        "warnings": [],
        "electrodes": ["Fz", "C3", "Cz", "C4", "Pz", "O1", "Oz", "O2"],
        "minutes": 15.1,
        "n_trials": 534,
        "n_dropped": 28,
        "dropped": ["28 trials were repeats that the person was asked to notice."],
        "n_runs": 6,
        "classes": list(CLASSES),
        "chance": 0.1,
        "accuracy": accuracy(0.46),
        "shuffled": accuracy(0.11, 0.025),
        "baseline": accuracy(0.31),
        "less_baseline": accuracy(0.15),
        "beside_baseline": "Beside LDA: +15.0% (+11.0% to +19.0%), not worse.",
        "p_value": 0.0005,
        "learning_curve": [
            {"minutes": 15.1 * share, "n_trials": round(534 * share), "accuracy": accuracy(value)}
            for share, value in ((0.25, 0.22), (0.5, 0.34), (0.75, 0.41), (1.0, 0.46))
        ],
        "more": "15 more minutes would add about 12%, if the curve goes on as it did.",
        "per_class": [
            {
                "name": name,
                "right": 0.82 - 0.08 * i,
                "n": 53,
                "confused_with": CLASSES[i - 1] if i else "",
            }
            for i, name in enumerate(CLASSES)
        ],
        "took_s": 51.0,
        "bundle": "recordings/P01/bundle",
        "no_bundle": "",
        **changes,
    }


def write_report(folder: Path, **changes: Any) -> dict[str, Any]:
    """The same in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    report = make_report(**changes)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return report
