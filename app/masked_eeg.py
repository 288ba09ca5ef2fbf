"""Masked signal modelling of real EEG beside guesses that learn nothing.

    python -m app.masked_eeg MUSE_LSL_DATA OUT

Trains the masked autoencoder on windows of two seconds of muse-lsl's recordings without
their labels, and scores it on the last recording of each experiment, which it never saw:
L_EEG_recon over masked tokens beside each channel's mean and straight lines over the gaps,
for the mask ratio of the paper (0.75) and that of its code (0.1), and for the width of the
encoder's MLPs as in the paper (four times the tokens') and as in its code (the same).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from acquisition.source import SourceOptions
from app.muse import CH_NAMES, SPEC, recordings_of
from app.prepare import Wanted, prepare_sources
from models.masked_autoencoder import load_masked_autoencoder
from models.training.config import PretrainConfig
from models.training.prepared import PreparedSet
from models.training.pretrain import pretrain
from models.training.reconstruction import guess_losses

FOLDERS = ("N170", "P300", "spatial_freq")
TWO_SECONDS = replace(SPEC, n_times=128, hop=32)
MASK_RATIOS, MLP_RATIOS = (0.75, 0.1), (4.0, 1.0)


def prepare_windows(paths: Sequence[Path], out: Path) -> Path:
    """Cut sliding windows of recordings into `out`, once."""
    if not (out / "spec.json").is_file():
        wanted = Wanted(TWO_SECONDS, ("sliding",), options=SourceOptions(ch_names=CH_NAMES))
        prepare_sources(out, [f"file:{path}" for path in paths], wanted)
    return out


@torch.no_grad()
def compare(stage: Path, held_out: Path, mask_ratio: float, seed: int = 0) -> dict[str, float]:
    """L_EEG_recon on all windows of a set: of what was trained, and of the guesses.

    Parameters
    ----------
    stage : folder that pre-training wrote.
    held_out : prepared set.
    """
    eeg = PreparedSet(held_out).epochs()["eeg"].float()
    autoencoder = load_masked_autoencoder(stage).eval()
    noise = torch.rand(
        len(eeg), autoencoder.encoder.n_tokens, generator=torch.Generator().manual_seed(seed)
    )
    loss, _, mask = autoencoder(eeg, mask_ratio, noise)
    return {"trained": float(loss), **guess_losses(eeg, mask, autoencoder.patchify)}


def run(data: Path, out: Path, steps: int = 3000) -> dict[str, dict[str, float]]:
    """Prepare, train and compare what is not done yet; writes `out / "masked.json"`."""
    recordings = [recordings_of(data, folder) for folder in FOLDERS]
    train = prepare_windows([p for paths in recordings for p in paths[:-1]], out / "train")
    held_out = prepare_windows([paths[-1] for paths in recordings], out / "held-out")
    scores = {}
    for mask_ratio, mlp_ratio in product(MASK_RATIOS, MLP_RATIOS):
        stage = out / f"mask-{mask_ratio}-mlp-{mlp_ratio:g}"
        config = PretrainConfig(
            steps=steps,
            batch=64,
            lr=2e-3,
            warmup=max(1, steps // 20),
            preset="headset",
            mask_ratio=mask_ratio,
            mlp_ratio=mlp_ratio,
        )
        pretrain(train, stage, config, held_out)
        name = f"mask ratio {mask_ratio}, MLPs {mlp_ratio:g} times as wide"
        scores[name] = compare(stage, held_out, mask_ratio)
    out.joinpath("masked.json").write_text(json.dumps(scores, indent=2), encoding="utf-8")
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="muse-lsl's folder of data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    a = parser.parse_args()
    torch.set_num_threads(1)
    for variant, scores in run(a.data, a.out, a.steps).items():
        told = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        print(f"{variant}: {told}")


if __name__ == "__main__":
    main()
