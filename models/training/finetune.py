"""Fine-tuning: L = L_SD + lambda L_clip, of the EEG encoder and the cross-attention.

DreamDiffusion's second stage (arXiv 2306.16934, sections 3.2 and 3.3). The VAE, the rest of
the U-Net and CLIP's image encoder stay as they are; what they make of the pictures is
computed once and kept beside the checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import nn

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.errors import SplitError
from models.ip_adapter import ImageAdapter, condition, empty_context
from models.losses import clip_loss, contrast_loss
from models.training.align import HEAD
from models.training.augment import augment, draw_augmentation
from models.training.base import Base, embed_pictures, encode_set, load_base
from models.training.bundle import (
    Sampler,
    concept_names,
    fit_concepts,
    picture_prototypes,
    save_bundle,
)
from models.training.config import FinetuneConfig, SplitBy
from models.training.confounding import confounding
from models.training.denoising import Denoising
from models.training.image_route import (
    few_step_sampler,
    learn_embedding,
    open_adapter,
    some_embeds,
)
from models.training.prepared import PreparedSet
from models.training.presets import build_encoder
from models.training.pretrained import read_conditioner, read_encoder
from models.training.seen import SeenEpochs
from models.training.splits import By, Split, split_rows
from models.training.stage import Rows, processes, run_stage

# Epochs of held-out data that are scored at each checkpoint.
HELD_OUT = 256
# What "auto" splits by: the first that can be.
AUTO: tuple[By, ...] = ("split", "session", "run", "block")


def attention_parameters(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """The U-Net's cross-attention and the norm before each, by name.

    The authors choose by substrings ("attn2", "norm2"), which also match norms of the VAE,
    of their EEG encoder and of CLIP's image encoder; these here are the U-Net's alone.
    """
    return {
        name: p
        for name, p in unet.named_parameters()
        if ".transformer_blocks." in name and (".attn2." in name or ".norm2." in name)
    }


class FinetuneTask(nn.Module):
    """L_SD + lambda L_clip on epochs with the pictures that were seen.

    Parameters
    ----------
    encoder, conditioner, unet : see `models.pipeline`; requires_grad is set here.
    scheduler : of the noise.
    seen : the training epochs.
    latents, image_embeds : of all pictures of the set, from the frozen VAE and E_I.
    config : of fine-tuning.
    adapter : that is installed in the U-Net, with --route image.
    """

    def __init__(
        self,
        encoder: EEGEncoder,
        conditioner: EEGConditioner,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        seen: SeenEpochs,
        latents: np.ndarray,
        image_embeds: np.ndarray,
        config: FinetuneConfig,
        adapter: ImageAdapter | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.conditioner, self.unet = encoder, conditioner, unet
        self.adapter = adapter
        self._seen, self._latents, self._image_embeds = seen, latents, image_embeds
        self._config = config
        self.denoising = Denoising(scheduler, config.min_snr)
        unet.requires_grad_(False)
        encoder.requires_grad_(config.trained != "attention")
        for parameter in attention_parameters(unet).values():
            parameter.requires_grad_(config.trained != "encoder")
        # h learns from L_clip alone: without it, it would have no gradient at all.
        conditioner.mapping.requires_grad_(bool(config.clip_weight or config.contrast_weight))
        if adapter is not None:
            unet.requires_grad_(False)
            learn_embedding(conditioner)

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Epochs, noise, timesteps, which conditions are dropped, and the EEG's variation."""
        c = self._config
        rows = {
            "chosen": self._seen.draw(generator, batch),
            "noise": torch.randn(batch, *self._latents.shape[1:], generator=generator),
            "t": torch.randint(len(self.denoising.alphas_cumprod), (batch,), generator=generator),
            "is_kept": torch.rand(batch, generator=generator) >= c.condition_dropout,
        }
        if c.augment:
            n_channels = self.encoder.config.in_channels
            rows |= draw_augmentation(generator, batch, n_channels, c.augment)
        return rows

    def load(self, rows: Rows) -> Rows:
        """EEG, latents and E_I(I)."""
        image_id = self._seen.image_id[rows["chosen"]].numpy()
        eeg = self._seen.eeg(rows["chosen"])
        if self._config.augment:
            eeg = augment(eeg, rows, self._config.augment)
        return {
            "eeg": eeg,
            "latents": torch.from_numpy(self._latents[image_id]).float(),
            "image_embeds": torch.from_numpy(self._image_embeds[image_id]).float(),
            **{name: rows[name] for name in ("noise", "t", "is_kept")},
        }

    def condition(self, eeg: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """EEG to context, time embedding and h(tau_theta(y))."""
        with torch.set_grad_enabled(
            torch.is_grad_enabled() and self._config.trained != "attention"
        ):
            tokens = self.encoder(eeg)
        return condition(self.conditioner, self.adapter, tokens)

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """L_SD, L_clip and their sum, as far as they weigh anything."""
        c = self._config
        context, time_embedding, eeg_embeds = self.condition(rows["eeg"])
        losses: dict[str, torch.Tensor] = {}
        loss = context.new_zeros(())
        if sd_weight := 1.0 if self.adapter is None else c.painter_weight:
            is_kept = rows["is_kept"][:, None]
            losses["sd"] = self.denoising(
                self.unet,
                rows["latents"],
                rows["noise"],
                rows["t"],
                context.where(is_kept[:, :, None], empty_context(self.adapter, context)),
                time_embedding * is_kept,
            )
            loss = loss + sd_weight * losses["sd"]
        if c.clip_weight:
            losses["clip"] = clip_loss(rows["image_embeds"], eeg_embeds.float())
            loss = loss + c.clip_weight * losses["clip"]
        if c.contrast_weight:
            losses["contrast"] = contrast_loss(rows["image_embeds"], eeg_embeds.float())
            loss = loss + c.contrast_weight * losses["contrast"]
        return {"loss": loss, **losses}


@torch.no_grad()
def score(task: FinetuneTask, held_out: SeenEpochs, seed: int) -> dict[str, float]:
    """Losses on held-out epochs, and how often the nearest of their pictures is the seen one.

    Noise and timesteps are fixed by `seed`, so that scores of different steps compare.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(task.parameters()).device
    chosen = torch.randperm(len(held_out), generator=generator)[:HELD_OUT]
    trained_on = task._seen
    task._seen = held_out
    try:
        rows = task.draw(generator, len(chosen)) | {"chosen": chosen}
        rows["is_kept"] = torch.ones_like(rows["is_kept"])
        sums: dict[str, float] = {}
        embeds, images = [], []
        for part in torch.arange(len(chosen)).split(16):
            loaded = task.load({name: values[part] for name, values in rows.items()})
            loaded = {name: values.to(device) for name, values in loaded.items()}
            for name, value in task(loaded).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part)
            embeds.append(task.condition(loaded["eeg"])[2].float())
            images.append(loaded["image_embeds"])
    finally:
        task._seen = trained_on
    scores = {name: value / len(chosen) for name, value in sums.items()}
    image_id = held_out.image_id[chosen]
    _, first, place = np.unique(image_id.numpy(), return_index=True, return_inverse=True)
    candidates = F.normalize(torch.cat(images)[torch.from_numpy(first).to(device)], dim=1)
    nearest = (F.normalize(torch.cat(embeds), dim=1) @ candidates.T).argmax(1).cpu()
    scores["retrieval"] = float((nearest == torch.from_numpy(place)).float().mean())
    scores["retrieval_chance"] = 1 / len(first)
    return scores


def load_encoder(config: FinetuneConfig, seen: SeenEpochs, folder: Path) -> EEGEncoder:
    """The pre-trained encoder, or one with random weights.

    Raises
    ------
    TrainingError
        The folder holds none, or the epochs do not fit.
    """
    if not config.encoder:
        return build_encoder(config.preset, *seen.epochs.shape("eeg"))
    return read_encoder(Path(config.encoder), seen.epochs, folder)


def build_conditioner(
    encoder: EEGEncoder, unet: UNet2DConditionModel, clip_dim: int, config: FinetuneConfig
) -> EEGConditioner:
    """The conditioner beside the pre-trained encoder, or one with random weights.

    Where h is to read something else than it did there, h alone begins anew. With --route image
    the U-Net does not read the context, which so may be of another width than the U-Net's.
    """
    started = read_conditioner(Path(config.encoder)) if config.encoder else None
    by_image = config.route == "image"
    width, time_dim = unet.config.cross_attention_dim, 4 * unet.config.block_out_channels[0]
    if started:
        width = started.config.cross_attention_dim if by_image else width
        told = started.config.clip_from, started.config.clip_dim, started.config.time_embed_dim
        if told == (config.clip_from, clip_dim, time_dim):
            return started
    conditioner: EEGConditioner = EEGConditioner(
        encoder.n_tokens,
        encoder.config.embed_dim,
        started.config.n_context if started else config.n_context,
        width,
        time_dim,
        clip_dim,
        config.clip_from,
    )
    if started:
        for name in ("channel_mapper", "dim_mapper", *(() if by_image else ("time_mapper",))):
            getattr(conditioner, name).load_state_dict(getattr(started, name).state_dict())
    return conditioner


def split_seen(
    data: PreparedSet, config: FinetuneConfig, say: Callable[[str], None]
) -> tuple[SeenEpochs, dict[str, SeenEpochs]]:
    """Training epochs, and `val` and `test`; says how they were split and what it cannot mend."""
    every = SeenEpochs(data, kinds=config.epochs)
    columns = every.columns()
    shares = (config.validation_share, config.test_share)
    split = split_seen_rows(columns, config.split, shares, config.seed)
    say(split.sentence)
    if warning := confounding(columns, data.spec.get("is_block_design"), config.seed).warning:
        say(f"Warning: {warning}")
    held_out = {"val": every.part(split.validation), "test": every.part(split.test)}
    return every.part(split.train), held_out


def split_seen_rows(
    columns: dict[str, torch.Tensor], by: SplitBy, shares: tuple[float, float], seed: int
) -> Split:
    """Split by what is asked for, or by the first that the set can be split by."""
    if by != "auto":
        return split_rows(columns, by, shares, seed)
    for each in AUTO:
        try:
            return split_rows(columns, each, shares, seed)
        except SplitError as error:
            last = error
    raise last


def _silent(_text: str) -> None:
    """The other processes leave the talking to the first."""


def finetune(
    prepared: Path,
    out: Path,
    config: FinetuneConfig,
    say: Callable[[str], None] = print,
    cache: Path | None = None,
) -> None:
    """Fine-tune on a prepared set and write `out / "bundle"`, which `phosphene serve` runs.

    Parameters
    ----------
    prepared : folder of a prepared set whose epochs have pictures.
    out : folder of the stage.
    cache : folder of what the frozen networks make of the set's pictures, which stages from
        the same base may share; by default `out / "cache"`.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    is_main = processes().is_main_process
    if not is_main:
        say = _silent
    data = PreparedSet(prepared)
    seen, held_out = split_seen(data, config, say)
    validation = held_out["val"] if len(held_out["val"]) else None
    torch.manual_seed(config.seed)
    encoder = load_encoder(config, seen, prepared)
    base = load_base(config.base)
    cache = cache or out / "cache"
    zero_shot = None
    if config.zero_shot:
        pictures = PreparedSet(Path(config.zero_shot))
        zero_shot = picture_prototypes(
            pictures, concept_names(data), cache / "zero_shot.npy", config.clip
        )
    latents, image_embeds = encode_all(data, base, cache, config)
    conditioner = build_conditioner(encoder, base.unet, image_embeds.shape[1], config)
    adapter = scheduler = None
    sampler = Sampler(config.sampler_steps, config.guidance)
    if config.route == "image":
        adapter = open_adapter(
            config, base, image_embeds.shape[1], lambda: some_embeds(config.clip, data)
        )
        scheduler, sampler = few_step_sampler(config) or (None, sampler)
    encoder.blocks.is_checkpointed = config.gradient_checkpointing
    if config.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    task = FinetuneTask(
        encoder,
        conditioner,
        base.unet,
        base.scheduler,
        seen,
        latents,
        image_embeds,
        config,
        adapter,
    )

    def look(_step: int) -> dict[str, float]:
        return score(task, validation, config.seed) if validation else {}

    run_stage(out, task, config, say, look, {"prepared": str(prepared)})
    if is_main:
        names = concept_names(data)
        concepts = None
        # Labels that are no row of numbers from zero have no place in a table.
        if set(seen.label.tolist()) <= set(names) == set(range(len(names))):
            concepts = fit_concepts(
                names,
                image_embeds,
                seen,
                validation or seen,
                encoder,
                conditioner,
                config.seed,
                zero_shot,
            )
        parts = base, encoder, conditioner, concepts
        save_bundle(out / "bundle", *parts, data, held_out, sampler, adapter, scheduler)
        if (head := Path(config.encoder) / HEAD).is_file():
            # So that an alignment can go on from the bundle.
            shutil.copy(head, out / "bundle")
        say(f"{out / 'bundle'} holds the bundle: phosphene serve --bundle {out / 'bundle'}")


def encode_all(
    data: PreparedSet, base: Base, cache: Path, config: FinetuneConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Latents and E_I(I) of all pictures of a set, kept in the folder `cache`.

    Where nothing is to be painted, the latents are (n_pictures, 0).
    """
    image_embeds = embed_pictures(cache / "image_embeds.npy", data, config.clip)
    if config.route == "image" and not config.painter_weight:
        return np.empty((len(image_embeds), 0), np.float16), image_embeds
    latents = encode_set(cache / "latents.npy", data, base.vae, config.base)
    return latents, image_embeds
