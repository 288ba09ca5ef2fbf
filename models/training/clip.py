"""The scale model's CLIP: pictures and their captions in one space.

Stands where CLIP ViT-L/14 stands (Radford et al. 2021, arXiv 2103.00020): its text tokens
condition the text-to-image U-Net, its image embeddings are the target of L_clip.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPConfig, CLIPModel

from models.errors import PreparedSetError
from models.training.base import load_part, load_stage
from models.training.config import Schedule
from models.training.prepared import PreparedSet, Shards, images_to_tensor
from models.training.stage import Rows, processes, run_stage

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
        """Captions to token numbers (n, 16), padded with zeros.

        Raises
        ------
        PreparedSetError
            A caption is too long, or has a word that is not in the vocabulary.
        """
        out = torch.zeros(len(captions), MAX_WORDS, dtype=torch.long)
        for row, caption in zip(out, captions, strict=True):
            words = caption.split()
            if len(words) >= MAX_WORDS or not self._number.keys() >= set(words):
                raise PreparedSetError(
                    f"The caption '{caption}' is longer than {MAX_WORDS - 1} words, or has one "
                    "that CLIP was not trained with. Train CLIP on the pictures of this set."
                )
            numbers = [self._number[word] for word in words] + [self.end]
            row[: len(numbers)] = torch.tensor(numbers)
        return out


def build_clip(words: Words, pixels: int = 128) -> CLIPModel:
    """A CLIP of about two million parameters."""
    common = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4}
    text = {
        "vocab_size": words.end + 1,
        "num_hidden_layers": 2,
        "max_position_embeddings": MAX_WORDS,
        "bos_token_id": None,
        "eos_token_id": words.end,
        "pad_token_id": 0,
    }
    vision = {"num_hidden_layers": 4, "image_size": pixels, "patch_size": 16}
    return CLIPModel(
        CLIPConfig(
            text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=128
        )
    )


class ClipTask(nn.Module):
    """Learns which caption belongs to which picture of its part of a batch."""

    def __init__(self, clip: CLIPModel, images: Shards, tokens: torch.Tensor) -> None:
        super().__init__()
        self.clip, self._images, self._tokens = clip, images, tokens

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Pictures."""
        return {"index": torch.randint(len(self._images), (batch,), generator=generator)}

    def load(self, rows: Rows) -> Rows:
        """Pixels and captions."""
        index = rows["index"]
        return {
            "pixels": images_to_tensor(self._images.rows("images", index)),
            "tokens": self._tokens[index],
        }

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """Symmetric contrast."""
        tokens = rows["tokens"]
        output = self.clip(
            input_ids=tokens, attention_mask=(tokens > 0).long(), pixel_values=rows["pixels"]
        )
        logits = output.logits_per_image.float()
        target = torch.arange(len(logits), device=logits.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return {"loss": loss, "top1": (logits.argmax(1) == target).float().mean()}


def load_clip(folder: Path | str) -> tuple[CLIPModel, Words]:
    """CLIP and its words; `load_part` for the errors."""
    folder = Path(folder)
    remedy = "Give --clip the folder `clip` that `phosphene scale-model clip` wrote."
    clip: CLIPModel = load_stage(CLIPModel, folder, "CLIP", remedy)
    return clip, load_part("CLIP's words", folder, remedy, lambda: Words.load(folder))


def train(
    pictures: Path, out: Path, schedule: Schedule, say: Callable[[str], None] = print
) -> None:
    """Train CLIP and save it with its words to `out / "clip"`.

    Parameters
    ----------
    pictures : folder of a prepared set with pictures and captions.
    out : folder of the stage.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    data = PreparedSet(pictures)
    images, captions = data.pictures(), data.captions()
    words = Words.of(captions)
    torch.manual_seed(schedule.seed)
    clip = build_clip(words, images.shape("images")[0])
    task = ClipTask(clip, images, words(captions))
    run_stage(out, task, schedule, say, identity={"pictures": str(pictures)})
    if processes().is_main_process:
        save_clip(clip, words, out / "clip")
        say(f"{out / 'clip'} holds CLIP.")


def save_clip(clip: CLIPModel, words: Words, folder: Path) -> None:
    """Write CLIP, its words, and how pictures are handed to it."""
    clip.save_pretrained(folder)
    words.save(folder)
    side = clip.config.vision_config.image_size
    # The form that transformers reads.
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": False,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"height": side, "width": side},
    }
    text = json.dumps(preprocessor, indent=2)
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
