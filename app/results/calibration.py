"""A new subject, as the bundle is, and after some minutes of calibration with it.

Beside the same network that begins with nothing, and LDA, both of the same minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acquisition.epoch_spec import EpochSpec
from app.prepare import Wanted, prepare_sources
from app.results.answers import Answers, paint
from app.results.part import Part, Table, written
from app.results.stream import Epochs, Sessions
from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.pipeline import EEGToImagePipeline
from models.training import align
from models.training.lda import Windows
from models.training.metrics import Score
from models.training.peers import Labelled, fit_windows
from models.training.prepared import PreparedSet
from models.training.scale_config import AlignConfig
from models.training.scorers import Classifier
from models.training.seen import SeenEpochs
from models.training.trials import Options

MINUTES = (2, 5, 15)
LEARNT, TESTED = 0, 1
"""Sessions of a new subject."""
CONFIG = AlignConfig(
    steps=100, batch=64, lr=2e-4, warmup=10, ema_decay=0.9, precision="fp32", save_every=1000
)
# Of LDA, whose windows so few epochs do not tell.
WINDOW_S = 0.064
HEADER = (
    "minutes", "pictures, by the judge", "shuffled", "nearest concept", "shuffled",
    "begun with nothing: pictures", "nearest concept", "LDA",
)  # fmt: skip
OURS, NOTHING, LDA = "ours", "begun with nothing", "LDA"

Right = dict[str, np.ndarray]


def measure(
    pipeline: EEGToImagePipeline,
    bundle: Path,
    judge: Classifier,
    sessions: Sessions,
    subjects: Sequence[int],
    spec: EpochSpec,
    clip: Path,
    options: Options,
    out: Path,
    minutes: Sequence[int] = MINUTES,
    config: AlignConfig = CONFIG,
) -> Part:
    """Accuracy for subjects that nothing was trained with, by minutes of their own.

    Only encoder and conditioner learn; what paints, and the directions that name concepts, stay.

    Parameters
    ----------
    bundle : folder of `pipeline`, with the head that its concepts are read by.
    judge : whose classes are the concepts.
    sessions : whose parameters and number of trials are taken; not their subject.
    subjects : numbers.
    spec : of the epochs.
    clip : folder of the small CLIP.
    options : how is painted.
    out : folder for what is trained; replaced.

    Raises
    ------
    PreparedSetError, TrainingError, EpochShapeError, BundleError
    """
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(options.seed)
    _save_random(pipeline, out / "random")
    found: dict[int, list[Right]] = {m: [] for m in (0, *minutes)}
    labels = []
    for subject in subjects:
        tested = Sessions(sessions.parameters, subject, [TESTED], sessions.n_trials)
        epochs = tested.record(spec)["marker-locked"]
        labels.append(epochs.truth)
        found[0].append(_right(OURS, paint(pipeline, judge, epochs.data, options, "0"), epochs))
        for m in minutes:
            folder = out / f"subject-{subject}-{m}"
            data = _prepare(folder / "set", spec, sessions, subject, m)
            right: Right = {}
            for who, start in ((OURS, bundle), (NOTHING, out / "random")):
                align.train(folder / "set", folder / who, config, clip, start)
                learnt = _with(pipeline, folder / who)
                right |= _right(who, paint(learnt, judge, epochs.data, options, f"{m}"), epochs)
            found[m].append(right | _lda(data, spec, epochs))
    return _part(found, labels, subjects, config)


def _save_random(like: EEGToImagePipeline, folder: Path) -> None:
    """The same encoder and conditioner, with random weights."""
    for name in ("eeg_encoder", "conditioner"):
        part = like.components[name]
        type(part).from_config(part.config).save_pretrained(folder / name)


def _prepare(
    folder: Path, spec: EpochSpec, sessions: Sessions, subject: int, minutes: int
) -> PreparedSet:
    """The first minutes of a subject's first session."""
    difficulty = sessions.parameters.difficulty
    source = f"simulated:?subject={subject}&session={LEARNT}&difficulty={difficulty}"
    prepare_sources(folder, [source], Wanted(spec=spec, seconds=60.0 * minutes, with_images=True))
    return PreparedSet(folder)


def _with(pipeline: EEGToImagePipeline, folder: Path) -> EEGToImagePipeline:
    """The same bundle with the encoder and the conditioner in `folder`."""
    device = pipeline.device
    parts = dict(pipeline.components)
    parts["eeg_encoder"] = EEGEncoder.from_pretrained(folder / "eeg_encoder").to(device).eval()
    parts["conditioner"] = EEGConditioner.from_pretrained(folder / "conditioner").to(device).eval()
    learnt = EEGToImagePipeline(**parts)
    learnt.set_progress_bar_config(disable=True)
    return learnt


def _right(who: str, answers: Answers, epochs: Epochs) -> Right:
    return {
        f"{who}, pictures": answers.painted == epochs.truth,
        f"{who}, concept": answers.concept == epochs.truth,
        **{
            f"{who}, {what}, shuffled": said == np.random.default_rng(0).permutation(epochs.truth)
            for what, said in (("pictures", answers.painted), ("concept", answers.concept))
        },
    }


def _lda(data: PreparedSet, spec: EpochSpec, epochs: Epochs) -> Right:
    """Nothing where each concept was seen but once: there is no spread within one then."""
    onset = max(0, round(-spec.tmin * spec.sfreq))
    windows = Windows(onset, spec.n_times, round(WINDOW_S * spec.sfreq))
    train = Labelled.of(SeenEpochs(data, "marker-locked"))
    if len(train.label) <= len(np.unique(train.label)):
        return {}
    said = fit_windows(train, train, [windows]).predict(epochs.data).argmax(axis=1)
    return {LDA: np.asarray(said == epochs.truth)}


def _part(
    found: dict[int, list[Right]],
    labels: Sequence[np.ndarray],
    subjects: Sequence[int],
    config: AlignConfig,
) -> Part:
    n = sum(map(len, labels))
    columns = [
        f"{OURS}, pictures",
        f"{OURS}, pictures, shuffled",
        f"{OURS}, concept",
        f"{OURS}, concept, shuffled",
        f"{NOTHING}, pictures",
        f"{NOTHING}, concept",
        LDA,
    ]
    rows: list[list[str]] = []
    values: dict[str, Any] = {}
    for m, each in found.items():
        right = {name: np.concatenate([r[name] for r in each]) for name in each[0]}
        scores = {k: Score.of(v.astype(float), np.arange(n)) for k, v in right.items()}
        cells = [written(scores[name]) if name in scores else "–" for name in columns]
        rows.append([str(m), *cells])
        values[str(m)] = {k: asdict(score) for k, score in scores.items()}
        values[str(m)]["subjects"] = [
            {name: float(value.mean()) for name, value in r.items()} for r in each
        ]
    n_concepts = len(np.unique(np.concatenate(labels)))
    notes = [
        f"{n:,} marker-locked epochs of {len(subjects)} simulated subjects "
        f"({', '.join(map(str, subjects))}) that no stage has seen, each in a session after the "
        f"one that was learnt from; chance is {1 / n_concepts:.1%}. Intervals are of 95 %, over "
        "pictures, and say nothing about other subjects.",
        f"Calibrated: {config.steps} steps of alignment of {config.batch} epochs each, encoder and "
        "conditioner alone; what paints stays. Begun with nothing: the same, from random weights. "
        f"LDA: means of {1000 * WINDOW_S:g} ms; it needs some concept twice.",
    ]
    table = Table("A new subject, by minutes of calibration", HEADER, rows, notes)
    return Part("Calibration", [table], values)
