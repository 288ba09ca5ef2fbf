"""Recordings that mne reads: FIF, EDF, BDF, GDF, BrainVision and others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.channels import Channel, microvolts_per
from acquisition.errors import RecordingError
from acquisition.recorded_stream import RecordedStream

# mne's name for the parts of a file in which nothing was recorded.
_SKIP = "BAD_ACQ_SKIP"


def read_mne(path: Path) -> list[RecordedStream]:
    """Read a recording by mne: its EEG as one stream, its annotations as markers.

    Samples are in the file's own unit as far as mne tells it, so that `--unit` can put a
    wrong one right; else in volts.

    Raises
    ------
    RecordingError
        mne cannot read it.
    """
    import mne

    try:
        with warnings.catch_warnings():
            # About filters, annotations out of range and other things without consequence here.
            warnings.simplefilter("ignore")
            raw = mne.io.read_raw(path, preload=True, verbose="ERROR")
    except Exception as error:  # each of mne's readers raises its own
        raise RecordingError(
            f"{path.name} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}. "
            "Phosphene reads XDF, BrainFlow's, OpenBCI's and muse-lsl's text, FIF, EDF, BDF, GDF "
            "and BrainVision (.vhdr)."
        ) from error
    return raw_streams(raw, path.stem)


def raw_streams(raw: Any, name: str) -> list[RecordedStream]:
    """The EEG of an mne `Raw` as one stream, its annotations as markers.

    Parameters
    ----------
    name : of the stream.
    """
    kinds = raw.get_channel_types()
    picks = [i for i, kind in enumerate(kinds) if kind == "eeg"]
    sfreq = float(raw.info["sfreq"])
    if not picks:  # what there is, for the sentence that says so
        channels = tuple(Channel(n, k) for n, k in zip(raw.ch_names, kinds, strict=True))
        nothing = np.zeros((0, len(channels)))
        types = ", ".join(sorted(set(kinds)))
        return [RecordedStream(name, types, sfreq, channels, np.zeros(0), nothing)]
    factors, units = _units(raw, picks)
    kept, starts = _recorded(raw)
    channels = tuple(
        Channel(raw.ch_names[i], "EEG", unit) for i, unit in zip(picks, units, strict=True)
    )
    samples = (raw.get_data(picks) / factors[:, None]).T[kept]
    stream = RecordedStream(name, "EEG", sfreq, channels, raw.times[kept], samples, starts=starts)
    return [stream, *_annotations(name, raw)]


def _units(raw: Any, picks: list[int]) -> tuple[np.ndarray, list[str]]:
    """Volts in one unit of the file, and that unit's name, for each picked channel."""
    extras = raw._raw_extras[0] if raw._raw_extras else None
    stored = extras.get("units") if isinstance(extras, dict) else None  # EDF, BDF and GDF
    factors, units = [], []
    for i in picks:
        unit = raw._orig_units.get(raw.ch_names[i], "")
        scale = microvolts_per(unit)
        if scale is None and stored is not None and np.size(stored) > i:
            scale = float(np.ravel(stored)[i]) * 1e6
        names = {1e-3: "nV", 1.0: "uV", 1e3: "mV", 1e6: "V"}
        nearest = min(names, key=lambda size: abs(np.log10(size / (scale or 1e6))))
        factors.append(nearest / 1e6)
        units.append(names[nearest])
    return np.array(factors), units


def _recorded(raw: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """Which samples were recorded, and (counted among those) where a file was joined."""
    kept = np.ones(raw.n_times, dtype=bool)
    joints = []
    for onset, duration, text in _spans(raw):
        first = round(onset * raw.info["sfreq"])
        if text == _SKIP:
            kept[max(first, 0) : first + round(duration * raw.info["sfreq"])] = False
        elif text in ("EDGE boundary", "BAD boundary"):
            joints.append(first)
    return kept, tuple(int(kept[:j].sum()) for j in sorted(set(joints)) if 0 < j < raw.n_times)


def _annotations(name: str, raw: Any) -> list[RecordedStream]:
    found = [(t, text) for t, _, text in _spans(raw) if not text.startswith(("BAD", "EDGE"))]
    if not found:
        return []
    return [
        RecordedStream(
            name=f"{name} annotations",
            type="Markers",
            sfreq=0.0,
            channels=(Channel(),),
            timestamps=np.array([t for t, _ in found]),
            samples=np.array([text for _, text in found], dtype=object).reshape(-1, 1),
        )
    ]


def _spans(raw: Any) -> list[tuple[float, float, str]]:
    """Annotations as onset in seconds after the first sample, duration, text."""
    shift = raw.first_time if raw.annotations.orig_time is not None else 0.0
    spans = [(a["onset"] - shift, a["duration"], str(a["description"])) for a in raw.annotations]
    return sorted(spans)
