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

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.losses import clip_loss
from models.training.stage import Schedule, run_stage
from models.training.viewed import ViewedSet, augment

TIME_EMBED_DIM = 384
# Of the softmax over pictures and over prototypes, whose cosines lie within a few tenths.
TEMPERATURE = 0.1
# Of the distance to the text's tokens: with 1 the nearest concept was learnt to 55 % while
# the context hardly left its mean, and the U-Net painted something else.
CONTEXT_WEIGHT = 5.0


def build_conditioner(encoder: EEGEncoder) -> EEGConditioner:
    """The scale model's conditioner: 16 x 128 context, as its text encoder's."""
    conditioner: EEGConditioner = EEGConditioner(
        encoder.n_tokens,
        encoder.config.embed_dim,
        n_context=16,
        cross_attention_dim=128,
        time_embed_dim=TIME_EMBED_DIM,
        clip_dim=128,
    )
    return conditioner


def train(
    epochs: Path,
    validation: Path,
    clip: Path,
    encoder_folder: Path,
    out: Path,
    schedule: Schedule,
    batch: int = 128,
    start: Path | None = None,
) -> None:
    """Train encoder and conditioner and save them to `out`; go on from `start`'s if given."""
    data, held_out = ViewedSet(epochs, clip), ViewedSet(validation, clip)
    torch.manual_seed(schedule.seed)
    encoder = EEGEncoder.from_pretrained(start / "eeg_encoder" if start else encoder_folder)
    conditioner = build_conditioner(encoder)
    if start:
        conditioner = EEGConditioner.from_pretrained(start / "conditioner")
    both = torch.nn.ModuleDict({"eeg_encoder": encoder, "conditioner": conditioner})
    prototypes = data.prototypes(40)

    def loss_of_step(_step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        b = data.draw(generator, batch)
        with torch.autocast("cpu", torch.bfloat16):
            context, _, embeds = conditioner(encoder(augment(b, generator)))
        embeds = embeds.float()
        l_clip = clip_loss(b.image_embeds, embeds)
        seen = b.is_seen
        unit = F.normalize(embeds[seen], dim=1)
        logits = unit @ b.image_embeds[seen].T / TEMPERATURE
        target = torch.arange(len(logits))
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        distance = F.mse_loss(context.float(), b.context)
        concept = F.cross_entropy(unit @ prototypes.T / TEMPERATURE, data.label[b.index[seen]])
        return {
            "loss": l_clip + 0.3 * contrast + CONTEXT_WEIGHT * distance + concept,
            "clip": l_clip,
            "contrast": contrast,
            "distance": distance,
            "concept": concept,
        }

    @torch.no_grad()
    def look(step: int) -> None:
        encoder.eval()
        for name, rows in (("locked", held_out.locked), ("sliding", held_out.begun)):
            right, distances = [], []
            for index in rows.split(256):
                b = held_out.take(index)
                context, _, embeds = conditioner(encoder(b.eeg))
                distances.append((context - b.context).square().mean((1, 2)))
                right.append((embeds @ prototypes.T).argmax(1) == held_out.label[index])
            accuracy, distance = torch.cat(right).float().mean(), torch.cat(distances).mean()
            print(f"  step {step} {name} top-1 {accuracy:.3f} distance {distance:.3f}", flush=True)
        encoder.train()

    run_stage(out, {"both": both}, both.parameters(), loss_of_step, schedule, "both", look=look)
    look(schedule.steps)
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
    schedule = Schedule(a.steps, a.lr, weight_decay=0.05, save_every=500)
    train(a.epochs, a.validation, a.clip, a.encoder, a.out, schedule, start=a.start)


if __name__ == "__main__":
    main()
