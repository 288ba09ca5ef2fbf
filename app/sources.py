"""What `phosphene sources` lists: LSL streams on the network and boards by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from acquisition.errors import AcquisitionError


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A source that can be named.

    Attributes
    ----------
    source : its name for `--source`.
    name, type : as it calls itself; the type is "board" for boards.
    n_channels : of EEG; of any kind for an LSL stream.
    sfreq : Hz; 0 for streams of events.
    ch_names : empty where the device names none.
    """

    source: str
    name: str
    type: str
    n_channels: int
    sfreq: float
    ch_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundSources:
    """All of them; `lsl_error` and `board_error` say why a kind could not be looked for."""

    lsl: tuple[FoundSource, ...]
    boards: tuple[FoundSource, ...]
    lsl_error: str = ""
    board_error: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find_sources(known_peers: tuple[str, ...] = (), timeout: float = 2.0) -> FoundSources:
    """Look for LSL streams for `timeout` seconds, and ask BrainFlow for its boards."""
    lsl, lsl_error = _lsl(known_peers, timeout)
    boards, board_error = _boards()
    return FoundSources(lsl, boards, lsl_error, board_error)


def _lsl(known_peers: tuple[str, ...], timeout: float) -> tuple[tuple[FoundSource, ...], str]:
    from acquisition.lsl_network import list_streams

    try:
        streams = list_streams(timeout, known_peers)
    except AcquisitionError as error:
        return (), str(error)
    found = []
    for stream in streams:
        wanted = {"name": stream.name, "type": stream.type}
        source = "lsl:" + "&".join(f"{key}={value}" for key, value in wanted.items() if value)
        found.append(FoundSource(source, stream.name, stream.type, stream.n_channels, stream.sfreq))
    return tuple(found), ""


def _boards() -> tuple[tuple[FoundSource, ...], str]:
    from acquisition.brainflow_boards import list_boards

    try:
        boards = list_boards()
    except (AcquisitionError, ImportError) as error:
        return (), str(error)
    found = [
        FoundSource(
            f"brainflow:{board.key}",
            board.name,
            "board",
            len(board.eeg_rows),
            board.sfreq,
            tuple(label for label in board.labels if label),
        )
        for board in boards
    ]
    return tuple(found), ""


def sources_text(found: FoundSources) -> str:
    """Lines for people."""
    lines = ["simulated:  32 channels, 250 Hz: the simulated subject, always there", ""]
    lines.append("LSL streams on the network:" if found.lsl else "No LSL stream is on the network.")
    lines += [_line(source) for source in found.lsl]
    if found.lsl_error:
        lines[-1] = found.lsl_error
    lines += ["", "Boards by name; most need a port or an address, as ?serial_port=/dev/ttyUSB0:"]
    lines += [_line(source) for source in found.boards]
    if found.board_error:
        lines[-1] = found.board_error
    return "\n".join(lines)


def _line(source: FoundSource) -> str:
    rate = f"{source.sfreq:g} Hz" if source.sfreq else "irregular"
    names = f"  {' '.join(source.ch_names)}" if source.ch_names else ""
    channels = "channel" if source.n_channels == 1 else "channels"
    kind = f"{source.type}, " if source.type not in ("", "board") else ""
    return f"  {source.source:36} {kind}{source.n_channels} {channels}, {rate}{names}"
