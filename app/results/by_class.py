"""Do our pictures show more than a class? Beside classifiers whose answer the painter paints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.results.intervals import difference
from app.results.part import Part, Table, written
from app.results.peers import OURS, locked, our_decoder, tested
from models.pipeline import EEGToImagePipeline
from models.training.by_class import class_contexts, paint_by_class
from models.training.comparison import Comparison, Metric
from models.training.evaluate import by_appearance
from models.training.metrics import Score
from models.training.peers import Predictor
from models.training.prepared import PreparedSet
from models.training.scorers import JudgeClassifier
from models.training.trials import CONDITIONS, Condition

PAINTED = "this bundle, painted from the EEG"


def measure(
    pipeline: EEGToImagePipeline,
    judge: JudgeClassifier,
    peers: Mapping[str, Predictor],
    training: PreparedSet,
    test: PreparedSet,
    comparison: Comparison,
    out: Path,
) -> Part:
    """Colour, size and place in pictures of the EEG and in pictures of a class alone.

    Parameters
    ----------
    judge : reads the pictures.
    peers : classifiers by name, from `app.results.peers.train_peers`.
    training : whose epochs say how each class is painted.
    test : that is measured; says what its pictures look like.
    comparison : the bundle's pictures of it, as `models.training.evaluate.evaluate` paints them.
    out : folder for the pictures of classes; must not exist.

    Raises
    ------
    PreparedSetError, EpochShapeError
        The sets and the bundle do not go together.
    """
    trials = comparison.trials
    eeg = test.epochs().rows("eeg", trials.rows).float().numpy()
    decoders = {OURS: our_decoder(pipeline, test), **peers}
    named = {
        who: tested(decoder.predict, eeg, trials.label, trials.image)
        for who, decoder in decoders.items()
    }
    contexts = class_contexts(pipeline, locked(training))
    everything = np.concatenate([(each.said, each.noise, each.zero) for each in named.values()])
    options = comparison.options
    shards, rows = paint_by_class(pipeline, everything.ravel(), contexts, out, options)
    rows = rows.reshape(options.samples, -1, len(trials))
    order = np.random.default_rng(0).permutation(len(trials))
    compared = {PAINTED: comparison}
    for place, who in enumerate(named):
        own, noise, zero = (rows[:, 3 * place + i] for i in range(3))
        conditions = zip(CONDITIONS, (own, own[:, order], noise, zero), strict=True)
        compared[f"{who}, painted by class"] = replace(
            comparison,
            painted={"classes": shards},
            conditions={name: Condition("classes", index) for name, index in conditions},
        )
    appearance = test.appearance()[trials.images].numpy()
    found = {who: _appearance(c, judge, appearance) for who, c in compared.items()}
    return _part(found, trials.image, len(np.unique(everything)))


def _appearance(
    comparison: Comparison, judge: JudgeClassifier, appearance: np.ndarray
) -> dict[str, Metric]:
    found = by_appearance(comparison, judge, appearance)
    return {name: metric for name, metric in found.items() if isinstance(metric, Metric)}


def _part(found: Mapping[str, Mapping[str, Metric]], picture: np.ndarray, n_painted: int) -> Part:
    metrics = found[PAINTED]
    titles = [metric.title for metric in metrics.values()]
    values: dict[str, Any] = {}
    rows: dict[str, list[list[str]]] = {name: [] for name in CONDITIONS}
    minus = []
    for who, each in found.items():
        values[who] = {}
        for condition, own in rows.items():
            scores = {name: metric.scores[condition] for name, metric in each.items()}
            values[who][condition] = {name: asdict(score) for name, score in scores.items()}
            own.append([who, condition, *_cells(metrics, scores, "")])
        if who == PAINTED:
            continue
        gained = {
            name: difference(_of_trials(metrics[name]), _of_trials(metric), picture)
            for name, metric in each.items()
        }
        minus.append([who, *_cells(metrics, gained, "+")])
        values[who]["ours minus this one"] = {n: asdict(score) for n, score in gained.items()}
    chance = [format(m.chance, m.form) if m.chance is not None else "–" for m in metrics.values()]
    n_images = len(np.unique(picture))
    notes = [
        f"{len(picture):,} simulated trials of {n_images:,} pictures. Painted by class: the same "
        "painter and noise, told the mean conditioning of the training epochs of the class that "
        f"was named, {n_painted} of them. Their look can be right only by what the class tells.",
        "A smaller error and a larger correlation are better. The judge reads all of it in the "
        "pictures alone. Intervals are of 95 %, by the bootstrap over pictures.",
    ]
    paired = ["Differences are paired by trial: where an interval holds 0, none was found."]
    every = [row for own in rows.values() for row in own]
    tables = [
        Table(
            "Look of the pictures",
            ["pictures", "EEG", *titles],
            [*every, ["chance", "–", *chance]],
            notes,
        ),
        Table(f"Look, {PAINTED}, minus painted by class", ["pictures", *titles], minus, paired),
    ]
    return Part("Beside a classifier and a painter of classes", tables, values)


def _of_trials(metric: Metric) -> np.ndarray:
    """One value for each trial: the mean of its samples."""
    assert metric.values is not None
    return np.asarray(metric.values.mean(axis=0))


def _cells(metrics: Mapping[str, Metric], scores: Mapping[str, Score], sign: str) -> list[str]:
    return [written(scores[name], sign + metric.form) for name, metric in metrics.items()]
