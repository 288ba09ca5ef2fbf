"""Splits keep groups apart, or say why they cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.errors import PreparedSetError, SplitError
from models.training.prepared import Shards
from models.training.splits import By, Split, split_rows


def recorded(n_subjects: int = 2, n_sessions: int = 3, n_runs: int = 4) -> dict[str, np.ndarray]:
    """Forty trials of eight images (label = image // 2) in each run, each in random order."""
    rng = np.random.default_rng(0)
    rows: list[tuple[int, ...]] = []
    for subject in range(n_subjects):
        for session in range(n_sessions):
            for run in range(n_runs):
                for position, image in enumerate(rng.permutation(np.repeat(np.arange(8), 5))):
                    rows.append((subject, session, run, position, image, image // 2))
    names = ("subject", "session", "run", "position", "image_id", "label")
    columns = {n: np.array(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)}
    columns["t_onset"] = 2.0 * columns["position"]
    columns["split"] = np.full(len(rows), -1)
    return columns


def same_order(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The order of the first run in all runs, as with the gratings."""
    image = columns["image_id"][:40][columns["position"]]
    return {**columns, "image_id": image, "label": image // 2}


GROUPS: dict[str, tuple[str, ...]] = {
    "session": ("subject", "session"),
    "run": ("subject", "session", "run"),
    "position": ("position",),
    "image": ("image_id",),
}


def groups_of(columns: dict[str, np.ndarray], rows: torch.Tensor, by: str) -> set[tuple[int, ...]]:
    parts = [columns[name][rows.numpy()] for name in GROUPS[by]]
    return {tuple(map(int, key)) for key in zip(*parts, strict=True)}


def check_apart(columns: dict[str, np.ndarray], found: Split, by: str) -> None:
    parts = [groups_of(columns, rows, by) for rows in (found.train, found.validation, found.test)]
    assert tuple(map(len, parts)) == found.n_groups
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts))
    every = torch.cat([found.train, found.validation, found.test])
    assert len(every.unique()) == len(every)


@pytest.mark.parametrize("by", ["session", "run", "position"])
@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_apart_and_every_row_is_used(by: By, seed: int) -> None:
    columns = recorded()
    found = split_rows(columns, by, seed=seed)
    check_apart(columns, found, by)
    assert len(found.train) + len(found.validation) + len(found.test) == len(columns["label"])
    assert f"Rows are split by {by}, seed {seed}" in found.sentence


def test_images_stay_apart_and_each_label_keeps_some() -> None:
    columns = recorded()
    columns["label"] = columns["image_id"] % 2  # four images of each label
    found = split_rows(columns, "image")
    check_apart(columns, found, "image")
    assert found.n_groups == (4, 2, 2)
    for rows in (found.train, found.validation, found.test):
        assert set(columns["label"][rows.numpy()].tolist()) == {0, 1}


def test_the_same_order_in_all_runs_is_kept_apart_by_position_alike_in_labels() -> None:
    columns = same_order(recorded())
    by_run = split_rows(columns, "run")
    leaked = groups_of(columns, by_run.train, "position") & groups_of(
        columns, by_run.test, "position"
    )
    assert len(leaked) == 40, "a run held out shows every place that was trained on"
    found = split_rows(columns, "position")
    check_apart(columns, found, "position")
    for rows in (found.train, found.validation, found.test):
        counts = np.bincount(columns["label"][rows.numpy()], minlength=4)
        assert len(set(counts.tolist())) == 1


def test_blocks_stay_whole() -> None:
    columns = recorded(n_subjects=1)
    n = len(columns["label"])
    columns["label"] = np.arange(n) // 8 % 4  # blocks of 8 trials, each label often
    found = split_rows(columns, "block")
    block = np.arange(n) // 8
    parts = [set(block[r.numpy()].tolist()) for r in (found.train, found.validation, found.test)]
    assert sum(map(len, parts)) == n // 8 == sum(found.n_groups)


def test_a_block_design_cannot_be_split_by_block_run_or_session() -> None:
    columns = recorded(n_subjects=1)
    columns["label"] = np.arange(len(columns["label"])) // 8  # each label in one block only
    for by in ("block", "run", "session"):
        with pytest.raises(SplitError, match=r"needs at least 3 groups|training would lack"):
            split_rows(columns, by)  # type: ignore[arg-type]


def test_too_few_groups_are_said() -> None:
    columns = recorded(n_subjects=1, n_sessions=2)
    with pytest.raises(SplitError, match=r"by session needs at least 3 groups .*; found 2\."):
        split_rows(columns, "session")
    found = split_rows(columns, "session", shares=(0, 0.5))
    assert found.n_groups == (1, 0, 1)
    assert len(found.validation) == 0


def test_what_is_not_told_is_said() -> None:
    columns = recorded()
    columns["run"][:] = -1
    columns["t_onset"][:] = np.nan
    for by in ("run", "block"):
        with pytest.raises(SplitError, match=f"No row of the set tells its {by}"):
            split_rows(columns, by)  # type: ignore[arg-type]
    with pytest.raises(SplitError, match="tells of 0 rows for training and 0 for test"):
        split_rows(columns, "split")


def test_a_split_that_is_told_is_taken_and_the_others_left_out() -> None:
    columns = recorded(1, 1, 1)
    columns["split"] = np.array([0] * 20 + [1] * 5 + [2] * 10 + [-1] * 5)
    found = split_rows(columns, "split")
    assert found.train.tolist() == list(range(20))
    assert found.validation.tolist() == list(range(20, 25))
    assert found.test.tolist() == list(range(25, 35))
    assert found.n_left_out == 5
    assert "5 have no group and are left out" in found.sentence


def test_rows_without_a_picture_are_in_no_part_by_image() -> None:
    columns = recorded()
    columns["label"] = columns["image_id"] % 2
    columns["image_id"][::3] = -1
    columns["label"][::3] = -1
    found = split_rows(columns, "image")
    assert found.n_left_out == len(columns["label"][::3])
    every = torch.cat([found.train, found.validation, found.test])
    assert not set(every.tolist()) & set(range(0, len(columns["label"]), 3))


def test_a_seed_gives_the_same_split_and_another_another() -> None:
    columns = recorded()
    assert torch.equal(split_rows(columns, "run").test, split_rows(columns, "run").test)
    assert not torch.equal(split_rows(columns, "run").test, split_rows(columns, "run", seed=1).test)


def test_a_prepared_set_s_columns_are_taken_as_they_are(tmp_path: Path) -> None:
    columns = {name: torch.from_numpy(column) for name, column in recorded().items()}
    save_file(columns, tmp_path / "epochs-00000.safetensors")
    shards = Shards(tmp_path, "epochs")
    assert torch.equal(split_rows(shards, "run").test, split_rows(recorded(), "run").test)
    del columns["position"]
    save_file(columns, tmp_path / "epochs-00000.safetensors")
    with pytest.raises(PreparedSetError, match="has no column position"):
        split_rows(Shards(tmp_path, "epochs"), "position")
