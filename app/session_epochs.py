"""A person's sessions as epochs to learn from and to test on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import Epoch, EpochStream, normalise
from acquisition.errors import RecordingError, SourceError
from acquisition.montage import Montage
from acquisition.recorded_stream import read_streams
from acquisition.recording import Recording, load_recording
from app.continuous import recording_steps
from app.errors import SettingsError
from app.session_trials import Trial, by_pauses, said, warnings

# A file that is cut off is read as far as it goes.
PARTIAL = {"partial": "true"}
# Peak to peak in microvolts, the median over electrodes, above which an epoch is of movement.
WILD_UV = 400.0
# Standard deviation in microvolts below which an electrode was not on the head.
FLAT_UV = 0.5
# A sliding window answers to the last picture in it, where that appeared at most so many lengths of
# it before it begins, and at least so many before it ends.
OLDEST, NEWEST = 0.5, 0.3
# Seconds before a window in which nothing may have been seen, for it to show nothing.
LASTING = 1.0
# In a trial's place: of a window that shows nothing, and of one that nothing is known of.
NOTHING, UNKNOWN = -1, -2


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Sliding windows in the order of their time.

    Attributes
    ----------
    eeg : (n, n_channels, n_times), float32, as the bundle wants them.
    trial : (n,), what each answers to, `NOTHING` or `UNKNOWN`.
    after : (n,), the last trial that began before its end; -1 for none yet.
    first : (n,), first sample on the recording's grid.
    """

    eeg: np.ndarray
    trial: np.ndarray
    after: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.eeg)


@dataclass(frozen=True, slots=True, eq=False)
class SessionEpochs:
    """What was recorded, cut as in live use.

    Attributes
    ----------
    classes : names, in the order of their numbers.
    locked : (n, n_channels, n_times), float32, as the bundle wants them.
    label, run, trial : (n,) of these; trials are numbered over all sessions.
    deviation : (n_channels,), microvolts; what epochs were divided by, typically.
    matrix : (n_channels, n_channels), of the model's electrodes as they are and as this headset
        shows them.
    windows : all sliding ones.
    electrodes : of the headset.
    minutes : of EEG.
    apart : seconds from the appearance of a picture to that of the next, at least; 0: not known.
    n_trials : that were shown, catch trials apart.
    dropped, warnings : sentences.
    honesty : of the sessions.
    """

    classes: list[str]
    locked: np.ndarray
    label: np.ndarray
    run: np.ndarray
    trial: np.ndarray
    deviation: np.ndarray
    matrix: np.ndarray
    windows: Windows
    electrodes: list[str]
    minutes: float
    apart: float
    n_trials: int
    dropped: list[str]
    warnings: list[str]
    honesty: str


@dataclass(slots=True)
class _Cut:
    """Epochs of one recording in microvolts, and where their trials are."""

    locked: list[Epoch]
    sliding: list[Epoch]
    trials: list[Trial]


def read_sessions(paths: Sequence[Path], spec: EpochSpec, known: Sequence[str]) -> SessionEpochs:
    """Read sessions of one person.

    Parameters
    ----------
    paths : XDF files, in the order of their time.
    spec : of the bundle.
    known : names of the bundle's concepts, whose numbers are taken where they hold all classes.

    Raises
    ------
    SettingsError
        Nothing can be learnt from them; says why.
    SourceError, StreamInfoError, MontageError
        One cannot be read.
    """
    cut_off: list[str] = []
    recordings = [_load(path, cut_off) for path in paths]
    electrodes = _same_electrodes(paths, recordings)
    montage = Montage.from_channels(electrodes, spec)
    cuts = [_cut(recording, spec, montage) for recording in recordings]
    trials, runs, of_cut = _number(cuts)
    if not trials:
        raise SettingsError(
            f"{paths[0]} has no markers of what was shown (onset/<class>). Present pictures on the "
            "page /calibrate while it records, or import the session with its markers by "
            "`phosphene import-session`."
        )
    classes = _classes(trials, known)
    counts = Counter(trial.name for trial in trials)
    if sum(n > 1 for n in counts.values()) < 2:
        listed = ", ".join(f"{name} ({n})" for name, n in counts.most_common(3))
        raise SettingsError(
            f"{len(counts)} class(es) were shown: {listed}. Two classes with two trials each are "
            "the least that anything can be learnt from: present more."
        )
    epochs = [
        (first + _trial_of(e), e.data)
        for cut, first in zip(cuts, of_cut, strict=True)
        for e in cut.locked
    ]
    place = np.array([trial for trial, _ in epochs], int)
    shape = (-1, spec.n_channels, spec.n_times)
    raw = np.array([data for _, data in epochs], np.float32).reshape(shape)
    is_tame = np.median(np.ptp(raw, axis=2), axis=1) < WILD_UV
    dropped = cut_off + _dropped(len(trials), len(raw), int((~is_tame).sum()))
    place, raw = place[is_tame], raw[is_tame]
    if len(raw) <= max(3, len(counts)):
        raise SettingsError(
            f"Of {len(trials)} trials {len(raw)} are left ({' '.join(dropped)}). Check that the "
            "electrodes sit well, and record again."
        )
    names = [trial.name for trial in trials]
    number = {name: i for i, name in enumerate(classes)}
    return SessionEpochs(
        classes=classes,
        locked=_normalised(raw, spec),
        label=np.array([number[names[i]] for i in place]),
        run=np.array(runs)[place],
        trial=place,
        deviation=np.maximum(np.median(raw.std(axis=2), axis=0), 1e-3),
        matrix=_as_shown(electrodes, spec, montage),
        windows=_windows(cuts, of_cut, spec),
        electrodes=list(electrodes),
        minutes=sum(recording.duration for recording in recordings) / 60,
        apart=_apart(cuts),
        n_trials=len(trials),
        dropped=dropped,
        warnings=[_sentence(text) for text in warnings(trials, runs)]
        + _flat(recordings, electrodes),
        honesty=_honesty(paths[0]),
    )


def _apart(cuts: list[_Cut]) -> float:
    onsets = [np.array([trial.timestamp for trial in cut.trials]) for cut in cuts]
    between = np.concatenate([np.diff(each) for each in onsets])
    return float(between.min()) if len(between) else 0.0


def _sentence(warning: str) -> str:
    text = warning.removeprefix("WARNING: ")
    return text[:1].upper() + text[1:]


def _load(path: Path, cut_off: list[str]) -> Recording:
    """A recording; a recorder that was killed leaves the last block of one half written."""
    try:
        return load_recording(path)
    except RecordingError as error:
        try:
            recording = load_recording(path, parameters=PARTIAL)
        except SourceError:
            raise error from None
    cut_off.append(f"The end of {path.name} is cut off; what comes before it was used.")
    return recording


def _honesty(path: Path) -> str:
    """What the recorder said of the samples; of another program's file nothing is known."""
    told = (
        s.notes["honesty"] for s in read_streams(path, PARTIAL) if s.is_eeg and "honesty" in s.notes
    )
    return next(told, "replay")


def _same_electrodes(paths: Sequence[Path], recordings: Sequence[Recording]) -> tuple[str, ...]:
    first = tuple(recordings[0].info.ch_names)
    for path, recording in zip(paths, recordings, strict=True):
        if tuple(recording.info.ch_names) != first:
            raise SettingsError(
                f"{path} was recorded with other electrodes than {paths[0]}. Calibrate with "
                "sessions of one headset at a time."
            )
    return first


def _cut(recording: Recording, spec: EpochSpec, montage: Montage) -> _Cut:
    """Cut a recording as in live use, but leave microvolts."""
    meaning = said({})
    plain = replace(spec, normalisation="none")
    stream = EpochStream(recording.info, plain, montage, ("sliding", "marker-locked"))
    cut = _Cut([], [], [])
    for chunk, markers in recording_steps(recording):
        onsets = []
        for marker in markers:
            found = meaning(marker)
            if isinstance(found, Trial):
                details = {"trial": None if found.is_catch else len(cut.trials)}
                onsets.append(replace(marker, details=details))
                if not found.is_catch:
                    cut.trials.append(found)
        for epoch in stream.push(chunk, onsets):
            if epoch.marker is None:
                cut.sliding.append(epoch)
            elif epoch.marker.details["trial"] is not None:
                cut.locked.append(epoch)
    return cut


def _number(cuts: list[_Cut]) -> tuple[list[Trial], list[int], list[int]]:
    """All trials, their runs, and the place of each recording's first; runs are never shared."""
    trials: list[Trial] = []
    runs: list[int] = []
    firsts = []
    for cut in cuts:
        firsts.append(len(trials))
        own = by_pauses()(cut.trials)
        runs += [run + (max(runs) + 1 if runs and firsts[-1] else 0) for run in own]
        trials += cut.trials
    return trials, runs, firsts


def _trial_of(epoch: Epoch) -> int:
    assert epoch.marker is not None
    return int(epoch.marker.details["trial"])


def _classes(trials: list[Trial], known: Sequence[str]) -> list[str]:
    names = sorted({trial.name for trial in trials})
    return list(known) if set(names) <= set(known) else names


def _dropped(n_trials: int, n_cut: int, n_wild: int) -> list[str]:
    sentences = []
    if n_trials > n_cut:
        sentences.append(
            f"{n_trials - n_cut} of {n_trials} trials were left out: samples are missing in them, "
            "or they lie at the recording's edge."
        )
    if n_wild:
        sentences.append(
            f"{n_wild} trials were left out: they move by more than {WILD_UV:g} uV, as when "
            "somebody moves."
        )
    return sentences


def _flat(recordings: Sequence[Recording], electrodes: Sequence[str]) -> list[str]:
    still = [
        name
        for i, name in enumerate(electrodes)
        if min(float(recording.data[i].std()) for recording in recordings) < FLAT_UV
    ]
    if not still:
        return []
    return [f"{', '.join(still)} gave nothing but a flat line. Seat them before the next session."]


def _normalised(raw: np.ndarray, spec: EpochSpec) -> np.ndarray:
    if spec.normalisation != "channel" or not len(raw):
        return raw
    return np.array([normalise(epoch) for epoch in raw], np.float32)


def _windows(cuts: list[_Cut], firsts: list[int], spec: EpochSpec) -> Windows:
    every = [
        (cut, first, epoch)
        for cut, first in zip(cuts, firsts, strict=True)
        for epoch in cut.sliding
    ]
    eeg = np.empty((len(every), spec.n_channels, spec.n_times), np.float32)
    trial, after = np.full((2, len(every)), UNKNOWN)
    onsets = {id(cut): np.array([trial.timestamp for trial in cut.trials]) for cut in cuts}
    for i, (cut, first, epoch) in enumerate(every):
        eeg[i] = normalise(epoch.data) if spec.normalisation == "channel" else epoch.data
        onset = onsets[id(cut)]
        n_begun = int(np.searchsorted(onset, epoch.t_last, "right"))
        after[i] = first + n_begun - 1
        since = epoch.t_first - onset[n_begun - 1] if n_begun else np.inf
        if since > LASTING + spec.duration:
            trial[i] = NOTHING
        elif (NEWEST - 1) * spec.duration <= since <= OLDEST * spec.duration:
            trial[i] = after[i]
    return Windows(eeg, trial, after, np.array([e.first_sample for _, _, e in every], int))


def _as_shown(electrodes: Sequence[str], spec: EpochSpec, montage: Montage) -> np.ndarray:
    """From the potential at the model's electrodes to what this headset gives in their place."""
    # Those without a place are no part of the montage either.
    used = np.flatnonzero(montage.matrix.any(axis=0))
    own = replace(spec, ch_names=tuple(electrodes[int(i)] for i in used))
    there = Montage.from_channels(spec.ch_names, own).matrix
    shown = montage.matrix[:, used] @ there
    if spec.reference == "average":
        shown = shown - shown.mean(axis=0)
    return np.asarray(shown)
