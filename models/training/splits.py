"""Placeholder until the data branch lands."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from models.training.prepared import PreparedSet


@dataclass(frozen=True, slots=True)
class Rows3:
    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor
    warning: str = ""


def split_rows(data: PreparedSet, by: str, seed: int, epochs: str) -> Rows3:
    e = data.epochs()
    ok = e["image_id"] >= 0
    if epochs != "both":
        ok &= (e["is_locked"] == 1) == (epochs == "marker-locked")
    idx = ok.nonzero()[:, 0]
    run = e["session"][idx] * 1000 + e["run"][idx]
    groups = run.unique()
    return Rows3(
        idx[run != groups[-1]] if len(groups) > 1 else idx,
        idx[run == groups[-1]] if len(groups) > 1 else idx[:0],
        idx[:0],
    )
