"""What a person is shown, and when: the plan of a presentation, and what the page says of it.

Every class comes once before any comes again, in random order, and never twice in a row: slow
drift of the EEG cannot be mistaken for what was seen. The only repeats are catch trials, at which
the person presses a key; they tell whether the person watched.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast, get_args

import numpy as np

from acquisition.source import Marker
from app.picture_set import PictureSet, StimulusPicture

Event = Literal["planned", "shown", "gone", "response", "run", "ended"]

# Seconds for which a picture is shown, and of nothing before it.
MIN_DURATION, MAX_DURATION, DURATION = 1.0, 2.0, 1.0
MIN_GAP, MAX_GAP = 0.4, 0.8
MIN_MINUTES, MAX_MINUTES = 0.1, 60.0
# Seconds of a run, about; one trial in so many is a catch trial.
RUN = 150.0
TRIALS_PER_CATCH = 20
# A planned onset is told this long before (seconds).
LEAD = 0.5
# What a page says of the time is not believed beyond this (seconds).
FARTHEST = 60.0
# How much later than the server's clock a page's may be, beyond the error that it tells (seconds).
SLACK = 0.05


@dataclass(frozen=True, slots=True)
class Trial:
    """One picture in a presentation.

    Attributes
    ----------
    number, run : count from one, and go on from presentation to presentation of a session.
    picture : what is shown.
    duration : seconds for which it is shown.
    gap : seconds of nothing before it.
    is_catch : whether it repeats the picture before it.
    """

    number: int
    run: int
    picture: StimulusPicture
    duration: float
    gap: float
    is_catch: bool

    def to_dict(self) -> dict[str, Any]:
        """What a message on the bus says of it."""
        return {
            "trial": self.number,
            "run": self.run,
            "picture": self.picture.name,
            "class": self.picture.class_name,
            "label": self.picture.label,
            "is_catch": self.is_catch,
        }


def make_plan(
    pictures: PictureSet,
    minutes: float,
    seed: int,
    duration: float = DURATION,
    first_trial: int = 1,
    first_run: int = 1,
) -> tuple[Trial, ...]:
    """Plan a presentation.

    Parameters
    ----------
    pictures : of at least two classes.
    minutes : of pictures and gaps together, about; breaks are extra.
    seed : the same gives the same plan.
    duration : seconds for which each picture is shown.
    first_trial, first_run : numbers of the first.
    """
    rng = np.random.default_rng([32452843, seed])
    n_trials = max(2, int(60 * minutes / (duration + (MIN_GAP + MAX_GAP) / 2)))
    n_catch = round(n_trials / TRIALS_PER_CATCH)
    order = _in_rounds(pictures, rng)
    shown = [next(order) for _ in range(n_trials - n_catch)]
    # One in each stretch of equal length, anywhere in it.
    edges = np.linspace(0, len(shown), n_catch + 1).round().astype(int)
    repeated = {int(rng.integers(a, b)) for a, b in pairwise(edges)}
    n_runs = max(1, round(n_trials * (duration + (MIN_GAP + MAX_GAP) / 2) / RUN))
    run_of = np.arange(len(shown)) * n_runs // len(shown)
    trials: list[Trial] = []
    for i, picture in enumerate(shown):
        for is_catch in (False, True) if i in repeated else (False,):
            gap = round(float(rng.uniform(MIN_GAP, MAX_GAP)), 3)
            number, run = first_trial + len(trials), first_run + int(run_of[i])
            trials.append(Trial(number, run, picture, duration, gap, is_catch))
    return tuple(trials)


def _in_rounds(pictures: PictureSet, rng: np.random.Generator) -> Iterator[StimulusPicture]:
    """Each class once in random order, again and again; of each class, each picture in turn."""
    of_class: dict[int, list[StimulusPicture]] = {}
    for picture in pictures:
        of_class.setdefault(picture.label, []).append(picture)
    waiting: dict[int, list[StimulusPicture]] = {label: [] for label in of_class}
    last = None
    while True:
        order = rng.permutation(list(of_class)).tolist()
        if order[0] == last:
            # Anywhere but first, so that no class comes twice in a row.
            order.insert(int(rng.integers(1, len(order))), order.pop(0))
        for label in order:
            if not waiting[label]:
                own = of_class[label]
                waiting[label] = [own[i] for i in rng.permutation(len(own))]
            yield waiting[label].pop()
        last = order[-1]


class Presentation:
    """The plan that is presented now, and what the page says of it.

    Parameters
    ----------
    pictures : what can be presented; may be none.
    clock : of the session.
    """

    def __init__(self, pictures: PictureSet, clock: Callable[[], float]) -> None:
        self.pictures = pictures
        self._clock = clock
        self._trials: dict[int, Trial] = {}
        self._next_trial = self._next_run = 1

    def begin(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Plan a presentation in place of the last.

        Parameters
        ----------
        wanted : `minutes`, and perhaps `duration` and `seed`.

        Returns
        -------
        The plan as JSON values: `seed`, `n_runs` and `trials`.

        Raises
        ------
        ValueError
            In a sentence: there are no pictures, or a value makes no sense.
        """
        if len({picture.label for picture in self.pictures}) < 2:
            raise ValueError(
                "There are no pictures to present: this bundle brings none. Begin the session "
                "with --pictures and a folder of images, with one folder in it for each class."
            )
        minutes = _number(wanted, "minutes", MIN_MINUTES, MAX_MINUTES)
        duration = DURATION
        if "duration" in wanted:
            duration = _number(wanted, "duration", MIN_DURATION, MAX_DURATION)
        seed = wanted.get("seed", secrets.randbelow(2**31))
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise ValueError(f"A seed is a whole number from zero upwards, not {seed!r}.")
        plan = make_plan(self.pictures, minutes, seed, duration, self._next_trial, self._next_run)
        self._trials = {trial.number: trial for trial in plan}
        self._next_trial, self._next_run = plan[-1].number + 1, plan[-1].run + 1
        places = {picture.name: i for i, picture in enumerate(self.pictures)}
        trials = [
            {
                **trial.to_dict(),
                "duration": trial.duration,
                "gap": trial.gap,
                "address": f"api/pictures/{places[trial.picture.name]}",
            }
            for trial in plan
        ]
        return {"seed": seed, "n_runs": plan[-1].run - plan[0].run + 1, "trials": trials}

    def check(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What goes on the bus of a message of the page.

        Parameters
        ----------
        said : `event`, `trial`, `t` and `error_s` (seconds, session time and its uncertainty).

        Raises
        ------
        ValueError
            In a sentence: it cannot be, and nothing of it is to be published.
        """
        event, number = said.get("event"), said.get("trial")
        if event not in get_args(Event):
            raise ValueError(f"There is no event {event!r} of a stimulus.")
        trial = self._trials.get(number) if type(number) is int else None
        if trial is None:
            raise ValueError(
                f"No trial {number!r} is presented now: the presentation was planned anew "
                "elsewhere, or the server has begun again. Begin the presentation anew."
            )
        now = self._clock()
        error_s = _number(said, "error_s", 0.0, FARTHEST)
        t = _number(said, "t", now - FARTHEST, now + FARTHEST)
        if event == "planned" and t < now + LEAD:
            raise ValueError(
                f"The onset of trial {number} was told {t - now:.2f} s before, not {LEAD} s: the "
                "connection or this machine is too slow for it."
            )
        if event != "planned" and t > now + error_s + SLACK:
            raise ValueError(f"Trial {number} cannot have been {event} in the future.")
        return {"event": cast(Event, event), **trial.to_dict(), "t": t, "error_s": error_s}


def stimulus_marker(header: Mapping[str, Any]) -> Marker | None:
    """The marker of a stimulus on the bus; None of what is neither an onset nor an end."""
    names = {
        "shown": ("label", "picture", "trial", "run", "is_catch", "error_s"),
        "gone": ("trial", "run"),
    }.get(header["event"])
    if names is None:
        return None
    label = f"onset/{header['class']}" if header["event"] == "shown" else "offset"
    return Marker(float(header["t"]), label, {name: header[name] for name in names})


def _number(values: Mapping[str, Any], name: str, least: float, most: float) -> float:
    value = values.get(name)
    # Also refuses NaN, with which no comparison holds.
    if type(value) not in (int, float) or not least <= cast(float, value) <= most:
        raise ValueError(f"{name} is {value!r}; expected a number from {least:g} to {most:g}.")
    return float(cast(float, value))
