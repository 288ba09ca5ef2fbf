"""The scale model's CLIP: pictures and their captions in one space.

    python -m models.training.clip runs/pictures runs/clip

Stands where CLIP ViT-L/14 stands (Radford et al. 2021, arXiv 2103.00020): its text tokens
condition the text-to-image U-Net, its image embeddings are the target of L_clip.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel

from models.training.prepared import PreparedSet, images_to_tensor
from models.training.stage import Schedule, run_stage

MAX_WORDS = 16


class Words:
    """A tokenizer for captions: one token for a word, `end` behind the last.

    Parameters
    ----------
    words : the vocabulary without the two special tokens.
    """

    def __init__(self, words: list[str]) -> None:
        self.words = words
        # Not 2: transformers' CLIP takes an end token of 2 for an old, wrong configuration.
        self.end = len(words) + 1
        self._number = {word: number for number, word in enumerate(words, start=1)}

    @classmethod
    def of(cls, captions: list[str]) -> Words:
        return cls(sorted({word for caption in captions for word in caption.split()}))

    @classmethod
    def load(cls, folder: Path) -> Words:
        return cls(json.loads((folder / "words.json").read_text(encoding="utf-8")))

    def save(self, folder: Path) -> None:
        (folder / "words.json").write_text(json.dumps(self.words), encoding="utf-8")

    def __call__(self, captions: list[str]) -> torch.Tensor:
        """Captions to token numbers (n, 16), padded with zeros."""
        out = torch.zeros(len(captions), MAX_WORDS, dtype=torch.long)
        for row, caption in zip(out, captions, strict=True):
            numbers = [self._number[word] for word in caption.split()] + [self.end]
            row[: len(numbers)] = torch.tensor(numbers)
        return out


def build_clip(words: Words, pixels: int = 128) -> CLIPModel:
    """A CLIP of about two million parameters."""
    common = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4}
    text = {
        "vocab_size": words.end + 1,
        "num_hidden_layers": 2,
        "max_position_embeddings": MAX_WORDS,
        "eos_token_id": words.end,
        "pad_token_id": 0,
    }
    vision = {"num_hidden_layers": 4, "image_size": pixels, "patch_size": 16}
    return CLIPModel(
        CLIPConfig(
            text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=128
        )
    )


def train(pictures: Path, out: Path, schedule: Schedule, batch: int = 128) -> None:
    """Train CLIP and save it with its words to `out / "clip"`."""
    data = PreparedSet(pictures)
    images, captions = data.pictures(), data.captions()
    words = Words.of(captions)
    tokens = words(captions)
    torch.manual_seed(schedule.seed)
    clip = build_clip(words, pixels=images.columns["images"][0].shape[1])

    def loss_of_step(_step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        index = torch.randint(len(images), (batch,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            output = clip(
                input_ids=tokens[index],
                attention_mask=(tokens[index] > 0).long(),
                pixel_values=images_to_tensor(images.rows("images", index)),
            )
        logits = output.logits_per_image.float()
        target = torch.arange(batch)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return {"loss": loss, "top1": (logits.argmax(1) == target).float().mean()}

    run_stage(out, {"clip": clip}, clip.parameters(), loss_of_step, schedule, averaged="clip")
    clip.save_pretrained(out / "clip")
    words.save(out / "clip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.pictures, arguments.out, Schedule(arguments.steps, arguments.lr))


if __name__ == "__main__":
    main()
