"""The part "Generated pictures": scores, the ideal observer beside, and pictures of captions."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from acquisition.epoch_spec import EpochSpec
from app.evaluation import evaluate_painter
from app.results.bars import at_least
from app.results.captions import measure_captions
from app.results.controls import Controlled
from app.results.electrodes import observe
from app.results.inputs import Inputs, tested_sessions
from app.results.intervals import finite, unpaired_ratio
from app.results.part import Part, Table, written
from models.training.comparison import Comparison, Metric
from models.training.evaluate import Evaluation
from models.training.prepared import Shards
from models.training.report import meanings, score_table
from models.training.trials import CONDITIONS, Trials, conditions_of

LEAST_RATIO = 0.8
FOLDER = "evaluation"
NAMED = {
    "n_way_label_top_1": "the judge, of the painted picture",
    "nearest_concept": "the concept nearest to the EEG",
}


def measure(inputs: Inputs) -> Part:
    """Evaluate the bundle's pictures of the test set's marker-locked trials.

    The whole report and the pictures stay in the folder `evaluation`.

    Raises
    ------
    PreparedSetError, ScorerError, EpochShapeError, TrainingError
        The sets, the bundle, CLIP and the painter of captions do not go together.
    """
    folder = inputs.out / FOLDER
    captions, of_captions = measure_captions(
        inputs.captions_by,
        inputs.wanted.clip,
        inputs.judge,
        inputs.test,
        inputs.caption_options,
        inputs.painter.pipeline.device,
    )
    # Of a run that was stopped: without its part nobody knows how much of it is there.
    shutil.rmtree(folder, ignore_errors=True)
    found = evaluate_painter(
        inputs.settings, inputs.folder, inputs.painter, inputs.test, folder, inputs.scored
    )
    inputs.say("The ideal observer looks at the sessions without artefacts.")
    sessions = tested_sessions(inputs.test, inputs.wanted.sessions.parameters)
    spec = EpochSpec.from_dict(inputs.test.spec["epoch_spec"])
    observed = Controlled.joined([observe(each, spec) for each in sessions])
    beside, of_observer = beside_observer(found, observed)
    values = {
        "scores": {
            name: {key: asdict(score) for key, score in metric.scores.items()}
            for name, metric in found.metrics.items()
            if isinstance(metric, Metric)
        },
        "ideal observer": of_observer,
        "captions": of_captions,
    }
    return Part("Generated pictures", [_scores(found), beside, captions], values)


def comparison(inputs: Inputs) -> Comparison:
    """The pictures that `measure` left, for other parts."""
    trials = Trials.choose(inputs.test, inputs.options)
    folder: Path = inputs.out / FOLDER / "decoded"
    conditions = conditions_of(len(trials), inputs.options)
    painted = {c.painted: Shards(folder / c.painted, "pictures") for c in conditions.values()}
    return Comparison(trials, inputs.options, inputs.test.pictures(), painted, conditions)


def beside_observer(found: Evaluation, observed: Controlled) -> tuple[Table, dict[str, Any]]:
    """Right answers of the bundle beside those of the ideal observer.

    Parameters
    ----------
    found : of marker-locked trials, with a judge and concepts.
    observed : what the observer names.
    """
    right, ideal = observed.right()["EEG"].astype(float), observed.scores()
    rows: list[list[str]] = []
    values: dict[str, Any] = {name: asdict(score) for name, score in ideal.items()}
    for name, title in NAMED.items():
        metric = found.metrics[name]
        if not isinstance(metric, Metric) or metric.values is None:
            continue
        ours, seen = metric.values.mean(axis=0), found.comparison.trials.image
        cells = [written(metric.scores[condition]) for condition in CONDITIONS]
        if ideal["EEG"].value:
            share = unpaired_ratio(ours, seen, right, observed.picture)
            bar = at_least(share.value, LEAST_RATIO) if not rows else "–"
            rows.append([title, *cells, written(share, ".2f"), bar])
            values[f"{name} of the observer's"] = finite(share)
        else:
            # Of few trials it may name none.
            rows.append([title, *cells, "–", "–"])
    cells = [written(score) for score in ideal.values()]
    rows.append(["the ideal observer", *cells, "1", "–"])
    table = Table(
        "Beside the ideal observer, marker-locked",
        ["top-1 by", *CONDITIONS, "share of the ideal", "bar"],
        rows,
        [
            f"{len(found.comparison.trials):,} trials of the bundle, and {len(right):,} that the "
            "observer saw: the same simulated sessions without artefacts, for which alone it is "
            f"ideal. Chance is {1 / len(found.names):.1%}. Intervals are of 95 %; for that of the "
            "share the pictures of both are drawn apart."
        ],
    )
    return table, values


def _scores(e: Evaluation) -> Table:
    header, rows = score_table(e)
    trials, options = e.comparison.trials, e.comparison.options
    notes = [
        *(f"**Warning.** {warning}" for warning in e.warnings),
        f"{len(trials):,} {options.epochs} trials of {e.honesty} EEG with {len(trials.images):,} "
        f"different pictures, painted in {options.steps} steps with guidance "
        f"{options.guidance:g}. In brackets: 95 % intervals.",
        "\n".join(meanings(e)),
    ]
    return Table("Scores", header, rows, notes)
