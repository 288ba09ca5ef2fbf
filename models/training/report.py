"""The report of an evaluation: a folder that a person reads and a program can compare.

`report.md` and `scores.json` say the same; `grid.png` shows pictures that were chosen by
score and by seed, `confusion.png` what was taken for what. Nothing is chosen by hand.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.bundle_files import folder_digest
from models.training.comparison import SEEN, Metric, Naming
from models.training.evaluate import Evaluation
from models.training.figures import choose, confusion_matrix, draw_confusion, draw_grid
from models.training.metrics import Score
from models.training.scorers import NotMeasured

# What people read.
TEXT = "report.md"
VERSIONS = ("torch", "diffusers", "transformers", "torchmetrics", "numpy")


def provenance(bundle: Path) -> dict[str, Any]:
    """What the scores were made with: the bundle's hash and the versions."""
    return {
        "bundle": bundle.name,
        "bundle_sha256": folder_digest(bundle),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in VERSIONS}},
    }


def failures(e: Evaluation) -> list[str]:
    """What goes wrong, in sentences: the paper's failure analysis, by counting."""
    if isinstance(e.naming, NotMeasured):
        return []
    truth, said = e.comparison.trials.label, e.naming.label
    counts = confusion_matrix(truth, said, len(e.names))
    shown, right, taken = counts.sum(1), counts.diagonal(), counts.sum(0) - counts.diagonal()
    n_wrong = int((truth != said).sum())
    if not n_wrong:
        return ["Nothing was taken for anything else."]
    wrong = counts - np.diag(right)
    pairs = [
        divmod(int(i), len(e.names)) for i in np.argsort(-wrong, axis=None, kind="stable")[:10]
    ]
    confusions = [
        f"{e.names[a]} for {e.names[b]} ({wrong[a, b]} of {shown[a]})"
        for a, b in pairs
        if wrong[a, b]
    ]
    lines = [
        f"{n_wrong} of {len(truth)} pictures were taken for something else by {e.naming.by}.",
        f"Most often: {', '.join(confusions)}.",
    ]
    most = int(taken.argmax())
    lines.append(
        f"The commonest wrong answer is {e.names[most]} ({taken[most]} of {n_wrong}; "
        f"{n_wrong / max(1, (shown > 0).sum()):.1f} each if errors fell evenly)."
    )
    never = [e.names[i] for i in np.flatnonzero((shown > 0) & (right == 0))]
    lines.append(f"Never right: {', '.join(never) or 'none'}.")
    if not isinstance(e.nearest, NotMeasured) and e.nearest is not e.naming:
        is_wrong, is_read = truth != said, e.nearest.label == truth
        n_same = int((is_wrong & ~is_read & (e.nearest.label == said)).sum())
        lines.append(
            f"Of the {n_wrong}, the concept nearest to the EEG was right in "
            f"{int((is_wrong & is_read).sum())}: there the painting failed. In the other "
            f"{int((is_wrong & ~is_read).sum())} the EEG was read wrongly already, and in {n_same} "
            "of these the picture shows what was read."
        )
    return lines


def ordering(e: Evaluation) -> tuple[str, np.ndarray]:
    """What the grid is ordered by, and its value for each trial's first sample (n,)."""
    for name in ("label_probability", "clip_similarity", "pixcorr"):
        metric = e.metrics.get(name)
        if isinstance(metric, Metric) and metric.values is not None:
            return metric.title, metric.values[0]
    raise AssertionError("pixels are always compared")


def write(e: Evaluation, made_with: dict[str, Any], out: Path) -> str:
    """Write the report to `out`.

    Parameters
    ----------
    e : the evaluation.
    made_with : what else made the scores, as `provenance` says.

    Returns
    -------
    what report.md says.
    """
    trials, options = e.comparison.trials, e.comparison.options
    by, values = ordering(e)
    chosen = choose(values, options.seed)
    sentences = failures(e)
    scores: dict[str, Any] = {
        "honesty": e.honesty,
        **made_with,
        "options": {k: v for k, v in asdict(options).items() if k != "held_out"},
        "trials": len(trials),
        "images": len(trials.images),
        "warnings": e.warnings,
        "metrics": {name: _to_dict(metric) for name, metric in e.metrics.items()},
        "failures": sentences,
        "grid": {"by": by, **{name: rows.tolist() for name, rows in chosen.items()}},
    }
    text = markdown(e, made_with, sentences)
    draw_grid(e, by, values, chosen).savefig(out / "grid.png")
    if isinstance(e.naming, Naming):
        draw_confusion(e, e.naming).savefig(out / "confusion.png")
    (out / "trials.json").write_text(json.dumps(by_trial(e)), encoding="utf-8")
    (out / TEXT).write_text(text, encoding="utf-8")
    # Last: a folder without it holds no report, should this be interrupted.
    (out / "scores.json").write_text(json.dumps(scores, indent=2), encoding="utf-8")
    return text


def _to_dict(metric: Metric | NotMeasured) -> dict[str, Any]:
    if isinstance(metric, NotMeasured):
        return {"not_measured": metric.reason}
    scores = {name: asdict(score) for name, score in metric.scores.items()}
    return {
        "title": metric.title,
        "what": metric.what,
        "chance": metric.chance,
        "scores": scores,
    }


def by_trial(e: Evaluation) -> dict[str, list[Any]]:
    """Every trial's values, for paired comparisons with another decoder on the same trials."""
    trials = e.comparison.trials
    columns: dict[str, list[Any]] = {
        "epoch": trials.rows.tolist(),
        "label": trials.label.tolist(),
        "image_id": trials.images[torch.from_numpy(trials.image)].tolist(),
    }
    if isinstance(e.naming, Naming):
        columns["said"] = e.naming.label.tolist()
    for name, metric in e.metrics.items():
        if isinstance(metric, Metric) and metric.values is not None:
            columns[name] = metric.values.mean(0).tolist()
    return columns


def score_table(e: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each score for every kind of EEG, and its chance."""
    columns = [*e.comparison.conditions, SEEN]
    rows = []
    for m in e.metrics.values():
        if isinstance(m, Metric):
            cells = [_cell(m.scores.get(column), m.form) for column in columns]
            chance = "–" if m.chance is None else format(m.chance, m.form)
            rows.append([m.title, *cells, chance])
    return ["score", *columns, "chance"], rows


def meanings(e: Evaluation) -> list[str]:
    """What each score is, and why others are missing, as the lines of a list."""
    measured = [f"- *{m.title}*: {m.what}." for m in e.metrics.values() if isinstance(m, Metric)]
    return measured + [
        f"- *{name.replace('_', ' ')}*: not measured: {m.reason}."
        for name, m in e.metrics.items()
        if isinstance(m, NotMeasured)
    ]


def markdown(e: Evaluation, made_with: dict[str, Any], sentences: list[str]) -> str:
    """The report for people."""
    trials, options = e.comparison.trials, e.comparison.options
    header, rows = score_table(e)
    versions = ", ".join(f"{name} {number}" for name, number in made_with["versions"].items())
    samples = "one picture" if options.samples == 1 else f"the mean of {options.samples} pictures"
    seeds = f"{options.seed}" if options.samples == 1 else (
        f"{options.seed} to {options.seed + options.samples - 1}"
    )  # fmt: skip
    return "\n".join(
        [
            f"# {made_with['bundle']}: evaluation on {e.honesty} EEG",
            "",
            *(f"> **Warning.** {warning}\n" for warning in e.warnings),
            f"{len(trials)} {options.epochs} trials with {len(trials.images)} different pictures; "
            f"{samples} of each trial counts, painted in {options.steps} steps with guidance "
            f"{options.guidance:g}. In brackets: 95 % intervals. A score means something where it "
            "is above chance *and* above shuffled EEG (the pictures of other trials), noise and "
            "zero EEG.",
            "",
            f"| {' | '.join(header)} |",
            f"|{' --- |' * len(header)}",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *meanings(e),
            "",
            "Intervals are Wilson's for shares of trials that each saw a picture of their own, "
            "else a bootstrap over pictures. Where chance is a dash, shuffled EEG says what "
            "pictures of the same kind get that were painted for another trial.",
            "",
            "## What goes wrong",
            "",
            *(sentences or ["Nothing could name the pictures, so this was not looked at."]),
            "",
            *(["![What was taken for what](confusion.png)", ""] if sentences else []),
            "![Seen above, decoded below](grid.png)",
            "",
            "The grid's trials were chosen by score and by seed, none by hand.",
            "",
            "## How it was made",
            "",
            f"Bundle `{made_with['bundle']}`, SHA-256 `{made_with['bundle_sha256']}`. All pictures "
            f"of a sample begin from the same initial noise (seed {seeds}), as in live use. "
            f"Options, seeds and scores stand in `scores.json`, every trial's values in "
            f"`trials.json`, all decoded pictures in `decoded`. Made with {versions}.",
            "",
        ]
    )


def _cell(score: Score | None, form: str) -> str:
    if score is None:
        return "–"

    if score.low is None or score.high is None:
        return format(score.value, form)
    return f"{score.value:{form}} ({score.low:{form}} to {score.high:{form}})"
