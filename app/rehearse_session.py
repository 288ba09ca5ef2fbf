"""A presentation to a simulated subject, faster than it is: what `phosphene rehearse-session` does.

Acquisition, the subject who sees what is shown, and the recorder are those of a live session. They
run in turns on a clock that waits for nobody, so that a quarter of an hour takes half a minute and
the same numbers give the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from acquisition.epoch_spec import EpochSpec
from acquisition.errors import SourceError
from acquisition.simulated import check_electrodes
from acquisition.simulated_subject import CH_NAMES, LIVE_SESSION, SimulatedSubject
from acquisition.simulated_viewer import GuidedSource
from acquisition.simulation_parameters import DIFFICULTIES, SimulationParameters
from acquisition.stimuli import Composition, read_stimuli
from app.acquire import Acquisition, Sink
from app.bundle import find_stimuli, read_epoch_spec
from app.errors import SettingsError, SummaryError
from app.messages import Message, unpack
from app.picture_set import find_pictures
from app.presentation import LEAD, MAX_MINUTES, MIN_MINUTES, Trial, make_plan
from app.recorder import MOST_DAYS, Recorder, Request

# Seconds before the first picture, in which filters settle; of a break; and after the last picture.
BEFORE, BREAK, AFTER = 8.0, 10.0, 2.0
# After a repeat the person presses the key (seconds).
REACTION = 0.5
RECORDED = frozenset({"raw", "marker", "stimulus", "telemetry"})

Take = Callable[[Message], None]


def to_electrodes(text: str) -> tuple[str, ...]:
    """Read `--electrodes`.

    >>> to_electrodes("O1, O2,Oz")
    ('O1', 'O2', 'Oz')
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        return tuple(check_electrodes(names))
    except SourceError as error:
        raise SettingsError(f"--electrodes: {error}") from error


@dataclass(frozen=True, slots=True)
class Sitting:
    """A simulated person who sits before the screen.

    Attributes
    ----------
    subject, session : numbers of head and responses, and of how electrodes sit today.
    seed : of noise, of single responses and of the order of pictures.
    ch_names : electrodes of the headset, some of the simulated subject's.
    parameters : what the subject is made of.
    """

    subject: int
    session: int = LIVE_SESSION
    seed: int = 0
    ch_names: Sequence[str] = CH_NAMES
    parameters: SimulationParameters = DIFFICULTIES["demo"]


class Clock:
    """Of a session; it is set and waits for nobody."""

    def __init__(self) -> None:
        self.t = 0.0

    def __call__(self) -> float:
        return self.t


def present(
    sitting: Sitting,
    plan: Sequence[Trial],
    stimuli: Mapping[str, Composition],
    spec: EpochSpec,
    take: Take,
    clock: Clock,
) -> None:
    """Present pictures to a simulated subject, and hand on what is said on the bus.

    Parameters
    ----------
    plan : of the presentation.
    stimuli : what its pictures show, by their names.
    spec : of the epochs.
    take : given every message of the page and of acquisition.
    clock : of the session; it is set.

    Raises
    ------
    MontageError
        The electrodes cannot be mapped to the specification's.
    """
    page = _Page()
    subject = SimulatedSubject(
        sitting.subject, sitting.session, sitting.seed, sitting.parameters, looks=False
    )
    source = GuidedSource(subject, stimuli, clock, lambda _: None, sitting.ch_names)
    topics = ("epoch", "traces", "raw", "marker", "telemetry")
    sinks: dict[str, Sink] = dict.fromkeys(topics, _Sink(take))
    acquisition = Acquisition(source, spec, "marker-locked", sinks, clock, page)
    for t, header in _said(plan):
        clock.t = t
        # The samples until then first: the subject sees nothing before it is shown.
        acquisition.take_in(source.read(0.0))
        if header:
            page.waiting = Message("stimulus", header)
            take(page.waiting)
            acquisition.take_in_stimuli()


def rehearse_session(
    out: Path,
    sitting: Sitting,
    bundle: Path,
    minutes: float,
    today: date,
    classes: Sequence[str] = (),
) -> None:
    """Write the recording of a presentation of a bundle's stimuli; see `record`.

    Parameters
    ----------
    minutes : of pictures and gaps.
    classes : names of those that are presented; empty: all.

    Raises
    ------
    SettingsError
        The bundle has no stimuli, or the file is there.
    SourceError, MontageError, BundleError, SummaryError
    """
    plan, stimuli = plan_of(bundle, minutes, sitting.seed, classes)
    record(out, sitting, plan, stimuli, read_epoch_spec(bundle), today)


def record(
    out: Path,
    sitting: Sitting,
    plan: Sequence[Trial],
    stimuli: Mapping[str, Composition],
    spec: EpochSpec,
    today: date,
) -> None:
    """Write the recording of a presentation to a simulated subject.

    Parameters
    ----------
    out : XDF file, which must not exist.
    plan, stimuli, spec : see `present`.
    today : day of the recording.

    Raises
    ------
    SettingsError
        The file is there.
    MontageError
        The electrodes cannot be mapped to the specification's.
    SummaryError
        The file cannot be written.
    """
    if out.exists():
        raise SettingsError(f"{out} is there already. Delete it, or name another file.")
    unfinished = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Of a rehearsal that was ended.
        unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise SummaryError(
            f"{out} cannot be written ({error.strerror}). Name a file in another folder."
        ) from error
    # Nobody is asked: there is no person.
    request = Request(f"simulated-{sitting.subject}", MOST_DAYS, has_consent=True)
    clock = Clock()
    recorder = Recorder(unfinished, request, lambda _: None, today, clock)

    def take(message: Message) -> None:
        if message.type in RECORDED:
            recorder.take_in(message)
            recorder.tick()

    try:
        try:
            present(sitting, plan, stimuli, spec, take, clock)
        finally:
            recorder.close()
        unfinished.rename(out)
    finally:
        # A part of a session would look like a whole one.
        unfinished.unlink(missing_ok=True)


def plan_of(
    bundle: Path, minutes: float, seed: int, classes: Sequence[str] = ()
) -> tuple[tuple[Trial, ...], dict[str, Composition]]:
    """What is presented of a bundle's stimuli, and what they show.

    Parameters
    ----------
    classes : names of those that are presented; empty: all.

    Raises
    ------
    SettingsError
        The bundle has no stimuli, or there are no so many minutes.
    """
    folder = find_stimuli(bundle)
    if folder is None:
        raise SettingsError(
            f"The simulated subject sees the pictures of a bundle, and {bundle} has none. Take one "
            "with stimuli/stimuli.json, as weights/scale-model."
        )
    if not MIN_MINUTES <= minutes <= MAX_MINUTES:
        raise SettingsError(
            f"A presentation takes {MIN_MINUTES:g} to {MAX_MINUTES:g} minutes, not {minutes:g}."
        )
    pictures = find_pictures("", bundle)
    chosen = tuple(p for p in pictures if not classes or p.class_name in classes)
    return make_plan(chosen, minutes, seed), read_stimuli(folder)


def _said(plan: Sequence[Trial]) -> Iterator[tuple[float, dict[str, Any]]]:
    """What the page says, and when; nothing, where time passes before or after it."""
    said: list[tuple[float, dict[str, Any]]] = []
    t, run = BEFORE, None

    def say(event: str, trial: Trial, at: float, told: float) -> None:
        said.append((told, {"event": event, **trial.to_dict(), "t": at, "error_s": 0.0}))

    for trial in plan:
        if trial.run != run:
            t += BREAK if said else 0.0
            say("run", trial, t - LEAD, t - LEAD)
            run = trial.run
        t += trial.gap
        say("planned", trial, t, t - LEAD - trial.gap)
        say("shown", trial, t, t)
        if trial.is_catch:
            say("response", trial, t + REACTION, t + REACTION)
        t += trial.duration
        say("gone", trial, t, t)
    say("ended", plan[-1], t, t)
    yield from sorted(said, key=lambda each: each[0])
    yield t + AFTER, {}


class _Page:
    """Gives acquisition what the page says."""

    waiting: Message | None = None

    def receive(self, _: float, /) -> Message | None:
        message, self.waiting = self.waiting, None
        return message


@dataclass(frozen=True, slots=True)
class _Sink:
    """Unpacks what acquisition publishes."""

    take: Take

    def send(self, message: bytes) -> None:
        self.take(unpack(message))
