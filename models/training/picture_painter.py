"""A painter of given pictures on the image route, which people are calibrated with.

No EEG is needed for it, and it reads none: what a person's reader names (`models.template_reader`)
is painted by the mean CLIP embedding of the pictures of that class, through a frozen IP-Adapter
(Ye et al. 2023, arXiv 2308.06721). So Stable Diffusion's weights are everybody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from models.concepts import ConceptTable
from models.pipeline import EEGToImagePipeline, load_bundle
from models.template_reader import TemplateReader
from models.training.base import load_base
from models.training.bundle import Sampler, sampled_from_noise
from models.training.config import FinetuneConfig
from models.training.finetune import build_conditioner
from models.training.image_route import few_step_sampler, open_adapter
from models.training.scorers import open_encoder

# Log odds that anything was seen, for a reader that has learnt nothing.
NEVER_SURE = -1.0
PART = 16


@torch.no_grad()
def picture_painter(
    pictures: torch.Tensor, label: torch.Tensor, names: Sequence[str], config: FinetuneConfig
) -> tuple[EEGToImagePipeline, Sampler]:
    """Base, adapter and what tells them how to paint each class.

    Parameters
    ----------
    pictures : (n, 3, H, W), in 0 to 1.
    label : (n,), classes of the pictures, all of `names`.
    config : `base`, `adapter` and `clip` are loaded, and the encoder of the bundle `encoder`;
        `sampler_steps` and `guidance` are noted.

    Raises
    ------
    TrainingError, ScorerError, BundleError
        A part cannot be loaded, or does not go with another.
    """
    encode = open_encoder(config.clip, torch.device("cpu"))
    embeds = torch.cat([encode(part) for part in pictures.split(PART)])
    base = load_base(config.base)
    adapter = open_adapter(config, base, embeds.shape[1], lambda: embeds)
    scheduler, sampler = few_step_sampler(config) or (
        sampled_from_noise(base.scheduler),
        Sampler(config.sampler_steps, config.guidance),
    )
    encoder = load_bundle(Path(config.encoder)).eeg_encoder.float()
    conditioner = build_conditioner(encoder, base.unet, embeds.shape[1], config)
    table: ConceptTable = ConceptTable(list(names), embeds.shape[1])
    unit = F.normalize(embeds, dim=1)
    for number in range(len(names)):
        table.prototypes.data[number] = F.normalize(unit[label == number].mean(0), dim=0)
    # The encoder does not know this CLIP: it says nothing.
    conditioner.mapping.requires_grad_(False)
    for parameter in conditioner.mapping.parameters():
        parameter.zero_()
    table.seen.bias.data.fill_(NEVER_SURE)
    c = encoder.config
    reader: TemplateReader = TemplateReader(
        c.in_channels, c.n_times, n_concepts=len(names), n_lags=1, rank=1, n_context=1,
        cross_attention_dim=embeds.shape[1],
    )  # fmt: skip
    torch.nn.init.zeros_(reader.locked.weight)
    torch.nn.init.zeros_(reader.locked.bias)
    reader.contexts.data = table.prototypes.data[:, None].clone()
    reader.seen.data[:, 2] = NEVER_SURE
    pipeline = EEGToImagePipeline(
        vae=base.vae,
        unet=base.unet,
        scheduler=scheduler,
        eeg_encoder=encoder,
        conditioner=conditioner,
        concepts=table,
        image_adapter=adapter,
        reader=reader,
    )
    return pipeline, sampler
