"""Stimuli that the scale model paints from captions: what the simulated subject is shown.

They need no font, and are in the style that can be painted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from acquisition.stimuli import concepts, random_composition
from app.evaluation import make_empty
from models.training.caption_painter import GUIDANCE, STEPS, CaptionPainter

BATCH = 40
QUALITY = 90
ABOUT = (
    "Painted by a small text-to-image model from captions of these compositions, after artwork of "
    "Noto Color Emoji (SIL Open Font License 1.1)."
)


def paint_stimuli(
    base: Path, clip: Path, out: Path, n: int, seed: int, say: Callable[[str], None]
) -> None:
    """Paint `n` pictures of each concept into `out`, with `stimuli.json` beside; none is chosen.

    Parameters
    ----------
    base : folder with `unet`, `vae` and `scheduler`.
    clip : folder of the CLIP that the U-Net was trained with.
    out : must be new or empty.
    seed : of the compositions and of the noise.

    Raises
    ------
    TrainingError, SettingsError
    """
    painter = CaptionPainter(base, clip)
    make_empty(out)
    rng = np.random.default_rng(seed)
    shown = {
        f"{concept.name} {k + 1}": random_composition(rng, label)
        for label, concept in enumerate(concepts())
        for k in range(n)
    }
    names = list(shown)
    for first in range(0, len(names), BATCH):
        part = names[first : first + BATCH]
        context = painter.encode([shown[name].caption for name in part])
        pictures = painter.paint(context, STEPS, GUIDANCE, seed + first)
        for name, picture in zip(part, pictures, strict=True):
            Image.fromarray(picture).save(out / f"{name}.jpg", quality=QUALITY)
        say(f"{first + len(part)} of {len(names)} pictures are painted.")
    stimuli = {name: composition.to_dict() for name, composition in shown.items()}
    about = {"about": ABOUT, "seed": seed, "stimuli": stimuli}
    text = json.dumps(about, indent=1, ensure_ascii=False)
    (out / "stimuli.json").write_text(text + "\n", encoding="utf-8")
