"""Recordings made for tests: XDF written byte by byte, text as the programs write it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@dataclass(frozen=True)
class XDFStream:
    name: str
    type: str
    sfreq: float
    samples: np.ndarray  # (n_times, n_channels), float32 or object
    timestamps: np.ndarray
    labels: tuple[str, ...] = ()
    unit: str = ""
    types: str = ""
    source_id: str = "made"


def write_xdf(path: Path, streams: list[XDFStream], block: int = 50) -> Path:
    """Write the streams as LabRecorder would, in blocks of samples."""
    parts = [b"XDF:", _chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')]
    for number, stream in enumerate(streams, start=1):
        parts.append(_chunk(2, struct.pack("<I", number) + _header(stream).encode()))
    for number, stream in enumerate(streams, start=1):
        for start in range(0, len(stream.timestamps), block):
            parts.append(_chunk(3, struct.pack("<I", number) + _samples(stream, start, block)))
    path.write_bytes(b"".join(parts))
    return path


def _chunk(tag: int, content: bytes) -> bytes:
    return b"\x04" + struct.pack("<IH", len(content) + 2, tag) + content


def _header(stream: XDFStream) -> str:
    n_channels = stream.samples.shape[1]
    kind = "string" if stream.samples.dtype == object else "float32"
    channels = "".join(
        "<channel>"
        f"<label>{escape(label)}</label><unit>{stream.unit}</unit><type>{stream.types}</type>"
        "</channel>"
        for label in stream.labels
    )
    return (
        f'<?xml version="1.0"?><info><name>{escape(stream.name)}</name><type>{stream.type}</type>'
        f"<channel_count>{n_channels}</channel_count><nominal_srate>{stream.sfreq}</nominal_srate>"
        f"<channel_format>{kind}</channel_format><source_id>{stream.source_id}</source_id>"
        f"<desc><channels>{channels}</channels></desc></info>"
    )


def _samples(stream: XDFStream, start: int, block: int) -> bytes:
    times = stream.timestamps[start : start + block]
    parts = [b"\x04" + struct.pack("<I", len(times))]
    for t, row in zip(times, stream.samples[start : start + block], strict=True):
        parts.append(b"\x08" + struct.pack("<d", t))
        if stream.samples.dtype == object:
            parts += [b"\x04" + struct.pack("<I", len(v.encode())) + v.encode() for v in row]
        else:
            parts.append(row.astype("<f4").tobytes())
    return b"".join(parts)


def gap_times(n: int, sfreq: float, gaps: dict[int, float], t_first: float = 100.0) -> np.ndarray:
    """Regular times with so many seconds added before the samples named."""
    times = t_first + np.arange(n) / sfreq
    for at, seconds in gaps.items():
        times[at:] += seconds
    return times


def noise(n: int, n_channels: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (20 * rng.standard_normal((n, n_channels))).astype(np.float32)


def session_xdf(path: Path, n: int = 500, gap_s: float = 1.0) -> Path:
    """Three EEG channels with a gap in the middle, an accelerometer of the same name, markers."""
    times = gap_times(n, 250.0, {n // 2: gap_s})
    shown = np.array([["onset/dog"], ["offset"], ["onset/cat"]], dtype=object)
    return write_xdf(
        path,
        [
            XDFStream("Head", "ACC", 50.0, noise(100, 3), gap_times(100, 50.0, {})),
            XDFStream(
                "Head", "EEG", 250.0, noise(n, 3), times, ("C3", "Cz", "C4"), "microvolts", "EEG"
            ),
            XDFStream("Shown", "Markers", 0.0, shown, times[[10, n // 2 - 10, n // 2 + 20]]),
            XDFStream("Empty", "Markers", 0.0, shown[:0], times[:0]),
        ],
    )
