"""The part "Live" of the results page: what a viewer of the stream sees, and when."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from acquisition.epoch_spec import EpochSpec
from acquisition.ideal_observer import IdealObserver
from acquisition.simulation_parameters import without_artefacts
from acquisition.stimuli import concepts
from app.results.answers import Answers, concept_table, paint
from app.results.bars import at_least, at_most
from app.results.intervals import finite, median, ratio
from app.results.part import Part, Table, written
from app.results.reliability import calibration_error, error_of_chance, reliability
from app.results.stream import Epochs, Sessions
from app.results.unsure import Say, Values, alone, measure_not_sure, sureness
from app.results.waiting import IN_A_ROW, time_to_right
from models.pipeline import EEGToImagePipeline
from models.training.metrics import Score
from models.training.scorers import JudgeClassifier
from models.training.trials import N_NOISE, Options, noise_like

LEAST_RATIO = 0.65
MOST_ERROR = 0.05
SIMULATED = "All EEG is simulated."


def measure(
    pipeline: EEGToImagePipeline,
    spec: EpochSpec,
    judge: JudgeClassifier,
    sessions: Sessions,
    options: Options,
    say: Say,
) -> Part:
    """Measure a bundle on the stream of a simulated subject.

    Parameters
    ----------
    spec : of the bundle's epochs.
    sessions : that training did not see.
    options : steps, guidance, batch and seed of painting.
    say : takes lines.

    Raises
    ------
    BundleError
        The bundle does not name the simulated subject's concepts.
    ScorerError
        The judge knows others.
    """
    concept_table(pipeline)
    judge.classes_of([c.name for c in concepts()])
    say(f"Live: subject {sessions.subject}, {len(sessions.numbers)} sessions are simulated.")
    recorded = sessions.record(spec)
    frames, locked = recorded["sliding"].during(), recorded["marker-locked"]
    locked = locked.take(locked.picture >= 0)
    say(f"{len(frames)} sliding windows and {len(locked)} marker-locked epochs are painted.")
    of_frames = paint(pipeline, judge, frames.data, options, "sliding windows", False)
    of_locked = paint(pipeline, judge, locked.data, options, "marker-locked epochs")

    is_inside = frames.first >= frames.onset[frames.picture]
    inside, of_inside = frames.take(is_inside), of_frames.take(is_inside)
    noise = noise_like(torch.from_numpy(inside.data[:N_NOISE]), options.seed).numpy()
    of_noise = paint(pipeline, judge, noise, options, "noise EEG", False)
    of_zero = paint(pipeline, judge, np.zeros_like(noise[:1]), options, "zero EEG", False)
    say("The ideal observer looks at the sessions without artefacts.")
    ideal = ideal_answers(spec, sessions)

    parts = [
        accuracy(inside, of_inside, of_noise, of_zero, ideal),
        waiting(frames, of_frames.painted, spec, (locked, of_locked.painted)),
        confidence("marker-locked epochs", locked, of_locked),
        confidence("sliding windows fully inside a viewing", inside, of_inside),
        sureness(measure_not_sure(alone(pipeline), spec, sessions, recorded["sliding"], say)),
    ]
    values: Values = {
        "subject": sessions.subject,
        "sessions": list(sessions.numbers),
        "trials": sessions.n_trials,
        **sessions.parameters.to_dict(),
    }
    for _, own in parts:
        values |= own
    return Part("Live", [table for table, _ in parts], values)


def shuffled_truth(epochs: Epochs, seed: int = 0) -> np.ndarray:
    """The concept of each epoch after the labels of the pictures were shuffled, (n,)."""
    label = np.random.default_rng(seed).permutation(epochs.label)
    return np.asarray(label[epochs.picture])


@dataclass(frozen=True, slots=True, eq=False)
class Ideal:
    """What the ideal observer said of the windows fully inside a viewing.

    Attributes
    ----------
    epochs : the windows; the same moments and pictures as the bundle's.
    said : (n,), concepts.
    """

    epochs: Epochs
    said: np.ndarray


def ideal_answers(spec: EpochSpec, sessions: Sessions, n_before: int = 0) -> Ideal:
    """The ideal observer's answers, for the subject without artefacts: its own are for them.

    Parameters
    ----------
    n_before : see `IdealObserver`.
    """
    clean = without_artefacts(sessions.parameters)
    windows, said = [], []
    for number in sessions.numbers:
        observer = IdealObserver(sessions.begin(number, clean), spec, "sliding", n_before=n_before)
        own = replace(sessions, parameters=clean, numbers=[number])
        longer = own.record(observer.spec)["sliding"]
        window = replace(longer, first=longer.first + n_before / spec.sfreq)
        windows.append(window.inside())
        said.append(observer.posterior(windows[-1].data).argmax(axis=1))
    return Ideal(Epochs.joined(windows), np.concatenate(said))


def accuracy(
    inside: Epochs, answers: Answers, noise: Answers, zero: Answers, ideal: Ideal
) -> tuple[Table, Values]:
    """Right answers in windows fully inside a viewing, beside the ideal observer's."""
    chance = 1 / len(concepts())
    truth, shuffled, picture = inside.truth, shuffled_truth(inside), inside.picture
    ideal_hits = (ideal.said == ideal.epochs.truth).astype(float)
    values: Values = {"chance": chance}
    rows = []
    for name, title in (
        ("painted", "the judge, of the painted picture"),
        ("concept", "the concept nearest to the EEG"),
    ):
        said, of_noise, of_zero = (getattr(each, name) for each in (answers, noise, zero))
        hits = (said == truth).astype(float)
        scores = {
            "EEG": Score.of(hits, picture),
            "shuffled EEG": Score.of((said == shuffled).astype(float), picture),
            # As many trials, each with one of the answers.
            "noise EEG": Score.of((np.resize(of_noise, len(truth)) == truth) * 1.0, picture),
            "zero EEG": Score.of((of_zero[0] == truth) * 1.0, picture),
        }
        of_ideal = ratio(hits, ideal_hits, picture)
        bar = at_least(of_ideal.value, LEAST_RATIO) if name == "painted" else "–"
        rows.append([title, *map(written, scores.values()), written(of_ideal, ".2f"), bar])
        values[name] = {key: asdict(score) for key, score in scores.items()}
        values[name]["ratio"] = finite(of_ideal)
    ideal_scores = {
        "EEG": Score.of(ideal_hits, ideal.epochs.picture),
        "shuffled EEG": Score.of(
            (ideal.said == shuffled_truth(ideal.epochs)).astype(float), ideal.epochs.picture
        ),
    }
    rows.append(["the ideal observer", *map(written, ideal_scores.values()), "–", "–", "1", "–"])
    values["ideal observer"] = {key: asdict(score) for key, score in ideal_scores.items()}
    table = Table(
        "Sliding windows fully inside a viewing",
        ["top-1 by", "EEG", "shuffled", "noise EEG", "zero EEG", "share of the ideal", "bar"],
        rows,
        [
            f"{len(inside)} windows of {len(np.unique(picture))} pictures; chance is {chance:.1%}. "
            "Brackets: 95 %, drawn picture by picture. Shuffled: the labels of the pictures "
            "exchanged. The ideal observer knows how the EEG was made, and sees the same pictures "
            f"and windows of a subject without blinks, muscle and pops. {SIMULATED}"
        ],
    )
    return table, {"sliding": values}


def waiting(
    frames: Epochs,
    said: np.ndarray,
    spec: EpochSpec,
    locked: tuple[Epochs, np.ndarray] | None = None,
) -> tuple[Table, Values]:
    """From a picture's appearance to the right picture on the page.

    Parameters
    ----------
    frames : sliding windows that end inside a viewing.
    said : (n,), what the judge sees in their pictures.
    locked : marker-locked epochs, and what it sees in theirs.
    """
    rows: list[list[str]] = []
    values: Values = {}
    every = f"sliding, every {spec.hop / spec.sfreq:g} s"
    for eeg, truth_of in (("EEG", lambda e: e.truth), ("shuffled", shuffled_truth)):
        right = said == truth_of(frames)
        sliding = time_to_right(right, frames.last, frames.picture, frames.onset)
        found = [("sliding", every, sliding)]
        if locked is not None:
            epochs, locked_said = locked
            after = epochs.last - epochs.onset[epochs.picture]
            once = np.where(locked_said == truth_of(epochs), after, np.inf)
            found.append(("marker-locked", "marker-locked, one for each picture", once))
            values["end of a marker-locked epoch"] = float(np.median(after))
        for kind, title, times in found:
            middle = median(times)
            never = Score.of(np.isinf(times).astype(float), np.arange(len(times)))
            rows.append([title, eeg, _seconds(middle), written(never), str(len(times))])
            values[f"{kind}, {eeg}"] = {"median": finite(middle), "never": asdict(never)}
    note = (
        "From the picture's appearance to the last sample of the window of the first of "
        f"{IN_A_ROW} frames in a row in which the judge sees the right concept; never, if there "
        "are none before the picture goes. Painting comes on top."
    )
    if locked is not None:
        note += (
            " The only frame of a marker-locked epoch ends "
            f"{values['end of a marker-locked epoch']:.2f} s after the appearance, so for these "
            "one right frame is enough."
        )
    header = ["frames", "labels", "median", "never right", "pictures"]
    table = Table("Time to the right picture", header, rows, [f"{note} {SIMULATED}"])
    return table, {"time to the right picture": values}


def confidence(what: str, epochs: Epochs, answers: Answers) -> tuple[Table, Values]:
    """How often the concept that is shown is right, by the confidence that is shown with it."""
    right = answers.concept == epochs.truth
    bins = reliability(answers.confidence, right, epochs.picture)
    error = calibration_error(answers.confidence, right)
    by_chance = error_of_chance(answers.confidence)
    rows = [
        [f"{b.low:.0%} to {b.high:.0%}", f"{b.confidence:.1%}", written(b.right), str(b.right.n)]
        for b in bins
    ]
    table = Table(
        f"Confidence, {what}",
        ["confidence", "mean", "right", "answers"],
        rows,
        [
            f"Expected calibration error {error:.3f}; {at_most(error, MOST_ERROR)}. A perfect "
            f"confidence would show about {by_chance:.3f} with as many answers. {SIMULATED}"
        ],
    )
    values = {
        "error": error,
        "error of a perfect one": by_chance,
        "bins": [asdict(b) for b in bins],
    }
    return table, {f"confidence, {what}": values}


def _seconds(score: Score) -> str:
    """A median in words; infinite times are none.

    >>> _seconds(Score(1.5, 1.25, math.inf, 9, 9, ""))
    '1.50 s (1.25 s to never)'
    """
    words = [
        "never" if v is None or math.isinf(v) else f"{v:.2f} s"
        for v in (score.value, score.low, score.high)
    ]
    return f"{words[0]} ({words[1]} to {words[2]})"
