"""Pictures of captions: what the text-to-image model can paint when it is told rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel

from models.errors import TrainingError
from models.training.base import load_part, load_stage
from models.training.clip import load_clip
from models.training.text_to_image import encode_captions, sample

REMEDY = "Give a folder with unet, vae and scheduler, as that of a base model or a bundle."

# Of a text-to-image model; chosen by captions of the sessions 50 and 51.
STEPS, GUIDANCE = 8, 2.0


class CaptionPainter:
    """A text-to-image model of the scale model's kind.

    Parameters
    ----------
    folder : with `unet`, `vae` and `scheduler`.
    clip : folder of the CLIP whose text encoder conditions the U-Net.

    Raises
    ------
    TrainingError
        A folder does not hold what it should, or they do not go together.
    """

    def __init__(self, folder: Path, clip: Path, device: torch.device | None = None) -> None:
        device = device or torch.device("cpu")
        self._unet = load_stage(UNet2DConditionModel, folder / "unet", "The U-Net", REMEDY)
        self._vae = load_stage(AutoencoderTiny, folder / "vae", "The VAE", REMEDY).to(device)
        self._unet.to(device)
        self._scheduler = load_part(
            "The noise schedule",
            folder / "scheduler",
            REMEDY,
            lambda: DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        )
        self._clip, self._words = load_clip(clip)
        told, wanted = (
            self._clip.config.text_config.hidden_size,
            self._unet.config.cross_attention_dim,
        )
        if told != wanted:
            raise TrainingError(
                f"CLIP's text tokens have {told} values, and the U-Net of {folder} reads {wanted}. "
                "Give a CLIP and a U-Net that were trained together."
            )

    def encode(self, captions: list[str]) -> torch.Tensor:
        """Captions to contexts (n, tokens, dim)."""
        return encode_captions(self._clip, self._words(captions))

    def paint(
        self, context: torch.Tensor, steps: int, guidance_scale: float, seed: int
    ) -> np.ndarray:
        """Pictures (n, H, W, 3) uint8 of contexts (n, tokens, dim), each from its own noise."""
        empty = context.new_zeros(len(context), 4 * self._unet.config.block_out_channels[0])
        return sample(
            self._unet, self._vae, context, empty, steps, guidance_scale, seed, self._scheduler
        )
