"""Recordings: the whole at once for preparing, or replayed as if live."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acquisition.channels import select_eeg
from acquisition.errors import RecordingError, SourceError
from acquisition.gaps import SampleGrid, find_missing, level
from acquisition.parameters import check_parameters, flag, number
from acquisition.recorded_stream import RecordedStream, choose_eeg, read_streams
from acquisition.source import Chunk, Marker, Source, SourceOptions
from acquisition.stream_info import StreamInfo

_PARAMETERS = ("speed", "loop", "stream", "board", "partial", "markers")


@dataclass(frozen=True, slots=True)
class Recording:
    """The EEG and the markers of a recording, in memory.

    Attributes
    ----------
    info : of the EEG; its honesty is "replay".
    data : array of shape (n_channels, n_times), float32, microvolts.
    timestamps : array of shape (n_times,), float64, seconds on the recording's own clock.
        They never fall: jitter that runs backwards is levelled, and where the clock was set
        back, the samples go on one period later.
    n_missing : array of shape (n_times,), int64; samples missing before each (gaps).
    markers : in order of time, on the same clock.
    """

    info: StreamInfo
    data: np.ndarray
    timestamps: np.ndarray
    n_missing: np.ndarray
    markers: tuple[Marker, ...]

    @property
    def n_times(self) -> int:
        return int(self.data.shape[1])

    @property
    def duration(self) -> float:
        """Seconds from the first sample to a period after the last, gaps included."""
        return float(self.timestamps[-1] - self.timestamps[0]) + 1 / self.info.sfreq

    def chunks(self, n_times: int = 8) -> Iterator[Chunk]:
        """The whole recording in the very chunks that a replay gives, on its own clock.

        Parameters
        ----------
        n_times : samples a chunk, fewer before a gap.
        """
        grid = SampleGrid()
        for start in range(0, self.n_times, n_times):
            part = slice(start, start + n_times)
            yield from grid.chunks(self.data[:, part], self.timestamps[part], self.n_missing[part])


def load_recording(
    path: Path, options: SourceOptions | None = None, parameters: Mapping[str, str] | None = None
) -> Recording:
    """Read the EEG and the markers of a recording.

    Parameters
    ----------
    path : of any format that `read_streams` reads.
    options : names and unit of the channels, over what the file says.
    parameters : `stream` (name of the EEG stream, where there are several), `markers` (JSON
        file that says what the file's markers are called here, such as
        `{"2/1/45": "onset/high 45°", "4/1/45": "offset"}`; others keep their names), and
        those of `read_streams`.

    Raises
    ------
    SourceError
        The file is missing, damaged, or holds no EEG.
    StreamInfoError
        Names or unit are missing.
    """
    options, parameters = options or SourceOptions(), parameters or {}
    streams = read_streams(path, parameters)
    recording = as_recording(path.name, streams, options, parameters.get("stream", ""))
    if not parameters.get("markers"):
        return recording
    names = _marker_names(Path(parameters["markers"]).expanduser())
    renamed = [replace(m, label=names.get(m.label, m.label)) for m in recording.markers]
    return replace(recording, markers=tuple(renamed))


def as_recording(
    name: str, streams: list[RecordedStream], options: SourceOptions, wanted: str = ""
) -> Recording:
    """The EEG and the markers of streams that were recorded together.

    Parameters
    ----------
    name : of the file or run, for the sentences.
    wanted : name of the EEG stream, where there are several.

    Raises
    ------
    RecordingError, StreamInfoError
        None of them is EEG, or names or unit are missing.
    """
    eeg = choose_eeg(name, streams, wanted)
    named = replace(eeg, name=eeg.name or name)
    selected = select_eeg(named.name, eeg.channels, options, eeg.samples)
    n_missing = _missing(eeg)
    timestamps = level(eeg.timestamps, n_missing, eeg.sfreq)
    markers = [m for s in streams if s is not eeg and s.is_markers for m in s.markers()]
    return Recording(
        info=StreamInfo(named.name, selected.ch_names, eeg.sfreq, "replay"),
        data=selected.microvolts(eeg.samples),
        timestamps=timestamps,
        n_missing=n_missing,
        markers=tuple(
            sorted(_move(markers, eeg.timestamps, timestamps), key=lambda m: m.timestamp)
        ),
    )


def _marker_names(path: Path) -> dict[str, str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordingError(
            f"The names of markers cannot be read from {path} ({error}). "
            'Give a JSON file, such as {"1": "onset/cat", "2": "offset"}.'
        ) from error
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise RecordingError(
            f"{path} does not name markers. Expected one JSON object from the file's labels to "
            'names, such as {"1": "onset/cat", "2": "offset"}.'
        )
    return names


def _missing(stream: RecordedStream) -> np.ndarray:
    missing = find_missing(stream.timestamps, stream.sfreq)
    for start in stream.starts:
        if 0 < start < len(missing):
            missing[start] = max(1, missing[start])
    return missing


def _move(markers: list[Marker], recorded: np.ndarray, levelled: np.ndarray) -> list[Marker]:
    """Take markers to the levelled clock, by the sample that they follow."""
    at = np.searchsorted(np.maximum.accumulate(recorded), [m.timestamp for m in markers], "right")
    at = np.clip(at - 1, 0, len(recorded) - 1)
    # Beside a sample that was not moved the shift is exactly 0: equal times stay equal.
    shift = levelled[at] - np.maximum.accumulate(recorded)[at]
    return [
        replace(m, timestamp=m.timestamp + float(s)) for m, s in zip(markers, shift, strict=True)
    ]


def open_recording(target: str, parameters: Mapping[str, str], options: SourceOptions) -> Source:
    """Open `xdf:FILE?speed=2&loop=true` or `file:FILE`.

    Parameters
    ----------
    parameters : `speed`, `loop` ("true" or "false"), and those of `load_recording`.

    Raises
    ------
    SourceError, StreamInfoError
    """
    check_parameters("A recording", parameters, _PARAMETERS)
    speed = number("speed", parameters.get("speed", "1"))
    if not 0 < speed <= 1000:
        raise SourceError(f"speed is {speed:g}. Give a speed between 0 and 1000, such as speed=2.")
    is_looped = flag("loop", parameters.get("loop", "false"))
    flag("partial", parameters.get("partial", "false"))
    from acquisition.replay import RecordingSource

    recording = load_recording(Path(target).expanduser(), options, parameters)
    return RecordingSource(recording, speed, is_looped)
