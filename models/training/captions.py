"""Pictures with what their captions tell a U-Net: contexts, alone or mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.errors import TrainingError
from models.training.clip import load_clip
from models.training.mixtures import Mixtures
from models.training.prepared import PreparedSet
from models.training.stage import Rows
from models.training.text_to_image import encode_captions

# Captions that CLIP reads at once.
PART = 512


class CaptionedPictures:
    """Pictures to be painted from their captions.

    Parameters
    ----------
    pictures : prepared set with pictures and captions.
    clip : folder of the small CLIP and its words.
    latents : of all pictures, (n_pictures, 4, h, w).
    mixed : share of pictures that are told by a mixture of captions.

    Raises
    ------
    PreparedSetError, TrainingError
    """

    def __init__(
        self, pictures: PreparedSet, clip: Path, latents: np.ndarray, mixed: float
    ) -> None:
        text, words = load_clip(clip)
        parts = words(pictures.captions()).split(PART)
        self._contexts = torch.cat([encode_captions(text, part).half() for part in parts])
        self._latents = latents
        self._mixtures = Mixtures(pictures.pictures()["label"], mixed)

    def check(self, n_context: int, dim: int) -> None:
        """See that a U-Net can be told so.

        Raises
        ------
        TrainingError
            It reads contexts of another shape.
        """
        if (found := self._contexts.shape[1:]) != (n_context, dim):
            raise TrainingError(
                f"Captions become contexts of {found[0]} x {found[1]}, and the bundle's U-Net is "
                f"told {n_context} x {dim}. Give --clip the CLIP that it learnt to paint with."
            )

    def draw(self, generator: torch.Generator, n: int) -> Rows:
        """Choose `n` pictures, and what their captions are mixed with."""
        index = torch.randint(len(self._latents), (n,), generator=generator)
        return {"picture": index, **self._mixtures.draw(generator, index)}

    def latents(self, rows: Rows) -> torch.Tensor:
        """Of the drawn pictures, (n, 4, h, w), float32."""
        return torch.from_numpy(self._latents[rows["picture"].numpy()]).float()

    def context(self, rows: Rows) -> torch.Tensor:
        """What their captions, mixed, tell, (n, n_context, dim), float32."""
        each = self._contexts[torch.cat([rows["picture"][:, None], rows["others"]], 1)].float()
        return (each * rows["shares"][:, :, None, None]).sum(1)
