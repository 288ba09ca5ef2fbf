"""Prepared sets: rows across shards, and broken ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.errors import PreparedSetError
from models.training.prepared import PreparedSet, images_to_tensor
from tests.models.training.made_sets import make_prepared_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spec.json").write_text(json.dumps({"honesty": "simulated"}))
    for number, first in enumerate((0, 3)):
        n = 3 - number
        save_file(
            {
                "eeg": torch.arange(first, first + n)[:, None, None]
                .expand(n, 2, 4)
                .float()
                .contiguous(),
                "label": torch.arange(first, first + n),
            },
            tmp_path / f"epochs-{number:05d}.safetensors",
        )
    return tmp_path


def test_rows_come_from_the_shards_that_hold_them_in_the_order_asked(folder: Path) -> None:
    epochs = PreparedSet(folder).epochs()
    assert len(epochs) == 5
    index = torch.tensor([4, 0, 3, 2, 2])
    assert epochs.rows("eeg", index)[:, 0, 0].tolist() == index.tolist()
    assert epochs["label"].tolist() == [0, 1, 2, 3, 4]


READING = """
import sys, torch
from pathlib import Path
from models.training.prepared import PreparedSet

def anonymous_megabytes():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in l)
    return int(line.split()[1]) / 1024

torch.ones(8)[torch.arange(4)].sum()  # what torch takes at its first use is not the set's
before = anonymous_megabytes()
epochs = PreparedSet(sys.argv[1]).epochs()
total = 0.0
for index in torch.arange(len(epochs)).split(64):
    total += float(epochs.rows("eeg", index).sum())
assert total != 0
print(anonymous_megabytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="RssAnon is Linux's")
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """300 MB are read in batches; what is not backed by the files stays below 30 MB."""
    (tmp_path / "spec.json").write_text("{}")
    for number in range(10):
        eeg = torch.ones(900, 32, 260)
        save_file({"eeg": eeg}, tmp_path / f"epochs-{number:05d}.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", READING, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 30


def test_missing_and_damaged_sets_get_their_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PreparedSetError, match=r"no spec\.json.*phosphene prepare"):
        PreparedSet(tmp_path / "nowhere")
    with pytest.raises(PreparedSetError, match="holds no pictures-"):
        PreparedSet(folder).pictures()
    shard = folder / "epochs-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(PreparedSetError, match=r"epochs-00001\.safetensors is damaged"):
        PreparedSet(folder).epochs()


def test_pixels_become_minus_one_to_one_channels_first() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 3)
    assert images_to_tensor(images).flatten().tolist() == pytest.approx([-1.0, 1.0, -0.6])


def read_all(folder: Path) -> None:
    data = PreparedSet(folder)
    data.captions()
    data.appearance()


@pytest.mark.parametrize("name", ["spec.json", "pictures.json", "compositions.json"])
def test_a_truncated_file_gets_its_sentence(tmp_path: Path, name: str) -> None:
    folder = make_prepared_set(tmp_path / "set")
    text = (folder / name).read_text()
    (folder / name).write_text(text[: len(text) // 2])
    with pytest.raises(PreparedSetError, match=rf"{name} is damaged .* Prepare the set again\."):
        read_all(folder)
