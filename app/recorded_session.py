"""What a recording of this program holds, for whoever paints the session again."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.errors import RecordingError
from acquisition.recorded_stream import RecordedStream, read_streams
from acquisition.source import Chunk, Marker
from acquisition.stream_info import StreamInfo
from app.errors import PainterLogError
from app.painter_log import Event, event_from_dict

# Samples of a chunk; epochs are the same whatever the chunks.
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Segment:
    """Raw EEG that one run of the filters was given, from its beginning.

    Attributes
    ----------
    info : of its channels.
    honesty : whether it was simulated, replayed or live when it was recorded.
    began : names it in the painter's log.
    timestamps : (n,), session time.
    samples : (n, n_channels), microvolts.
    places : sample from which on samples are numbered from an index on the source's grid, and
        this index; the first is of sample 0.
    """

    info: StreamInfo
    honesty: str
    began: float
    timestamps: np.ndarray
    samples: np.ndarray
    places: tuple[tuple[int, int], ...]

    def chunks(self) -> Iterator[Chunk]:
        """Its samples as they came, with the gaps that they had."""
        ends = [*(sample for sample, _ in self.places[1:]), len(self.timestamps)]
        for (start, first_sample), end in zip(self.places, ends, strict=True):
            for at in range(start, end, CHUNK):
                part = slice(at, min(at + CHUNK, end))
                data = np.ascontiguousarray(self.samples[part].T, np.float32)
                yield Chunk(data, self.timestamps[part], first_sample + at - start)


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the painter's log.

    Attributes
    ----------
    t : session time.
    number : counts the lines of a worker.
    """

    t: float
    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class Seen:
    """What was before the person's eyes.

    Attributes
    ----------
    name : of its class; "" for nothing.
    picture : its own name, if it has one.
    """

    name: str = ""
    picture: str = ""


class SeenAt:
    """What was seen at any time.

    Parameters
    ----------
    markers : `onset/<class>`, whose detail `picture` names the picture, and `offset`; in order.
    """

    def __init__(self, markers: tuple[Marker, ...]) -> None:
        self._times: list[float] = []
        self._seen = [Seen()]
        for marker in markers:
            kind, _, name = marker.label.partition("/")
            if kind == "onset":
                picture = str(marker.details.get("picture", ""))
                self._times.append(marker.timestamp)
                self._seen.append(Seen(name, picture))
            elif marker.label == "offset":
                self._times.append(marker.timestamp)
                self._seen.append(Seen())

    def at(self, t: float) -> Seen:
        """What was seen at session time `t`."""
        return self._seen[bisect_right(self._times, t)]


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """A recording of this program.

    Attributes
    ----------
    segments : by their `began`.
    markers : in order of time.
    log : of the painter, as it happened.
    """

    segments: dict[float, Segment]
    markers: tuple[Marker, ...]
    log: tuple[Logged, ...]


def read_session(path: Path) -> RecordedSession:
    """Read a recording, as far as it goes where its end is cut off.

    Raises
    ------
    SourceError
        There is no such file, or it is damaged.
    PainterLogError
        It is no recording of this program, or nothing was painted while it ran.
    """
    streams = read_streams(path, {"partial": "true"})
    try:
        log = tuple(
            Logged(t, line.pop("number"), event_from_dict(line))
            for t, line in _lines(streams, "Painter")
        )
        places = [place for _, place in _lines(streams, "Segments")]
        segments = [segment_of(stream, places) for stream in streams if "began" in stream.notes]
        markers = [marker for stream in streams if stream.is_markers for marker in stream.markers()]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RecordingError(
            f"{path.name} is not as this version of Phosphene records ({type(error).__name__}: "
            f"{error}). Use the version that recorded it."
        ) from error
    if not log:
        raise PainterLogError(
            f"{path} tells of no painter: nothing can be painted again. Record while `phosphene "
            "serve` or `phosphene demo` paints, by the button in its page."
        )
    return RecordedSession(
        {segment.began: segment for segment in segments},
        tuple(sorted(markers, key=lambda marker: marker.timestamp)),
        log,
    )


def _lines(streams: list[RecordedStream], kind: str) -> Iterator[tuple[float, dict[str, Any]]]:
    for stream in streams:
        if stream.type == kind:
            for t, (text,) in zip(stream.timestamps, stream.samples, strict=True):
                yield float(t), json.loads(text)


def segment_of(stream: RecordedStream, places: list[dict[str, int]]) -> Segment:
    """The EEG stream of a recording, with what its stream `Segments` says of all of them."""
    number = int(stream.notes["segment"])
    names = tuple(channel.label for channel in stream.channels)
    return Segment(
        StreamInfo(stream.name, names, stream.sfreq, "replay"),
        stream.notes["honesty"],
        float(stream.notes["began"]),
        stream.timestamps,
        stream.samples,
        tuple((p["sample"], p["first_sample"]) for p in places if p["segment"] == number),
    )
