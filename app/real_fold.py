"""One fold of a real case: a prepared set, an alignment, a fine-tuning, and its pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from app.drawn_model import CHANNELS, SAMPLER_STEPS
from app.epoch_shards import EpochShards, PreparedEpoch
from app.muse import SPECS, Case
from app.picture_shards import PictureShards
from app.real_trials import Recorded
from models.eeg_encoder import EEGEncoder
from models.pipeline import load_bundle
from models.training.align import build_conditioner
from models.training.config import FinetuneConfig, Schedule
from models.training.drawn_align import DrawnAlignTask
from models.training.finetune import finetune
from models.training.gaussian_epochs import GaussianEpochs, choose_kept
from models.training.stage import run_stage
from models.training.viewed import ViewedSet

N_ALIGN, N_FINETUNE, BATCH = 1200, 50, 24
# Epochs without a brain that are painted in each fold.
N_NOISE = 24


def fit_model(
    case: Case, eeg: np.ndarray, label: np.ndarray, fold: np.ndarray
) -> tuple[GaussianEpochs, float]:
    """The Gaussian model of a fold's training trials, and the share it keeps.

    Parameters
    ----------
    eeg, label, fold : of the training trials.
    """
    family, kept = np.array(case.families), 1.0
    if len(set(case.families)) < len(case.families):
        kept = choose_kept(eeg, label, fold, family)
    return GaussianEpochs.fit(eeg, label, family, kept), kept


def write_fold(
    out: Path,
    case: Case,
    trials: Recorded,
    spec: str,
    label: np.ndarray,
    fold: int,
    n_drawn: int,
    seed: int = 0,
) -> tuple[Path, GaussianEpochs]:
    """A prepared set in which `fold` is the test split, and drawn epochs train too, once.

    Parameters
    ----------
    spec : name of the specification of its epochs.
    label : (n,), that training is told.
    n_drawn : as many as fine-tuning takes, so that hardly one comes twice.

    Returns
    -------
    folder of the set, and the model that its epochs were drawn from.
    """
    test, eeg = trials.fold == fold, trials.eeg[spec]
    model, kept = fit_model(case, eeg[~test], label[~test], trials.fold[~test])
    if (out / "spec.json").is_file():
        return out, model
    rng = np.random.default_rng([fold, seed])
    drawn = rng.integers(len(case.names), size=n_drawn)
    shards = EpochShards(out)
    for i in range(len(label)):
        told = int(label[i])
        epoch = PreparedEpoch(
            eeg[i], told, told, 0.0, True, int(trials.position[i]), 2 * int(test[i])
        )
        shards.append(epoch, 0, 0, int(trials.run[i]))
    for values, told in zip(model.draw(drawn, rng), drawn.tolist(), strict=True):
        shards.append(PreparedEpoch(values, told, told, 0.0, True, -1, 0), 0, 0, -1)
    shards.flush()
    pictures = PictureShards(out, case.draw(0, None).shape[0])
    for number, caption in enumerate(case.captions):
        pictures.append(case.draw(number, None), number, caption)
    pictures.flush()
    about = {
        "kind": "marker-locked epochs of a fold, and epochs drawn from their Gaussian model",
        "honesty": "replay",
        "epoch_spec": SPECS[spec].to_dict(),
        "concepts": list(case.names),
        "fold": fold,
        "n_drawn": n_drawn,
        "kept": kept,
    }
    (out / "spec.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
    return out, model


def align(
    out: Path, prepared: Path, model: GaussianEpochs, encoder: Path, clip: Path, n: int, seed: int
) -> Path:
    """Learn what CLIP says of the pictures before there is a U-Net, once: it is cheap.

    Parameters
    ----------
    prepared : whose pictures are seen.
    encoder : folder of the pre-trained one.
    n : steps.

    Returns
    -------
    folder of the encoder and the conditioner.
    """
    if not (out / "conditioner" / "config.json").is_file():
        torch.manual_seed(seed)
        started = EEGEncoder.from_pretrained(encoder / "eeg_encoder")
        conditioner = build_conditioner(started, 4 * CHANNELS[0])
        task = DrawnAlignTask(started, conditioner, ViewedSet(prepared, clip), model)
        lessons = Schedule(n, 128, 2e-3, n // 10, weight_decay=0.05, ema_decay=0.98, seed=seed)
        run_stage(out, task, lessons)
        started.save_pretrained(out / "eeg_encoder")
        conditioner.save_pretrained(out / "conditioner")
    return out


@torch.inference_mode()
def paint(bundle: Path, eeg: np.ndarray, guidance: float, seed: int = 0) -> np.ndarray:
    """Paint epochs as live use does: all from the same initial noise.

    Returns
    -------
    array of shape (n, pixels, pixels, 3), uint8.
    """
    pipeline = load_bundle(bundle)
    noise = torch.randn(pipeline.latent_shape(1), generator=torch.Generator().manual_seed(seed))
    pictures = []
    for part in torch.from_numpy(eeg).split(32):
        latents = noise.expand(len(part), -1, -1, -1)
        painted = pipeline(part, SAMPLER_STEPS, guidance, latents=latents, output_type="pt")
        images = torch.as_tensor(painted.images)
        pictures.append((images * 255).round().byte().permute(0, 2, 3, 1).numpy())
    # safetensors writes memory as it lies, whatever the strides say.
    return np.ascontiguousarray(np.concatenate(pictures))


def without_brain(eeg: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """White noise with the standard deviations of each channel of epochs, and zeros.

    Parameters
    ----------
    eeg : (n, n_channels, n_times).

    Returns
    -------
    noise (N_NOISE, n_channels, n_times) and zeros (1, n_channels, n_times), float32.
    """
    size = (N_NOISE, *eeg.shape[1:])
    noise = np.random.default_rng(seed).standard_normal(size) * eeg.std(axis=(0, 2))[:, None]
    return noise.astype(np.float32), np.zeros((1, *eeg.shape[1:]), np.float32)


def decode_fold(
    out: Path,
    case: Case,
    trials: Recorded,
    spec: str,
    label: np.ndarray,
    fold: int,
    encoder: Path,
    models: Sequence[Path],
    guidance: float,
    steps: float = 1.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Learn from all other folds and paint this one's test trials, once.

    `out / "stage" / "bundle"` is what `phosphene serve` runs.

    Parameters
    ----------
    spec : name of the specification of the fold's epochs.
    label : (n,), that training is told.
    encoder : folder of the pre-trained one.
    models : folders of the image model and of CLIP.
    steps : factor on the length of all stages.

    Returns
    -------
    pictures by what they were painted from, "trials", "noise" and "zeros", each
    (n, pixels, pixels, 3), uint8.
    """
    n_align, n = max(2, round(N_ALIGN * steps)), max(2, round(N_FINETUNE * steps))
    base, clip = models
    prepared, model = write_fold(
        out / "set", case, trials, spec, label, fold, n_drawn=n * BATCH, seed=seed
    )
    aligned = align(out / "align", prepared, model, encoder, clip, n_align, seed)
    config = FinetuneConfig(
        steps=n,
        batch=BATCH,
        lr=2e-4,
        warmup=n // 10,
        decay="cosine",
        weight_decay=0.05,
        max_grad_norm=1.0,
        ema_decay=0.9,
        seed=seed,
        base=str(base),
        clip=str(clip),
        encoder=str(aligned),
        preset="headset",
        split="split",
        contrast_weight=1.0,
        n_context=16,
        min_snr=5.0,
        sampler_steps=SAMPLER_STEPS,
        guidance=guidance,
    )
    done, stage = out / "painted.safetensors", out / "stage"
    # Also where all is done: it refuses what was trained with other settings.
    finetune(prepared, stage, config)
    if not done.is_file():
        # The page shows them beside what is painted, and markers name them.
        case.write_stimuli(stage / "bundle")
        eeg, test = trials.eeg[spec], trials.fold == fold
        parts = [eeg[test], *without_brain(eeg[~test], seed)]
        images = paint(stage / "bundle", np.concatenate(parts), guidance, seed)
        cuts = np.cumsum([len(part) for part in parts])[:-1]
        named = zip(("trials", "noise", "zeros"), np.split(images, cuts), strict=True)
        save_file({name: np.ascontiguousarray(part) for name, part in named}, done)
    return load_file(done)
