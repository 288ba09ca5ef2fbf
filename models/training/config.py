"""Settings of the training stages: documented dataclasses that are the commands' flags.

Nothing heavy is imported here, so that `phosphene --help` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from models.errors import TrainingError

PresetName = Literal["reference", "phosphene", "scale", "headset", "tiny"]
SplitBy = Literal["auto", "split", "session", "run", "block", "position", "image"]

# Fields that stages give defaults of their own.
Steps = Annotated[int, "Optimiser steps in all."]
Batch = Annotated[int, "Rows of a step, over all processes and accumulated parts."]
Rate = Annotated[float, "Highest learning rate."]
Warmup = Annotated[int, "Steps in which the learning rate rises to its highest."]
Decay = Annotated[
    Literal["cosine", "constant"],
    "How the learning rate goes on: to zero by a half cosine, or as it is.",
]
WeightDecay = Annotated[float, "Of AdamW, on weights and not on biases or norms."]
MaxGradNorm = Annotated[float, "Largest norm of the gradient."]
EmaDecay = Annotated[
    float,
    "Decay of a moving average of the trained weights that is saved in their place, as "
    "0.999; it averages the noise of the last steps. 0: none.",
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"], "Of matrix products; weights stay fp32. fp16: CUDA only."
]
GradientCheckpointing = Annotated[
    bool, "Compute activations again instead of keeping them: less memory, slower."
]
SaveEvery = Annotated[int, "Steps between checkpoints."]
Augment = Annotated[
    float,
    "Strength of variation of the EEG (gains, silent electrodes, shifts, noise); 0: none.",
]
LearntEpochs = Annotated[
    Literal["marker-locked", "sliding", "both"],
    "Epochs that are learnt from; of both kinds, half each.",
]
SamplerSteps = Annotated[int, "U-Net steps for a picture, noted in the bundle."]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how fast and how precisely a stage learns. Every field is a flag."""

    steps: Steps = 2000
    batch: Batch = 64
    lr: Rate = 1e-3
    warmup: Warmup = 100
    decay: Decay = "cosine"
    weight_decay: WeightDecay = 0.01
    max_grad_norm: MaxGradNorm = 1.0
    ema_decay: EmaDecay = 0.0
    precision: Precision = "fp32"
    accumulate: Annotated[
        int, "Parts that each process computes one after the other: less memory, the same step."
    ] = 1
    save_every: SaveEvery = 250
    seed: Annotated[int, "Of weights, batches and noise."] = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "save_every"):
            self._check(name, getattr(self, name) >= 1, "a number from 1 upwards")
        for name in ("lr", "max_grad_norm"):
            self._check(name, getattr(self, name) > 0, "a number above 0")
        for name in ("warmup", "weight_decay"):
            self._check(name, getattr(self, name) >= 0, "a number from 0 upwards")
        self._check("ema_decay", 0 <= self.ema_decay < 1, "a number from 0 to below 1")

    def _check(self, name: str, is_good: bool, expected: str) -> None:
        if not is_good:
            flag = "--" + name.replace("_", "-")
            raise TrainingError(f"{flag} expects {expected}, not {getattr(self, name)}.")

    def factor(self, step: int) -> float:
        """Share of `lr` at a step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.decay == "constant":
            return 1.0
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


# What changes how a step is computed, not what it computes.
NEUTRAL = ("save_every", "accumulate", "gradient_checkpointing")


@dataclass(frozen=True, slots=True)
class PretrainConfig(Schedule):
    """Settings of pre-training; every field is a flag."""

    steps: Steps = 20000
    batch: Batch = 100
    lr: Rate = 2.5e-4
    warmup: Warmup = 1000
    weight_decay: WeightDecay = 0.05
    max_grad_norm: MaxGradNorm = 0.8
    gradient_checkpointing: GradientCheckpointing = False
    preset: Annotated[
        PresetName,
        "Sizes of the network: the authors' (with the cls token of their pre-training), ours of "
        "the same sizes (one function in both stages), the scale model's, one for few electrodes, "
        "or tiny.",
    ] = "phosphene"
    mask_ratio: Annotated[
        float, "Share of patches that are hidden: 0.75 in the paper, 0.1 in the authors' code."
    ] = 0.75
    mlp_ratio: Annotated[
        float,
        "Width of the MLPs over that of the tokens: 4 gives the paper's count of parameters, "
        "1 is the authors' code. 0: the preset's.",
    ] = 0.0
    augment: Augment = 0.0

    def __post_init__(self) -> None:
        # By name: slots make a new class, which super() does not know.
        Schedule.__post_init__(self)
        self._check("mask_ratio", 0 < self.mask_ratio < 1, "a number between 0 and 1")
        for name in ("mlp_ratio", "augment"):
            self._check(name, getattr(self, name) >= 0, "a number from 0 upwards")


@dataclass(frozen=True, slots=True)
class FinetuneConfig(Schedule):
    """Settings of fine-tuning; every field is a flag."""

    steps: Steps = 20000
    batch: Batch = 24
    lr: Rate = 5.3e-5
    decay: Decay = "constant"
    max_grad_norm: MaxGradNorm = 0.5
    gradient_checkpointing: GradientCheckpointing = False
    base: Annotated[
        str, "Text-to-image model to start from: a folder, or a name on the Hugging Face Hub."
    ] = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    clip: Annotated[
        str, "CLIP whose image encoder is E_I: a folder, or a name on the Hugging Face Hub."
    ] = "openai/clip-vit-large-patch14"
    zero_shot: Annotated[
        str,
        "Prepared set of pictures of all concepts, also of those whose EEG is not learnt from: the "
        "bundle's are their mean embeddings.",
    ] = ""
    route: Annotated[
        Literal["context", "image"],
        "How EEG reaches the painter: as context tokens for a cross-attention that learns, as in "
        "DreamDiffusion, or through CLIP's space and a frozen image adapter: the encoder learns.",
    ] = "context"
    adapter: Annotated[
        str,
        "IP-Adapter of --route image: a folder, or a name on the Hugging Face Hub. It reads the "
        "embeddings of its own --clip.",
    ] = "h94/IP-Adapter"
    painter_weight: Annotated[
        float, "Weight of L_SD through the frozen painter with --route image; 0: L_clip alone."
    ] = 0.0
    encoder: Annotated[
        str, "Folder that `phosphene pretrain` wrote; none: an encoder with random weights."
    ] = ""
    preset: Annotated[PresetName, "Size of an encoder with random weights."] = "phosphene"
    epochs: LearntEpochs = "marker-locked"
    split: Annotated[
        SplitBy,
        "What is held out whole for validation and test: as the set's makers split it, or "
        "sessions, runs, blocks, positions in the run, or images; auto: the first that can be.",
    ] = "auto"
    validation_share: Annotated[float, "Share that is held out for validation."] = 0.1
    test_share: Annotated[
        float, "Share that is held out for test, and that training does not look at."
    ] = 0.1
    trained: Annotated[
        Literal["encoder+attention", "encoder", "attention"],
        "What learns besides the projections: the paper's E + A, E only, or A only. With --route "
        "image always E only.",
    ] = "encoder+attention"
    clip_weight: Annotated[float, "Lambda, the weight of L_clip."] = 1.0
    clip_from: Annotated[
        Literal["context", "tokens"],
        "What h reads: the projected context as the paper writes, or the encoder's tokens as "
        "the authors' code does.",
    ] = "context"
    contrast_weight: Annotated[
        float, "Weight of a contrast (InfoNCE) among the pictures of a part of the batch."
    ] = 0.0
    n_context: Annotated[int, "Tokens of context for the cross-attention."] = 77
    condition_dropout: Annotated[
        float, "Share of epochs trained with an empty condition, which makes guidance possible."
    ] = 0.1
    min_snr: Annotated[
        float,
        "Let timesteps weigh at most as one of this signal-to-noise ratio, so that the many almost "
        "clean ones do not take most of the capacity; 5 is usual. 0: all alike, as the paper.",
    ] = 0.0
    augment: Augment = 0.0
    sampler_steps: SamplerSteps = 20
    guidance: Annotated[float, "Guidance scale, noted in the bundle; 1: none."] = 1.0

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        for name in ("clip_weight", "contrast_weight", "painter_weight", "min_snr", "augment"):
            self._check(name, getattr(self, name) >= 0, "a number from 0 upwards")
        if self.route == "image":
            self._check("clip_weight", self.clip_weight > 0, "a weight above 0 with --route image")
            is_learnt = self.trained != "attention"
            self._check("trained", is_learnt, "encoder with --route image")
        for name in ("n_context", "sampler_steps"):
            self._check(name, getattr(self, name) >= 1, "a number from 1 upwards")
        for name in ("condition_dropout", "validation_share", "test_share"):
            self._check(name, 0 <= getattr(self, name) < 1, "a number from 0 to below 1")


@dataclass(frozen=True, slots=True)
class DistillConfig(Schedule):
    """Settings of few-step distillation; every field is a flag."""

    steps: Steps = 4000
    batch: Batch = 32
    lr: Rate = 1e-4
    decay: Decay = "constant"
    weight_decay: WeightDecay = 0.0
    ema_decay: Annotated[
        float,
        "Decay of the moving average of the U-Net that it learns to agree with, and that is "
        "saved in its place. 0: it agrees with itself.",
    ] = 0.95
    gradient_checkpointing: GradientCheckpointing = False
    epochs: LearntEpochs = "marker-locked"
    guidance: Annotated[
        float, "Guidance scale that is learnt in; 0: the one that the bundle paints with."
    ] = 0.0
    solver_steps: Annotated[
        int, "Steps of DDIM that the teacher's way from noise to picture is cut into."
    ] = 50
    fixed_noise: Annotated[
        float,
        "Share of epochs with the one noise that the painter begins from; the others have noise of "
        "their own.",
    ] = 0.5
    augment: Augment = 0.0
    sampler_steps: SamplerSteps = 4
    captions: Annotated[
        float, "With --pictures: share of the rows that are told by captions and not by EEG."
    ] = 0.5
    mixed: Annotated[
        float, "With --pictures: share of these that are told by a mixture of captions."
    ] = 0.2
    start: Annotated[
        str, "Folder of a U-Net that was distilled before and learns on; none: the bundle's own."
    ] = ""

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        self._check("guidance", self.guidance == 0 or self.guidance >= 1, "0, or from 1 upwards")
        self._check("augment", self.augment >= 0, "a number from 0 upwards")
        for name in ("fixed_noise", "captions", "mixed"):
            self._check(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        self._check("solver_steps", self.solver_steps >= 1, "a number from 1 upwards")
        is_part = 1 <= self.sampler_steps <= self.solver_steps
        self._check("sampler_steps", is_part, "a number from 1 to --solver-steps")


@dataclass(frozen=True, slots=True)
class AblateConfig(FinetuneConfig):
    """Settings of ablations: those of fine-tuning, and these."""

    variants: Annotated[str, "Variants to run, separated by semicolons; none: all."] = ""
    n_seeds: Annotated[int, "Seeds that each variant is trained with, from --seed on."] = 3
    trials: Annotated[int, "Held-out trials that are scored, drawn by seed; 0: all."] = 0
    pretrain_steps: Annotated[int, "Optimiser steps of pre-training."] = 20000
    pretrain_batch: Annotated[int, "Rows of a step of pre-training."] = 100
    pretrain_lr: Annotated[float, "Highest learning rate of pre-training."] = 2.5e-4
    align_steps: Annotated[
        int,
        "Optimiser steps of an alignment before fine-tuning, as the scale model has; 0: none. It "
        "reads all of the set, so that --test has to be another.",
    ] = 0
    align_batch: Annotated[int, "Rows of a step of alignment."] = 128
    align_lr: Annotated[float, "Highest learning rate of alignment."] = 1e-3

    def __post_init__(self) -> None:
        FinetuneConfig.__post_init__(self)
        for name in ("n_seeds", "pretrain_steps", "pretrain_batch", "align_batch"):
            self._check(name, getattr(self, name) >= 1, "a number from 1 upwards")
        for name in ("trials", "align_steps"):
            self._check(name, getattr(self, name) >= 0, "a number from 0 upwards")
        for name in ("pretrain_lr", "align_lr"):
            self._check(name, getattr(self, name) > 0, "a number above 0")
