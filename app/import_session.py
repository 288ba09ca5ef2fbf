"""Other people's recordings as a session: one XDF file, as the recorder writes it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from acquisition.channels import Channel
from acquisition.errors import RecordingError
from acquisition.recording import load_recording
from acquisition.source import SourceOptions, parse_source
from acquisition.xdf_writer import StreamHeader, XDFWriter, read_notes
from app.errors import SettingsError, SummaryError
from app.public_sessions import PUBLIC, recordings_in
from app.recorder import CONSENT, Request, new_file
from app.serve import recording_source
from app.session_markers import MARKERS, OFFSET
from app.session_recordings import JoinedRecordings
from app.session_trials import (
    N_SHOWN,
    Meaning,
    RunsOf,
    by_pauses,
    check_classes,
    marker_text,
    said,
    warnings,
)
from app.stimulus_images import StimulusNames

# Samples that are written at once.
N_TIMES = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator says of recordings.

    Attributes
    ----------
    labels : classes by marker; see `said`.
    stimuli : folder of the images that markers name.
    run_gap : seconds without a trial that end a run; 0: each recording is a run.
    licence : of public data and where they come from, in place of the person's consent.
    options : names and unit of the channels.
    """

    labels: dict[str, str] = field(default_factory=dict)
    stimuli: Path | None = None
    run_gap: float = 0.0
    licence: str = ""
    options: SourceOptions = field(default_factory=SourceOptions)


@dataclass(frozen=True, slots=True)
class _Sources:
    """Recordings by name, and how they are read."""

    named: list[str]
    options: SourceOptions
    meaning: Meaning
    runs_of: RunsOf
    has_shared_runs: bool
    licence: str


def import_session(
    sources: Sequence[str],
    folder: Path,
    subject: str,
    keep_days: int,
    has_consent: bool,
    wanted: Wanted,
    now: datetime,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write recordings into a new session of a person.

    Parameters
    ----------
    sources : recordings in their order: files, `xdf:FILE`, `file:FILE`; or a folder of one of
        the public sets (`app.public_sessions`), as `faces:FOLDER`.
    folder : of all recordings.
    subject, keep_days, has_consent : see `Request`; published data need no consent of ours.
    now : names the file.
    say : told what was left out, what is in the session, and what to beware of.

    Returns
    -------
    the file.

    Raises
    ------
    SettingsError, SourceError, StreamInfoError, SummaryError
    """
    chosen = _choose(sources, wanted)
    request = Request(subject, keep_days, has_consent or bool(chosen.licence))
    joined = _read(chosen)
    classes = check_classes(joined.trials, joined.found)
    digests = [hashlib.sha256(r.data.tobytes()).hexdigest()[:16] for r in joined.recordings]
    _refuse_twice(folder / subject, digests)
    notes = {
        "program": "Phosphene",
        "subject": subject,
        "recorded_on": _recorded_on(chosen.named[0]),
        "imported_on": now.date().isoformat(),
        "keep_until": (now.date() + timedelta(days=keep_days)).isoformat(),
        **({"licence": chosen.licence} if chosen.licence else {"consent": CONSENT}),
        "digests": " ".join(digests),
    }
    path = new_file(folder, request, now)
    _write(path, notes, joined, classes)
    for sentence in _sentences(path, joined, classes, wanted.labels):
        say(sentence)
    return path


def _choose(sources: Sequence[str], wanted: Wanted) -> _Sources:
    public = [s for s in sources if s.partition(":")[0] in PUBLIC]
    if public:
        if len(sources) > 1 or wanted != Wanted(options=wanted.options):
            raise SettingsError(
                f"{public[0]} is a session of its own whose markers and runs are known: leave out "
                "other sources, --labels, --stimuli, --run-gap and --licence."
            )
        kind, _, place = public[0].partition(":")
        known = PUBLIC[kind]()
        return _Sources(
            [f"file:{path}" for path in recordings_in(Path(place).expanduser())],
            replace(wanted.options, ch_names=wanted.options.ch_names or known.ch_names),
            known.meaning,
            known.runs_of,
            known.has_shared_runs,
            known.licence,
        )
    named = [s if s.startswith(("xdf:", "file:")) else recording_source(Path(s)) for s in sources]
    stimuli = StimulusNames(wanted.stimuli) if wanted.stimuli else None
    return _Sources(
        named,
        wanted.options,
        said(wanted.labels, stimuli),
        by_pauses(wanted.run_gap or np.inf),
        False,
        wanted.licence,
    )


def _read(chosen: _Sources) -> JoinedRecordings:
    joined = JoinedRecordings()
    for name in chosen.named:
        _, target, parameters = parse_source(name)
        recording = load_recording(Path(target).expanduser(), chosen.options, parameters)
        joined.append(recording, chosen.meaning, chosen.runs_of, chosen.has_shared_runs)
    if not joined.found:
        raise RecordingError(
            "There are no markers beside the EEG, so nobody knows what was seen. Record them with "
            "it: in LabRecorder, tick the stream of markers, too."
        )
    if joined.n_outside and not joined.trials:
        raise RecordingError(
            f"All {joined.n_outside} onsets lie before or after the EEG: the clocks of EEG and "
            "markers do not fit. Record both with one program, as LabRecorder."
        )
    return joined


def _refuse_twice(folder: Path, digests: list[str]) -> None:
    """The same trials in two runs would be trained on and tested."""
    if twice := [digest for digest, n in Counter(digests).items() if n > 1]:
        raise SettingsError(
            f"Recording {digests.index(twice[0]) + 1} is named twice. Name each once: a decoder "
            "would be tested on what it was trained on."
        )
    for path in sorted(folder.glob("*.xdf")):
        try:
            there = read_notes(path).get("digests", "").split()
        # Another program's file, or a damaged one: nothing is known of it.
        except (OSError, ValueError, ElementTree.ParseError):
            continue
        if set(there) & set(digests):
            raise SettingsError(
                f"{path} holds the same EEG already. Delete it, or give another pseudonym with "
                "--subject: a decoder would be tested on what it was trained on."
            )


def _recorded_on(source: str) -> str:
    """The day that a file's name says."""
    for day in re.findall(r"\d{4}-\d\d-\d\d", Path(source).name):
        try:
            return date.fromisoformat(day).isoformat()
        except ValueError:
            continue
    return "unknown"


def _write(path: Path, notes: dict[str, str], joined: JoinedRecordings, classes: list[str]) -> None:
    """All of it or nothing: a part of a session would look like a whole one."""
    info = joined.recordings[0].info
    channels = [Channel(name, "EEG", "microvolts") for name in info.ch_names]
    # A file's name may be a person's: it is not told.
    about = {"segment": "1", "honesty": info.honesty}
    unfinished = path.with_name(f".{path.name}.part")
    try:
        writer = XDFWriter(unfinished, notes)
        try:
            markers = writer.add_stream(MARKERS)
            eeg = writer.add_stream(
                StreamHeader("imported", "EEG", "float32", info.sfreq, channels, about)
            )
            for timestamps, data in joined.parts(N_TIMES):
                writer.add_samples(eeg, timestamps, data)
            for timestamp, text in _marker_samples(joined, classes):
                writer.add_text(markers, timestamp, text)
        finally:
            writer.close()
        unfinished.rename(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SummaryError(
            f"The session {path} cannot be written ({error.strerror}). Make room, or name another "
            "folder with --recordings."
        ) from error


def _marker_samples(joined: JoinedRecordings, classes: list[str]) -> list[tuple[float, str]]:
    shown = [
        (trial.timestamp, marker_text(trial, classes, number, run))
        for number, (trial, run) in enumerate(zip(joined.trials, joined.runs, strict=True))
    ]
    # An offset at the moment of an onset is that of the picture before.
    return sorted([*((t, OFFSET) for t in joined.offsets), *shown], key=lambda sample: sample[0])


def _sentences(
    path: Path, joined: JoinedRecordings, classes: list[str], labels: dict[str, str]
) -> Iterator[str]:
    """What whoever imports should know."""
    if joined.left_out:
        listed = ", ".join(f"{name[:40]} ({n})" for name, n in joined.left_out.most_common(N_SHOWN))
        yield f"{joined.left_out.total()} markers that name no class were left out: {listed}."
    if joined.n_outside:
        yield f"{joined.n_outside} trials without EEG were left out."
    if unknown := [name for name in labels if name not in joined.found]:
        yield f"--labels names markers that do not occur: {', '.join(unknown)}."
    yield from warnings(joined.trials, joined.runs)
    counts = Counter(trial.name for trial in joined.trials)
    info = joined.recordings[0].info
    yield (
        f"{path}: {len(set(joined.runs))} run(s); "
        f"{', '.join(f'{name} {counts[name]}' for name in classes)} trials; "
        f"{info.n_channels} electrodes, {info.sfreq:g} Hz."
    )
