"""What is evaluated: trials of a prepared set, and the pictures that a bundle paints of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from models.errors import PreparedSetError
from models.pipeline import EEGToImagePipeline, fixed_noise
from models.training.prepared import PreparedSet, Shards

# The numbers of a prepared set's column `split`.
SPLITS = {"train": 0, "val": 1, "test": 2}
# Pictures of noise: what they score does not depend on the trial, and painting is slow.
N_NOISE = 200
# Pictures in a file: 50 MB where a picture has 512 x 512 pixels.
SHARD = 64
# Kinds of EEG: what every figure stands beside.
CONDITIONS = ("EEG", "shuffled EEG", "noise EEG", "zero EEG")
# What a classifier and a painter of each class would show: the right concept as often, and of
# the seen picture nothing else.
SAME_CONCEPT = "other EEG of the concept"


@dataclass(frozen=True, slots=True)
class Options:
    """How a bundle is evaluated.

    Attributes
    ----------
    epochs : which epochs are painted.
    split : of the prepared set, where it has the column: train, val, test or all.
    limit : trials, drawn by the seed; 0 takes all.
    samples : pictures of each trial, each from its own initial noise; their mean counts.
    n_way : classes compared in the N-way scores.
    steps, guidance : of the sampler.
    batch : pictures that are painted at once.
    seed : of the initial noise, and of whatever is drawn.
    held_out : rows of `val` and `test` that the bundle's training on this very set kept apart.
    """

    steps: int
    guidance: float
    epochs: Literal["sliding", "marker-locked"] = "marker-locked"
    split: str = "test"
    limit: int = 0
    samples: int = 1
    n_way: int = 50
    batch: int = 16
    seed: int = 0
    held_out: dict[str, torch.Tensor] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """The epochs that are evaluated and the pictures that were seen.

    Attributes
    ----------
    rows : (n,), of the prepared set's epochs.
    label : (n,), of what was seen.
    image : (n,), position in `images` of the picture that was seen.
    images : (n_images,), the different pictures that were seen, by their id in the set.
    warnings : what a reader of the scores must know.
    """

    rows: torch.Tensor
    label: np.ndarray
    image: np.ndarray
    images: torch.Tensor
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def choose(cls, data: PreparedSet, options: Options) -> Trials:
        """The trials of a prepared set that `options` ask for.

        Raises
        ------
        PreparedSetError
            None is left, or the set does not hold what was seen; says why.
        """
        if not any(data.folder.glob("pictures-*.safetensors")):
            raise PreparedSetError(
                f"{data.folder} holds no pictures-*.safetensors, so nothing says what was seen. "
                "Prepare the set with its pictures (phosphene prepare --images)."
            )
        epochs, n_pictures = data.epochs(), len(data.pictures())
        image_id, warnings = epochs["image_id"], []
        rows = torch.arange(len(epochs))

        def keep(wanted: torch.Tensor, sentence: str) -> None:
            nonlocal rows
            rows = rows[wanted[rows]]
            if not len(rows):
                raise PreparedSetError(f"{data.folder} holds {sentence}")

        is_locked = options.epochs == "marker-locked"
        keep(
            (epochs["is_locked"] == 1) == is_locked,
            f"no {options.epochs} epochs. Prepare them, or evaluate the others with --epochs.",
        )
        told = epochs["split"] if "split" in epochs.columns else torch.full((len(epochs),), -1)
        if options.held_out is not None:
            told = torch.zeros(len(epochs), dtype=torch.int64)
            for name, index in options.held_out.items():
                told[index] = SPLITS[name]
        if options.split != "all" and (told >= 0).any():
            keep(
                told == SPLITS[options.split],
                f"no {options.epochs} epochs of the split '{options.split}'. Choose another with "
                "--split.",
            )
        elif options.split != "all":
            warnings.append(
                "The prepared set has no splits: all of its trials were taken. Whether training "
                "saw them, this report cannot know."
            )
        keep(
            (image_id >= 0) & (epochs["label"] >= 0),
            "no epoch that names the picture that was seen. Prepare the set with its pictures "
            "(phosphene prepare --images).",
        )
        if options.held_out is not None and (n := int((told[rows] == SPLITS["train"]).sum())):
            warnings.append(f"The bundle was trained on {n} of these {len(rows)} trials.")
        if int(image_id[rows].max()) >= n_pictures:
            raise PreparedSetError(
                f"{data.folder} has epochs of picture {int(image_id[rows].max())}, and only "
                f"{n_pictures} pictures. Prepare the set again."
            )
        if 0 < options.limit < len(rows):
            drawn = np.random.default_rng(options.seed).permutation(len(rows))[: options.limit]
            rows = rows[torch.from_numpy(np.sort(drawn))]
        images, image = image_id[rows].unique(return_inverse=True)
        if len(images) < 2:
            raise PreparedSetError(
                f"The {len(rows)} trials taken from {data.folder} saw one picture only, so there "
                "is nothing to tell apart. Take more with --limit or --split."
            )
        label = epochs["label"][rows].numpy()
        return cls(rows, label, image.numpy(), images, tuple(warnings))


def label_names(spec: dict[str, Any], highest: int) -> list[str]:
    """Names of a prepared set's labels, from `concepts` or `labels` of its spec.json.

    Parameters
    ----------
    spec : with a list of names in the order of the labels, or numbers by name.
    highest : label that must have a name.

    >>> label_names({"labels": {"cat": 1}}, 2)
    ['label 0', 'cat', 'label 2']
    """
    known = spec.get("concepts") or spec.get("labels") or {}
    numbers = {name: n for n, name in enumerate(known)} if isinstance(known, list) else known
    names = {int(n): str(name) for name, n in numbers.items()}
    return [names.get(n, f"label {n}") for n in range(max(highest, *names, -1) + 1)]


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """Which picture stands for each trial under one kind of EEG.

    Attributes
    ----------
    painted : name of the shards that hold the pictures.
    index : (samples, n), the picture's row there.
    """

    painted: str
    index: np.ndarray


def others_of_a_group(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row another one of its group, every one once; alone in its group, itself.

    >>> others_of_a_group(np.array([7, 5, 7]), np.random.default_rng(0)).tolist()
    [2, 1, 0]
    """
    other = np.arange(len(group))
    for number in np.unique(group):
        rows = rng.permutation(np.flatnonzero(group == number))
        other[rows] = np.roll(rows, 1)
    return other


def noise_like(eeg: torch.Tensor, seed: int) -> torch.Tensor:
    """White noise with each channel's mean and deviation in epochs (n, n_channels, n_times)."""
    generator = torch.Generator().manual_seed(seed)
    scale, offset = eeg.std((0, 2), keepdim=True), eeg.mean((0, 2), keepdim=True)
    return torch.randn(eeg.shape, generator=generator) * scale + offset


def paint_conditions(
    pipeline: EEGToImagePipeline, data: PreparedSet, trials: Trials, out: Path, options: Options
) -> tuple[dict[str, Shards], dict[str, Condition]]:
    """Paint the trials' EEG, noise and nothing, to shards in `out`.

    Returns
    -------
    the shards by name, and the conditions: the EEG itself; shuffled EEG, the pictures of
    other trials; noise with each channel's mean and deviation; and zero EEG, which is one
    picture for all trials.

    Raises
    ------
    EpochShapeError
        The set's epochs are not what the bundle was made for.
    """
    epochs = data.epochs()
    n, n_noise = len(trials), min(len(trials), N_NOISE)
    noise = noise_like(epochs.rows("eeg", trials.rows[:n_noise]).float(), options.seed)
    painted = {
        "EEG": _paint(
            pipeline,
            lambda part: epochs.rows("eeg", trials.rows[part]).float(),
            n,
            out / "EEG",
            options,
        ),
        "noise EEG": _paint(
            pipeline, lambda part: noise[part], n_noise, out / "noise EEG", options
        ),
        "zero EEG": _paint(
            pipeline, lambda part: torch.zeros_like(noise[part]), 1, out / "zero EEG", options
        ),
    }
    return painted, conditions_of(n, options)


def conditions_of(n: int, options: Options) -> dict[str, Condition]:
    """Which pictures of `paint_conditions` stand for each of `n` trials, by `CONDITIONS`."""
    n_noise = min(n, N_NOISE)
    own = np.arange(options.samples * n).reshape(-1, n)
    first = np.arange(options.samples)[:, None]
    return {
        "EEG": Condition("EEG", own),
        "shuffled EEG": Condition(
            "EEG", own[:, np.random.default_rng(options.seed).permutation(n)]
        ),
        "noise EEG": Condition("noise EEG", first * n_noise + np.arange(n) % n_noise),
        "zero EEG": Condition("zero EEG", np.repeat(first, n, axis=1)),
    }


def _paint(
    pipeline: EEGToImagePipeline,
    eeg: Callable[[torch.Tensor], torch.Tensor],
    n: int,
    folder: Path,
    options: Options,
) -> Shards:
    """Paint `n` epochs, sample after sample, a batch at a time.

    All pictures of a sample have the same noise, as in live use. The shards hold
    `images`, `clip_embeds`, the EEG in CLIP's space, and for a bundle with concepts `concept`.
    """
    folder.mkdir(parents=True)
    waiting: list[dict[str, torch.Tensor]] = []
    n_files = 0

    def write() -> None:
        nonlocal n_files
        columns = {name: torch.cat([part[name] for part in waiting]) for name in waiting[0]}
        save_file(columns, folder / f"pictures-{n_files:05d}.safetensors")
        waiting.clear()
        n_files += 1

    # None: a bar on a terminal, nothing in a log.
    bar = tqdm(total=options.samples * n, desc=folder.name, unit="picture", disable=None)
    with bar as progress:
        for sample in range(options.samples):
            latents, generator = fixed_noise(pipeline, options.seed + sample)
            for part in torch.arange(n).split(options.batch):
                output = pipeline(
                    eeg(part),
                    options.steps,
                    options.guidance,
                    [generator.clone_state() for _ in part],
                    latents.expand(len(part), -1, -1, -1),
                    output_type="pt",
                    is_locked=options.epochs == "marker-locked",
                )
                images = torch.as_tensor(output.images)
                pictures = (images * 255).round().byte().permute(0, 2, 3, 1)
                embeds = output.clip_embeds.float()
                waiting.append(
                    {
                        "images": pictures.cpu().contiguous(),
                        "clip_embeds": embeds.cpu().contiguous(),
                        **_named(output.concept_probabilities),
                    }
                )
                progress.update(len(part))
                if sum(len(columns["images"]) for columns in waiting) >= SHARD:
                    write()
    if waiting:
        write()
    return Shards(folder, "pictures")


def _named(probabilities: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {} if probabilities is None else {"concept": probabilities.argmax(1).cpu()}
