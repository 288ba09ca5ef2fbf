"""Where EEG comes from: the `Source` protocol and `open_source`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import parse_qsl

import numpy as np

from acquisition.errors import SourceError
from acquisition.stream_info import StreamInfo


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive samples, as a source delivers them.

    Attributes
    ----------
    data : array of shape (n_channels, n_times), float32, microvolts.
    timestamps : array of shape (n_times,), float64, seconds on the session clock
        (`time.monotonic`).
    first_sample : index of the first sample on the stream's own grid. It is the last
        chunk's index plus its length, unless samples are missing in between: then it
        jumps by as many as are missing (at least one).
    n_lost : of the missing samples, those that were lost on the way (counted by
        package numbers or by a break of the connection). The others are a gap in the
        source itself: a paused device, a gap in a recording.
    """

    data: np.ndarray
    timestamps: np.ndarray
    first_sample: int
    n_lost: int = 0

    @property
    def n_times(self) -> int:
        return int(self.data.shape[1])

    @property
    def end(self) -> int:
        """Index of the sample after the last."""
        return self.first_sample + self.n_times


@dataclass(frozen=True, slots=True)
class Marker:
    """Something that happened at a moment, such as the onset of a picture.

    Attributes
    ----------
    timestamp : seconds on the session clock.
    label : as the stream gives it. A picture's onset is `onset/<concept>`, its end
        `offset`.
    details : what else is known, JSON values only (for the simulated subject: the
        composition).
    """

    timestamp: float
    label: str
    details: dict[str, Any] = field(default_factory=dict)


# Seconds of samples that a source waits for where no epoch needs less: every time that a process is
# woken it finds its caches cold, and the page draws traces at their own pace.
CHUNK_S = 0.08


def n_awaited(sfreq: float, n_due: int | None) -> int:
    """Samples to wait for: some `CHUNK_S`, so that what is due comes in equal parts.

    A read of the few samples that would be left at last costs as much as any.

    >>> n_awaited(1000.0, 256), n_awaited(1000.0, 64), n_awaited(1000.0, None)
    (86, 64, 80)
    """
    n_chunk = max(1, round(CHUNK_S * sfreq))
    if n_due is None:
        return n_chunk
    return math.ceil(n_due / max(1, round(n_due / n_chunk)))


SourceState = Literal["running", "stalled", "reconnecting", "finished"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one call of `Source.read` found.

    Attributes
    ----------
    chunks : in order; empty if nothing came within the timeout.
    markers : in order of time.
    state : of the source now; after "finished" nothing more will come.
    message : one sentence for people where the state is not "running", or something is wrong
        all the same.
    """

    chunks: tuple[Chunk, ...] = ()
    markers: tuple[Marker, ...] = ()
    state: SourceState = "running"
    message: str = ""


class Source(Protocol):
    """A stream of EEG. `open_source` returns one that is already connected."""

    @property
    def info(self) -> StreamInfo: ...

    def read(self, timeout: float, n_due: int | None = None, /) -> Reading:
        """Wait at most `timeout` seconds for samples; raise SourceError if none can ever come.

        A source that stalls or reconnects says so in the reading and goes on trying.

        Parameters
        ----------
        n_due : how many samples complete an epoch. A source that chooses how much it gives at
            once gives some `CHUNK_S`, which is cheap, in equal parts of this, and no later.
        """
        ...

    def close(self) -> None:
        """Release the device; safe to call twice."""
        ...


@runtime_checkable
class Guided(Protocol):
    """A source whose subject is told what it sees; no headset's is."""

    def see(self, marker: Marker) -> None:
        """Take the onset of a picture or its end, on the session clock."""
        ...


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the operator says about a source, over what it says itself.

    Attributes
    ----------
    ch_names : names of the EEG channels, in order; overrides the stream's.
    unit : of the samples, "uV", "mV", "V" or "nV"; overrides the stream's.
    known_peers : hosts that LSL asks for streams besides multicast.
    stimuli : folder of the pictures that the simulated subject is shown (`read_stimuli`).
    own_markers : source_id of this session's own outlet of markers, which is not read back.
    """

    ch_names: tuple[str, ...] = ()
    unit: str = ""
    known_peers: tuple[str, ...] = ()
    stimuli: Path | None = None
    own_markers: str = ""


def parse_source(name: str) -> tuple[str, str, dict[str, str]]:
    """Split a source's name into kind, target and parameters.

    >>> parse_source("brainflow:cyton?serial_port=/dev/ttyUSB0")
    ('brainflow', 'cyton', {'serial_port': '/dev/ttyUSB0'})
    >>> parse_source("lsl:name=Muse&type=EEG")
    ('lsl', '', {'name': 'Muse', 'type': 'EEG'})
    """
    kind, colon, rest = name.partition(":")
    if not colon:
        raise SourceError(
            f"'{name}' is not a source. Expected simulated:, lsl:name=..., brainflow:BOARD "
            "or xdf:FILE; `phosphene sources` lists what is there."
        )
    target, question, query = rest.partition("?")
    if kind == "lsl" and not question:
        target, query = "", rest
    return kind, target, dict(parse_qsl(query, keep_blank_values=True))


def open_source(name: str, options: SourceOptions | None = None) -> Source:
    """Open the source called `name` and wait until it is connected.

    Parameters
    ----------
    name : `simulated:?difficulty=literature`, `lsl:name=Muse`, `brainflow:cyton?serial_port=...`,
        `xdf:FILE?speed=2&loop=true`; `file:FILE` for the other recordings.
    options : see `SourceOptions`.

    Raises
    ------
    SourceError
        In one sentence, with the remedy.
    """
    kind, target, parameters = parse_source(name)
    options = options or SourceOptions()
    # Each module imports its own drivers: only the one that is used is loaded.
    if kind == "simulated":
        from acquisition.simulated import open_simulated

        return open_simulated(target, parameters, options)
    if kind == "lsl":
        from acquisition.lsl import open_lsl

        return open_lsl(target, parameters, options)
    if kind == "brainflow":
        from acquisition.brainflow import open_brainflow

        return open_brainflow(target, parameters, options)
    if kind in ("xdf", "file"):
        from acquisition.recording import open_recording

        return open_recording(target, parameters, options)
    raise SourceError(
        f"There is no kind of source called '{kind}'. "
        "Use simulated:, lsl:, brainflow:, xdf: or file:."
    )
