"""What each part of the method brings: the paper's Table 2, as `phosphene ablate` found it."""

from __future__ import annotations

from typing import Any

from app.results.inputs import Inputs
from app.results.part import Part, Table
from models.training.ablate import CONDITIONS, SCORES, read_ablation


def measure(inputs: Inputs) -> Part:
    """The tables of the folder that was given: pictures, and the EEG's embedding without one.

    Raises
    ------
    TrainingError
        It holds none.
    """
    assert inputs.wanted.ablation is not None
    found = read_ablation(inputs.wanted.ablation)
    tables = [
        Table(
            f"Table 2: {by}",
            ["variant", *CONDITIONS, "chance", "seeds", *(["paper"] if by == "painted" else [])],
            [_row(row, by) for row in found["rows"] if by in row["scores"]],
            [found["heading"]] if by == "painted" else [],
        )
        for by in SCORES
    ]
    return Part("Without masked modelling, without CLIP, and by mask ratio", tables, found)


def _row(row: dict[str, Any], by: str) -> list[str]:
    scores = [row["scores"][by][name] for name in CONDITIONS]
    # The paper's figure is of painted pictures.
    paper = "–" if row["paper"] is None else f"{row['paper']} %"
    return [
        row["variant"],
        *(f"{mean:.1%} ({low:.1%} to {high:.1%})" for mean, low, high in scores),
        f"{row['chance']:.1%}",
        str(row["seeds"]),
        *([paper] if by == "painted" else []),
    ]
