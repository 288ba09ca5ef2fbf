"""Alignment: encoder and conditioner learn what CLIP says of the picture that was seen.

Minimises the cross-entropy of the concept, L_clip, a contrast among the batch's pictures, and
the distance of the context to the text encoder's tokens of a caption: so fine-tuning with L_SD
starts where the U-Net already understands the context. It needs no U-Net and is therefore cheap.

The caption is of the picture that was seen, but names the concept that is read. Regressed on the
right captions, a context becomes their mean over all concepts that the epoch leaves possible,
which is a caption of nothing, and is painted as a blob.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.errors import TrainingError
from models.losses import clip_loss, contrast_loss
from models.training.augment import augment, draw_augmentation
from models.training.bundle import concept_names
from models.training.prepared import PreparedSet
from models.training.pretrained import check_shapes, read_conditioner, read_encoder
from models.training.scale_config import AlignConfig
from models.training.stage import Rows, processes, run_stage
from models.training.viewed import ViewedSet

TIME_EMBED_DIM = 384
N_CONCEPTS = 40
# What concepts are read with, kept for an alignment that goes on.
HEAD = "concept_head.safetensors"
# Weight of the contrast wherever L_clip has any.
CONTRAST = 0.3


def build_conditioner(encoder: EEGEncoder, time_embed_dim: int = TIME_EMBED_DIM) -> EEGConditioner:
    """The scale model's conditioner: 16 x 128 context, as its text encoder's."""
    conditioner: EEGConditioner = EEGConditioner(
        encoder.n_tokens,
        encoder.config.embed_dim,
        n_context=16,
        cross_attention_dim=128,
        time_embed_dim=time_embed_dim,
        clip_dim=128,
    )
    return conditioner


class AlignTask(nn.Module):
    """Learns what CLIP and its text encoder say of the picture that was seen.

    Parameters
    ----------
    encoder, conditioner : that learn.
    data : epochs and what CLIP says of their pictures.
    n_concepts : labels of the pictures.
    strength : of augmentation.
    clip_weight, context_weight : of L_clip, and of the distance of the context. With
        neither, CLIP is not asked: classification alone.
    concept_weight : of the concept's cross-entropy; 0: what reads stays as it is.
    is_shared : whether what is decided teaches the blocks that read, too, and not the
        concept alone.
    """

    prototypes: torch.Tensor
    context_prototypes: torch.Tensor

    def __init__(
        self,
        encoder: EEGEncoder,
        conditioner: EEGConditioner,
        data: ViewedSet,
        n_concepts: int = N_CONCEPTS,
        strength: float = 0.1,
        clip_weight: float = 3.0,
        context_weight: float = 5.0,
        concept_weight: float = 1.0,
        is_shared: bool = True,
    ) -> None:
        super().__init__()
        self.eeg_encoder, self.conditioner, self._data = encoder, conditioner, data
        self._strength, self._concept_weight = strength, concept_weight
        self._is_shared = is_shared and concept_weight > 0
        self._clip_weight, self._context_weight = clip_weight, context_weight
        # Painting does not need it. It reads before the last block, which so is left to decide: the
        # context that decides is no linear function of what a linear head can read.
        self._n_read = max(1, len(encoder.blocks) - 1)
        width = encoder.config.embed_dim
        self.concept_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_concepts))
        conditioner.time_mapper.requires_grad_(False)
        # Several processes wait for the gradient of all that learns.
        conditioner.mapping.requires_grad_(bool(clip_weight))
        if not (clip_weight or context_weight):
            for part in (encoder.blocks[self._n_read :], encoder.norm, conditioner):
                part.requires_grad_(False)
        if not concept_weight:
            encoder.requires_grad_(False)
            self.concept_head.requires_grad_(False)
            for part in (encoder.blocks[self._n_read :], encoder.norm):
                part.requires_grad_(True)
        self.register_buffer("prototypes", data.prototypes(n_concepts), persistent=False)
        of_contexts = data.context_prototypes(n_concepts)
        self.register_buffer("context_prototypes", of_contexts, persistent=False)

    def read(self, eeg: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Epochs (n, channels, times) to logits of concepts (n, n_concepts), and their tokens."""
        tokens = self.eeg_encoder.embed(eeg)
        for block in self.eeg_encoder.blocks[: self._n_read]:
            tokens = block(tokens)
        return self.concept_head(tokens.mean(1)).float(), tokens

    def decide(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens that were read to context and CLIP embedding."""
        for block in self.eeg_encoder.blocks[self._n_read :]:
            tokens = block(tokens)
        context, _, embeds = self.conditioner(self.eeg_encoder.norm(tokens))
        return context.float(), embeds.float()

    def draw(self, generator: torch.Generator, batch: int) -> Rows:
        """Epochs and their variation."""
        index = self._data.draw(generator, batch)
        n_channels = self.eeg_encoder.config.in_channels
        return {"index": index, **draw_augmentation(generator, batch, n_channels, self._strength)}

    def load(self, rows: Rows) -> Rows:
        """EEG and its targets."""
        b = self._data.take(rows["index"])
        return {
            "eeg": augment(b.eeg, rows, self._strength),
            "image_embeds": b.image_embeds,
            "context": b.context,
            "is_seen": b.is_seen,
            "label": self._data.label[rows["index"]],
        }

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """The sum of all losses that weigh anything."""
        read, tokens = self.read(rows["eeg"])
        seen, label = rows["is_seen"], rows["label"]
        losses = {"concept": F.cross_entropy(read[seen], label[seen])}
        loss = self._concept_weight * losses["concept"]
        if not (self._clip_weight or self._context_weight):
            return {"loss": loss, **losses}
        context, embeds = self.decide(tokens if self._is_shared else tokens.detach())
        if self._clip_weight:
            losses["clip"] = clip_loss(rows["image_embeds"], embeds)
            losses["contrast"] = contrast_loss(rows["image_embeds"][seen], embeds[seen])
            loss = loss + self._clip_weight * losses["clip"] + CONTRAST * losses["contrast"]
        if self._context_weight:
            # Other words of the caption stay: their part of the context hardly depends on its.
            named = self.context_prototypes[read.argmax(1)] - self.context_prototypes[label]
            target = rows["context"] + named * seen[:, None, None]
            losses["distance"] = F.mse_loss(context, target)
            loss = loss + self._context_weight * losses["distance"]
        return {"loss": loss, **losses}


def read_head(head: nn.Module, path: Path) -> None:
    """Take over what an earlier alignment left to read concepts with, if there is any.

    Raises
    ------
    TrainingError
        It is damaged, or of other concepts or sizes.
    """
    if not path.is_file():
        return
    try:
        head.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise TrainingError(
            f"{path} is damaged, or reads other concepts than the set holds. Delete it to learn "
            "to read anew, or give --encoder the folder of another alignment."
        ) from error


@torch.no_grad()
def score(task: AlignTask, held_out: ViewedSet) -> dict[str, float]:
    """What is right on held-out epochs: nearest concepts, the head's; distance of the context.

    "begun" are the sliding windows that hold the onset, "sliding" are all of them.
    """
    scores = {}
    device = task.prototypes.device
    for name in ("locked", "begun", "sliding"):
        rows = getattr(held_out, name)
        if not len(rows):
            continue
        right: dict[str, list[torch.Tensor]] = {"named": [], "top1": [], "distance": []}
        for index in rows.split(256):
            b = held_out.take(index)
            read, tokens = task.read(b.eeg.to(device))
            label, named = held_out.label[index], read.argmax(1).cpu()
            right["named"].append(named == label)
            if held_out.has_clip:
                context, embeds = task.decide(tokens)
                nearest = (embeds @ task.prototypes.T).argmax(1).cpu()
                right["top1"].append(nearest == label)
                distance = (context.cpu() - b.context).square().mean((1, 2))
                right["distance"].append(distance)
        for what, parts in right.items():
            if parts:
                scores[f"{name}_{what}"] = float(torch.cat(parts).float().mean())
    return scores


def train(
    prepared: Path,
    out: Path,
    config: AlignConfig,
    clip: Path | None,
    encoder_folder: Path,
    held_out: Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train encoder and conditioner and save them to `out`.

    Parameters
    ----------
    prepared : folder of a prepared set whose epochs have pictures with captions.
    out : folder of the stage, which fine-tuning starts from.
    clip : folder of the frozen CLIP and its words; not asked for where neither L_clip nor the
        context weighs anything.
    encoder_folder : of a pre-training, or of an earlier alignment whose conditioner learns on.
    held_out : another prepared set, that is scored and never trained on.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    if not (config.clip_weight or config.context_weight):
        clip = None
    elif clip is None:
        raise TrainingError(
            "Nothing says what CLIP makes of the pictures. Give --clip the folder `clip` that "
            "`phosphene scale-model clip` wrote, or 0 as --clip-weight and --context-weight."
        )
    data = ViewedSet(prepared, clip)
    others = ViewedSet(held_out, clip) if held_out else None
    torch.manual_seed(config.seed)
    encoder = read_encoder(encoder_folder, data.epochs, prepared)
    if others and held_out:
        check_shapes(encoder, others.epochs, held_out)
    conditioner = read_conditioner(encoder_folder) or build_conditioner(encoder)
    names = concept_names(PreparedSet(prepared))
    n_concepts = max(len(names), 1 + int(data.pictures["label"].max()))
    task = AlignTask(
        encoder,
        conditioner,
        data,
        n_concepts,
        config.augment,
        config.clip_weight,
        config.context_weight,
        config.concept_weight,
    )

    def look(_step: int) -> dict[str, float]:
        return score(task, others) if others else {}

    # With a new head, contexts would be told to name what nobody has read yet.
    read_head(task.concept_head, encoder_folder / HEAD)
    given = {"prepared": prepared, "clip": clip, "encoder": encoder_folder}
    run_stage(out, task, config, say, look, {name: str(path) for name, path in given.items()})
    if processes().is_main_process:
        encoder.save_pretrained(out / "eeg_encoder")
        conditioner.save_pretrained(out / "conditioner")
        save_file(task.concept_head.state_dict(), out / HEAD)
        say(f"{out} holds the aligned encoder and conditioner.")
