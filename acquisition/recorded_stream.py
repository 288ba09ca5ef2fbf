"""A recording as it lies in its file: streams side by side, whatever the format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.channels import EEG_TYPES, Channel
from acquisition.errors import RecordingError, SourceNotFoundError
from acquisition.source import Marker

# Texts of this program's recordings that say other things than that something was shown.
_NO_MARKERS = ("Quality", "Stimuli", "Painter", "Segments")


@dataclass(frozen=True, slots=True)
class RecordedStream:
    """One stream of a recording.

    Attributes
    ----------
    name, type, source_id : as the file says; may be empty.
    sfreq : nominal rate in Hz, 0 for irregular streams such as markers.
    channels : one for each column of `samples`.
    timestamps : array of shape (n_times,), float64, seconds on the recording's clock.
    samples : array of shape (n_times, n_channels), numbers or (dtype object) strings,
        in the file's own unit.
    starts : places in `samples` before which some are missing though the timestamps do
        not show it.
    details : of each sample of a marker stream, where the file knows more than a label.
    notes : what else the stream says of itself, by name.
    """

    name: str
    type: str
    sfreq: float
    channels: tuple[Channel, ...]
    timestamps: np.ndarray
    samples: np.ndarray
    source_id: str = ""
    starts: tuple[int, ...] = ()
    details: tuple[dict[str, float], ...] = field(default=())
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_times(self) -> int:
        return len(self.timestamps)

    @property
    def is_text(self) -> bool:
        return self.samples.dtype == object

    @property
    def is_eeg(self) -> bool:
        return self.type.strip().lower() in EEG_TYPES and self.sfreq > 0 and not self.is_text

    @property
    def is_markers(self) -> bool:
        """Irregular, and text or one column of whole numbers.

        pylsl's outlets are of floats where nothing else is said: of type "Markers" they count.
        """
        is_named = "marker" in self.type.lower()
        if self.sfreq > 0 and not is_named:
            return False
        if self.type in _NO_MARKERS:
            return False
        if self.is_text:
            return True
        is_whole = self.samples.dtype.kind in "iu" or (
            is_named and bool(np.all(self.samples == np.round(self.samples)))
        )
        return len(self.channels) == 1 and is_whole

    def describe(self) -> str:
        """For people: 'Muse' (EEG, 5 channels, 256 Hz, 2820 samples)."""
        rate = f"{self.sfreq:g} Hz" if self.sfreq else "irregular"
        return (
            f"'{self.name}' ({self.type or 'no type'}, {len(self.channels)} "
            f"channel{'s' if len(self.channels) != 1 else ''}, {rate}, {self.n_times} samples)"
        )

    def markers(self) -> list[Marker]:
        """The samples as markers; the label is the first column that is not empty."""
        found = []
        for i, (t, row) in enumerate(zip(self.timestamps, self.samples, strict=True)):
            texts = [f"{v:g}" if isinstance(v, np.floating) else str(v) for v in row]
            label = next((text for text in texts if text), "")
            if label:
                label, details = _own(label)
                details |= self.details[i] if self.details else {}
                found.append(Marker(float(t), label, details))
        return found


def _own(text: str) -> tuple[str, dict[str, Any]]:
    """Label and details of a marker that may be in the JSON of this program's recordings."""
    if text.startswith("{"):
        try:
            details = json.loads(text)
        except ValueError:
            return text, {}
        if isinstance(details, dict) and isinstance(label := details.pop("label", None), str):
            return label, details
    return text, {}


def read_streams(path: Path, parameters: Mapping[str, str]) -> list[RecordedStream]:
    """Read every stream of a recording.

    Parameters
    ----------
    path : XDF, BrainFlow's or OpenBCI's text, muse-lsl's CSV, or what mne reads.
    parameters : `board` (of BrainFlow's text, which does not name it), `partial` ("true":
        take what is there of a file that is cut off).

    Raises
    ------
    SourceNotFoundError
        There is no such file.
    RecordingError
        It is damaged or of no known format.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"There is no recording {path}. Check the path.")
    # Each reader imports its own library: only the one that is used is loaded.
    if path.name.lower().endswith((".xdf", ".xdfz", ".xdf.gz")):
        from acquisition.recording_xdf import read_xdf

        return read_xdf(path, is_partial=parameters.get("partial") == "true")
    if path.suffix.lower() in (".csv", ".txt", ".tsv"):
        from acquisition.recording_text import read_text

        return read_text(path, parameters.get("board", ""))
    from acquisition.recording_mne import read_mne

    return read_mne(path)


def choose_eeg(name: str, streams: list[RecordedStream], wanted: str) -> RecordedStream:
    """The one EEG stream of a recording, or the one called `wanted`.

    Raises
    ------
    RecordingError
        There is none, it is empty, or there are several; the file's streams are listed.
    """
    listed = "; ".join(s.describe() for s in streams) or "nothing"
    if wanted:
        named = [
            s
            for s in streams
            if wanted in (s.name, s.type, s.source_id) and s.sfreq > 0 and not s.is_text
        ]
        found = [s for s in named if s.is_eeg] or named
    else:
        found = [s for s in streams if s.is_eeg]
    filled = [s for s in found if s.n_times]
    if len(filled) == 1:
        return filled[0]
    if len(filled) > 1:
        raise RecordingError(
            f"{name} holds several EEG streams: {listed}. Choose one with stream=NAME."
        )
    if found:
        raise RecordingError(f"The EEG stream of {name} is empty. The file holds {listed}.")
    what = f"a stream '{wanted}' with a regular rate" if wanted else "an EEG stream"
    raise RecordingError(
        f"Expected {what} in {name}; it holds {listed}. "
        "Choose a stream with stream=NAME, or another file."
    )
