"""What the markers of other programs mean: trials of classes, in runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acquisition.source import Marker
from app.errors import SettingsError
from app.session_markers import OFFSET, ONSET, onset_text
from app.stimulus_images import StimulusNames
from models.training.confounding import confounding

# Of what was found, so many are named in a sentence.
N_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Trial:
    """A picture that appeared.

    Attributes
    ----------
    timestamp : seconds on the recording's clock.
    name : of its class.
    picture : its name; the class's where markers tell no more.
    run : from 0, or None where its marker does not say.
    is_catch : whether it repeats the one before, to be noticed.
    """

    timestamp: float
    name: str
    picture: str
    run: int | None = None
    is_catch: bool = False


# The trial that a marker begins, OFFSET where a picture goes, None for anything else.
Meaning = Callable[[Marker], "Trial | str | None"]
# The run of each trial of a recording, from 0.
RunsOf = Callable[[Sequence[Trial]], list[int]]


def to_classes(text: str) -> dict[str, str]:
    """Read `--labels`.

    >>> to_classes("1=left,2=right,3=offset")
    {'1': 'left', '2': 'right', '3': 'offset'}
    """
    pairs = [part.rpartition("=") for part in text.split(",") if part.strip()]
    if not all(marker.strip() and name.strip() for marker, _, name in pairs):
        raise SettingsError(
            f"--labels expects markers and the classes they mean, as 1=left,2=right, not '{text}'."
        )
    return {marker.strip(): name.strip() for marker, _, name in pairs}


def said(
    classes: Mapping[str, str],
    stimuli: StimulusNames | None = None,
    pictures: Mapping[str, str] | None = None,
) -> Meaning:
    """What markers mean by what the operator says.

    Parameters
    ----------
    classes : by marker; "offset" where a picture goes. Empty: markers name images of
        `stimuli`, or are `onset/<class>` and `offset`, also in Phosphene's JSON.
    stimuli : folder of the images that markers name.
    pictures : names of the pictures by marker, where they are not told otherwise.
    """

    def meaning(marker: Marker) -> Trial | str | None:
        text, details = marker.label, marker.details
        path = stimuli.find(text) if stimuli else None
        name: str | None
        if classes:
            name = classes.get(text)
        elif text == OFFSET:
            name = OFFSET
        elif stimuli:
            name = stimuli.class_of[path] if path else None
        else:
            name = text.removeprefix(ONSET) if text.startswith(ONSET) else None
        if not name or name == OFFSET:
            return name or None
        picture = (pictures or {}).get(text) or details.get("picture") or name
        if stimuli and path:
            picture = path.relative_to(stimuli.folder).with_suffix("").as_posix()
        run, is_catch = details.get("run"), details.get("is_catch") is True
        is_told = type(run) is int and run >= 0
        return Trial(marker.timestamp, name, str(picture), run if is_told else None, is_catch)

    return meaning


def by_pauses(seconds: float = np.inf) -> RunsOf:
    """Runs as markers tell, else cut where the next trial comes after more than `seconds`."""

    def runs_of(trials: Sequence[Trial]) -> list[int]:
        told = [trial.run for trial in trials]
        if trials and None not in told:
            return [int(i) for i in np.unique(np.array(told), return_inverse=True)[1]]
        t = np.array([trial.timestamp for trial in trials])
        return [0, *(int(i) for i in np.cumsum(np.diff(t) > seconds))][: len(trials)]

    return runs_of


def by_position(n_runs: int) -> RunsOf:
    """Runs of neighbouring places in the order, the same places in every recording."""
    return lambda trials: [i * n_runs // len(trials) for i in range(len(trials))]


def check_classes(trials: Sequence[Trial], found: Mapping[str, int]) -> list[str]:
    """The names of the classes, in alphabetical order: their numbers.

    Parameters
    ----------
    trials : of all recordings.
    found : all markers that the recordings hold, and how often.

    Raises
    ------
    SettingsError
        No marker means a class, or there is but one, or a class has but one trial.
    """
    counts = Counter(trial.name for trial in trials)
    if not counts:
        listed = ", ".join(f"{name} ({n})" for name, n in [*found.items()][:N_SHOWN])
        raise SettingsError(
            f"None of the markers names a class: there are {listed}. Say what they mean, as "
            "--labels 1=left,2=right, or name the folder of images that they name with --stimuli."
        )
    if len(counts) == 1:
        raise SettingsError(
            f"All {counts.total()} trials are of the class '{next(iter(counts))}', and a decoder "
            "needs at least two. Name more with --labels."
        )
    if single := sorted(name for name, n in counts.items() if n == 1):
        raise SettingsError(
            f"The class '{single[0]}' has a single trial: what is learnt from it could not be "
            "tested. Record more, or leave the class out with --labels."
        )
    return sorted(counts)


def warnings(trials: Sequence[Trial], runs: Sequence[int]) -> list[str]:
    """What whoever trains on the trials should know of their order; see `confounding`.

    Parameters
    ----------
    trials : in the order of the session.
    runs : of each trial.
    """
    sentences = []
    run = np.array(runs)
    if len(np.unique(run)) == 1:
        sentences.append(
            "WARNING: all trials are in one run, so that none can be held out for testing. Import "
            "several recordings together, or cut this one at its breaks with --run-gap."
        )
    place = np.zeros(len(run), np.int64)
    for number in np.unique(run):
        place[run == number] = np.arange(np.count_nonzero(run == number))
    label = np.unique([trial.name for trial in trials], return_inverse=True)[1]
    nothing = np.zeros(len(run), np.int64)
    columns = {
        "label": label,
        "image_id": nothing,
        "subject": nothing,
        "session": nothing,
        "run": run,
        "position": place,
        "t_onset": np.array([trial.timestamp for trial in trials]),
        "is_locked": nothing + 1,
    }
    measured = confounding(columns)
    return [*sentences, *([measured.warning] if measured.warning else [])]


def marker_text(trial: Trial, classes: Sequence[str], number: int, run: int) -> str:
    """A trial as the sample of a session's markers.

    Parameters
    ----------
    classes : names by number.
    number : of the trial in the session.
    """
    return onset_text(
        trial.name, classes.index(trial.name), trial.picture, number, run, trial.is_catch
    )
