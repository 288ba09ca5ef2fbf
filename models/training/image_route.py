"""The light route: EEG to CLIP's space alone, where a frozen IP-Adapter paints from.

As ATM (Li et al. 2024, arXiv 2403.07721) and ENIGMA do. Nothing is learnt of painting, so that
minutes are enough, and everybody's bundle has the same painter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDPMScheduler, LCMScheduler

from models.conditioner import EEGConditioner
from models.errors import TrainingError
from models.ip_adapter import ImageAdapter
from models.training.base import Base
from models.training.bundle import Sampler
from models.training.config import FinetuneConfig
from models.training.prepared import PreparedSet
from models.training.published_adapter import is_published, load_adapter
from models.training.scorers import open_encoder
from models.training.seen import unit_pictures
from models.training.stage import processes

# Pictures that the length of CLIP's embeddings is measured of.
MEASURED = 64


def open_adapter(
    config: FinetuneConfig, base: Base, clip_dim: int, embeds: Callable[[], torch.Tensor]
) -> ImageAdapter:
    """The adapter of a configuration, installed in the base's U-Net and frozen with it.

    A published one does not say how long the embeddings were that it was trained on: as CLIP's of
    pictures are.

    Parameters
    ----------
    clip_dim : of CLIP's embeddings.
    embeds : gives those of some pictures, (n, clip_dim).

    Raises
    ------
    TrainingError
        It cannot be loaded, or does not go with --base or --clip.
    """
    adapter = load_adapter(config.adapter, config.base, base.unet)
    base.unet.requires_grad_(False)
    adapter.requires_grad_(False)
    if adapter.config.clip_dim != clip_dim:
        raise TrainingError(
            f"The adapter {config.adapter} reads embeddings of {adapter.config.clip_dim} values, "
            f"and {config.clip} gives {clip_dim}. Give --clip the CLIP that it was trained with, "
            "as laion/CLIP-ViT-H-14-laion2B-s32B-b79K for h94/IP-Adapter."
        )
    if is_published(config.adapter):
        adapter.register_to_config(embed_norm=float(embeds().norm(dim=1).mean()))
    return adapter


@torch.no_grad()
def some_embeds(clip: str, data: PreparedSet) -> torch.Tensor:
    """CLIP's embeddings (n, clip_dim) of some of a set's pictures."""
    pictures = data.pictures()
    encode = open_encoder(clip, processes().device)
    some = torch.arange(min(MEASURED, len(pictures))).split(16)
    return torch.cat([encode(unit_pictures(pictures, part)) for part in some])


def learn_embedding(conditioner: EEGConditioner) -> None:
    """Let a conditioner learn what the CLIP embedding is made by, and nothing else."""
    reads_context = conditioner.config.clip_from == "context"
    conditioner.mapping.requires_grad_(True)
    conditioner.time_mapper.requires_grad_(False)
    for part in (conditioner.channel_mapper, conditioner.dim_mapper):
        part.requires_grad_(reads_context)


def few_step_sampler(config: FinetuneConfig) -> tuple[LCMScheduler, Sampler] | None:
    """Scheduler and sampler of a base that was distilled, which stay as they are; else None.

    Raises
    ------
    TrainingError
        L_SD is asked for, which a distilled painter does not have.
    """
    schedule = DDPMScheduler.load_config(config.base, subfolder="scheduler")
    if schedule["_class_name"] != LCMScheduler.__name__:
        return None
    if config.painter_weight:
        raise TrainingError(
            f"{config.base} paints in few steps, and has no L_SD to learn from. Give 0 as "
            "--painter-weight, or the --base that it was distilled from."
        )
    path = Path(config.base) / "painter.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return LCMScheduler.from_config(schedule), Sampler(told.get("num_inference_steps", 4))
