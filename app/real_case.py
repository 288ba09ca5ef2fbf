r"""Real EEG, all the way to a picture: fine-tune, paint what was held out, and score it.

    python -m app.real_case gratings MUSE_LSL_DATA OUT
    python -m app.real_case faces MUSE_LSL_DATA OUT

One command from recordings to a report. For each fold the prepared set says which trials
train and which test; the encoder is pre-trained by masked signal modelling on the *other*
experiments of the same headset, fine-tuned with L_SD + L_clip and a contrast on the
training trials and on epochs drawn from their Gaussian model, and paints the test trials.
The pictures, and nothing else, are read by `app.grating_reader` or `app.face_house_reader`.
LDA on window means decides the same trials of the same folds. What is finished is kept in
OUT and not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from app.drawn_model import CHANNELS, train_drawn_model
from app.epoch_shards import EpochShards, PreparedEpoch
from app.errors import sentence
from app.muse import CASES, SPEC, Case, prepare_unlabelled
from app.picture_shards import PictureShards
from app.real_report import write_report
from models.eeg_encoder import EEGEncoder
from models.pipeline import load_bundle
from models.training.align import AlignTask, build_conditioner
from models.training.config import FinetuneConfig, PretrainConfig, Schedule
from models.training.finetune import finetune
from models.training.gaussian_epochs import GaussianEpochs, choose_kept
from models.training.prepared import PreparedSet
from models.training.pretrain import pretrain
from models.training.stage import run_stage
from models.training.viewed import ViewedSet

N_FOLDS = 5
# Fewer are learnt by heart: with 2,048 the band of 86 % was told, with these of 90 %.
N_DRAWN = 16384
# Painted with guidance so that a picture follows the likelier answer, as a decision does;
# without, it would be drawn from all that the EEG leaves possible.
GUIDANCE = 4.0
SAMPLER_STEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """The trials of a case.

    Attributes
    ----------
    eeg : (n, n_channels, n_times), float32.
    label, position, run : (n,).
    group : (n,), what must be held out together.
    fold : (n,).
    """

    eeg: np.ndarray
    label: np.ndarray
    position: np.ndarray
    run: np.ndarray
    group: np.ndarray
    fold: np.ndarray


def folds_of(label: np.ndarray, group: np.ndarray, n_folds: int, seed: int = 0) -> np.ndarray:
    """Fold of each trial; groups stay whole, and those of one label are dealt out alike.

    >>> folds_of(np.array([0, 0, 1, 1]), np.array([5, 6, 7, 8]), 2).tolist() in (
    ...     [[0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]])
    True
    """
    rng = np.random.default_rng(seed)
    found, first = np.unique(group, return_index=True)
    fold = np.empty(len(found), np.int64)
    for value in np.unique(label[first]):
        ours = rng.permutation(np.flatnonzero(label[first] == value))
        fold[ours] = np.arange(len(ours)) % n_folds
    return fold[np.searchsorted(found, group)]


def load_trials(prepared: Path, case: Case) -> Recorded:
    """The trials of a prepared set with their folds."""
    epochs = PreparedSet(prepared).epochs()
    columns = {n: epochs[n].numpy() for n in ("eeg", "label", "position", "run")}
    group = columns[case.held_out]
    if case.held_out == "run":
        fold = np.unique(group, return_inverse=True)[1]
    else:
        fold = folds_of(columns["label"], group, N_FOLDS)
    return Recorded(**columns, group=group, fold=fold)


def permute_labels(trials: Recorded, rng: np.random.Generator) -> np.ndarray:
    """Labels of other trials: positions change places, alike in all runs, or trials in a run."""
    label = trials.label.copy()
    if len(np.unique(trials.group)) > len(np.unique(trials.run)):
        found, first = np.unique(trials.group, return_index=True)
        shuffled = rng.permutation(trials.label[first])
        return shuffled[np.searchsorted(found, trials.group)]
    for run in np.unique(trials.run):
        label[trials.run == run] = rng.permutation(label[trials.run == run])
    return label


def write_fold(out: Path, case: Case, trials: Recorded, label: np.ndarray, fold: int) -> Path:
    """A prepared set in which `fold` is the test split, and drawn epochs train too.

    Parameters
    ----------
    label : (n,), that training is told.
    """
    if (out / "spec.json").is_file():
        return out
    test = trials.fold == fold
    rng = np.random.default_rng(fold)
    family = np.array(case.families)
    learnt = (trials.eeg[~test], label[~test])
    kept = 1.0
    if len(set(case.families)) < len(case.families):
        kept = choose_kept(*learnt, trials.fold[~test], family)
    model = GaussianEpochs.fit(*learnt, family, kept)
    drawn = rng.integers(len(case.names), size=N_DRAWN)
    shards = EpochShards(out)
    for i in range(len(label)):
        told = int(label[i])
        epoch = PreparedEpoch(
            trials.eeg[i], told, told, 0.0, True, int(trials.position[i]), 2 * int(test[i])
        )
        shards.append(epoch, 0, 0, int(trials.run[i]))
    for eeg, told in zip(model.draw(drawn, rng), drawn.tolist(), strict=True):
        shards.append(PreparedEpoch(eeg, told, told, 0.0, True, -1, 0), 0, 0, -1)
    shards.flush()
    pictures = PictureShards(out, case.draw(0, None).shape[0])
    for number, caption in enumerate(case.captions):
        pictures.append(case.draw(number, None), number, caption)
    pictures.flush()
    spec = {
        "kind": "marker-locked epochs of a fold, and epochs drawn from their Gaussian model",
        "honesty": "replay",
        "epoch_spec": SPEC.to_dict(),
        "concepts": list(case.names),
        "fold": fold,
        "n_drawn": N_DRAWN,
        "kept": kept,
    }
    (out / "spec.json").write_text(json.dumps(spec, indent=2), encoding="utf-8")
    return out


@torch.inference_mode()
def paint(bundle: Path, eeg: np.ndarray, seed: int = 0) -> np.ndarray:
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
        painted = pipeline(part, SAMPLER_STEPS, GUIDANCE, latents=latents, output_type="pt")
        images = torch.as_tensor(painted.images)
        pictures.append((images * 255).round().byte().permute(0, 2, 3, 1).numpy())
    # safetensors writes memory as it lies, whatever the strides say.
    return np.ascontiguousarray(np.concatenate(pictures))


def align(out: Path, prepared: Path, encoder: Path, clip: Path, n_labels: int, n: int) -> Path:
    """Learn what CLIP says of the pictures before there is a U-Net, once: it is cheap.

    Parameters
    ----------
    encoder : pre-trained.
    n : steps.

    Returns
    -------
    folder of the encoder and the conditioner.
    """
    if not (out / "conditioner" / "config.json").is_file():
        torch.manual_seed(0)
        started = EEGEncoder.from_pretrained(encoder / "eeg_encoder")
        conditioner = build_conditioner(started, 4 * CHANNELS[0])
        # Drawn epochs vary enough, and of five electrodes none may be silenced.
        task = AlignTask(started, conditioner, ViewedSet(prepared, clip), n_labels, 0.0)
        lessons = Schedule(n, 128, 1e-3, n // 10, weight_decay=0.05, ema_decay=0.98)
        run_stage(out, task, lessons)
        started.save_pretrained(out / "eeg_encoder")
        conditioner.save_pretrained(out / "conditioner")
    return out


def decode_fold(
    out: Path, prepared: Path, trials: Recorded, fold: int, config: FinetuneConfig
) -> np.ndarray:
    """Fine-tune on a fold's set and paint its test trials, once.

    `out / "bundle"` is what `phosphene serve` runs.
    """
    done = out / "painted.safetensors"
    # Also where all is done: it refuses what was trained with other settings.
    finetune(prepared, out, config)
    if not done.is_file():
        # The page shows them beside what is painted, and markers name them.
        shutil.copytree(out.parents[1] / "stimuli", out / "bundle" / "stimuli", dirs_exist_ok=True)
        shutil.copy(out.parents[1] / "markers.json", out / "bundle")
        test = trials.eeg[trials.fold == fold]
        save_file({"images": paint(out / "bundle", test, config.seed)}, done)
    return load_file(done)["images"]


def run(name: str, data: Path, out: Path, steps: float = 1.0, folds: int | None = None) -> None:
    """Do what is not done yet and write the report to `out / name / "report"`.

    Parameters
    ----------
    steps : factor on the length of all stages.
    folds : how many of the folds; None for all.
    """
    case, here = CASES[name], out / name
    trials = load_trials(case.prepare(data, here), case)
    base, clip = train_drawn_model(out / "model", steps)
    others = (*(c.folder for c in CASES.values() if c is not case), "P300")
    unlabelled = prepare_unlabelled(data, others, SPEC, here / "unlabelled")
    n_pretrain = max(2, round(1500 * steps))
    pretrain(
        unlabelled,
        here / "pretrain",
        PretrainConfig(
            steps=n_pretrain, batch=128, lr=1e-3, warmup=n_pretrain // 10, preset="headset"
        ),
    )
    n_align, n_steps = max(2, round(800 * steps)), max(2, round(150 * steps))
    config = FinetuneConfig(
        steps=n_steps,
        batch=24,
        lr=2e-4,
        warmup=n_steps // 10,
        decay="cosine",
        weight_decay=0.05,
        max_grad_norm=1.0,
        ema_decay=0.99,
        base=str(base),
        clip=str(clip),
        preset="headset",
        split="split",
        contrast_weight=1.0,
        n_context=16,
        min_snr=5.0,
        sampler_steps=SAMPLER_STEPS,
        guidance=GUIDANCE,
    )
    wanted = range(int(trials.fold.max()) + 1 if folds is None else folds)
    painted = np.zeros((len(trials.label), *case.draw(0, None).shape), np.uint8)
    for fold in wanted:
        prepared = write_fold(here / f"fold-{fold}" / "set", case, trials, trials.label, fold)
        aligned = align(
            here / f"fold-{fold}" / "align",
            prepared,
            here / "pretrain",
            clip,
            len(case.names),
            n_align,
        )
        ours = replace(config, encoder=str(aligned))
        images = decode_fold(here / f"fold-{fold}" / "stage", prepared, trials, fold, ours)
        painted[trials.fold == fold] = images
        reading = [case.read(p) for p in images]
        told = trials.label[trials.fold == fold]
        print(f"fold {fold}: {np.mean(np.argmax(reading, axis=1) == told):.3f} right", flush=True)
    is_done = np.isin(trials.fold, list(wanted))
    write_report(here / "report", case, trials, painted, is_done, base, clip)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("data", type=Path, help="muse-lsl's folder of data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=float, default=1.0, help="factor on all stages' lengths")
    parser.add_argument("--folds", type=int, help="only so many of the folds")
    a = parser.parse_args()
    torch.set_num_threads(1)
    try:
        run(a.case, a.data, a.out, a.steps, a.folds)
    except Exception as error:
        raise SystemExit(sentence(error)) from error


if __name__ == "__main__":
    main()
