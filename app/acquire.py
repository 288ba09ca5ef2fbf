"""The acquisition process: from a source's samples to epochs, traces and markers on the bus."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import Epoch, EpochStream, kinds_of
from acquisition.montage import Montage
from acquisition.quality import ElectrodeQuality, QualityMonitor
from acquisition.source import (
    Chunk,
    Guided,
    Marker,
    Reading,
    Source,
    SourceOptions,
    open_source,
)
from app.bundle import find_bundle, find_stimuli, read_epoch_spec
from app.bus import Bus
from app.child import begin_child
from app.messages import Message, pack
from app.presentation import stimulus_marker
from app.recorder import DEPTH
from app.settings import Epochs, Settings

# Seconds that a read waits: how late the end of the session may be noticed.
READ_TIMEOUT = 0.1
TELEMETRY_PERIOD = 0.25
# Seconds of samples in a message of traces, at least; the page draws them at their own pace.
TRACES_PERIOD = 0.08
# Pictures are presented until so many seconds after the last one appeared.
PRESENTED_S = 5.0


class Sink(Protocol):
    """Takes packed messages; `app.bus.Publisher`."""

    def send(self, message: bytes) -> None: ...


class Stimuli(Protocol):
    """Gives what is said of presented pictures; `app.bus.Subscriber`."""

    def receive(self, timeout: float, /) -> Message | None: ...


class Outlet(Protocol):
    """Takes markers; `acquisition.marker_outlet.MarkerOutlet`."""

    def send(self, marker: Marker, /) -> None: ...


class Traces:
    """Gathers filtered chunks until they are worth a message.

    Parameters
    ----------
    n_min : samples of a message, at least; one before a gap may have fewer.
    """

    def __init__(self, n_min: int) -> None:
        self._n_min = n_min
        self._first = 0
        self._parts: list[np.ndarray] = []
        self._t_last = 0.0

    @property
    def _n_times(self) -> int:
        return sum(part.shape[1] for part in self._parts)

    def push(
        self, first_sample: int, data: np.ndarray, t_last: float
    ) -> list[tuple[int, np.ndarray, float]]:
        """Add a chunk of shape (n_channels, n_times).

        Returns
        -------
        What is complete now: index of the first sample, samples, time of the last.
        """
        complete: list[tuple[int, np.ndarray, float]] = []
        if data.shape[1] == 0:
            return complete
        if self._parts and first_sample != self._first + self._n_times:
            complete.append(self._take())
        if not self._parts:
            self._first = first_sample
        self._parts.append(data)
        self._t_last = t_last
        if self._n_times >= self._n_min:
            complete.append(self._take())
        return complete

    def _take(self) -> tuple[int, np.ndarray, float]:
        data = np.concatenate(self._parts, axis=1)
        self._parts = []
        return self._first, data, self._t_last


class Acquisition:
    """Reads a source and publishes what comes of it.

    Parameters
    ----------
    source : connected.
    spec : what the bundle wants.
    epochs : which are published, see `app.settings`.
    sinks : by topic: "epoch", "traces", "raw", "marker", "telemetry".
    now : the session clock.
    stimuli : what the page presents; its onsets and ends become markers like the source's own.
    outlet : is given these markers, too.
    has_joined : whether somebody began to listen to "raw" since this was asked last. Filters and
        epochs then begin anew, beside those that go on until the new ones are settled: so the
        epochs can be cut again from what was listened to, to the bit.

    Raises
    ------
    MontageError
        The source's electrodes cannot be mapped to the bundle's.
    """

    def __init__(
        self,
        source: Source,
        spec: EpochSpec,
        epochs: Epochs,
        sinks: dict[str, Sink],
        now: Callable[[], float] = time.monotonic,
        stimuli: Stimuli | None = None,
        outlet: Outlet | None = None,
        has_joined: Callable[[], bool] = lambda: False,
    ) -> None:
        info = source.info
        self._source = source
        self._sinks = sinks
        self._now = now
        self._stimuli, self._outlet = stimuli, outlet
        self._montage = Montage.from_channels(info.ch_names, spec)
        self._has_joined = has_joined
        self._is_auto = epochs == "auto"
        self._new_stream = partial(EpochStream, info, spec, self._montage, kinds=kinds_of(epochs))
        self._presented = float("-inf")
        self._stream = self._new_stream()
        # Begun anew, and not cutting yet.
        self._coming: EpochStream | None = None
        self._monitor = QualityMonitor(info)
        self._traces = Traces(max(1, round(TRACES_PERIOD * info.sfreq)))
        self._quality: Sequence[ElectrodeQuality] = ()
        self._samples_in = 0
        self._samples_lost = 0
        self._epochs_published = 0
        # When the filters began that raw samples, and those that epochs, went through first: tells
        # them from those before, of this process or another.
        self._began = self._epochs_began = now()
        self._n_raw = 0
        self._state, self._message = "running", ""
        self._told_at = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set; a recording that has ended leaves the rest running."""
        while not stop.is_set():
            self.take_in_stimuli()
            reading = self._source.read(READ_TIMEOUT, self._stream.n_due)
            self.take_in(reading)
            if reading.state == "finished":
                # Nothing more will come; what is on the page stays.
                while not stop.wait(TELEMETRY_PERIOD):
                    self.take_in_stimuli()
                    self.tell()

    def take_in(self, reading: Reading) -> None:
        """Publish what a reading gives."""
        # Markers go first: an epoch that is locked to one may end within these chunks.
        self._take_in_markers(reading.markers)
        for chunk in reading.chunks:
            self._publish_raw(chunk)
            for epoch in self._cut(chunk):
                self._publish_epoch(epoch)
            self._samples_in += chunk.n_times
            self._samples_lost += chunk.n_lost
            self._publish_traces(chunk)
            self._quality = self._monitor.push(chunk) or self._quality
        is_changed = (reading.state, reading.message) != (self._state, self._message)
        self._state, self._message = reading.state, reading.message
        if is_changed or self._now() - self._told_at >= TELEMETRY_PERIOD:
            self.tell()

    def take_in_stimuli(self) -> None:
        """Make markers of what the page has presented."""
        while self._stimuli and (message := self._stimuli.receive(0)):
            marker = stimulus_marker(message.header)
            if marker is None:
                continue
            # A simulated subject sees what the page shows, as a person would; the decoder does not.
            if isinstance(self._source, Guided):
                self._source.see(marker)
            if self._outlet:
                self._outlet.send(marker)
            self._take_in_markers((marker,))

    def _take_in_markers(self, markers: Sequence[Marker]) -> None:
        for marker in markers:
            self._publish_marker(marker)
        if self._is_auto:
            # Others, as of keys that are pressed, lock nothing unless it is asked for.
            markers = [m for m in markers if m.label.partition("/")[0] == "onset"]
            if markers:
                self._presented = markers[-1].timestamp
        for epoch in self._cut(None, markers):
            self._publish_epoch(epoch)

    def _cut(self, chunk: Chunk | None, markers: Sequence[Marker] = ()) -> list[Epoch]:
        epochs = self._stream.push(chunk, markers)
        if self._coming and (newer := self._coming.push(chunk, markers)):
            self._stream, self._coming, epochs = self._coming, None, newer
            self._epochs_began = self._began
        return [epoch for epoch in epochs if self._is_wanted(epoch)]

    def _is_wanted(self, epoch: Epoch) -> bool:
        """While pictures are presented, those that are locked to them tell more."""
        # A marker of a wrong clock, far ahead, presents nothing.
        is_presented = abs(epoch.t_last - self._presented) < PRESENTED_S
        return epoch.kind == "marker-locked" or not (self._is_auto and is_presented)

    def _publish_marker(self, marker: Marker) -> None:
        header = {
            "timestamp": marker.timestamp,
            "label": marker.label,
            "details": marker.details,
        }
        self._sinks["marker"].send(pack("marker", header))

    def _publish_raw(self, chunk: Chunk) -> None:
        if self._has_joined():
            self._coming = self._new_stream()
            self._began, self._n_raw = self._now(), 0
        header = {
            "began": self._began,
            "number": self._n_raw,
            "first_sample": chunk.first_sample,
            "n_times": chunk.n_times,
            "info": self._info(),
        }
        self._n_raw += 1
        timestamps = np.ascontiguousarray(chunk.timestamps, np.float64)
        samples = np.ascontiguousarray(chunk.data, np.float32)
        self._sinks["raw"].send(pack("raw", header, timestamps.tobytes() + samples.tobytes()))

    def _info(self) -> dict[str, Any]:
        info = self._source.info
        return {
            "name": info.name,
            "ch_names": info.ch_names,
            "sfreq": info.sfreq,
            "honesty": info.honesty,
        }

    def _publish_epoch(self, epoch: Epoch) -> None:
        n_channels, n_times = epoch.data.shape
        # Nothing of the marker goes along: the decoder never sees what was shown.
        header = {
            "number": self._epochs_published,
            "began": self._epochs_began,
            "kind": epoch.kind,
            "first_sample": epoch.first_sample,
            "t_first": epoch.t_first,
            "t_last": epoch.t_last,
            "t_published": self._now(),
            "n_channels": n_channels,
            "n_times": n_times,
            "honesty": self._source.info.honesty,
            "fidelity": self._montage.fidelity,
        }
        payload = np.ascontiguousarray(epoch.data, np.float32).tobytes()
        self._sinks["epoch"].send(pack("epoch", header, payload))
        self._epochs_published += 1

    def _publish_traces(self, chunk: Chunk) -> None:
        first_sample, data = self._stream.display
        for first, samples, t_last in self._traces.push(
            first_sample, data, float(chunk.timestamps[-1])
        ):
            header = {
                "first_sample": first,
                "n_channels": samples.shape[0],
                "n_times": samples.shape[1],
                "sfreq": self._source.info.sfreq,
                "t_last": t_last,
                "honesty": self._source.info.honesty,
                "is_ready": self._stream.is_ready,
            }
            payload = samples.astype(np.float32).tobytes()
            self._sinks["traces"].send(pack("traces", header, payload))

    def tell(self) -> None:
        """Publish telemetry."""
        self._told_at = self._now()
        header: dict[str, Any] = {
            "from": "acquisition",
            "t": self._told_at,
            "samples_in": self._samples_in,
            "samples_lost": self._samples_lost,
            "state": self._state,
            "message": self._message,
            "info": self._info(),
            "fidelity": self._montage.fidelity,
            "fidelity_text": self._montage.sentence,
            "quality": [
                {"name": q.name, "grade": q.grade, "reasons": q.reasons} for q in self._quality
            ],
            "epochs_published": self._epochs_published,
            "is_ready": self._stream.is_ready,
        }
        self._sinks["telemetry"].send(pack("telemetry", header))


def main() -> None:
    """Run as a child of the supervisor."""
    with begin_child("acquisition") as child, Bus(child.folder, "acquisition") as bus:
        settings = child.settings
        bundle = find_bundle(settings.bundle)
        spec = read_epoch_spec(bundle)
        raw = bus.publisher("raw", depth=DEPTH)
        sinks: dict[str, Sink] = {
            "epoch": bus.publisher("epoch"),
            "traces": bus.publisher("traces", depth=32),
            "raw": raw,
            "marker": bus.publisher("marker", depth=256),
            "telemetry": bus.publisher("telemetry"),
        }
        # The same after a restart, so that listeners find it again.
        outlet_id = f"phosphene markers {child.folder.name}"
        options = SourceOptions(
            settings.ch_names,
            settings.unit,
            settings.known_peers,
            find_stimuli(bundle),
            outlet_id if settings.marker_outlet else "",
        )
        stimuli = bus.subscriber("stimulus", depth=256)
        source = open_source(settings.source, options)
        try:
            acquisition = Acquisition(
                source,
                spec,
                settings.epochs,
                sinks,
                stimuli=stimuli,
                outlet=_open_outlet(settings, outlet_id),
                has_joined=raw.has_joined,
            )
            acquisition.run(child.stop)
        finally:
            source.close()


def _open_outlet(settings: Settings, source_id: str) -> Outlet | None:
    if not settings.marker_outlet:
        return None
    # Loads liblsl, which nobody else needs.
    from acquisition.marker_outlet import MarkerOutlet

    return MarkerOutlet(settings.marker_outlet, source_id, settings.known_peers)


if __name__ == "__main__":
    main()
