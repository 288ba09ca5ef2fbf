"""The table of ablations: intervals over seeds, differences, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from models.errors import TrainingError
from models.training.trials import CONDITIONS

# Of the painted picture, and of the EEG's embedding without one.
SCORES = {"painted": "n_way_label_top_1", "nearest concept": "nearest_concept"}
TABLE = "ablation.json"

# Mean, and the ends of its 95 % interval.
Interval = tuple[float, float, float]


def over_seeds(scores: list[dict[str, float]]) -> Interval:
    """Mean over seeds and its 95 % interval.

    Seeds may have seen the same trials, so the trials' variance stays while that between seeds
    is divided by their number, and taken as widely as so few allow (Student's t).

    >>> over_seeds([{"value": 0.5, "low": 0.4, "high": 0.6}])
    (0.5, 0.4, 0.6)
    """
    values = np.array([s["value"] for s in scores])
    half = float(np.mean([(s["high"] - s["low"]) / 2 for s in scores]))
    between = _half_width(values) if len(values) > 1 else 0.0
    mean, wide = float(values.mean()), math.hypot(half, between)
    return mean, max(0.0, mean - wide), min(1.0, mean + wide)


def less(scores: list[dict[str, float]], others: list[dict[str, float]]) -> Interval | None:
    """Mean difference of scores of the same seeds and its 95 % interval; None of a single seed.

    Variants share a seed's trials and, where they pre-train alike, its encoder.

    >>> less([{"value": 0.5}, {"value": 0.75}], [{"value": 0.25}, {"value": 0.5}])[0]
    0.25
    """
    if len(scores) < 2:
        return None
    apart = np.array([a["value"] - b["value"] for a, b in zip(scores, others, strict=True)])
    mean, wide = float(apart.mean()), _half_width(apart)
    return mean, mean - wide, mean + wide


def _half_width(values: np.ndarray) -> float:
    """Of the 95 % interval of a mean."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1)) / math.sqrt(n)


def markdown(rows: list[dict[str, Any]], heading: str) -> str:
    """The table."""
    lines = [
        "# Ablations",
        "",
        heading,
        "",
        "| " + " | ".join(["variant", "scored by", *columns(rows)]) + " |",
        "| --- | --- | " + "---: | " * len(columns(rows)),
    ]
    for row in rows:
        lines += [
            f"| {row['variant']} | {by} | {' | '.join(cells(row, by))} |" for by in row["scores"]
        ]
    return "\n".join([*lines, ""])


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """What `cells` are of."""
    return [*CONDITIONS, "chance", f"less {rows[0]['variant']}", "seeds", "paper"]


def cells(row: dict[str, Any], by: str) -> list[str]:
    """A row's figures of one of `SCORES`, for people."""
    apart = row["less_first"].get(by)
    # The paper's figure is of painted pictures.
    paper = row["paper"] if by == "painted" else None
    return [
        *(_written(row["scores"][by][name]) for name in CONDITIONS),
        f"{row['chance']:.1%}",
        "–" if apart is None else _written(apart, "+"),
        str(row["seeds"]),
        "–" if paper is None else f"{paper} %",
    ]


def _written(interval: Interval, sign: str = "") -> str:
    mean, low, high = (format(value, f"{sign}.1%") for value in interval)
    return f"{mean} ({low} to {high})"


def read_ablation(folder: Path) -> dict[str, Any]:
    """What `ablate` wrote.

    Returns
    -------
    dict with `heading`, `parameters` (as `simulated_with` says), `config` and `rows`; of a row
    `variant`, `scores` by `SCORES` and `CONDITIONS` (mean, low, high), `less_first` by `SCORES`,
    `chance`, `seeds` and `paper`.

    Raises
    ------
    TrainingError
        The folder holds none, or one of something else.
    """
    path = folder / TABLE
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # Whatever is missing is missed here.
        _, _, rows = found["heading"], found["parameters"], found["rows"]
        markdown(rows, found["heading"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path} cannot be read as a table of ablations ({type(error).__name__}). Make it "
            "with `phosphene ablate`."
        ) from error
    return found
