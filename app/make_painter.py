"""A bundle that paints a folder of pictures and has learnt nobody's EEG: `phosphene make-painter`.

People are calibrated with it: its pictures are presented, and each gets a bundle that shares its
painter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from app.bundle import STIMULI, find_bundle, read_epoch_spec
from app.checkpoints import unfinished
from app.errors import SettingsError
from app.personal import NOTICE
from app.picture_set import PictureSet, read_pictures
from app.stimulus_images import read_image
from models.training.bundle import write_bundle
from models.training.config import FinetuneConfig
from models.training.picture_painter import picture_painter

# Side of the pictures as they are presented, and their quality as JPEG.
PIXELS, QUALITY = 512, 90
UNTRAINED = (
    "This model has learnt from nobody's EEG yet, so it decodes nothing. Record a calibration on "
    "the page /calibrate, and train."
)


def make_painter(
    pictures: Path,
    out: Path,
    encoder: str,
    config: Callable[[str], FinetuneConfig],
    say: Callable[[str], None],
) -> None:
    """Write the bundle `out`.

    Parameters
    ----------
    pictures : folder with a folder of pictures for each class.
    encoder : bundle whose encoder and epochs it has.
    config : of what is loaded, with the folder of that bundle.
    say : tells people what was made.

    Raises
    ------
    SettingsError
        The pictures cannot be read.
    TrainingError, ScorerError, BundleError
        A part cannot be loaded, or does not go with another.
    SummaryError
        The bundle cannot be written.
    """
    eeg = find_bundle(encoder)
    read_epoch_spec(eeg)  # says what is wrong with it
    found = read_pictures(pictures)
    images = np.array([_read(picture.path) for picture in found])
    label = torch.tensor([picture.label for picture in found])
    names = list(dict.fromkeys(picture.class_name for picture in found))
    shown = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    spec = json.loads((eeg / "epoch_spec.json").read_text(encoding="utf-8"))
    with unfinished(out) as part:
        pipeline, sampler = picture_painter(shown, label, names, config(str(eeg)))
        write_bundle(part, pipeline, spec, sampler)
        _present(found, images, part / STIMULI)
        (part / NOTICE).write_text(UNTRAINED + "\n", encoding="utf-8")
    say(
        f"{out} paints {len(found)} pictures of {len(names)} classes, and has learnt nobody's EEG: "
        f"phosphene serve --bundle {out}, then calibrate on the page /calibrate."
    )


def _read(path: Path) -> np.ndarray:
    try:
        return read_image(path, PIXELS)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"The picture {path} cannot be read ({error}). Replace it, or take it away."
        ) from error


def _present(found: PictureSet, images: np.ndarray, folder: Path) -> None:
    """Write pictures as they are presented, each under its own name."""
    for picture, image in zip(found, images, strict=True):
        path = folder / picture.class_name / f"{picture.path.stem}.jpg"
        if path.exists():
            path = path.with_name(f"{picture.path.name}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=QUALITY)
