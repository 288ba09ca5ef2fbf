"""Alignment to epochs that are drawn while it learns."""

from __future__ import annotations

import numpy as np
import torch

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.training.align import AlignTask
from models.training.gaussian_epochs import GaussianEpochs
from models.training.stage import Rows
from models.training.viewed import ViewedSet


class DrawnAlignTask(AlignTask):
    """Alignment to epochs that a Gaussian model draws anew at every step: none comes twice.

    Parameters
    ----------
    encoder, conditioner : that learn.
    data : whose picture of a number is that of the label of the same number.
    model : of the training trials.
    """

    def __init__(
        self,
        encoder: EEGEncoder,
        conditioner: EEGConditioner,
        data: ViewedSet,
        model: GaussianEpochs,
    ) -> None:
        # Drawn epochs vary enough, and of five electrodes none may be silenced.
        # With a handful of pictures the other losses drown the concept's: of two classes, a
        # shared encoder learnt to read neither.
        super().__init__(
            encoder,
            conditioner,
            data,
            len(model.mean),
            strength=0.0,
            clip_weight=1.0,
            is_shared=False,
        )
        scale = model.scale.reshape(-1)
        root = np.linalg.cholesky(model.covariance)
        self._shape = model.scale.shape
        self._mean = torch.from_numpy(model.mean * scale).float()
        self._root = torch.from_numpy(root * scale[:, None]).float()

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Labels, and the noise that their epochs are made with."""
        return {
            "label": torch.randint(len(self._mean), (batch,), generator=generator),
            "noise": torch.randn(batch, len(self._root), generator=generator),
        }

    def load(self, rows: Rows) -> Rows:
        """EEG and its targets; a label is also the number of its picture."""
        label = rows["label"]
        eeg = self._mean[label] + rows["noise"] @ self._root.T
        return {
            "eeg": eeg.view(len(label), *self._shape),
            "image_embeds": self._data.image_embeds[label],
            "context": self._data.context[label],
            "is_seen": torch.ones_like(label, dtype=torch.bool),
            "label": label,
        }
