"""XDF recordings, read by pyxdf with the recorded times left as they are."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import IO, Any

import numpy as np

from acquisition.channels import Channel
from acquisition.errors import RecordingError
from acquisition.recorded_stream import RecordedStream

_SAMPLES = 3


def read_xdf(path: Path, is_partial: bool = False) -> list[RecordedStream]:
    """Read every stream of an XDF file, clocks synchronised, times not smoothed.

    pyxdf's smoothing would draw gaps shorter than a second out of sight.

    Parameters
    ----------
    path : of the file, plain or compressed with gzip.
    is_partial : whether a file that is cut off may be used as far as it goes.

    Raises
    ------
    RecordingError
        It is no XDF file, or cut off, or damaged.
    """
    _check_whole(path, is_partial)
    import pyxdf

    # It logs what it repairs (clock offsets that are outliers, a chunk that is cut off) as
    # warnings and errors; what matters of that is raised above.
    logging.getLogger("pyxdf").setLevel(logging.CRITICAL)
    try:
        streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
    except Exception as error:  # pyxdf raises whatever its parser stumbles over
        raise RecordingError(
            f"{path.name} is damaged: pyxdf stops with {type(error).__name__} ({error}). "
            "Use another copy of the recording."
        ) from error
    return [_stream(s) for s in sorted(streams, key=lambda s: int(s["info"]["stream_id"]))]


def _stream(raw: dict[str, Any]) -> RecordedStream:
    info = raw["info"]
    n_channels = int(_text(info, "channel_count") or 1)
    is_text = _text(info, "channel_format") == "string"
    samples = np.asarray(raw["time_series"], dtype=object if is_text else None)
    return RecordedStream(
        name=_text(info, "name"),
        type=_text(info, "type"),
        sfreq=float(_text(info, "nominal_srate") or 0),
        channels=_channels(info, n_channels),
        timestamps=np.asarray(raw["time_stamps"], dtype=np.float64),
        samples=samples.reshape(-1, n_channels),
        source_id=_text(info, "source_id"),
        # Segments end at each clock reset (inclusive); what follows one is no neighbour.
        starts=tuple(int(last) + 1 for _, last in info["clock_segments"][:-1]),
        notes=_notes(info),
    )


def _notes(info: dict[str, Any]) -> dict[str, str]:
    """The plain texts of `desc`."""
    try:
        desc = info["desc"][0]
        return {name: text for name in desc if (text := _text(desc, name))}
    except (LookupError, TypeError):
        return {}


def _channels(info: dict[str, Any], n_channels: int) -> tuple[Channel, ...]:
    """What `desc/channels/channel` says; as many as the stream has, whatever is there."""
    try:
        listed = info["desc"][0]["channels"][0]["channel"]
    except (KeyError, IndexError, TypeError):
        listed = []
    found = [
        # LSL's convention is `label`; Mentalab writes `name`.
        Channel(_text(c, "label") or _text(c, "name"), _text(c, "type"), _text(c, "unit"))
        for c in listed
        if isinstance(c, dict)
    ]
    return tuple((found + [Channel()] * n_channels)[:n_channels])


def _text(node: dict[str, Any], key: str) -> str:
    value = node.get(key)
    value = value[0] if isinstance(value, list) and value else value
    return value.strip() if isinstance(value, str) else ""


def _check_whole(path: Path, is_partial: bool) -> None:
    """Walk over the chunks, so that a file that is cut off is not taken for a short one."""
    try:
        with _open(path) as file:
            magic = file.read(4)
            if magic != b"XDF:":
                found = f"begins with {magic.decode('latin-1')!r}" if magic else "is empty"
                raise RecordingError(
                    f"{path.name} is not an XDF file: it should begin with 'XDF:', but it {found}. "
                    "Use file: for other formats."
                )
            end = file.seek(0, 2)
            position, n_blocks = 4, 0
            while position < end:
                length, tag = _chunk(file, position)
                if not length or position + length > end:
                    if is_partial:
                        return
                    raise RecordingError(
                        f"{path.name} is cut off: the chunk at byte {position} of {end} is not "
                        "whole. Copy the recording again, or take what comes before it "
                        f"({n_blocks} blocks of samples) by --source "
                        f"'xdf:{path}?partial=true'."
                    )
                position += length
                n_blocks += tag == _SAMPLES
    except (EOFError, gzip.BadGzipFile) as error:
        raise RecordingError(
            f"{path.name} is cut off inside its compressed data. Copy the recording again."
        ) from error


def _chunk(file: IO[bytes], position: int) -> tuple[int, int]:
    """Length in bytes, with its own field, and tag of a chunk; length 0 if that makes no sense."""
    file.seek(position)
    head = file.read(1)
    if head not in (b"\x01", b"\x04", b"\x08"):
        return 0, 0
    field, tag = file.read(head[0]), file.read(2)
    if len(field) < head[0] or len(tag) < 2:
        return 0, 0
    return 1 + head[0] + int.from_bytes(field, "little"), int.from_bytes(tag, "little")


def _open(path: Path) -> IO[bytes]:
    if path.name.lower().endswith((".xdfz", ".gz")):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")
