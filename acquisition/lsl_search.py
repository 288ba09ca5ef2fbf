"""Which of the network's streams is meant."""

from __future__ import annotations

import time
from dataclasses import dataclass

from acquisition.channels import EEG_TYPES
from acquisition.errors import SourceError, SourceNotFoundError
from acquisition.lsl_network import LSLStream, StreamFinder

_OTHERS_S = 0.7  # to look on after the first match, lest there are several: a wave is 0.5 s


@dataclass(frozen=True, slots=True)
class LSLQuery:
    """Which stream is wanted; empty fields match any."""

    name: str = ""
    type: str = ""
    source_id: str = ""

    def __str__(self) -> str:
        fields = {"name": self.name, "type": self.type, "source_id": self.source_id}
        said = [f"{key}='{value}'" for key, value in fields.items() if value]
        return " and ".join(said) or "type='EEG'"

    def choose(self, streams: list[LSLStream]) -> list[LSLStream]:
        """The streams that are wanted; without a type, those of EEG (Muse calls all alike)."""
        found = [
            s
            for s in streams
            if self.name in ("", s.name)
            and self.source_id in ("", s.source_id)
            and self.type.lower() in ("", s.type.lower())
        ]
        if self.type:
            return found
        return [s for s in found if s.type.lower() in EEG_TYPES]


def find_stream(finder: StreamFinder, query: LSLQuery, timeout: float) -> LSLStream:
    """Wait at most `timeout` seconds for the one stream that is wanted.

    Raises
    ------
    SourceNotFoundError
        Nothing matches; what is on the network is listed.
    SourceError
        Several match.
    """
    t_end = time.monotonic() + timeout
    while not query.choose(finder.streams()):
        if time.monotonic() >= t_end:
            raise SourceNotFoundError(_not_found(query, finder.streams()))
        time.sleep(0.05)
    time.sleep(_OTHERS_S)
    found = query.choose(finder.streams())
    if len(found) == 1:
        return found[0]
    listed = "; ".join(f"{s.describe()}, source_id='{s.source_id}'" for s in found)
    raise SourceError(
        f"{len(found)} LSL streams match {query}: {listed or 'all vanished again'}. "
        "Choose one by name=, type= or source_id=."
    )


def _not_found(query: LSLQuery, streams: list[LSLStream]) -> str:
    if not streams:
        return (
            f"No LSL stream matches {query}; there is no stream on the network at all. Start the "
            "device; if it streams from another machine, name that by --known-peers and open UDP "
            "and TCP ports 16571 to 16604; or use --source simulated:."
        )
    listed = ", ".join(s.describe() for s in streams)
    return (
        f"No LSL stream matches {query}. On the network: {listed}. "
        "Start the device, name one of these with its type, or use --source simulated:."
    )
