"""Does the U-Net paint what a caption says? What it is told wrongly, it cannot show rightly."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.results.bars import at_least
from app.results.part import Table, written
from models.training.caption_painter import CaptionPainter
from models.training.metrics import Score
from models.training.prepared import PreparedSet
from models.training.scorers import Classifier
from models.training.trials import Options, Trials

LEAST_READ = 0.97


def measure_captions(
    painter: Path,
    clip: Path,
    judge: Classifier,
    test: PreparedSet,
    options: Options,
    device: torch.device,
) -> tuple[Table, dict[str, Any]]:
    """What the judge names in pictures of the captions of what the trials saw.

    Parameters
    ----------
    painter : folder with `unet`, `vae` and `scheduler`.
    clip : folder of the CLIP whose text encoder conditions the U-Net.
    judge : whose classes are the set's labels.
    test : with captions.
    options : of the evaluation: its trials, steps, guidance and seed.

    Raises
    ------
    TrainingError, PreparedSetError
        A folder does not hold what it should, or parts do not go together.
    """
    trials = Trials.choose(test, options)
    model = CaptionPainter(painter, clip, device)
    captions = test.captions()
    context = model.encode([captions[i] for i in trials.images.tolist()])

    def named(context: torch.Tensor) -> np.ndarray:
        """The judge's answers for pictures of contexts (n, tokens, dim), each of its own noise."""
        said = []
        for number, part in enumerate(context.split(options.batch)):
            pixels = model.paint(part, options.steps, options.guidance, options.seed + number)
            pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode():
                said.append(judge(pictures).argmax(1).cpu().numpy())
        return np.concatenate(said)

    said = named(context)
    nothing = named(torch.zeros_like(context[: options.batch]))
    label = test.pictures()["label"][trials.images].numpy()
    return _table(painter.resolve().name, said, nothing, label, options)


def _table(
    painter: str, said: np.ndarray, nothing: np.ndarray, label: np.ndarray, options: Options
) -> tuple[Table, dict[str, Any]]:
    picture = np.arange(len(label))
    shuffled = np.random.default_rng(options.seed).permutation(label)
    right = {
        "captions": said == label,
        "shuffled": said == shuffled,
        # As many pictures, each with one of the answers.
        "no caption": np.resize(nothing, len(label)) == label,
    }
    scores = {name: Score.of(each.astype(float), picture) for name, each in right.items()}
    bar = at_least(scores["captions"].value, LEAST_READ, ".0%")
    table = Table(
        "Pictures of captions",
        ["painted by the U-Net of", "right captions", "shuffled", "no caption", "bar"],
        [[f"`{painter}`", *map(written, scores.values()), bar]],
        [
            "What the judge names in pictures that are painted from the captions of "
            f"{len(label):,} pictures that the trials saw; no EEG takes part. Chance is "
            f"{1 / len(np.unique(label)):.1%}. {options.steps} steps, guidance "
            f"{options.guidance:g}, each picture from its own noise; {len(nothing)} are painted "
            "of no caption. Shuffled: captions of other pictures. Intervals are of 95 %."
        ],
    )
    return table, {"painter": painter, **{name: asdict(s) for name, s in scores.items()}}
