"""A new subject, as others are, and after some minutes of their own.

By the reader that `phosphene calibrate` makes (`models.training.personal`), beside the bundle as it
is and LDA of the same minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import normalise
from app.person import POPULATION
from app.results.answers import paint
from app.results.controls import Controlled, nothing_like
from app.results.live import controlled
from app.results.part import Part, Table, written
from app.results.peers import tested
from app.results.stream import Epochs, Sessions
from models.errors import BundleError
from models.pipeline import EEGToImagePipeline
from models.training.lda import Windows
from models.training.personal import Epochs as Known
from models.training.personal import Method, can_learn, fit, scaled
from models.training.personal_reader import make_reader
from models.training.population import Population
from models.training.scorers import Classifier
from models.training.trials import CONDITIONS, N_NOISE, Options

MINUTES = (2, 5, 15)
LEARNT, TESTED = 0, 1
"""Sessions of a new subject."""
# Of LDA, whose windows so few epochs do not tell.
WINDOW_S = 0.064
PICTURES, CONCEPT, LDA = "ours, pictures by the judge", "ours, concept", "LDA"
BUNDLE = "the bundle as it is, pictures"
HEADER = ("minutes", "decoder", *CONDITIONS)

Named = dict[str, Controlled]
"""By decoder."""


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
    found: dict[int, list[Named]] = {m: [] for m in (0, *minutes)}
    base = pipeline.reader

    def painted(epochs: Epochs, what: str) -> Callable[[str], Controlled]:
        data = (epochs.data, *nothing_like(epochs.data[:N_NOISE], options.seed))
        answers = [paint(pipeline, judge, each, options, what) for each in data]
        return lambda name: controlled(name, epochs, *answers)

    for subject in subjects:
        own = Sessions(sessions.parameters, subject, [TESTED], sessions.n_trials)
        epochs = own.record(spec)["marker-locked"]
        epochs = epochs.take(epochs.picture >= 0)
        learnt, moments, deviation = _learnt(sessions, subject, spec, max(minutes))
        prior = scaled(population, np.eye(spec.n_channels), deviation)
        as_it_is = painted(epochs, "as it is")
        for m in (0, *minutes):
            known = learnt.at(moments < 60 * m)
            model = fit(Method(1.0), known, base.config.n_concepts, prior)
            everything = np.arange(base.config.n_concepts)
            pipeline.reader = make_reader(model, known, base, everything).to(pipeline.device)
            try:
                answers = painted(epochs, f"{m} min")
            finally:
                pipeline.reader = base
            named = {PICTURES: answers("painted"), CONCEPT: answers("concept")}
            named |= _lda(known, spec, epochs)
            if not m:
                named[BUNDLE] = as_it_is("painted")
            found[m].append(named)
    return _part(found, subjects)


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


def _lda(known: Known, spec: EpochSpec, epochs: Epochs) -> Named:
    """Nothing where each concept was seen but once: there is no spread within one then."""
    onset = max(0, round(-spec.tmin * spec.sfreq))
    method = Method(windows=Windows(onset, spec.n_times, round(WINDOW_S * spec.sfreq)))
    if not len(known) or not can_learn(method, known):
        return {}
    model = fit(method, known, 1 + int(epochs.label.max()), None)
    return {LDA: tested(model.scores, epochs.data, epochs.truth, epochs.picture)}


def _part(found: dict[int, list[Named]], subjects: Sequence[int]) -> Part:
    rows: list[list[str]] = []
    values: dict[str, Any] = {}
    for m, each in found.items():
        values[str(m)] = {}
        for who in (PICTURES, CONCEPT, LDA, BUNDLE):
            # LDA may have had too little of one subject to learn from.
            parts = [named[who] for named in each if who in named]
            if not parts:
                continue
            scores = Controlled.joined(parts).scores()
            rows.append([str(m), who, *map(written, scores.values())])
            values[str(m)][who] = {name: asdict(score) for name, score in scores.items()}
            values[str(m)][who]["subjects"] = [float(p.right()["EEG"].mean()) for p in parts]
    everything = Controlled.joined([named[PICTURES] for named in found[0]])
    n, n_concepts = len(everything.label), len(np.unique(everything.label))
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
