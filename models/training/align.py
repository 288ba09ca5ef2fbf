"""Alignment: encoder and conditioner learn what CLIP says of the picture that was seen.

    python -m models.training.align runs/eeg runs/clip/clip runs/msm/eeg_encoder runs/align

Minimises L_clip, a contrast among the batch's pictures, the cross-entropy of the nearest
concept, and the distance of the context to the text encoder's tokens of the picture's
caption: so fine-tuning with L_SD starts where the U-Net already understands the context.
It needs no U-Net and is therefore cheap.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.losses import clip_loss
from models.training.augment import augment, draw_augmentation
from models.training.config import Schedule
from models.training.stage import Rows, run_stage
from models.training.viewed import ViewedSet

TIME_EMBED_DIM = 384
N_CONCEPTS = 40
# Of the softmax over pictures and over prototypes, whose cosines lie within a few tenths.
TEMPERATURE = 0.1
# Of the distance to the text's tokens: with 1 the nearest concept was learnt to 55 % while
# the context hardly left its mean, and the U-Net painted something else.
CONTEXT_WEIGHT = 5.0


def build_conditioner(encoder: EEGEncoder, time_embed_dim: int = TIME_EMBED_DIM) -> EEGConditioner:
    """The scale model's conditioner: 16 x 128 context, as its text encoder's."""
    conditioner: EEGConditioner = EEGConditioner(
        encoder.n_tokens,
        encoder.config.embed_dim,
        n_context=16,
        cross_attention_dim=128,
        time_embed_dim=time_embed_dim,
        clip_dim=128,
    )
    return conditioner


class AlignTask(nn.Module):
    """Learns what CLIP and its text encoder say of the picture that was seen.

    Parameters
    ----------
    encoder, conditioner : that learn.
    data : epochs and what CLIP says of their pictures.
    n_concepts : labels of the pictures.
    strength : of augmentation.
    """

    prototypes: torch.Tensor

    def __init__(
        self,
        encoder: EEGEncoder,
        conditioner: EEGConditioner,
        data: ViewedSet,
        n_concepts: int = N_CONCEPTS,
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        self.eeg_encoder, self.conditioner, self._data = encoder, conditioner, data
        self._strength = strength
        conditioner.time_mapper.requires_grad_(False)
        self.register_buffer("prototypes", data.prototypes(n_concepts), persistent=False)

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Epochs and their variation."""
        index = self._data.draw(generator, batch)
        n_channels = self.eeg_encoder.config.in_channels
        return {"index": index, **draw_augmentation(generator, batch, n_channels, self._strength)}

    def load(self, rows: Rows) -> Rows:
        """EEG and its targets."""
        b = self._data.take(rows["index"])
        return {
            "eeg": augment(b.eeg, rows, self._strength),
            "image_embeds": b.image_embeds,
            "context": b.context,
            "is_seen": b.is_seen,
            "label": self._data.label[rows["index"]],
        }

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """The sum of all four losses."""
        context, _, embeds = self.conditioner(self.eeg_encoder(rows["eeg"]))
        embeds, seen = embeds.float(), rows["is_seen"]
        unit = F.normalize(embeds[seen], dim=1)
        l_clip = clip_loss(rows["image_embeds"], embeds)
        logits = unit @ rows["image_embeds"][seen].T / TEMPERATURE
        target = torch.arange(len(logits), device=logits.device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        distance = F.mse_loss(context.float(), rows["context"])
        concept = F.cross_entropy(unit @ self.prototypes.T / TEMPERATURE, rows["label"][seen])
        return {
            "loss": l_clip + 0.3 * contrast + CONTEXT_WEIGHT * distance + concept,
            "clip": l_clip,
            "contrast": contrast,
            "distance": distance,
            "concept": concept,
        }


@torch.no_grad()
def score(task: AlignTask, held_out: ViewedSet) -> dict[str, float]:
    """Share of right nearest concepts and distance of the context on held-out epochs."""
    scores = {}
    for name, rows in (("locked", held_out.locked), ("sliding", held_out.begun)):
        right, distances = [], []
        for index in rows.split(256):
            b = held_out.take(index)
            context, _, embeds = task.conditioner(task.eeg_encoder(b.eeg))
            distances.append((context - b.context).square().mean((1, 2)))
            right.append((embeds @ task.prototypes.T).argmax(1) == held_out.label[index])
        scores[f"{name}_top1"] = float(torch.cat(right).float().mean())
        scores[f"{name}_distance"] = float(torch.cat(distances).mean())
    return scores


def train(
    epochs: Path,
    validation: Path,
    clip: Path,
    encoder_folder: Path,
    out: Path,
    schedule: Schedule,
    start: Path | None = None,
) -> None:
    """Train encoder and conditioner and save them to `out`; go on from `start`'s if given."""
    data, held_out = ViewedSet(epochs, clip), ViewedSet(validation, clip)
    torch.manual_seed(schedule.seed)
    encoder = EEGEncoder.from_pretrained(start / "eeg_encoder" if start else encoder_folder)
    conditioner = build_conditioner(encoder)
    if start:
        conditioner = EEGConditioner.from_pretrained(start / "conditioner")
    task = AlignTask(encoder, conditioner, data)
    run_stage(out, task, schedule, look=lambda _step: score(task, held_out))
    encoder.save_pretrained(out / "eeg_encoder")
    conditioner.save_pretrained(out / "conditioner")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("epochs", "validation", "clip", "encoder", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--start", type=Path, help="folder of an earlier alignment")
    a = parser.parse_args()
    schedule = Schedule(
        a.steps, 128, a.lr, weight_decay=0.05, ema_decay=0.999, precision="bf16", save_every=500
    )
    train(a.epochs, a.validation, a.clip, a.encoder, a.out, schedule, start=a.start)


if __name__ == "__main__":
    main()
