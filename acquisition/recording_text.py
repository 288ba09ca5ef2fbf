"""Recordings in text: BrainFlow's, OpenBCI's and muse-lsl's."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np

from acquisition.channels import Channel
from acquisition.errors import RecordingError
from acquisition.recorded_stream import RecordedStream


def read_text(path: Path, board: str = "") -> list[RecordedStream]:
    """Read a recording in text; its first line tells which program wrote it.

    Parameters
    ----------
    board : name of the board, which BrainFlow's text needs and does not hold.

    Raises
    ------
    RecordingError
        It is of no known format, holds no sample, or a line is not complete.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        head = [line for line, _ in zip(file, range(8), strict=False)]
    first = head[0].lower() if head else ""
    if first.startswith("%openbci"):
        return _openbci(path, head)
    if first.startswith("timestamps,"):
        return _muse_lsl(path, head[0])
    if re.match(r"-?\d+\.\d+\t", first):
        return _brainflow(path, board, n_columns=len(first.split("\t")))
    raise RecordingError(
        f"{path.name} is no recording that is known. Expected text by BrainFlow (tabs, no header), "
        "OpenBCI ('%OpenBCI' first) or muse-lsl ('timestamps,' first); "
        f"it begins with {first[:40].strip()!r}."
    )


def _numbers(path: Path, delimiter: str, n_skip: int, columns: list[int]) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "no data" gets its sentence below
            table = np.loadtxt(path, delimiter=delimiter, skiprows=n_skip, usecols=columns, ndmin=2)
    except (ValueError, IndexError) as error:
        raise RecordingError(
            f"{path.name} has a line that is not as the others ({error}). "
            "If the end is cut off, delete the last line."
        ) from error
    if not len(table):
        raise RecordingError(f"{path.name} holds no sample. Use another file.")
    return np.asarray(table, dtype=np.float64)


def _openbci(path: Path, head: list[str]) -> list[RecordedStream]:
    comments = [line for line in head if line.startswith("%")]
    rate = re.search(r"Sample Rate\s*=\s*([\d.]+)", "".join(comments))
    titles = "".join(head[len(comments) : len(comments) + 1])
    names = [name.strip() for name in titles.split(",")]
    exg = [i for i, name in enumerate(names) if re.match(r"(EXG|EEG) Channel", name)]
    if not rate or not exg or "Timestamp" not in names:
        raise RecordingError(
            f"{path.name} is OpenBCI text without 'Sample Rate', 'EXG Channel' columns or a "
            "'Timestamp' column. Record it anew with OpenBCI GUI 5 or later."
        )
    marks = [i for i, name in enumerate(names) if name == "Marker Channel"]
    table = _numbers(path, ",", len(comments) + 1, [names.index("Timestamp"), *exg, *marks])
    times = table[:, 0] / 1e3 if table[0, 0] > 1e11 else table[:, 0]  # milliseconds since 1970
    channels = [Channel(names[i], "EEG", "uV") for i in exg]
    eeg = _eeg(path, float(rate.group(1)), channels, times, table[:, 1 : 1 + len(exg)])
    return [eeg, *_marker_streams(path, times, table[:, 1 + len(exg) :], ["Marker Channel"])]


def _muse_lsl(path: Path, titles: str) -> list[RecordedStream]:
    names = [name.strip() for name in titles.split(",")]
    electrodes = [i for i, n in enumerate(names) if i and not n.lower().startswith("marker")]
    markers = [i for i, n in enumerate(names) if n.lower().startswith("marker")]
    table = _numbers(path, ",", 1, [0, *electrodes, *markers])
    channels = [Channel(names[i], "EEG", "uV") for i in electrodes]
    n = 1 + len(electrodes)
    times = table[:, 0]
    # All headsets that muse-lsl reads sample at 256 Hz; the file does not say.
    eeg = _eeg(path, 256.0, channels, times, table[:, 1:n])
    return [eeg, *_marker_streams(path, times, table[:, n:], [names[i] for i in markers])]


def _brainflow(path: Path, board: str, n_columns: int) -> list[RecordedStream]:
    if not board:
        raise RecordingError(
            f"{path.name} is BrainFlow's text, which does not name the board. "
            f"Name it: file:{path.name}?board=cyton ({n_columns} columns)."
        )
    from acquisition.brainflow_boards import board_layout

    layout = board_layout(board)
    if layout.n_rows != n_columns:
        raise RecordingError(
            f"{path.name} has {n_columns} columns, but a recording of {layout.name} has "
            f"{layout.n_rows}. Name the board that it was made with."
        )
    rows = [layout.timestamp_row, *layout.eeg_rows, layout.marker_row]
    table = _numbers(path, "\t", 0, rows)
    channels = [Channel(name, "EEG", "uV") for name in layout.labels]
    times = table[:, 0]
    eeg = _eeg(path, layout.sfreq, channels, times, table[:, 1:-1])
    return [eeg, *_marker_streams(path, times, table[:, -1:], ["Marker"])]


def _eeg(
    path: Path, sfreq: float, channels: list[Channel], times: np.ndarray, samples: np.ndarray
) -> RecordedStream:
    return RecordedStream(path.stem, "EEG", sfreq, tuple(channels), times, samples)


def _marker_streams(
    path: Path, times: np.ndarray, columns: np.ndarray, names: list[str]
) -> list[RecordedStream]:
    """A marker for each sample at which a marker column is not zero.

    Its label is the values of all columns with slashes between, as mne names events that
    have several properties: `2/1/45`. The details hold them by column.
    """
    at = np.flatnonzero(np.any(columns != 0, axis=1))
    if not len(at):
        return []
    labels = ["/".join(f"{v:g}" for v in columns[i]) for i in at]
    details = [{n: float(v) for n, v in zip(names, columns[i], strict=True)} for i in at]
    return [
        RecordedStream(
            name=f"{path.stem} markers",
            type="Markers",
            sfreq=0.0,
            channels=(Channel(),),
            timestamps=times[at],
            samples=np.array(labels, dtype=object).reshape(-1, 1),
            details=tuple(details) if len(names) > 1 else (),
        )
    ]
