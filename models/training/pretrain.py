"""Temporal masked signal modelling: the encoder learns to read EEG without labels.

python -m models.training.pretrain runs/eeg runs/msm
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from models.eeg_encoder import EEGEncoder
from models.masked_autoencoder import MaskedAutoencoder
from models.training.prepared import PreparedSet
from models.training.stage import Schedule, run_stage

MASK_RATIO = 0.75


def build_encoder(in_channels: int = 32, n_times: int = 256) -> EEGEncoder:
    """The scale model's encoder: tokens of 32 ms, 2.2 million parameters."""
    encoder: EEGEncoder = EEGEncoder(
        in_channels, n_times, patch_size=8, embed_dim=256, depth=4, num_heads=8, mlp_ratio=2.0
    )
    return encoder


def train(epochs: Path, out: Path, schedule: Schedule, batch: int = 128) -> None:
    """Pre-train an encoder and save it to `out / "eeg_encoder"`."""
    data = PreparedSet(epochs).epochs()
    torch.manual_seed(schedule.seed)
    encoder = build_encoder()
    autoencoder = MaskedAutoencoder(
        encoder, decoder_embed_dim=128, decoder_depth=2, decoder_num_heads=4
    )

    def loss_of_step(_step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        index = torch.randint(len(data), (batch,), generator=generator)
        eeg = data.rows("eeg", index).float()
        noise = torch.rand(batch, encoder.n_tokens, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _, _ = autoencoder(eeg, MASK_RATIO, noise)
        return {"loss": loss.float()}

    run_stage(out, {"autoencoder": autoencoder}, autoencoder.parameters(), loss_of_step, schedule)
    encoder.save_pretrained(out / "eeg_encoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("epochs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args()
    train(arguments.epochs, arguments.out, Schedule(arguments.steps, arguments.lr))


if __name__ == "__main__":
    main()
