"""Recordings one after the other on one clock, with their trials in runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from acquisition.errors import StreamInfoError
from acquisition.gaps import find_missing
from acquisition.recording import Recording
from app.session_markers import OFFSET
from app.session_trials import Meaning, RunsOf, Trial

# Put in where samples are missing and the times do not show it, so that they do.
PAUSE_S = 1.0
# Standard deviation of the steps between neighbouring samples, in microvolts, that scalp EEG
# can have: headsets show 1 to 12, and 200 where electrodes hardly hold.
LEAST_UV, MOST_UV = 0.02, 2000.0


@dataclass(slots=True)
class JoinedRecordings:
    """Recordings of the same electrodes, joined.

    Samples stay as they are. So do times, but where they would not show that samples are
    missing: where a recording's clock begins before the end of the one in front of it, or
    where a file says that it was joined. From there on, times and markers are moved together.

    Attributes
    ----------
    recordings : in their order.
    trials, runs : of all of them; a run for each trial.
    offsets : when pictures went.
    found : markers, and how often.
    left_out : those that mean nothing.
    n_outside : trials without EEG.
    """

    recordings: list[Recording] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    offsets: list[float] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    n_outside: int = 0

    def append(
        self, recording: Recording, meaning: Meaning, runs_of: RunsOf, has_shared_runs: bool
    ) -> None:
        """Take a recording in.

        Parameters
        ----------
        meaning : of its markers.
        runs_of : its trials.
        has_shared_runs : whether its runs are those of the recordings before; else they
            follow them.

        Raises
        ------
        StreamInfoError
            Its electrodes or rate are others, or its unit cannot be right.
        """
        _check_unit(recording)
        if self.recordings:
            _check_alike(self.recordings[0], recording)
        recording = self._behind(_with_visible_gaps(recording))
        self.recordings.append(recording)
        trials = []
        for marker in recording.markers:
            self.found[marker.label] += 1
            what = meaning(marker)
            is_inside = recording.timestamps[0] <= marker.timestamp <= recording.timestamps[-1]
            if isinstance(what, Trial) and is_inside:
                trials.append(what)
            elif isinstance(what, Trial):
                self.n_outside += 1
            elif what == OFFSET and is_inside:
                self.offsets.append(marker.timestamp)
            elif what is None:
                self.left_out[marker.label] += 1
        first = 0 if has_shared_runs else max(self.runs, default=-1) + 1
        self.runs += [first + run for run in runs_of(trials)]
        self.trials += trials

    def parts(self, n_times: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Times and samples, (n,) and (n_channels, n), at most `n_times` at once."""
        for recording in self.recordings:
            for start in range(0, recording.n_times, n_times):
                part = slice(start, start + n_times)
                yield recording.timestamps[part], recording.data[:, part]

    def _behind(self, recording: Recording) -> Recording:
        if not self.recordings:
            return recording
        earliest = float(self.recordings[-1].timestamps[-1]) + PAUSE_S
        late = max(0.0, earliest - float(recording.timestamps[0]))
        return _moved(recording, np.full(recording.n_times, late)) if late else recording


def _with_visible_gaps(recording: Recording) -> Recording:
    seen = find_missing(recording.timestamps, recording.info.sfreq)
    is_hidden = (recording.n_missing > 0) & (seen == 0)
    return _moved(recording, PAUSE_S * np.cumsum(is_hidden)) if is_hidden.any() else recording


def _moved(recording: Recording, seconds: np.ndarray) -> Recording:
    """Samples moved by `seconds`, (n_times,), and markers with the sample that they follow."""
    at = np.searchsorted(recording.timestamps, [m.timestamp for m in recording.markers], "right")
    by = seconds[np.clip(at - 1, 0, recording.n_times - 1)]
    markers = tuple(
        replace(m, timestamp=m.timestamp + float(s))
        for m, s in zip(recording.markers, by, strict=True)
    )
    return replace(recording, timestamps=recording.timestamps + seconds, markers=markers)


def _check_alike(first: Recording, other: Recording) -> None:
    for what, a, b in (
        ("the electrodes", " ".join(first.info.ch_names), " ".join(other.info.ch_names)),
        ("the rate", f"{first.info.sfreq:g} Hz", f"{other.info.sfreq:g} Hz"),
    ):
        if a != b:
            raise StreamInfoError(
                f"A session has one headset: {what} of {first.info.name}: {a}; of "
                f"{other.info.name}: {b}. Import them one by one."
            )


def _check_unit(recording: Recording) -> None:
    steps = np.diff(recording.data.astype(np.float64), axis=1)
    size = float(np.nanmedian(np.nanstd(steps, axis=1))) if steps.size else 0.0
    if not LEAST_UV <= size <= MOST_UV:
        raise StreamInfoError(
            f"Neighbouring samples of {recording.info.name} differ by {size:.2g} uV, and those of "
            f"EEG by {LEAST_UV:g} to {MOST_UV:g}: its unit is not what was said, or nothing was "
            "connected. Say which it is: --unit V, mV, uV or nV."
        )
