"""Concepts whose EEG a second bundle has never learnt from: are they named, and painted?"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace

import numpy as np
import torch

from app.evaluation import evaluate_painter, open_painter
from app.results.inputs import Inputs
from app.results.part import Part, Table, written
from app.results.peers import our_decoder, tested
from models.concepts import ConceptTable
from models.training.comparison import Comparison, Metric
from models.training.peers import Labelled, Predictor
from models.training.prepared import PreparedSet
from models.training.seen import SeenEpochs
from models.training.trials import CONDITIONS

FOLDER = "zero-shot"
OF_PICTURES = ("n_way_label_top_1", "clip_two_way")


def measure(inputs: Inputs) -> Part:
    """Name and paint trials of concepts that were left out.

    The report and the pictures stay in the folder `zero-shot`.

    Raises
    ------
    BundleError, PreparedSetError, EpochShapeError, ScorerError
        The bundle and the sets do not go together.
    """
    assert inputs.wanted.zero_shot is not None
    folder, place = inputs.wanted.zero_shot
    data = PreparedSet(place)
    painter = open_painter(inputs.settings, folder)
    decoder, table = our_decoder(painter.pipeline, data), painter.pipeline.concepts
    names = list(table.config.names)
    left_out = np.unique(SeenEpochs(data, "marker-locked").label.numpy())
    out = inputs.out / FOLDER
    # Of a run that was stopped.
    shutil.rmtree(out, ignore_errors=True)
    found = evaluate_painter(inputs.settings, folder, painter, data, out, inputs.scored)
    of_all, of_four = f"nearest of {len(names)}", f"nearest of the {len(left_out)}"
    scores = [
        _learnt(inputs, decoder, left_out, len(names), f"learnt concepts: {of_all}"),
        _nearest(found.comparison, table, np.arange(len(names)), f"left out: {of_all}"),
        _nearest(found.comparison, table, left_out, f"left out: {of_four}"),
    ]
    for name in OF_PICTURES:
        metric = found.metrics[name]
        assert isinstance(metric, Metric)
        scores.append(replace(metric, title=f"left out, painted: {metric.title}"))
    rows = [
        [
            m.title,
            *(written(m.scores[name]) for name in CONDITIONS),
            f"{m.chance:.1%}",
        ]
        for m in scores
    ]
    values = {m.title: {name: asdict(s) for name, s in m.scores.items()} for m in scores}
    note = (
        f"{len(found.comparison.trials):,} marker-locked epochs in which one of "
        f"{', '.join(names[number] for number in left_out)} is seen, whose EEG the bundle has "
        "never learnt from. A concept is what CLIP makes of its pictures; what paints knows all of "
        "them from captions. All EEG is simulated; intervals are of 95 %."
    )
    tables = [Table("Zero-shot", ["score", *CONDITIONS, "chance"], rows, [note])]
    return Part("Concepts that were left out", tables, values)


def _nearest(c: Comparison, table: ConceptTable, among: np.ndarray, title: str) -> Metric:
    """Whether of the concepts `among` the one nearest to the EEG is the label."""

    def values(painted: str, rows: np.ndarray) -> np.ndarray:
        embeds = c.painted[painted]["clip_embeds"][torch.from_numpy(rows)].float()
        probabilities = table(embeds.to(table.device)).cpu().numpy()[:, among]
        return np.asarray(among[probabilities.argmax(axis=1)] == c.trials.label, float)

    return c.metric(title, "", 1 / len(among), values)


def _learnt(
    inputs: Inputs, decoder: Predictor, left_out: np.ndarray, n_concepts: int, title: str
) -> Metric:
    """The nearest of all concepts, for trials of the test set that show no left out one."""
    seen = SeenEpochs(inputs.test, "marker-locked")
    epochs = Labelled.of(seen)
    is_learnt = ~np.isin(epochs.label, left_out)
    label, picture = epochs.label[is_learnt], seen.image_id.numpy()[is_learnt]
    found = tested(decoder.predict, epochs.eeg[is_learnt], label, picture)
    return Metric(title, "", 1 / n_concepts, found.scores())
