"""The same painter, told nothing but a class: what a classifier and a painter would show.

The conditioning of a class is the mean of those that our encoder gives for training epochs of
the class, so a picture holds what the class tells and nothing else of the trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from models.errors import PreparedSetError
from models.pipeline import EEGToImagePipeline, fixed_noise
from models.training.prepared import Shards
from models.training.seen import SeenEpochs
from models.training.trials import Options

# Epochs that are encoded at once.
BATCH = 256


@dataclass(frozen=True, slots=True, eq=False)
class ClassContexts:
    """What the painter is told of each class.

    Attributes
    ----------
    context : (n_classes, n_tokens, dim).
    time_embedding : (n_classes, dim).
    """

    context: torch.Tensor
    time_embedding: torch.Tensor


def class_contexts(pipeline: EEGToImagePipeline, seen: SeenEpochs) -> ClassContexts:
    """Mean conditioning of the epochs of each class.

    Parameters
    ----------
    seen : training epochs, with labels from 0 upwards.

    Raises
    ------
    PreparedSetError
        A class has no epoch.
    """
    count = seen.label.bincount()
    if missing := (count == 0).nonzero()[:, 0].tolist():
        raise PreparedSetError(
            f"The training epochs hold none of label {missing[0]}, so nothing says how to paint "
            "it. Give a prepared set with epochs of every label."
        )
    sums: list[torch.Tensor] = []
    for places in torch.arange(len(seen)).split(BATCH):
        found = [x.double().cpu() for x in pipeline.encode(seen.eeg(places))[:2]]
        if not sums:
            sums = [torch.zeros(len(count), *x.shape[1:], dtype=torch.float64) for x in found]
        for total, x in zip(sums, found, strict=True):
            total.index_add_(0, seen.label[places], x)
    context, time_embedding = sums
    return ClassContexts(context / count[:, None, None], time_embedding / count[:, None])


@torch.inference_mode()
def paint_by_class(
    pipeline: EEGToImagePipeline,
    labels: np.ndarray,
    contexts: ClassContexts,
    folder: Path,
    options: Options,
) -> tuple[Shards, np.ndarray]:
    """Paint what each trial was taken for; every class once for each sample.

    Parameters
    ----------
    labels : (n,), a class for each trial.
    folder : takes the pictures; must not exist.
    options : of the sampler, and whose samples and seed give the noise, the same as of pictures
        that are painted from the EEG.

    Returns
    -------
    the pictures, and (samples, n), which of them stands for each trial.

    Raises
    ------
    PreparedSetError
        A trial was taken for a class that training had no epoch of.
    """
    if labels.max() >= len(contexts.context):
        raise PreparedSetError(
            f"A trial was taken for label {labels.max()}, of which the training epochs hold none, "
            "so nothing says how to paint it. Give a prepared set with epochs of every label."
        )
    folder.mkdir(parents=True)
    classes, place = np.unique(labels, return_inverse=True)
    device, dtype = pipeline.unet.device, pipeline.unet.dtype
    pictures = []
    for sample in range(options.samples):
        noise, generator = fixed_noise(pipeline, options.seed + sample)
        for part in torch.from_numpy(classes).split(options.batch):
            latents = pipeline.denoise(
                contexts.context[part].to(device, dtype),
                contexts.time_embedding[part].to(device, dtype),
                noise.expand(len(part), -1, -1, -1).to(device, dtype),
                options.steps,
                options.guidance,
                [generator.clone_state() for _ in part],
            )
            painted = (pipeline.decode(latents) * 255).round().byte()
            pictures.append(painted.permute(0, 2, 3, 1).cpu())
    images = torch.cat(pictures).contiguous()
    save_file({"images": images}, folder / "pictures-00000.safetensors")
    rows = np.arange(options.samples)[:, None] * len(classes) + place
    return Shards(folder, "pictures"), rows
