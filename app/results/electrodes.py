"""What is left with fewer electrodes: our decoder, LDA that learnt with them, the ideal observer.

Ours is the bundle of all electrodes with the others silent, as a cap without them would leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.ideal_observer import ELECTRODES, IdealObserver
from acquisition.simulation_parameters import without_artefacts
from app.results.controls import Controlled, nothing_like
from app.results.intervals import finite, unpaired_ratio
from app.results.part import Part, Table, written
from app.results.peers import choices, locked, our_decoder, tested
from app.results.stream import Sessions
from app.ruler import epochs_of
from models.pipeline import EEGToImagePipeline
from models.training.peers import Labelled, fit_windows
from models.training.prepared import PreparedSet
from models.training.trials import CONDITIONS, N_NOISE

OBSERVER = "the ideal observer"
OURS, LDA = "this bundle, others silent", "LDA that learnt with these alone"
HEADER = ("electrodes", "decoder", *CONDITIONS, "share of the ideal")


def silenced(eeg: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """Normalised epochs (n, n_channels, n_times) in which all channels but `kept` are zero."""
    out = np.zeros_like(eeg)
    out[:, kept] = eeg[:, kept]
    return out


def observe(sessions: Sessions, spec: EpochSpec) -> Controlled:
    """What the ideal observer names in the sessions' marker-locked epochs without artefacts.

    Parameters
    ----------
    spec : of the epochs; its electrodes are all that the observer sees.
    """
    clean = without_artefacts(sessions.parameters)
    parts = []
    for number in sessions.numbers:
        observer = IdealObserver(sessions.begin(number, clean), spec)
        eeg, label, picture = epochs_of(
            sessions.begin(number, clean), observer.spec, sessions.n_trials
        )
        data = (eeg, *nothing_like(eeg[:N_NOISE]))
        said = [observer.posterior(each).argmax(axis=1) for each in data]
        parts.append(Controlled.of(said, label, picture))
    return Controlled.joined(parts)


def measure(
    pipeline: EEGToImagePipeline,
    training: PreparedSet,
    validation: PreparedSet,
    test: PreparedSet,
    sessions: Sessions,
    say: Callable[[str], None],
    counts: Sequence[int] = tuple(ELECTRODES),
) -> Part:
    """Accuracy with fewer and fewer electrodes.

    Parameters
    ----------
    training, validation : that LDA learns from and is tuned on, for each number of electrodes.
    test : that the bundle and LDA are measured on.
    sessions : that the ideal observer is measured on: the same, without artefacts.
    counts : numbers of electrodes, of `ELECTRODES`.

    Raises
    ------
    PreparedSetError, EpochShapeError, EpochSpecError
        The sets, the bundle and the simulated subject do not go together.
    """
    decoder = our_decoder(pipeline, test)
    seen = locked(test)
    picture, data = seen.image_id.numpy(), Labelled.of(seen)
    train, held = Labelled.of(locked(training)), Labelled.of(locked(validation))
    spec = EpochSpec.from_dict(test.spec["epoch_spec"])
    rows, values = [], {}
    for count in counts:
        kept = [spec.ch_names.index(name) for name in ELECTRODES[count]]
        lda = fit_windows(train.at(kept), held.at(kept), choices(training))
        answers = {
            OBSERVER: observe(sessions, replace(spec, ch_names=ELECTRODES[count])),
            OURS: tested(decoder.predict, silenced(data.eeg, kept), data.label, picture),
            LDA: tested(lda.predict, data.at(kept).eeg, data.label, picture),
        }
        own, values[str(count)] = _rows(count, answers)
        rows += own
        say(f"{count} electrodes: " + " | ".join(row[2] for row in own))
    table = Table("Fewer electrodes", HEADER, rows, _notes(answers))
    return Part("With fewer electrodes", [table], values)


def _rows(count: int, answers: dict[str, Controlled]) -> tuple[list[list[str]], dict[str, Any]]:
    ideal = answers[OBSERVER]
    of_ideal = ideal.right()["EEG"].astype(float)
    rows = []
    values: dict[str, Any] = {}
    for who, named in answers.items():
        scores = named.scores()
        values[who] = {name: asdict(score) for name, score in scores.items()}
        share = "–"
        # Of few trials the observer may name none.
        if who != OBSERVER and of_ideal.any():
            right = named.right()["EEG"].astype(float)
            found = unpaired_ratio(right, named.picture, of_ideal, ideal.picture)
            share, values[who]["share of the ideal"] = written(found, ".2f"), finite(found)
        rows.append([str(count), who, *map(written, scores.values()), share])
    return rows, values


def _notes(answers: dict[str, Controlled]) -> list[str]:
    ours, observed = answers[OURS], answers[OBSERVER]
    return [
        f"{len(ours.label):,} marker-locked epochs of {len(np.unique(ours.picture)):,} pictures, "
        f"and {len(observed.label):,} that the observer saw, all simulated; chance is "
        f"{1 / len(np.unique(ours.label)):.1%}. Intervals are of 95 %; for those of shares the "
        "pictures of both are drawn apart. The observer's are of sessions without artefacts, for "
        "which alone it is ideal.",
        "Epochs of this bundle and of LDA keep the average reference of all electrodes, which a "
        "cap without the others would not have; the observer's reference is the average of those "
        "it sees.",
    ]
