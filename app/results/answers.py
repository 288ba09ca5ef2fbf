"""What a bundle says of many epochs: the concept that is shown, and what the judge sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from acquisition.stimuli import concepts
from models.concepts import ConceptTable
from models.errors import BundleError
from models.pipeline import EEGToImageOutput, EEGToImagePipeline, fixed_noise
from models.training.scorers import Classifier
from models.training.trials import Options

# Epochs that are encoded at once where nothing is painted.
ENCODED = 64


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Of n epochs.

    Attributes
    ----------
    concept : (n,), the concept that is shown beside the picture.
    confidence : (n,), that is shown with it.
    painted : (n,), what the judge sees in the picture.
    """

    concept: np.ndarray
    confidence: np.ndarray
    painted: np.ndarray

    def take(self, which: np.ndarray) -> Answers:
        """Those of the epochs `which` (n,) bool is true for."""
        return Answers(self.concept[which], self.confidence[which], self.painted[which])


def concept_table(pipeline: EEGToImagePipeline) -> ConceptTable:
    """The bundle's table of the simulated subject's concepts.

    Raises
    ------
    BundleError
        It has none, or one of other concepts.
    """
    table: ConceptTable | None = pipeline.concepts
    if table is None or list(table.config.names) != [c.name for c in concepts()]:
        raise BundleError(
            "The bundle does not name the simulated subject's concepts, so its live answers cannot "
            "be measured. Give one of the scale model."
        )
    return table


@torch.inference_mode()
def is_sure(pipeline: EEGToImagePipeline, data: np.ndarray) -> np.ndarray:
    """Whether sliding windows (n, n_channels, n_times) are answered: (n,) bool."""
    concept_table(pipeline)
    parts = torch.from_numpy(data).split(ENCODED)
    sure = [pipeline.encode(part, is_locked=False).is_sure.cpu() for part in parts]
    return np.asarray(torch.cat(sure))


@torch.inference_mode()
def outputs(
    pipeline: EEGToImagePipeline,
    data: np.ndarray,
    options: Options,
    what: str,
    is_locked: bool = True,
) -> Iterator[EEGToImageOutput]:
    """What the pipeline makes of epochs, a batch at a time, all from one noise; see `paint`."""
    noise, generator = fixed_noise(pipeline, options.seed)
    with tqdm(total=len(data), desc=what, unit="picture", disable=None) as progress:
        for part in torch.from_numpy(data).split(options.batch):
            output = pipeline(
                part,
                options.steps,
                options.guidance,
                [generator.clone_state() for _ in part],
                noise.expand(len(part), -1, -1, -1),
                output_type="pt",
                is_locked=is_locked,
            )
            # The page gets bytes.
            output.images = (torch.as_tensor(output.images) * 255).round() / 255
            yield output
            progress.update(len(part))


@torch.inference_mode()
def paint(
    pipeline: EEGToImagePipeline,
    judge: Classifier,
    data: np.ndarray,
    options: Options,
    what: str,
    is_locked: bool = True,
) -> Answers:
    """Paint epochs as live use does, all from the same noise, and let the judge look at them.

    Parameters
    ----------
    judge : whose classes are the concepts.
    data : (n, n_channels, n_times).
    options : steps, guidance, batch and seed.
    what : the epochs are, for the bar of progress.
    is_locked : whether they are, to the onset of what was seen.

    Raises
    ------
    EpochShapeError
        The epochs are not what the bundle was made for.
    """
    named, painted = [], []
    for output in outputs(pipeline, data, options, what, is_locked):
        named.append(torch.as_tensor(output.concept_probabilities).cpu())
        painted.append(judge(torch.as_tensor(output.images)).argmax(1).cpu())
    best = torch.cat(named).max(1)
    return Answers(best.indices.numpy(), best.values.numpy(), torch.cat(painted).numpy())
