r"""Put trained parts together into a bundle.

    python -m models.training.assemble runs/vae/vae runs/finetune runs/eeg runs/eeg-val \
        runs/clip/clip weights/scale-model

Weights are written in fp16. The concepts' temperature is fitted on the validation session's
marker-locked epochs, so that the confidence shown is the share of right answers there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DConditionModel

from models.concepts import ConceptTable
from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.pipeline import EEGToImagePipeline
from models.training.prepared import PreparedSet
from models.training.text_to_image import build_scheduler
from models.training.viewed import ViewedSet

# Share of windows without a picture that may be taken for an answer.
FALSE_ANSWERS = 0.1


def fit_concepts(
    names: list[str],
    data: ViewedSet,
    held_out: ViewedSet,
    encoder: EEGEncoder,
    conditioner: EEGConditioner,
) -> ConceptTable:
    """Prototypes from the training pictures, temperature and threshold from held-out EEG."""
    prototypes = data.prototypes(len(names))
    with torch.inference_mode():
        embeds = torch.cat(
            [
                conditioner(encoder(held_out.take(index).eeg))[2]
                for index in torch.arange(len(held_out.label)).split(256)
            ]
        )
    cosine = F.normalize(embeds, dim=1) @ prototypes.T
    locked, blank = held_out.locked, held_out.blank
    temperatures = torch.logspace(-2.5, 0, 60)
    losses = [F.cross_entropy(cosine[locked] / t, held_out.label[locked]) for t in temperatures]
    temperature = float(temperatures[torch.stack(losses).argmin()])
    best = (cosine / temperature).softmax(1).max(1).values
    sure_from = float(best[blank].quantile(1 - FALSE_ANSWERS))
    right = cosine.argmax(1) == held_out.label
    print(f"temperature {temperature:.4f}, sure from {sure_from:.3f}")
    for name, rows in (("marker-locked", locked), ("sliding, with the onset", held_out.begun)):
        sure = best[rows] >= sure_from
        print(
            f"{name}: {right[rows].float().mean():.1%} right, {sure.float().mean():.1%} answered, "
            f"{right[rows][sure].float().mean():.1%} of these right"
        )
    table: ConceptTable = ConceptTable(names, prototypes.shape[1], temperature, sure_from)
    table.prototypes.data = prototypes
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("vae", "finetuned", "epochs", "validation", "clip", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=10, help="of the sampler, in painter.json")
    parser.add_argument("--guidance", type=float, default=1.0)
    a = parser.parse_args()
    encoder = EEGEncoder.from_pretrained(a.finetuned / "eeg_encoder")
    conditioner = EEGConditioner.from_pretrained(a.finetuned / "conditioner")
    spec = PreparedSet(a.epochs).spec
    concepts = fit_concepts(
        spec["concepts"],
        ViewedSet(a.epochs, a.clip),
        ViewedSet(a.validation, a.clip),
        encoder,
        conditioner,
    )
    pipeline = EEGToImagePipeline(
        vae=AutoencoderTiny.from_pretrained(a.vae),
        unet=UNet2DConditionModel.from_pretrained(a.finetuned / "unet"),
        scheduler=build_scheduler(),
        eeg_encoder=encoder,
        conditioner=conditioner,
        concepts=concepts,
    )
    pipeline.to(torch.float16).save_pretrained(a.out)
    epoch_spec = json.dumps(spec["epoch_spec"], indent=2)
    (a.out / "epoch_spec.json").write_text(epoch_spec + "\n", encoding="utf-8")
    painter = {"num_inference_steps": a.steps, "guidance_scale": a.guidance}
    (a.out / "painter.json").write_text(json.dumps(painter) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
