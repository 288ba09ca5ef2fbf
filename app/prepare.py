"""Make prepared sets (see `models.training.prepared`) from pictures, recordings and
the simulated subject, through the same acquisition code as live use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from acquisition.stimuli import Composition, concepts, random_composition
from app.pictures import render

SHARD = 4096


def write_pictures(out: Path, compositions: list[Composition], seed: int, pixels: int = 128) -> None:
    """Render compositions into a prepared set of pictures with captions."""
    out.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(compositions), SHARD)):
        part = compositions[first : first + SHARD]
        save_file(
            {
                "images": np.stack([render(c, pixels) for c in part]),
                "label": np.array([c.label for c in part], np.int64),
            },
            out / f"pictures-{number:05d}.safetensors",
        )
    captions = [c.caption for c in compositions]
    (out / "pictures.json").write_text(json.dumps(captions), encoding="utf-8")
    spec = {
        "kind": "pictures of the 40 concepts, drawn from Noto Color Emoji (OFL)",
        "concepts": [c.name for c in concepts()],
        "pixels": pixels,
        "seed": seed,
    }
    (out / "spec.json").write_text(json.dumps(spec, indent=2), encoding="utf-8")


def prepare_pictures(out: Path, n: int, seed: int) -> None:
    """Draw `n` random compositions, every concept equally often."""
    rng = np.random.default_rng(seed)
    n_concepts = len(concepts())
    write_pictures(out, [random_composition(rng, i % n_concepts) for i in range(n)], seed)
