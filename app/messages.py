"""The one wire format, between processes and between server and page.

A message is 4 bytes of type, 4 bytes of header length (big-endian), a JSON header in
UTF-8, and the payload. Pure functions; `tests/vectors/messages.json` holds vectors
that the page's reader is tested against too.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Literal, get_args

Type = Literal["frame", "traces", "state", "error", "ack", "ping", "pong", "control", "stimulus",
               "epoch", "raw", "marker", "telemetry", "painter"]  # fmt: skip

# The number on the wire is the place in this list plus one: append, never insert.
_NUMBER = {name: number for number, name in enumerate(get_args(Type), start=1)}
_NAME = {number: name for name, number in _NUMBER.items()}
_PREFIX = struct.Struct(">II")

MAX_HEADER_BYTES = 1 << 20


class MessageError(ValueError):
    """Bytes that are not a message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded message.

    Attributes
    ----------
    type : what it is.
    header : JSON object.
    payload : the rest; what it holds follows from the type.
    """

    type: Type
    header: dict[str, Any]
    payload: bytes | memoryview = b""


def _no_constant(name: str) -> float:
    raise ValueError(f"JSON has no {name}.")


def pack(type: Type, header: dict[str, Any], payload: bytes | memoryview = b"") -> bytes:
    r"""Encode a message.

    >>> pack("ack", {"n": 7})
    b'\x00\x00\x00\x05\x00\x00\x00\x07{"n":7}'
    """
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((_PREFIX.pack(_NUMBER[type], len(text)), text, payload))


def unpack(data: bytes) -> Message:
    """Decode a message.

    Raises
    ------
    MessageError
        The bytes are too short, of unknown type, or their header is not a JSON object.
    """
    if len(data) < _PREFIX.size:
        raise MessageError(f"A message has at least {_PREFIX.size} bytes, this one {len(data)}.")
    number, length = _PREFIX.unpack_from(data)
    if number not in _NAME:
        raise MessageError(f"There is no message type {number}.")
    if length > MAX_HEADER_BYTES or _PREFIX.size + length > len(data):
        raise MessageError(f"The header of {length} bytes does not fit a message of {len(data)}.")
    end = _PREFIX.size + length
    try:
        # Decoded here, because json.loads would take UTF-16 and UTF-32 too.
        header = json.loads(data[_PREFIX.size : end].decode(), parse_constant=_no_constant)
    # ValueError: not UTF-8, not JSON, or an integer of more than 4300 digits.
    except (ValueError, RecursionError) as error:
        raise MessageError("The header of a message is not JSON.") from error
    if not isinstance(header, dict):
        raise MessageError("The header of a message is not a JSON object.")
    return Message(_NAME[number], header, memoryview(data)[end:])
