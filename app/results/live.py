"""The part "Live" of the results page: what a viewer of the stream sees, and when."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.ideal_observer import IdealObserver
from acquisition.simulation_parameters import without_artefacts
from acquisition.stimuli import concepts
from app.results.answers import Answers, concept_table, paint
from app.results.bars import at_least, at_most
from app.results.controls import Controlled, nothing_like
from app.results.intervals import finite, median, ratio
from app.results.part import Part, Table, written
from app.results.reliability import calibration_score, error_of_chance, reliability
from app.results.stream import Epochs, Sessions
from app.results.unsure import Say, Values, alone, measure_not_sure, sureness
from app.results.waiting import IN_A_ROW, time_to_right
from models.pipeline import EEGToImagePipeline
from models.training.metrics import Score
from models.training.scorers import JudgeClassifier
from models.training.trials import CONDITIONS, N_NOISE, Options

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
    noise, zero = nothing_like(inside.data[:N_NOISE], options.seed)
    of_noise = paint(pipeline, judge, noise, options, "noise EEG", False)
    of_zero = paint(pipeline, judge, zero, options, "zero EEG", False)
    noise, zero = nothing_like(locked.data[:N_NOISE], options.seed)
    locked_noise = paint(pipeline, judge, noise, options, "noise EEG")
    locked_zero = paint(pipeline, judge, zero, options, "zero EEG")
    say("The ideal observer looks at the sessions without artefacts.")
    ideal = ideal_answers(spec, sessions)

    parts = [
        accuracy(inside, of_inside, of_noise, of_zero, ideal),
        waiting(
            frames,
            controlled("painted", frames, of_frames, of_noise, of_zero),
            spec,
            (locked, controlled("painted", locked, of_locked, locked_noise, locked_zero)),
        ),
        confidence("marker-locked epochs", locked, of_locked, locked_noise, locked_zero),
        confidence("sliding windows fully inside a viewing", inside, of_inside, of_noise, of_zero),
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


def controlled(
    name: str, epochs: Epochs, answers: Answers, noise: Answers, zero: Answers
) -> Controlled:
    """One kind of answers, "painted" or "concept", of epochs that are all of a picture."""
    said = [getattr(each, name) for each in (answers, noise, zero)]
    return Controlled.of(said, epochs.truth, epochs.picture)


def ideal_answers(spec: EpochSpec, sessions: Sessions, n_before: int = 0) -> Controlled:
    """What the ideal observer names in the windows fully inside a viewing.

    Of the subject without artefacts: its own are for that one.

    Parameters
    ----------
    n_before : see `IdealObserver`.
    """
    clean = without_artefacts(sessions.parameters)
    parts = []
    for number in sessions.numbers:
        observer = IdealObserver(sessions.begin(number, clean), spec, "sliding", n_before=n_before)
        own = replace(sessions, parameters=clean, numbers=[number])
        longer = own.record(observer.spec)["sliding"]
        inside = replace(longer, first=longer.first + n_before / spec.sfreq).inside()
        data = (inside.data, *nothing_like(inside.data[:N_NOISE]))
        said = [observer.posterior(each).argmax(axis=1) for each in data]
        parts.append(Controlled.of(said, inside.truth, inside.picture))
    return Controlled.joined(parts)


def accuracy(
    inside: Epochs, answers: Answers, noise: Answers, zero: Answers, ideal: Controlled
) -> tuple[Table, Values]:
    """Right answers in windows fully inside a viewing, beside the ideal observer's."""
    chance = 1 / len(concepts())
    ideal_hits = ideal.right()["EEG"].astype(float)
    values: Values = {"chance": chance}
    rows = []
    for name, title in (
        ("painted", "the judge, of the painted picture"),
        ("concept", "the concept nearest to the EEG"),
    ):
        ours = controlled(name, inside, answers, noise, zero)
        scores = ours.scores()
        of_ideal = ratio(ours.right()["EEG"].astype(float), ideal_hits, inside.picture)
        bar = at_least(of_ideal.value, LEAST_RATIO) if name == "painted" else "–"
        rows.append([title, *map(written, scores.values()), written(of_ideal, ".2f"), bar])
        values[name] = {key: asdict(score) for key, score in scores.items()}
        values[name]["ratio"] = finite(of_ideal)
    ideal_scores = ideal.scores()
    rows.append(["the ideal observer", *map(written, ideal_scores.values()), "1", "–"])
    values["ideal observer"] = {key: asdict(score) for key, score in ideal_scores.items()}
    table = Table(
        "Sliding windows fully inside a viewing",
        ["top-1 by", *CONDITIONS, "share of the ideal", "bar"],
        rows,
        [
            f"{len(inside)} windows of {len(np.unique(inside.picture))} pictures; chance is "
            f"{chance:.1%}. Brackets: 95 %, drawn picture by picture. Shuffled: the labels of the "
            "pictures exchanged. The ideal observer knows how the EEG was made, and sees the same "
            f"pictures and windows of a subject without blinks, muscle and pops. {SIMULATED}"
        ],
    )
    return table, {"sliding": values}


def waiting(
    frames: Epochs,
    answers: Controlled,
    spec: EpochSpec,
    locked: tuple[Epochs, Controlled] | None = None,
) -> tuple[Table, Values]:
    """From a picture's appearance to the right picture on the page.

    Parameters
    ----------
    frames : sliding windows that end inside a viewing.
    answers : what the judge sees in their pictures.
    locked : marker-locked epochs, and what it sees in theirs.
    """
    rows: list[list[str]] = []
    values: Values = {}
    every = f"sliding, every {spec.hop / spec.sfreq:g} s"
    right = answers.right()
    once: dict[str, np.ndarray] = {}
    if locked is not None:
        epochs, named = locked
        after = epochs.last - epochs.onset[epochs.picture]
        once = {eeg: np.where(each, after, np.inf) for eeg, each in named.right().items()}
        values["end of a marker-locked epoch"] = float(np.median(after))
    for eeg in CONDITIONS:
        sliding = time_to_right(right[eeg], frames.last, frames.picture, frames.onset)
        found = [("sliding", every, sliding)]
        if once:
            found.append(("marker-locked", "marker-locked, one for each picture", once[eeg]))
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
    note += (
        " Zero EEG always gives the same picture: it is right at once for those who see just that."
        f" By chance an answer is right in {1 / len(concepts()):.1%}. {SIMULATED}"
    )
    header = ["frames", "EEG", "median", "never right", "pictures"]
    return Table("Time to the right picture", header, rows, [note]), {
        "time to the right picture": values
    }


def confidence(
    what: str, epochs: Epochs, answers: Answers, noise: Answers, zero: Answers
) -> tuple[Table, Values]:
    """How often the concept that is shown is right, by the confidence that is shown with it."""
    named = controlled("concept", epochs, answers, noise, zero)
    right, picture = named.right(), epochs.picture
    sure = dict.fromkeys(CONDITIONS[:2], answers.confidence) | {
        name: np.resize(each.confidence, len(epochs))
        for name, each in zip(CONDITIONS[2:], (noise, zero), strict=True)
    }
    errors = {name: calibration_score(sure[name], right[name], picture) for name in CONDITIONS}
    bins = reliability(answers.confidence, right["EEG"], picture)
    by_chance = error_of_chance(answers.confidence)
    rows = [
        [f"{b.low:.0%} to {b.high:.0%}", f"{b.confidence:.1%}", written(b.right), str(b.right.n)]
        for b in bins
    ]
    error = errors["EEG"]
    others = "; ".join(
        f"{name} {written(errors[name], '.3f')} with a mean confidence of {sure[name].mean():.1%}"
        for name in CONDITIONS[1:]
    )
    table = Table(
        f"Confidence, {what}",
        ["confidence", "mean", "right", "answers"],
        rows,
        [
            f"Expected calibration error {written(error, '.3f')}; "
            f"{at_most(error.value, MOST_ERROR)}. A perfect confidence would show about "
            f"{by_chance:.3f} with as many answers. Answers to EEG that says nothing are right by "
            f"chance, {1 / len(concepts()):.1%}, however sure they are: {others}. {SIMULATED}"
        ],
    )
    values = {
        "error": {name: asdict(score) for name, score in errors.items()},
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
