"""IP-Adapters by name: the published ones of Stable Diffusion 1.5, and our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils.hub import cached_file

from models.errors import TrainingError
from models.ip_adapter import ImageAdapter
from models.training.base import load_part, load_stage

# In h94/IP-Adapter on the Hub. Those called "plus" or "full-face" read more of CLIP than an
# embedding, which EEG does not give.
FILE, SUBFOLDER = "ip-adapter_sd15.safetensors", "models"
REMEDY = (
    f"Give --adapter a folder that `phosphene scale-model ip-adapter` wrote, or one with "
    f"{SUBFOLDER}/{FILE} as h94/IP-Adapter, a folder or its name on the Hugging Face Hub."
)


def convert(tensors: dict[str, torch.Tensor], empty_prompt: torch.Tensor) -> ImageAdapter:
    """The published form of an adapter to ours.

    Parameters
    ----------
    tensors : `image_proj.*`, and `ip_adapter.<n>.*` of the cross-attentions, whose numbers rise.
    empty_prompt : (1, n_text, dim), by the text encoder that the U-Net was trained with.

    Raises
    ------
    KeyError, RuntimeError
        It is of another kind.
    """
    weight, norm = tensors["image_proj.proj.weight"], tensors["image_proj.norm.weight"]
    numbers = sorted({int(key.split(".")[1]) for key in tensors if key.startswith("ip_adapter.")})
    renamed = {
        "projection.image_embeds.weight": weight,
        "projection.image_embeds.bias": tensors["image_proj.proj.bias"],
        "projection.norm.weight": norm,
        "projection.norm.bias": tensors["image_proj.norm.bias"],
        "empty_prompt": empty_prompt,
    }
    for i, number in enumerate(numbers):
        for name in ("to_k_ip", "to_v_ip"):
            renamed[f"layers.{i}.{name}.0.weight"] = tensors[f"ip_adapter.{number}.{name}.weight"]
    n_tokens = len(weight) // len(norm)
    sizes = [len(tensors[f"ip_adapter.{number}.to_k_ip.weight"]) for number in numbers]
    adapter: ImageAdapter = ImageAdapter(
        sizes, weight.shape[1], len(norm), n_tokens, empty_prompt.shape[1]
    )
    adapter.load_state_dict(renamed)
    return adapter


@torch.no_grad()
def encode_empty_prompt(base: str) -> torch.Tensor:
    """The text tokens (1, n_text, dim) of "", by the text encoder of a base model."""

    def encode() -> Any:
        tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
        encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder").float()
        length = encoder.config.max_position_embeddings
        ids = tokenizer("", padding="max_length", max_length=length, return_tensors="pt").input_ids
        return encoder(ids).last_hidden_state

    remedy = "Give --base a whole Stable Diffusion 1.5, with tokenizer and text_encoder."
    tokens: torch.Tensor = load_part("The text encoder", base, remedy, encode)
    return tokens


def is_published(name: str) -> bool:
    """Whether a name is not that of a folder with an adapter of our own form."""
    return not (Path(name) / "config.json").is_file()


def load_adapter(name: str, base: str, unet: UNet2DConditionModel) -> ImageAdapter:
    """An adapter by its folder or its name on the Hub, installed in a U-Net.

    Parameters
    ----------
    base : the base model of the U-Net, which tells the empty prompt of a published adapter.

    Raises
    ------
    TrainingError
        It is missing, damaged, of another kind or for another U-Net; says what to give.
    """
    if not is_published(name):
        adapter: ImageAdapter = load_stage(ImageAdapter, name, "The adapter", REMEDY)
    else:
        path = load_part(
            "The adapter", name, REMEDY, lambda: cached_file(name, FILE, subfolder=SUBFOLDER)
        )
        empty_prompt = encode_empty_prompt(base)
        adapter = load_part(
            "The adapter",
            path,
            REMEDY,
            lambda: convert({k: v.float() for k, v in load_file(path).items()}, empty_prompt),
        )
    try:
        adapter.install(unet)
    except ValueError as error:
        raise TrainingError(
            f"The adapter {name} does not fit --base {base}: {error}. Give those that were made "
            "for each other."
        ) from error
    return adapter
