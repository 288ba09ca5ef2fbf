"""Masked signal modelling as a stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.eeg_encoder import EEGEncoder
from models.errors import TrainingError
from models.training.augment import augment, draw_augmentation
from models.training.config import PretrainConfig
from models.training.prepared import PreparedSet
from models.training.presets import build_autoencoder
from models.training.pretrain import PretrainTask, held_out_loss, pretrain
from tests.models.training.made_sets import make_prepared_set

CONFIG = PretrainConfig(60, 16, 5e-3, warmup=5, save_every=30, preset="tiny", mask_ratio=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    make_prepared_set(folder / "set")
    make_prepared_set(folder / "other", seed=1)
    return folder


def test_it_learns_to_predict_held_out_epochs_and_writes_the_encoder(
    folder: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    pretrain(folder / "set", tmp_path, CONFIG, folder / "other", lines.append)
    scores = [float(x.split("eeg_recon=")[1]) for x in lines if "held-out" in x]
    untrained = PretrainTask(
        build_autoencoder("tiny", 4, 64, seed=0), PreparedSet(folder / "other").epochs(), 0.5
    )
    assert len(scores) == 2
    assert scores[1] < 0.9 * held_out_loss(untrained)
    encoder = EEGEncoder.from_pretrained(tmp_path / "eeg_encoder")
    assert encoder(torch.zeros(1, 4, 64)).shape == (1, 8, 32)


def test_what_is_hidden_is_drawn_by_seed(folder: Path) -> None:
    task = PretrainTask(build_autoencoder("tiny", 4, 64), PreparedSet(folder / "set").epochs())
    assert held_out_loss(task, 3) == held_out_loss(task, 3) != held_out_loss(task, 4)


@pytest.mark.parametrize("preset", ["tiny", "scale"])
def test_gradient_checkpointing_changes_nothing_but_memory(preset: str, folder: Path) -> None:
    gradients = []
    for is_used in (False, True):
        autoencoder = build_autoencoder(preset, 4, 64)  # type: ignore[arg-type]
        autoencoder.use_gradient_checkpointing(is_used)
        task = PretrainTask(autoencoder, PreparedSet(folder / "set").epochs())
        task(task.load(task.draw(torch.Generator().manual_seed(0), 4)))["loss"].backward()
        gradients.append([p.grad for p in task.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_sizes_are_the_references_on_the_meta_device() -> None:
    def count(preset: str, mlp_ratio: float = 0.0) -> int:
        with torch.device("meta"):
            autoencoder = build_autoencoder(preset, 128, 512, mlp_ratio)  # type: ignore[arg-type]
        return sum(p.numel() for p in autoencoder.parameters())

    # The reference also counts its fixed position embeddings, a row for each token.
    assert count("reference") + 129 * 1024 + 129 * 512 == 165_380_096
    # Without the cls token.
    assert count("reference") - count("phosphene") == 1024
    # The paper's 297 million are nearest to an MLP four times as wide as its tokens.
    assert count("phosphene", 4.0) > 290_000_000


def test_epochs_that_no_patch_fits_are_refused(folder: Path) -> None:
    with pytest.raises(TrainingError, match="66 samples cannot be cut into patches of 8"):
        build_autoencoder("tiny", 4, 66)


def test_variation_of_strength_zero_is_none_and_other_rows_do_not_matter() -> None:
    eeg = torch.randn(6, 4, 64)
    drawn = draw_augmentation(torch.Generator().manual_seed(0), 6, 4, 0.0)
    assert torch.equal(augment(eeg, drawn, 0.0), eeg)
    drawn = draw_augmentation(torch.Generator().manual_seed(0), 6, 4, 1.0)
    whole = augment(eeg, drawn, 1.0)
    part = augment(eeg[2:4], {k: v[2:4] for k, v in drawn.items()}, 1.0)
    assert torch.equal(whole[2:4], part)
    assert not torch.allclose(whole, eeg, atol=0.1)
