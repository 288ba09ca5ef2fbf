"""A new subject, as others are, and after some minutes of their own.

By the reader that `phosphene calibrate` makes (`models.training.personal`), beside the bundle as it
is and LDA of the same minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import normalise
from app.person import POPULATION
from app.results.answers import Answers, paint
from app.results.part import Part, Table, written
from app.results.stream import Epochs, Sessions
from models.errors import BundleError
from models.pipeline import EEGToImagePipeline
from models.training.lda import Windows
from models.training.metrics import Score
from models.training.personal import Epochs as Known
from models.training.personal import Method, can_learn, fit, scaled
from models.training.personal_reader import make_reader
from models.training.population import Population
from models.training.scorers import Classifier
from models.training.trials import Options

MINUTES = (2, 5, 15)
LEARNT, TESTED = 0, 1
"""Sessions of a new subject."""
# Of LDA, whose windows so few epochs do not tell.
WINDOW_S = 0.064
HEADER = (
    "minutes", "pictures, by the judge", "shuffled", "concept", "shuffled", "LDA",
    "the bundle as it is: pictures",
)  # fmt: skip
OURS, BUNDLE, LDA = "ours", "the bundle as it is", "LDA"

Right = dict[str, np.ndarray]


def measure(
    pipeline: EEGToImagePipeline,
    bundle: Path,
    judge: Classifier,
    sessions: Sessions,
    subjects: Sequence[int],
    spec: EpochSpec,
    options: Options,
    minutes: Sequence[int] = MINUTES,
) -> Part:
    """Accuracy for subjects that nothing was trained with, by minutes of their own.

    Parameters
    ----------
    bundle : folder of `pipeline`, with the population.
    judge : whose classes are the concepts.
    sessions : whose parameters and number of trials are taken; not their subject.
    subjects : numbers.
    spec : of the epochs.
    options : how is painted.
    minutes : of the first session that is learnt from.

    Raises
    ------
    BundleError, TrainingError, EpochShapeError
    """
    if pipeline.reader is None or not (bundle / POPULATION).is_file():
        raise BundleError(
            f"{bundle} has no reader and population to begin a person's with. Give a bundle that "
            "`phosphene scale-model reader` made."
        )
    population = Population.load(bundle / POPULATION)
    found: dict[int, list[Right]] = {m: [] for m in (0, *minutes)}
    labels = []
    base = pipeline.reader
    for subject in subjects:
        tested = Sessions(sessions.parameters, subject, [TESTED], sessions.n_trials)
        epochs = tested.record(spec)["marker-locked"]
        labels.append(epochs.truth)
        learnt, moments, deviation = _learnt(sessions, subject, spec, max(minutes))
        own = scaled(population, np.eye(spec.n_channels), deviation)
        as_it_is = paint(pipeline, judge, epochs.data, options, "as it is")
        for m in (0, *minutes):
            known = learnt.at(moments < 60 * m)
            model = fit(Method(1.0), known, base.config.n_concepts, own)
            everything = np.arange(base.config.n_concepts)
            pipeline.reader = make_reader(model, known, base, everything).to(pipeline.device)
            try:
                answers = paint(pipeline, judge, epochs.data, options, f"{m} min")
            finally:
                pipeline.reader = base
            right = _right(answers, epochs) | _lda(known, spec, epochs)
            if not m:
                right[f"{BUNDLE}, pictures"] = as_it_is.painted == epochs.truth
            found[m].append(right)
    return _part(found, labels, subjects)


def _learnt(
    sessions: Sessions, subject: int, spec: EpochSpec, minutes: int
) -> tuple[Known, np.ndarray, np.ndarray]:
    """Epochs of a subject's first session, when each was over, and their usual deviation."""
    p = sessions.parameters
    n_trials = round(60 * minutes / (p.viewing + (p.gap_min + p.gap_max) / 2))
    session = Sessions(p, subject, [LEARNT], n_trials)
    raw = session.record(replace(spec, normalisation="none"))["marker-locked"]
    deviation = np.maximum(np.median(raw.data.std(axis=2), axis=0), 1e-3)
    eeg = raw.data
    if spec.normalisation == "channel":
        eeg = np.array([normalise(epoch) for epoch in eeg], np.float32)
    return Known(eeg, raw.truth, np.zeros(len(raw), int)), raw.last, deviation


def _right(answers: Answers, epochs: Epochs) -> Right:
    return {
        f"{OURS}, pictures": answers.painted == epochs.truth,
        f"{OURS}, concept": answers.concept == epochs.truth,
        **{
            f"{OURS}, {what}, shuffled": said == np.random.default_rng(0).permutation(epochs.truth)
            for what, said in (("pictures", answers.painted), ("concept", answers.concept))
        },
    }


def _lda(known: Known, spec: EpochSpec, epochs: Epochs) -> Right:
    """Nothing where each concept was seen but once: there is no spread within one then."""
    onset = max(0, round(-spec.tmin * spec.sfreq))
    method = Method(windows=Windows(onset, spec.n_times, round(WINDOW_S * spec.sfreq)))
    if not len(known) or not can_learn(method, known):
        return {}
    said = fit(method, known, 1 + int(epochs.label.max()), None).scores(epochs.data).argmax(axis=1)
    return {LDA: np.asarray(said == epochs.truth)}


def _part(
    found: dict[int, list[Right]], labels: Sequence[np.ndarray], subjects: Sequence[int]
) -> Part:
    n = sum(map(len, labels))
    columns = [
        f"{OURS}, pictures",
        f"{OURS}, pictures, shuffled",
        f"{OURS}, concept",
        f"{OURS}, concept, shuffled",
        LDA,
        f"{BUNDLE}, pictures",
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
        "Ours: the responses of a population, and what these minutes say of this subject's; what "
        "paints stays. A picture is seen for 2 s, and nothing for about 1 s: `/calibrate` shows "
        f"nearly twice as many in the same time. LDA: means of {1000 * WINDOW_S:g} ms; it begins "
        "with nothing, and needs some concept twice.",
    ]
    table = Table("A new subject, by minutes of calibration", HEADER, rows, notes)
    return Part("Calibration", [table], values)
