"""What each part of the method brings: the paper's Table 2, as `phosphene ablate` found it."""

from __future__ import annotations

from app.results.inputs import Inputs
from app.results.part import Part, Table
from models.training.ablation_table import SCORES, cells, columns, read_ablation


def measure(inputs: Inputs) -> Part:
    """The tables of the folder that was given: pictures, and the EEG's embedding without one.

    Raises
    ------
    TrainingError
        It holds none.
    """
    assert inputs.wanted.ablation is not None
    found = read_ablation(inputs.wanted.ablation)
    rows = found["rows"]
    tables = [
        Table(
            f"Table 2: {by}",
            ["variant", *columns(rows)],
            [[row["variant"], *cells(row, by)] for row in rows if by in row["scores"]],
            [found["heading"]] if by == "painted" else [],
        )
        for by in SCORES
    ]
    return Part("Without masked modelling, without CLIP, and by mask ratio", tables, found)
