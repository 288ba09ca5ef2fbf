"""A prepared set of pictures that were seen, small enough to make in a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from acquisition.stimuli import concepts

N_LABELS = 5
SIDE = 32


def make_viewed_set(
    folder: Path,
    n_images: int = 40,
    trials_per_image: int = 1,
    n_channels: int = 32,
    n_times: int = 256,
    columns: dict[str, np.ndarray] | None = None,
    **spec: Any,
) -> Path:
    """Write marker-locked epochs, each with a picture in its label's colour.

    The first sample of the first channel is the picture's id, and all else is noise: what
    reads it is a perfect decoder. One sliding epoch without a picture ends the set.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    label = np.arange(n_images) % N_LABELS
    colour = np.eye(N_LABELS, 3)[label] + 0.2 * (label == 3)[:, None]
    images = 0.6 * colour[:, None, None] + 0.4 * rng.random((n_images, SIDE, SIDE, 3))
    save_file(
        {"images": (255 * images.clip(0, 1)).astype(np.uint8), "label": label},
        folder / "pictures-00000.safetensors",
    )
    image_id = np.append(np.repeat(np.arange(n_images), trials_per_image), -1)
    n = len(image_id)
    eeg = rng.standard_normal((n, n_channels, n_times)).astype(np.float32)
    eeg[:, 0, 0] = image_id
    epochs = {
        "eeg": eeg,
        "label": np.where(image_id < 0, -1, label[image_id]),
        "image_id": image_id,
        "is_locked": (image_id >= 0).astype(np.int64),
        **(columns or {}),
    }
    save_file(epochs, folder / "epochs-00000.safetensors")
    names = [c.name for c in concepts()]
    values = {"honesty": "simulated", "concepts": names, **spec}
    (folder / "spec.json").write_text(json.dumps(values))
    return folder
