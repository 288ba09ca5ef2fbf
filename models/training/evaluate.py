"""Score a bundle by the judge, who sees nothing but the generated pictures.

    python -m models.training.evaluate weights/scale-model runs/eeg-test runs/judge/judge OUT

For marker-locked epochs of sessions that training did not see: the share of pictures that
the judge names rightly, with its 95 % interval, beside chance and the same score where
each epoch is another trial's (shuffled), noise, or zero.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from models.painter import KeyframePainter
from models.training.judge import Judge
from models.training.prepared import PreparedSet, images_to_tensor
from models.training.text_to_image import grid


@dataclass(frozen=True, slots=True)
class Score:
    """An accuracy.

    Attributes
    ----------
    right, n : trials.
    accuracy, low, high : share of right ones and its 95 % interval (Wilson 1927,
        doi 10.1080/01621459.1927.10502953).
    """

    right: int
    n: int
    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, n: int) -> Score:
        """Score of `right` out of `n`.

        >>> Score.of(5, 10).accuracy
        0.5
        """
        z = 1.959964
        p = right / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return cls(right, n, p, centre - half, centre + half)


def paint_all(painter: KeyframePainter, eeg: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
    """Pictures (n, H, W, 3) uint8 and concept probabilities (n, n_concepts) of epochs."""
    pictures, probabilities = [], []
    names = painter.pipeline.concepts.config.names
    for epoch in eeg:
        painted = painter.paint(epoch.numpy())
        pictures.append(painted.rgb)
        by_name = dict(painted.concepts)
        probabilities.append([by_name[name] for name in names])
    return np.stack(pictures), torch.tensor(probabilities)


def judge_all(judge: Judge, pictures: np.ndarray) -> torch.Tensor:
    """The judge's labels (n,)."""
    with torch.inference_mode():
        parts = [
            judge(images_to_tensor(part)).argmax(1)
            for part in torch.from_numpy(pictures).split(128)
        ]
    return torch.cat(parts)


def evaluate(bundle: Path, epochs: Path, judge_folder: Path, out: Path, seed: int = 0) -> None:
    """Write `scores.json`, `scores.md` and `grid.png` to `out`."""
    data = PreparedSet(epochs)
    rows, seen = data.epochs(), data.pictures()
    locked = (rows["is_locked"] == 1).nonzero()[:, 0]
    label, eeg = rows["label"][locked], rows.rows("eeg", locked).float()
    painter = KeyframePainter.from_bundle(bundle, seed, threads=torch.get_num_threads())
    judge = Judge.from_pretrained(judge_folder).eval()
    generator = torch.Generator().manual_seed(seed)
    shuffle = torch.randperm(len(eeg), generator=generator)
    n_controls = min(len(eeg), 200)
    noise = torch.randn(n_controls, *eeg.shape[1:], generator=generator)
    conditions = {
        "EEG": (eeg, label),
        # The pictures of other trials: what a decoder that ignores the EEG would score.
        "noise EEG": (noise, label[:n_controls]),
        "zero EEG": (torch.zeros(n_controls, *eeg.shape[1:]), label[:n_controls]),
    }
    scores: dict[str, dict[str, dict[str, float]]] = {}
    painted = np.empty(0)
    for name, (x, y) in conditions.items():
        pictures, probabilities = paint_all(painter, x)
        named = judge_all(judge, pictures)
        nearest = probabilities.argmax(1)
        scores[name] = {
            "judge": asdict(Score.of(int((named == y).sum()), len(y))),
            "nearest_concept": asdict(Score.of(int((nearest == y).sum()), len(y))),
        }
        if name == "EEG":
            painted = pictures
            scores["shuffled EEG"] = {
                "judge": asdict(Score.of(int((named[shuffle] == y).sum()), len(y))),
                "nearest_concept": asdict(Score.of(int((nearest[shuffle] == y).sum()), len(y))),
            }
    pictures_seen = seen.rows("images", rows["image_id"][locked])
    upper = judge_all(judge, pictures_seen.numpy())
    scores["the seen pictures themselves"] = {
        "judge": asdict(Score.of(int((upper == label).sum()), len(label)))
    }
    out.mkdir(parents=True, exist_ok=True)
    chance = painter.pipeline.concepts.chance
    report = {"honesty": data.spec.get("honesty"), "chance": chance, "seed": seed, "scores": scores,
              "simulation": data.spec.get("parameters")}  # fmt: skip
    (out / "scores.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    lines = [
        f"{data.spec.get('honesty')} EEG; 40 concepts, chance {chance:.1%}; 95 % intervals",
        "",
        "| condition | judge on the generated picture | nearest concept | trials |",
        "| --- | --- | --- | --- |",
    ]
    for name, values in scores.items():
        cells = [
            f"{s['accuracy']:.1%} ({s['low']:.1%} to {s['high']:.1%})" if s else "–"
            for s in (values.get("judge"), values.get("nearest_concept"))
        ]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {values['judge']['n']} |")
    (out / "scores.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    # Drawn by seed, never by hand.
    chosen = torch.randperm(len(eeg), generator=generator)[:40]
    pairs = [
        np.concatenate(source[chosen[i : i + 10]], 1)
        for i in range(0, 40, 10)
        for source in (pictures_seen.numpy(), painted)
    ]
    grid(np.stack(pairs), 1).save(out / "grid.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("bundle", "epochs", "judge", "out"):
        parser.add_argument(name, type=Path)
    a = parser.parse_args()
    evaluate(a.bundle, a.epochs, a.judge, a.out)


if __name__ == "__main__":
    main()
