"""Markers onto LSL, for other programs such as LabRecorder.

One irregular stream of type Markers with two channels of text: the label, and the details as
JSON. Timestamps are those of the markers, on LSL's clock.
"""

from __future__ import annotations

import json

from acquisition.clock import measure_offset
from acquisition.lsl_network import load_pylsl
from acquisition.source import Marker

CHANNELS = ("label", "details")


class MarkerOutlet:
    """An outlet that is there until `close`.

    Parameters
    ----------
    name : of the stream.
    source_id : by which listeners know it again after a restart.
    known_peers : see `SourceOptions`.

    Raises
    ------
    SourceError
        There is no liblsl.
    """

    def __init__(self, name: str, source_id: str, known_peers: tuple[str, ...] = ()) -> None:
        lsl = load_pylsl(known_peers)
        info = lsl.StreamInfo(name, "Markers", len(CHANNELS), 0.0, "string", source_id)
        channels = info.desc().append_child("channels")
        for label in CHANNELS:
            channels.append_child("channel").append_child_value("label", label)
        self._outlet = lsl.StreamOutlet(info)
        self._offset = measure_offset(lsl.local_clock)

    def send(self, marker: Marker) -> None:
        """Send a marker to whoever listens."""
        details = json.dumps(marker.details, ensure_ascii=False)
        self._outlet.push_sample([marker.label, details], marker.timestamp - self._offset)

    def close(self) -> None:
        """Take it off the network."""
        self._outlet = None
