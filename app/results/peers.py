"""Our decoder beside what a user would try first, on epochs that none of them has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acquisition.epoch_spec import EpochSpec
from app.results.controls import Controlled, nothing_like
from app.results.intervals import difference
from app.results.part import Part, Table, written
from models.errors import PreparedSetError
from models.pipeline import EEGToImagePipeline
from models.training.eegnet import EEGNetConfig, fit_eegnet
from models.training.lda import Windows, candidates
from models.training.peers import Labelled, NearestConcept, Predictor, fit_windows, fit_xdawn
from models.training.prepared import PreparedSet
from models.training.seen import SeenEpochs
from models.training.trials import CONDITIONS, label_names

OURS = "this bundle, nearest concept"
WINDOWS, XDAWN, EEGNET = "window means, LDA", "xDAWN, LDA", "EEGNet"
# Shorter windows would give xDAWN, of which every class has filters, too many features.
XDAWN_SECONDS = 0.04
HEADER = (
    "decoder", *CONDITIONS, "ours minus this one", "each subject", "chosen on validation",
)  # fmt: skip

Say = Callable[[str], None]


def choices(data: PreparedSet) -> list[Windows]:
    """Windows of a set's epochs, for its LDA to choose from."""
    spec = EpochSpec.from_dict(data.spec["epoch_spec"])
    return candidates(spec.n_times, max(0, round(-spec.tmin * spec.sfreq)), spec.sfreq)


def locked(data: PreparedSet) -> SeenEpochs:
    """The epochs that all decoders learn from and are measured on."""
    return SeenEpochs(data, "marker-locked")


def train_peers(
    training: PreparedSet, validation: PreparedSet, out: Path, config: EEGNetConfig, say: Say
) -> dict[str, Predictor]:
    """Fit the decoders to the marker-locked epochs of a set, each tuned on another set's.

    Parameters
    ----------
    out : folder of EEGNet's stages, which go on from their checkpoints.
    config : of EEGNet.

    Raises
    ------
    PreparedSetError, TrainingError
    """
    train, held = Labelled.of(locked(training)), Labelled.of(locked(validation))
    spec = EpochSpec.from_dict(training.spec["epoch_spec"])
    windows = choices(training)
    coarse = [w for w in windows if w.width >= XDAWN_SECONDS * spec.sfreq and not w.n_baseline]
    identity = {"training": training.digest(), "validation": validation.digest()}
    fits: dict[str, Callable[[], Predictor]] = {
        WINDOWS: lambda: fit_windows(train, held, windows),
        XDAWN: lambda: fit_xdawn(train, held, coarse),
        EEGNET: lambda: fit_eegnet(train, held, spec.sfreq, out, config, identity, say),
    }
    peers = {}
    for name, fit in fits.items():
        peers[name] = fit()
        say(f"{name}: {peers[name].chosen}")
    return peers


def our_decoder(pipeline: EEGToImagePipeline, data: PreparedSet) -> NearestConcept:
    """The bundle's own answers, in the order of a set's labels.

    Raises
    ------
    PreparedSetError
        The bundle names other concepts than the set.
    """
    names = label_names(data.spec, -1)
    if pipeline.concepts is None or list(pipeline.concepts.config.names) != names:
        raise PreparedSetError(
            f"The bundle has no concepts, or others than the labels of {data.folder}. Give a set "
            "that was prepared with the concepts that the bundle was trained on."
        )
    return NearestConcept(pipeline)


def measure(
    pipeline: EEGToImagePipeline, peers: Mapping[str, Predictor], tests: Mapping[str, PreparedSet]
) -> Part:
    """Accuracy of the bundle's nearest concept and of its peers, test by test.

    Parameters
    ----------
    peers : by name, from `train_peers`.
    tests : sets that nobody was trained or tuned on, by name, as "new sessions".

    Raises
    ------
    PreparedSetError, EpochShapeError
        A set has no marker-locked epochs, or others than the bundle was made for.
    """
    tables, values = [], {}
    for name, data in tests.items():
        decoders = {OURS: our_decoder(pipeline, data), **peers}
        table, values[name] = _tested(name, locked(data), decoders)
        tables.append(table)
    return Part("Beside other decoders", tables, values)


def tested(
    predict: Callable[[np.ndarray], np.ndarray],
    eeg: np.ndarray,
    label: np.ndarray,
    picture: np.ndarray,
) -> Controlled:
    """What a decoder names in epochs (n, n_channels, n_times), and in noise and nothing."""
    said = [predict(each).argmax(axis=1) for each in (eeg, *nothing_like(eeg))]
    return Controlled.of(said, label, picture)


def _tested(
    name: str, seen: SeenEpochs, decoders: Mapping[str, Predictor]
) -> tuple[Table, dict[str, Any]]:
    data, picture = Labelled.of(seen), seen.image_id.numpy()
    label = data.label
    columns = seen.columns()
    subject = columns.get("subject", torch.zeros(len(seen))).numpy()
    rows, right = [], {}
    values: dict[str, Any] = {}
    for who, decoder in decoders.items():
        answers = tested(decoder.predict, data.eeg, label, picture)
        right[who] = answers.right()["EEG"]
        scores = answers.scores()
        if who != OURS:
            scores["ours minus this one"] = difference(right[OURS], right[who], picture)
        each_subject = [float(right[who][subject == s].mean()) for s in np.unique(subject)]
        values[who] = {key: asdict(score) for key, score in scores.items()}
        values[who] |= {"subjects": each_subject, "chosen": decoder.chosen}
        minus = scores.get("ours minus this one")
        rows.append(
            [
                who,
                *(written(scores[name]) for name in CONDITIONS),
                written(minus, "+.1%") if minus else "–",
                " ".join(f"{100 * share:.0f}" for share in each_subject),
                decoder.chosen,
            ]
        )
    ours = values[OURS]["EEG"]["value"]
    lowest = {who: values[who]["EEG"]["low"] for who in decoders if who != OURS}
    above = [who for who, low in lowest.items() if ours < low]
    chance = 1 / len(np.unique(label))
    bar = f"not met: below that of {', '.join(above)}" if above else "met"
    notes = [
        f"{len(label):,} marker-locked epochs of {len(np.unique(picture)):,} pictures and "
        f"{len(np.unique(subject))} subjects, all simulated; chance is {chance:.1%}. Intervals are "
        "of 95 %; those of differences are paired, by the bootstrap over pictures. They say "
        "nothing about other subjects.",
        "All decoders learnt from the same training epochs and were tuned on the same validation "
        "epochs.",
        f"Bar: ours is at least within the interval of each of the others: {bar}.",
    ]
    values["chance"], values["is_met"] = chance, not above
    return Table(f"Named concept, {name}", HEADER, rows, notes), values
