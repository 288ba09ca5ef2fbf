"""Consistency: from any point of a teacher's way from noise to a picture, the same picture.

Latent consistency distillation (Luo et al. 2023, arXiv 2310.04378). The student's answer is
drawn to that of its own moving average a step of DDIM further on, and at the end of the way
the answer is the point itself. The teacher's guidance is learnt in, so that a picture takes one
evaluation of the U-Net a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import LCMScheduler
from torch import nn
from torch.func import functional_call

from models.conditioner import EEGConditioner
from models.guidance import guide
from models.ip_adapter import ImageAdapter, condition, empty_context
from models.noise_schedule import ConsistencyFunction
from models.training.augment import augment, draw_augmentation
from models.training.captions import CaptionedPictures
from models.training.seen import SeenEpochs
from models.training.stage import Rows

# Below this the loss is a squared error, above it an absolute one.
HUBER = 1e-3

Condition = tuple[torch.Tensor, torch.Tensor]
"""Context (n, n_context, dim) and time embedding (n, dim)."""


def pseudo_huber(error: torch.Tensor, c: float = HUBER) -> torch.Tensor:
    """Mean of sqrt(error^2 + c^2) - c (Song and Dhariwal 2023, arXiv 2310.14189)."""
    return ((error.square() + c**2).sqrt() - c).mean()


class DistillTask(nn.Module):
    """Learns to be consistent along the teacher's way.

    Parameters
    ----------
    unet : that learns, all of it; it begins as `teacher`, a copy.
    teacher : U-Net that paints with `guidance`.
    encoder, conditioner : of the bundle; they stay as they are.
    scheduler : LCM's; its `original_inference_steps` are the teacher's.
    guidance : of the teacher; 1 is none.
    seen : the training epochs.
    latents : of all pictures of the set, (n_pictures, 4, h, w).
    strength : of augmentation.
    fixed : noise (1, 4, h, w) that the painter begins from, whatever the epoch.
    fixed_share : of the rows that have it in place of noise of their own.
    adapter : of a bundle that paints by it; see `models.ip_adapter`.
    captioned : pictures that are told by their captions in place of EEG, or None.
    captions_share : of the rows that are.
    """

    def __init__(
        self,
        unet: nn.Module,
        teacher: nn.Module,
        encoder: nn.Module,
        conditioner: EEGConditioner,
        scheduler: LCMScheduler,
        guidance: float,
        seen: SeenEpochs,
        latents: np.ndarray,
        strength: float = 0.0,
        fixed: torch.Tensor | None = None,
        fixed_share: float = 0.0,
        adapter: ImageAdapter | None = None,
        captioned: CaptionedPictures | None = None,
        captions_share: float = 0.0,
    ) -> None:
        super().__init__()
        self.unet, self.consistency = unet.requires_grad_(True), ConsistencyFunction(scheduler)
        self.teacher = teacher.requires_grad_(False)
        self.encoder = encoder.requires_grad_(False)
        self.conditioner = conditioner.requires_grad_(False)
        self.adapter = None if adapter is None else adapter.requires_grad_(False)
        self._guidance, self._scheduler = guidance, scheduler
        self._seen, self._latents, self._strength = seen, latents, strength
        self._fixed, self._fixed_share = fixed, fixed_share
        self._captioned, self._captions_share = captioned, captions_share
        self._averaged: dict[str, torch.Tensor] = {}

    def follow(self, averaged: dict[str, torch.Tensor]) -> None:
        """Take the moving average of the U-Net's parameters, to agree with."""
        self._averaged = {name.removeprefix("unet."): value for name, value in averaged.items()}

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Epochs, noise, places on the way, and the EEG's variation."""
        rows = {
            "chosen": self._seen.draw(generator, batch),
            "noise": torch.randn(batch, *self._latents.shape[1:], generator=generator),
            "place": torch.randint(len(self.consistency.timesteps), (batch,), generator=generator),
        }
        if self._fixed is not None:
            is_fixed = torch.rand(batch, 1, 1, 1, generator=generator) < self._fixed_share
            rows["noise"] = torch.where(is_fixed, self._fixed, rows["noise"])
        if self._strength:
            n_channels = self._seen.epochs.shape("eeg")[0]
            rows |= draw_augmentation(generator, batch, n_channels, self._strength)
        if self._captioned is not None:
            rows |= self._captioned.draw(generator, batch)
            rows["is_caption"] = torch.rand(batch, generator=generator) < self._captions_share
        return rows

    def load(self, rows: Rows) -> Rows:
        """EEG, latents, and what captions tell."""
        eeg = self._seen.eeg(rows["chosen"])
        if self._strength:
            eeg = augment(eeg, rows, self._strength)
        image_id = self._seen.image_id[rows["chosen"]].numpy()
        latents = torch.from_numpy(self._latents[image_id]).float()
        out = {"eeg": eeg, "noise": rows["noise"], "place": rows["place"]}
        if self._captioned is not None:
            is_caption = rows["is_caption"]
            of_captions = self._captioned.latents(rows)
            latents = torch.where(is_caption[:, None, None, None], of_captions, latents)
            out |= {"is_caption": is_caption, "captions": self._captioned.context(rows)}
        return out | {"latents": latents}

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """How far the student's answer is from the average's, a step further on."""
        with torch.no_grad():
            tokens = self.encoder(rows["eeg"])
            context, time_embedding, _ = condition(self.conditioner, self.adapter, tokens)
            if "captions" in rows:
                is_caption = rows["is_caption"][:, None, None]
                context = torch.where(is_caption, rows["captions"].to(context), context)
                time_embedding = self.conditioner.time_embedding(context)
        told = (context, time_embedding)
        t = self.consistency.timesteps[rows["place"]]
        noisy = self.consistency.noisy(rows["latents"], rows["noise"], t)
        # With gradients first: autocast keeps the copies of weights that it makes.
        answer = self.answer(self.unet, noisy, t, told)
        with torch.no_grad():
            further = (t - self.consistency.stride).clamp(min=0)
            on_the_way = self.step(noisy, t, further, told)
            target = self.answer(self._target, on_the_way, further, told)
        return {"loss": pseudo_huber(answer - target)}

    def _target(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        own = {name: p.detach() for name, p in self.unet.named_parameters()}
        return functional_call(self.unet, self._averaged or own, args, kwargs)

    def answer(
        self,
        unet: Any,
        noisy: torch.Tensor,
        t: torch.Tensor,
        told: Condition,
    ) -> torch.Tensor:
        """The consistency function: `noisy` (n, 4, h, w) at `t` (n,) to its picture's latents."""
        predicted = _ask(unet, noisy, t, told)
        out: torch.Tensor = self.consistency(noisy, predicted, t)
        return out

    def step(
        self,
        noisy: torch.Tensor,
        t: torch.Tensor,
        further: torch.Tensor,
        told: Condition,
    ) -> torch.Tensor:
        """A guided step of DDIM (Song et al. 2020, arXiv 2010.02502) from `t` to `further`."""
        predicted = _ask(self.teacher, noisy, t, told)
        if self._guidance > 1:
            context, time_embedding = told
            nothing = empty_context(self.adapter, context), torch.zeros_like(time_embedding)
            empty = _ask(self.teacher, noisy, t, nothing)
            predicted = guide(empty, predicted, self._guidance, self._scheduler)
        return self.consistency.noisy(*self.consistency.parts(noisy, predicted, t), further)


def _ask(
    unet: Any,
    noisy: torch.Tensor,
    t: torch.Tensor,
    told: Condition,
) -> torch.Tensor:
    context, time_embedding = told
    predicted: torch.Tensor = unet(noisy, t, context, class_labels=time_embedding).sample
    return predicted.float()
