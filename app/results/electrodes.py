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
from app.results.part import Part, Table, written
from app.results.peers import choices, locked, our_decoder
from app.results.stream import Sessions
from app.ruler import Epochs, epochs_of
from models.pipeline import EEGToImagePipeline
from models.training.metrics import Score
from models.training.peers import Labelled, fit_windows
from models.training.prepared import PreparedSet

DECODERS = {"ours": "this bundle, others silent", "LDA": "LDA that learnt with these alone"}
HEADER = (
    "electrodes", "ideal observer", DECODERS["ours"], "of the observer's", DECODERS["LDA"],
    "of the observer's", "shuffled: observer", "shuffled: this bundle", "shuffled: LDA",
)  # fmt: skip


def silenced(eeg: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """Normalised epochs (n, n_channels, n_times) in which all channels but `kept` are zero."""
    out = np.zeros_like(eeg)
    out[:, kept] = eeg[:, kept]
    return out


def observe(sessions: Sessions, spec: EpochSpec) -> Epochs:
    """What the ideal observer names, the label and the picture of each epoch, (n,) each.

    Parameters
    ----------
    spec : of the epochs; its electrodes are all that the observer sees.
    """
    clean = without_artefacts(sessions.parameters)
    said, label, picture = [], [], []
    n_before = 0
    for number in sessions.numbers:
        observer = IdealObserver(sessions.begin(number, clean), spec)
        epochs = epochs_of(sessions.begin(number, clean), observer.spec, sessions.n_trials)
        said.append(observer.posterior(epochs[0]).argmax(axis=1))
        label.append(epochs[1])
        # Numbers of pictures begin again with each session.
        picture.append(epochs[2] + n_before)
        n_before = int(picture[-1].max()) + 1
    return np.concatenate(said), np.concatenate(label), np.concatenate(picture)


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
        ours = decoder.predict(silenced(data.eeg, kept)).argmax(axis=1)
        theirs = lda.predict(data.at(kept).eeg).argmax(axis=1)
        answers = {
            "observer": observe(sessions, replace(spec, ch_names=ELECTRODES[count])),
            "ours": (ours, data.label, picture),
            "LDA": (theirs, data.label, picture),
        }
        row, values[str(count)] = _row(count, answers)
        rows.append(row)
        say(f"{count} electrodes: " + " | ".join(row[1:]))
    table = Table("Fewer electrodes", HEADER, rows, _notes(data.label, picture, answers))
    return Part("With fewer electrodes", [table], values)


def _row(count: int, answers: dict[str, Epochs]) -> tuple[list[str], dict[str, Any]]:
    scores, shuffled = {}, {}
    for who, (said, label, picture) in answers.items():
        other = np.random.default_rng(0).permutation(label)
        scores[who] = Score.of((said == label).astype(float), picture)
        shuffled[who] = Score.of((said == other).astype(float), picture)
    row = [str(count), written(scores["observer"])]
    values: dict[str, Any] = {}
    for who in DECODERS:
        ideal = scores["observer"].value
        # Of few trials it may name none.
        ratio = scores[who].value / ideal if ideal else None
        values[f"{who} of the observer's"] = ratio
        row += [written(scores[who]), "–" if ratio is None else f"{ratio:.2f}"]
    row += [written(score) for score in shuffled.values()]
    values |= {who: asdict(score) for who, score in scores.items()}
    values |= {f"{who}, shuffled": asdict(score) for who, score in shuffled.items()}
    return row, values


def _notes(label: np.ndarray, picture: np.ndarray, answers: dict[str, Epochs]) -> list[str]:
    observed = answers["observer"]
    return [
        f"{len(label):,} marker-locked epochs of {len(np.unique(picture)):,} pictures, and "
        f"{len(observed[1]):,} that the observer saw, all simulated; intervals are of 95 %, chance "
        f"is {1 / len(np.unique(label)):.1%}. The observer's are of sessions without artefacts, "
        "for which alone it is ideal.",
        "Epochs of this bundle and of LDA keep the average reference of all electrodes, which a "
        "cap without the others would not have; the observer's reference is the average of those "
        "it sees.",
    ]
