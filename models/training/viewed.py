"""Batches of EEG with the picture that was seen: what alignment reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPModel

from models.errors import PreparedSetError
from models.training.bundle import mean_prototypes
from models.training.clip import load_clip
from models.training.prepared import PreparedSet, images_to_tensor
from models.training.stage import processes
from models.training.text_to_image import encode_captions


def _mean(rows: torch.Tensor) -> torch.Tensor:
    return rows.sum(0) / max(1, len(rows))


@dataclass(frozen=True, slots=True)
class Batch:
    """Epochs and their targets.

    Attributes
    ----------
    index : (n,), rows of the prepared set.
    eeg : (n, channels, times), float32.
    image_id : (n,), the picture in the prepared set.
    is_seen : (n,) bool; False where the epoch holds no picture.
    image_embeds : (n, clip_dim), E_I(I), of unit length; the mean over pictures where
        nothing was seen, which is equally near to every concept.
    context : (n, 16, dim), the text encoder's tokens of the caption; zero where nothing was seen.
    """

    index: torch.Tensor
    eeg: torch.Tensor
    image_id: torch.Tensor
    is_seen: torch.Tensor
    image_embeds: torch.Tensor
    context: torch.Tensor


class ViewedSet:
    """A prepared set of epochs with the pictures that were seen, and CLIP's view of them.

    Parameters
    ----------
    folder : of the prepared set.
    clip_folder : of the frozen CLIP and its words; None where only labels are learnt, which
        leaves embeddings and contexts without dimensions.

    Raises
    ------
    PreparedSetError, TrainingError
    """

    def __init__(self, folder: Path, clip_folder: Path | None) -> None:
        data = PreparedSet(folder)
        self.epochs, self.pictures = data.epochs(), data.pictures()
        n = len(self.pictures)
        self.context, self.image_embeds = torch.zeros(n, 0, 0), torch.zeros(n, 0)
        if clip_folder:
            clip, words = load_clip(clip_folder)
            clip.requires_grad_(False)
            parts = words(data.captions()).split(512)
            self.context = torch.cat([encode_captions(clip, part) for part in parts])
            self.image_embeds = self._embed_pictures(clip)
        self.image_id = self.epochs["image_id"]
        self.label = self.epochs["label"]
        self.is_locked = self.epochs["is_locked"] == 1
        self.mean_embed = F.normalize(self.image_embeds.mean(0), dim=0)
        # What the set tells to be for validation or test is never drawn.
        told = self.epochs["split"] if "split" in self.epochs.columns else self.label.new_zeros(1)
        trains = (told <= 0).expand(len(self.label))
        self.locked = (self.is_locked & trains).nonzero()[:, 0]
        seen = ~self.is_locked & (self.label >= 0) & trains
        self.sliding = seen.nonzero()[:, 0]
        # Windows that begin at most half a second before the picture hold all of its
        # response; in later ones only the weak, lasting part is left.
        self.begun = (seen & self._holds_onset()).nonzero()[:, 0]
        self.blank = ((self.label < 0) & trains).nonzero()[:, 0]
        if not len(self.locked) or (len(self.sliding) and not len(self.begun) * len(self.blank)):
            raise PreparedSetError(
                f"{folder} lacks epochs to align: there must be marker-locked ones, and beside "
                "sliding ones with a picture also some without. Prepare it with --epochs "
                "sliding,marker-locked or marker-locked, and --images."
            )

    def _holds_onset(self) -> torch.Tensor:
        """Whether each epoch's picture appears within its first half second, (n,) bool."""
        # A marker-locked epoch knows its picture's onset, a sliding one its own beginning.
        time, locked = self.epochs["t_onset"].double(), self.is_locked
        onset = torch.full((len(self.pictures),), torch.inf, dtype=torch.float64)
        onset[self.image_id[locked]] = time[locked]
        lag = onset[self.image_id] - time
        return (lag > -0.05) & (lag < 0.5)

    @property
    def has_clip(self) -> bool:
        """Whether CLIP was asked."""
        return self.image_embeds.shape[1] > 0

    @torch.no_grad()
    def _embed_pictures(self, clip: CLIPModel) -> torch.Tensor:
        parts = []
        device = processes().device
        clip.to(device)
        for index in torch.arange(len(self.pictures)).split(128):
            pixels = images_to_tensor(self.pictures.rows("images", index)).to(device)
            pooled = clip.vision_model(pixel_values=pixels).pooler_output
            parts.append(F.normalize(clip.visual_projection(pooled), dim=1).cpu())
        return torch.cat(parts)

    def prototypes(self, n_concepts: int) -> torch.Tensor:
        """Mean image embedding of each concept, (n_concepts, clip_dim), of unit length.

        Zero, which is near to nothing, for a concept without pictures.
        """
        return mean_prototypes(self.image_embeds, self.pictures["label"], n_concepts)

    def context_prototypes(self, n_concepts: int) -> torch.Tensor:
        """Mean context of each concept's captions, (n_concepts, 16, dim); zero without any."""
        label = self.pictures["label"]
        return torch.stack([_mean(self.context[label == c]) for c in range(n_concepts)])

    def draw(self, generator: torch.Generator, batch: int) -> torch.Tensor:
        """Rows: three eighths marker-locked epochs, half sliding windows, one eighth blank.

        A set of marker-locked epochs alone gives these.
        """

        def pick(rows: torch.Tensor, n: int) -> torch.Tensor:
            return rows[torch.randint(len(rows), (n,), generator=generator)]

        if not len(self.sliding):
            return pick(self.locked, batch)
        n_sliding, n_blank = batch // 2, batch // 8
        return torch.cat(
            [
                pick(self.locked, batch - n_sliding - n_blank),
                pick(self.sliding, n_sliding),
                pick(self.blank, n_blank),
            ]
        )

    def take(self, index: torch.Tensor) -> Batch:
        """The epochs at `index` (n,)."""
        image_id = self.image_id[index]
        seen = self.label[index] >= 0
        return Batch(
            index=index,
            eeg=self.epochs.rows("eeg", index).float(),
            image_id=image_id,
            is_seen=seen,
            image_embeds=torch.where(seen[:, None], self.image_embeds[image_id], self.mean_embed),
            context=self.context[image_id] * seen[:, None, None],
        )
