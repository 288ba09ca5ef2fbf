"""Temporal masked signal modelling: the encoder learns to read EEG without labels.

DreamDiffusion's first stage (arXiv 2306.16934, section 3.1): three quarters of an epoch's
patches are hidden and predicted from the others; L_EEG_recon counts the hidden ones only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from models.masked_autoencoder import MaskedAutoencoder, save_masked_autoencoder
from models.training.augment import augment, draw_augmentation
from models.training.config import PretrainConfig
from models.training.prepared import PreparedSet, Shards
from models.training.presets import build_autoencoder
from models.training.stage import Rows, processes, run_stage

# Epochs of held-out data that are scored at each checkpoint.
HELD_OUT = 512


class PretrainTask(nn.Module):
    """L_EEG_recon on epochs of a prepared set.

    Parameters
    ----------
    autoencoder : that is trained.
    epochs : with a column `eeg` (n, n_channels, n_times).
    mask_ratio : share of patches that are hidden.
    strength : of augmentation.
    """

    def __init__(
        self,
        autoencoder: MaskedAutoencoder,
        epochs: Shards,
        mask_ratio: float = 0.75,
        strength: float = 0.0,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self._epochs, self._mask_ratio, self._strength = epochs, mask_ratio, strength

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Epochs, the order in which their patches are hidden, and their variation."""
        encoder = self.autoencoder.encoder
        rows = {
            "index": torch.randint(len(self._epochs), (batch,), generator=generator),
            "noise": torch.rand(batch, encoder.n_tokens, generator=generator),
        }
        if self._strength:
            n_channels = encoder.config.in_channels
            rows |= draw_augmentation(generator, batch, n_channels, self._strength)
        return rows

    def load(self, rows: Rows) -> Rows:
        """The epochs."""
        eeg = self._epochs.rows("eeg", rows["index"]).float()
        if self._strength:
            eeg = augment(eeg, rows, self._strength)
        return {"eeg": eeg, "noise": rows["noise"]}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """L_EEG_recon."""
        loss, _, _ = self.autoencoder(rows["eeg"], self._mask_ratio, rows["noise"])
        return {"loss": loss.float()}


@torch.no_grad()
def held_out_loss(task: PretrainTask, seed: int = 0) -> float:
    """L_EEG_recon on at most 512 epochs of the task's set, drawn and masked by seed."""
    generator = torch.Generator().manual_seed(seed)
    device = next(task.parameters()).device
    drawn = task.draw(generator, HELD_OUT)
    drawn["index"] = torch.randperm(len(task._epochs), generator=generator)[:HELD_OUT]
    n = len(drawn["index"])
    losses, sizes = [], []
    for part in torch.arange(n).split(64):
        rows = task.load({name: values[part] for name, values in drawn.items()})
        losses.append(float(task({k: v.to(device) for k, v in rows.items()})["loss"]) * len(part))
        sizes.append(len(part))
    return sum(losses) / sum(sizes)


def pretrain(
    prepared: Path,
    out: Path,
    config: PretrainConfig,
    held_out: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Pre-train on a prepared set's epochs; labels are not read.

    Writes `eeg_encoder/`, which fine-tuning starts from, and `masked_autoencoder.safetensors`.

    Parameters
    ----------
    prepared : folder of the prepared set.
    out : folder of the stage.
    held_out : another prepared set that is scored and never trained on.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    epochs = PreparedSet(prepared).epochs()
    n_channels, n_times = epochs.shape("eeg")
    autoencoder = build_autoencoder(
        config.preset, n_channels, n_times, config.mlp_ratio, config.seed
    )
    autoencoder.use_gradient_checkpointing(config.gradient_checkpointing)
    task = PretrainTask(autoencoder, epochs, config.mask_ratio, config.augment)
    scored = (
        PretrainTask(autoencoder, PreparedSet(held_out).epochs(), config.mask_ratio)
        if held_out
        else None
    )

    def look(_step: int) -> dict[str, float]:
        return {"eeg_recon": held_out_loss(scored, config.seed)} if scored else {}

    run_stage(out, task, config, say, look, {"prepared": str(prepared)})
    if processes().is_main_process:
        save_masked_autoencoder(autoencoder, out)
