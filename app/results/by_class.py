"""Do our pictures show more than a class? Beside classifiers whose answer the painter paints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.results.intervals import difference
from app.results.part import Part, Table, written
from app.results.peers import OURS, locked, our_decoder
from models.pipeline import EEGToImagePipeline
from models.training.by_class import class_contexts, paint_by_class
from models.training.comparison import Comparison, Metric
from models.training.evaluate import by_appearance
from models.training.metrics import Score
from models.training.peers import Predictor
from models.training.prepared import PreparedSet, Shards
from models.training.scorers import JudgeClassifier
from models.training.trials import Condition

PAINTED = "this bundle, painted from the EEG"
SHUFFLED = ", shuffled"


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
    answers = {OURS: our_decoder(pipeline, test), **peers}
    said = {who: decoder.predict(eeg).argmax(axis=1) for who, decoder in answers.items()}
    contexts = class_contexts(pipeline, locked(training))
    everything = np.concatenate(list(said.values()))
    shards, painted = paint_by_class(pipeline, everything, contexts, out, comparison.options)
    order = np.random.default_rng(0).permutation(len(trials))
    pictures: dict[str, tuple[Shards, np.ndarray]] = {
        PAINTED: (comparison.painted["EEG"], comparison.conditions["EEG"].index)
    }
    for place, who in enumerate(said):
        rows = painted[:, place * len(trials) : (place + 1) * len(trials)]
        pictures[f"{who}, painted by class"] = shards, rows
    pictures |= {
        who + SHUFFLED: (seen, rows[:, order])
        for who, (seen, rows) in pictures.items()
        if who in (PAINTED, f"{OURS}, painted by class")
    }
    appearance = test.appearance()[trials.images].numpy()
    found = {
        who: _appearance(comparison, judge, appearance, *each) for who, each in pictures.items()
    }
    return _part(found, trials.image, len(np.unique(everything)))


def _appearance(
    comparison: Comparison,
    judge: JudgeClassifier,
    appearance: np.ndarray,
    painted: Shards,
    rows: np.ndarray,
) -> dict[str, Metric]:
    """The judge's scores of one kind of pictures, which stand where the EEG's stood."""
    alone = replace(
        comparison, painted={"EEG": painted}, conditions={"EEG": Condition("EEG", rows)}
    )
    found = by_appearance(alone, judge, appearance)
    return {name: metric for name, metric in found.items() if isinstance(metric, Metric)}


def _part(found: Mapping[str, Mapping[str, Metric]], picture: np.ndarray, n_painted: int) -> Part:
    metrics = found[PAINTED]
    header = ["pictures", *(metric.title for metric in metrics.values())]
    values: dict[str, Any] = {}
    rows, minus = [], []
    for who, each in found.items():
        scores = {name: metric.scores["EEG"] for name, metric in each.items()}
        values[who] = {name: asdict(score) for name, score in scores.items()}
        rows.append([who, *_cells(metrics, scores, "")])
        if who == PAINTED or who.endswith(SHUFFLED):
            continue
        gained = {
            name: difference(_of_trials(metrics[name]), _of_trials(metric), picture)
            for name, metric in each.items()
        }
        minus.append([who, *_cells(metrics, gained, "+")])
        values[who]["ours minus this one"] = {n: asdict(score) for n, score in gained.items()}
    chance = [format(m.chance, m.form) if m.chance is not None else "–" for m in metrics.values()]
    rows.append(["chance", *chance])
    n_images = len(np.unique(picture))
    notes = [
        f"{len(picture):,} simulated trials of {n_images:,} pictures. Painted by class: the same "
        "painter and noise, told the mean conditioning of the training epochs of the class that "
        f"was named, {n_painted} of them. Their look can be right only by what the class tells.",
        "A smaller error and a larger correlation are better. The judge reads all of it in the "
        "pictures alone. Intervals are of 95 %, by the bootstrap over pictures.",
    ]
    paired = ["Differences are paired by trial: where an interval holds 0, none was found."]
    tables = [
        Table("Look of the pictures", header, rows, notes),
        Table(f"Look, {PAINTED}, minus painted by class", header, minus, paired),
    ]
    return Part("Beside a classifier and a painter of classes", tables, values)


def _of_trials(metric: Metric) -> np.ndarray:
    """One value for each trial: the mean of its samples."""
    assert metric.values is not None
    return np.asarray(metric.values.mean(axis=0))


def _cells(metrics: Mapping[str, Metric], scores: Mapping[str, Score], sign: str) -> list[str]:
    return [written(scores[name], sign + metric.form) for name, metric in metrics.items()]
