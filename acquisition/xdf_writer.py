"""Writes XDF files: whatever was written can be read, however the writing ends.

XDF 1.0 (https://github.com/sccn/xdf/wiki/Specifications): chunks one after the other, each with its
length before it. Nothing is ever changed once it is written; without footers a file is whole.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from acquisition.channels import Channel

Format = Literal["float32", "string"]
_FILE_HEADER, _STREAM_HEADER, _SAMPLES, _CLOCK_OFFSET, _BOUNDARY, _STREAM_FOOTER = range(1, 7)
_LONGEST_HEADER = 1 << 16
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Where a reader finds its way again behind bytes that are damaged.
_MARK = bytes.fromhex("43A546DCCBF5410FB30ED5467383CBE4")


@dataclass(frozen=True, slots=True)
class StreamHeader:
    """What a stream says of itself.

    Attributes
    ----------
    name, type : as LSL has them.
    channel_format : of its samples.
    sfreq : Hz; 0 where samples come as they please.
    channels : label, type and unit of each.
    notes : further elements of its description, by name.
    """

    name: str
    type: str
    channel_format: Format
    sfreq: float
    channels: Sequence[Channel]
    notes: dict[str, str] = field(default_factory=dict)

    def xml(self) -> bytes:
        """The content of its header."""
        info = ElementTree.Element("info")
        for tag, text in (
            ("name", self.name),
            ("type", self.type),
            ("channel_count", str(len(self.channels))),
            ("nominal_srate", repr(float(self.sfreq))),
            ("channel_format", self.channel_format),
        ):
            ElementTree.SubElement(info, tag).text = _allowed(text)
        desc = ElementTree.SubElement(info, "desc")
        channels = ElementTree.SubElement(desc, "channels")
        for c in self.channels:
            channel = ElementTree.SubElement(channels, "channel")
            for tag, text in (("label", c.label), ("type", c.type), ("unit", c.unit)):
                ElementTree.SubElement(channel, tag).text = _allowed(text)
        _add(desc, self.notes)
        return _text(info)


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Samples of one stream, as they lie in the file.

    Attributes
    ----------
    stream : its number.
    timestamps : (n,), seconds.
    rows : the bytes of all samples.
    """

    stream: int
    timestamps: np.ndarray
    rows: bytes


def numbers(stream: int, timestamps: np.ndarray, samples: np.ndarray) -> Samples:
    """Samples of a float32 stream.

    Parameters
    ----------
    timestamps : (n,), seconds.
    samples : (n_channels, n).
    """
    n_channels, n = samples.shape
    each = np.dtype([("n", "u1"), ("t", "<f8"), ("x", "<f4", (n_channels,))])
    rows = np.empty(n, each)
    rows["n"], rows["t"], rows["x"] = 8, timestamps, samples.T
    return Samples(stream, timestamps, rows.tobytes())


def text(stream: int, timestamp: float, value: str) -> Samples:
    """A sample of a stream of strings with one channel."""
    data = value.encode()
    row = struct.pack("<Bd", 8, timestamp) + struct.pack("<BI", 4, len(data)) + data
    return Samples(stream, np.array([timestamp]), row)


@dataclass(slots=True)
class _Written:
    """What was written of a stream."""

    header: StreamHeader
    n: int = 0
    first: float = 0.0
    last: float = 0.0


class XDFWriter:
    """Appends streams to a new file; used by one thread.

    Parameters
    ----------
    path : of the file, which must not exist.
    notes : elements of the file's header, by name.

    Raises
    ------
    OSError
        The file cannot be made, or there is no room: then what was written before is whole.
    """

    def __init__(self, path: Path, notes: dict[str, str]) -> None:
        info = ElementTree.Element("info")
        ElementTree.SubElement(info, "version").text = "1.0"
        _add(info, notes)
        self._streams: list[_Written] = []
        # Without a buffer: what a call wrote outlives this process, however it ends.
        self._file = path.open("xb", buffering=0)
        self._n_bytes = 0
        try:
            self._append(b"XDF:" + _chunk(_FILE_HEADER, _text(info)))
        except OSError:
            self._file.close()
            path.unlink(missing_ok=True)
            raise

    @property
    def n_bytes(self) -> int:
        """Bytes that the file holds."""
        return self._n_bytes

    def add_stream(self, header: StreamHeader) -> int:
        """Begin a stream; its number, for what follows."""
        self._streams.append(_Written(header))
        number = len(self._streams)
        self._append(_chunk(_STREAM_HEADER, struct.pack("<I", number) + header.xml()))
        return number

    @property
    def n_streams(self) -> int:
        """Streams that were begun; they are numbered from 1."""
        return len(self._streams)

    def add_samples(self, stream: int, timestamps: np.ndarray, samples: np.ndarray) -> None:
        """Write samples of a float32 stream, as `numbers` takes them."""
        self.add(numbers(stream, timestamps, samples))

    def add_text(self, stream: int, timestamp: float, value: str) -> None:
        """Write a sample of a stream of strings with one channel."""
        self.add(text(stream, timestamp, value))

    def add(self, *pieces: Samples) -> None:
        """Write samples of one stream or of several, all of them in one system call."""
        pieces = tuple(piece for piece in pieces if len(piece.timestamps))
        if not pieces:
            return
        self._append(b"".join(map(_samples_chunk, pieces)))
        for piece in pieces:
            written = self._streams[piece.stream - 1]
            if not written.n:
                written.first = float(piece.timestamps[0])
            written.n += len(piece.timestamps)
            written.last = float(piece.timestamps[-1])

    def add_clock_offset(self, stream: int, t: float, offset: float) -> None:
        """Write by how much the stream's clock is behind the recorder's, measured at `t`."""
        self._append(_chunk(_CLOCK_OFFSET, struct.pack("<Idd", stream, t, offset)))

    def mark(self) -> None:
        """Write what a reader can find its way by behind damage."""
        self._append(_chunk(_BOUNDARY, _MARK))

    def close(self) -> None:
        """Write the footers and close the file."""
        try:
            for number, written in enumerate(self._streams, 1):
                info = ElementTree.Element("info")
                _add(
                    info,
                    {
                        "first_timestamp": repr(written.first),
                        "last_timestamp": repr(written.last),
                        "sample_count": str(written.n),
                    },
                )
                content = struct.pack("<I", number) + _text(info)
                self._append(_chunk(_STREAM_FOOTER, content))
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def _append(self, data: bytes) -> None:
        """All of it or nothing: behind a chunk that is cut off a reader finds nothing more."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._n_bytes)
            self._file.seek(self._n_bytes)
            raise
        self._n_bytes += len(data)


def read_notes(path: Path) -> dict[str, str]:
    """What the header of a file says, by name; of its first chunk alone, and so at once.

    Raises
    ------
    ValueError
        It is no XDF file, or its header is longer than this program writes.
    OSError, xml.etree.ElementTree.ParseError
    """
    with path.open("rb") as file:
        magic, head = file.read(4), file.read(7)
        if magic != b"XDF:" or len(head) < 7 or head[0] != 4:
            raise ValueError(f"{path} is no XDF file of this program.")
        length, tag = struct.unpack("<IH", head[1:])
        if tag != _FILE_HEADER or length > _LONGEST_HEADER:
            raise ValueError(f"{path} is no XDF file of this program.")
        info = ElementTree.fromstring(file.read(length - 2))
    return {element.tag: element.text or "" for element in info}


def _samples_chunk(piece: Samples) -> bytes:
    head = struct.pack("<IBI", piece.stream, 4, len(piece.timestamps))
    return _chunk(_SAMPLES, head + piece.rows)


def _chunk(tag: int, content: bytes) -> bytes:
    return struct.pack("<BIH", 4, 2 + len(content), tag) + content


def _add(parent: ElementTree.Element, notes: dict[str, str]) -> None:
    for name, text in notes.items():
        ElementTree.SubElement(parent, name).text = _allowed(text)


def _allowed(text: str) -> str:
    """Without what XML cannot hold: a stream of such a name would make its file unreadable."""
    return _FORBIDDEN.sub("\ufffd", text)


def _text(element: ElementTree.Element) -> bytes:
    data: bytes = ElementTree.tostring(element, encoding="utf-8", xml_declaration=True)
    return data
