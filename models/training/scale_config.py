"""Settings of the stages that only the scale model has; the defaults are its recipe.

Nothing heavy is imported here, so that `phosphene --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from models.training.config import (
    Augment,
    Batch,
    EmaDecay,
    GradientCheckpointing,
    Precision,
    Rate,
    SaveEvery,
    Schedule,
    Steps,
    Warmup,
    WeightDecay,
)


@dataclass(frozen=True, slots=True)
class VaeConfig(Schedule):
    """Settings of the VAE; every field is a flag."""

    steps: Steps = 4200
    batch: Batch = 16
    lr: Rate = 1.2e-3
    ema_decay: EmaDecay = 0.999
    precision: Precision = "bf16"


@dataclass(frozen=True, slots=True)
class DecoderConfig(Schedule):
    """Settings of the decoder; every field is a flag."""

    steps: Steps = 4000
    batch: Batch = 8
    ema_decay: EmaDecay = 0.998
    width: Annotated[
        int, "Channels of all blocks; as many as the VAE's own, and what that knows is kept."
    ] = 32
    blocks: Annotated[str, "On 16, 32, 64 and 128 pixels."] = "3,3,3,0"
    perceptual: Annotated[float, "Weight of how differently CLIP sees the pictures."] = 2.0

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        self._check("width", self.width >= 1, "a number from 1 upwards")
        self._check("perceptual", self.perceptual >= 0, "a number from 0 upwards")


@dataclass(frozen=True, slots=True)
class ClipConfig(Schedule):
    """Settings of the small CLIP; every field is a flag."""

    steps: Steps = 900
    batch: Batch = 128
    ema_decay: EmaDecay = 0.999
    precision: Precision = "bf16"


@dataclass(frozen=True, slots=True)
class TextToImageConfig(Schedule):
    """Settings of the text-to-image U-Net; every field is a flag."""

    steps: Steps = 4000
    batch: Batch = 32
    lr: Rate = 6e-4
    warmup: Warmup = 200
    ema_decay: EmaDecay = 0.999
    precision: Precision = "bf16"
    gradient_checkpointing: GradientCheckpointing = False
    mixed: Annotated[
        float,
        "Share of pictures that are trained under a mixture of captions in which their own weighs "
        "most, so that an uncertain context gives the likeliest picture and no blend.",
    ] = 0.5
    start: Annotated[str, "Folder of a trained U-Net, which learns on."] = ""

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        self._check("mixed", 0 <= self.mixed <= 1, "a share from 0 to 1")


@dataclass(frozen=True, slots=True)
class AlignConfig(Schedule):
    """Settings of the alignment with CLIP; every field is a flag."""

    steps: Steps = 1300
    batch: Batch = 128
    lr: Rate = 3e-4
    weight_decay: WeightDecay = 0.05
    ema_decay: EmaDecay = 0.99
    precision: Precision = "bf16"
    save_every: SaveEvery = 500
    augment: Augment = 0.1
    clip_weight: Annotated[
        float, "Weight of L_clip. 0 leaves the contrast out, too: classification alone."
    ] = 1.0
    context_weight: Annotated[
        float,
        "Weight of the distance of the context to the text encoder's tokens. What is seen is "
        "learnt sooner with little of it, but the U-Net reads the context alone.",
    ] = 10.0
    concept_weight: Annotated[
        float,
        "Weight of the cross-entropy of the concept. 0: the blocks before the last, which read it, "
        "stay as they are.",
    ] = 1.0

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        names = ("augment", "clip_weight", "context_weight", "concept_weight")
        for name in names:
            self._check(name, getattr(self, name) >= 0, "a number from 0 upwards")
        self._check(
            "concept_weight",
            self.concept_weight + self.clip_weight + self.context_weight > 0,
            "a weight above 0, or one of the other losses has to be",
        )


@dataclass(frozen=True, slots=True)
class JudgeConfig(Schedule):
    """Settings of the judge; every field is a flag."""

    steps: Steps = 500
    lr: Rate = 2e-3
    ema_decay: EmaDecay = 0.999
    precision: Precision = "bf16"


@dataclass(frozen=True, slots=True)
class IpAdapterConfig(Schedule):
    """Settings of the image adapter; every field is a flag."""

    steps: Steps = 1400
    batch: Batch = 16
    ema_decay: EmaDecay = 0.99
    precision: Precision = "bf16"
    n_tokens: Annotated[int, "Image tokens that an embedding becomes."] = 4
    mixed: Annotated[
        float,
        "Share of pictures that are trained under a mixture of embeddings in which their own "
        "weighs most, as EEG that is unsure gives them.",
    ] = 0.5

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        self._check("n_tokens", self.n_tokens >= 1, "a number from 1 upwards")
        self._check("mixed", 0 <= self.mixed <= 1, "a share from 0 to 1")
