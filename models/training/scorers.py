"""The networks that an evaluation looks with: classifiers, CLIP and Inception.

None of them takes part in training the decoder, except that a bundle may have been aligned
with the same CLIP. All take pictures (n, 3, H, W) in 0 to 1 of any size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    CLIPVisionModelWithProjection,
)
from transformers.utils import cached_file

from models.errors import ScorerError
from models.training.judge import Judge

FEATURES = 2048
HALF = (0.5, 0.5, 0.5)
# The judge's own size; it pools over any, but edges are as it learnt them only here.
JUDGE_SIDE = 128


class Classifier(Protocol):
    """Names what is in a picture.

    Attributes
    ----------
    name : what the report calls it.
    is_of_labels : whether its classes are the labels of prepared sets and nothing else. Of a
        set with fewer of them only those are compared: a decoder that knows which there are
        is right more often than one in all classes.
    """

    name: str
    is_of_labels: bool

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, H, W) in 0 to 1 to probabilities (n, n_classes)."""
        ...

    def classes_of(self, labels: Sequence[str]) -> np.ndarray:
        """The class of each of a prepared set's labels, (n_labels,); -1 where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """Why something is not measured.

    Attributes
    ----------
    reason : the rest of the sentence "not measured: ...".
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Scorers:
    """What an evaluation may look with.

    Attributes
    ----------
    classifier : names the pictures.
    encoder : CLIP's image encoder, from pictures (n, 3, H, W) to embeddings (n, clip_dim).
    inception : from pictures (n, 3, H, W) to features (n, dim), for the Fréchet distance.
    """

    classifier: Classifier | NotMeasured
    encoder: Callable[[torch.Tensor], torch.Tensor] | NotMeasured
    inception: nn.Module | NotMeasured


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a network wants its pictures, as its preprocessor_config.json says.

    Attributes
    ----------
    size : (height, width), or (shortest edge,).
    crop : (height, width) of the middle that is kept, or None.
    mean, std : of each colour.
    mode : of the interpolation.
    """

    size: tuple[int, ...]
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    mode: str = "bilinear"

    @classmethod
    def of(cls, name: str, side: int) -> Self:
        """The preprocessing of a model in a folder or on the Hub.

        Parameters
        ----------
        name : folder, or name on the Hub.
        side : of the pictures, in pixels, where there is no preprocessor_config.json; they
            become -1 to 1 then.
        """
        path = cached_file(
            name, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
        )
        if path is None:
            return cls((side, side))
        config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        size = _lengths(config.get("size", side))
        crop = _lengths(config.get("crop_size", side)) if config.get("do_center_crop") else None
        return cls(
            size,
            None if crop is None else (crop[0], crop[-1]),
            tuple(config.get("image_mean", HALF)),
            tuple(config.get("image_std", HALF)),
            "bicubic" if config.get("resample") == 3 else "bilinear",
        )

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        size = self.size
        if len(size) == 1:
            height, width = pictures.shape[-2:]
            scale = size[0] / min(height, width)
            size = (round(height * scale), round(width * scale))
        pictures = F.interpolate(pictures, size, mode=self.mode, antialias=True).clamp(0, 1)
        if self.crop is not None:
            top, left = ((whole - c) // 2 for whole, c in zip(size, self.crop, strict=True))
            pictures = pictures[..., top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (pictures.new_tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return (pictures - mean) / std


def _lengths(size: int | Mapping[str, int]) -> tuple[int, ...]:
    """Height and width, or the shortest edge, from the forms that transformers wrote over time.

    >>> _lengths({"shortest_edge": 224}), _lengths({"height": 32, "width": 16}), _lengths(8)
    ((224,), (32, 16), (8, 8))
    """
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return (size["shortest_edge"],)
    return size["height"], size["width"]


class JudgeClassifier:
    """The scale model's judge; its classes are a set's labels, in their order."""

    is_of_labels = True

    def __init__(self, folder: str, device: torch.device) -> None:
        self.name = "the judge"
        judge = _load(f"The judge {folder}", lambda: Judge.from_pretrained(folder))
        self._judge = judge.to(device).eval()
        self._prepare = Preprocessing((JUDGE_SIDE, JUDGE_SIDE))

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._judge(self._prepare(pictures.to(self._judge.device)))
        return logits.float().softmax(1)

    def appearance(self, pictures: torch.Tensor) -> torch.Tensor:
        """What pictures (n, 3, H, W) look like, (n, 6), in the order of `APPEARANCE`."""
        _, read = self._judge.read(self._prepare(pictures.to(self._judge.device)))
        return torch.as_tensor(read)

    def classes_of(self, labels: Sequence[str]) -> np.ndarray:
        n_classes = self._judge.config.n_concepts
        if len(labels) > n_classes:
            raise ScorerError(
                f"The judge knows {n_classes} concepts, and the prepared set has labels up to "
                f"{len(labels) - 1}. Give a judge that was trained on the set's concepts."
            )
        return np.arange(len(labels))


class ImageNetClassifier:
    """A classifier of ImageNet's 1,000 classes, as ViT (Dosovitskiy 2021, arXiv 2010.11929).

    Parameters
    ----------
    name : folder, or name on the Hub.
    indices : class by what a set may call it: the name in EEG-ImageNet, and the WordNet id.
    """

    is_of_labels = False

    def __init__(self, name: str, indices: Mapping[str, int], device: torch.device) -> None:
        self.name = f"the ImageNet classifier {name}"
        self._indices = indices
        model = _load(
            f"The classifier {name}", lambda: _whole(AutoModelForImageClassification, name)
        )
        self._model = model.to(device).eval()
        self._prepare = Preprocessing.of(name, model.config.image_size)

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        pixels = self._prepare(pictures.to(self._model.device))
        logits: torch.Tensor = self._model(pixel_values=pixels).logits
        return logits.float().softmax(1)

    def classes_of(self, labels: Sequence[str]) -> np.ndarray:
        n_classes = self._model.config.num_labels
        found = (self._indices.get(label, -1) for label in labels)
        return np.array([index if index < n_classes else -1 for index in found])


def open_classifier(name: str, indices: Mapping[str, int], device: torch.device) -> Classifier:
    """A classifier by its name, `judge:FOLDER` or `vit:NAME_OR_FOLDER`.

    Raises
    ------
    ScorerError
        The name is neither, or the classifier cannot be loaded.
    """
    kind, _, where = name.partition(":")
    if kind == "judge" and where:
        return JudgeClassifier(where, device)
    if kind == "vit" and where:
        return ImageNetClassifier(where, indices, device)
    raise ScorerError(f"--classifier expects judge:FOLDER or vit:NAME_OR_FOLDER, not '{name}'.")


def open_encoder(name: str, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """CLIP's image encoder (Radford et al. 2021, arXiv 2103.00020) in a folder or on the Hub.

    Raises
    ------
    ScorerError
        It cannot be loaded.
    """

    def load() -> Any:
        config = AutoConfig.from_pretrained(name)
        if config.model_type == "clip":
            # Of a whole CLIP, the vision part does not know how wide the shared space is.
            config.vision_config.projection_dim = config.projection_dim
            config = config.vision_config
        return _whole(CLIPVisionModelWithProjection, name, config=config)

    model = _load(f"The CLIP {name}", load).to(device).eval()
    prepare = Preprocessing.of(name, model.config.image_size)

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        embeds: torch.Tensor = model(pixel_values=prepare(pictures.to(device))).image_embeds
        return embeds.float()

    return encode


def open_inception(weights: Path | None) -> nn.Module | NotMeasured:
    """Inception's 2,048 features for the FID, where torch-fidelity and the weights are here.

    Parameters
    ----------
    weights : file of torch-fidelity's Inception; None lets torch-fidelity download it.
    """
    from torchmetrics.image.fid import NoTrainInceptionV3

    try:
        inception: nn.Module = NoTrainInceptionV3(
            "inception-v3-compat", [str(FEATURES)], None if weights is None else str(weights)
        )
    except ModuleNotFoundError:
        return NotMeasured("torch-fidelity is not installed (pip install torch-fidelity)")
    # A missing file, no network, or a file that is something else.
    except (OSError, RuntimeError, KeyError) as error:
        reason = _first_line(error)
        return NotMeasured(f"Inception's weights cannot be had ({reason}); give --inception FILE")
    return _Bytes(inception)


class _Bytes(nn.Module):
    """Inception on pictures in 0 to 1; torch-fidelity's takes bytes."""

    num_features = FEATURES

    def __init__(self, inception: nn.Module) -> None:
        super().__init__()
        self.inception = inception

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.inception((pictures * 255).round().byte())
        return features


def _whole(kind: Any, name: str, **values: Any) -> Any:
    """A model of transformers, refused where weights are missing: it would make some up."""
    model, found = kind.from_pretrained(
        name, use_safetensors=True, output_loading_info=True, **values
    )
    if missing := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise ValueError(f"{len(missing)} of its weights are missing, as {missing[0]}")
    return model


Model = TypeVar("Model")


def _load(what: str, load: Callable[[], Model]) -> Model:
    try:
        return load()
    # transformers, diffusers and safetensors raise whatever their inner libraries do.
    except Exception as error:
        raise ScorerError(
            f"{what} cannot be loaded ({_first_line(error)}). Give a folder that holds one, "
            "or its name on the Hub."
        ) from error


def _first_line(error: Exception) -> str:
    """The beginning of what may go on for pages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":. ")
