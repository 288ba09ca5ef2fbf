"""The wire format, with the vectors that the page's reader is tested against too."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.messages import MAX_HEADER_BYTES, MessageError, Type, pack, unpack

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "messages.json").read_text(encoding="utf-8")
)
VALID = [v for v in VECTORS if "error" not in v]
INVALID = [v for v in VECTORS if "error" in v]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize("vector", VALID, ids=lambda v: v["name"])
def test_a_valid_vector_decodes_to_its_parts(vector):
    message = unpack(bytes.fromhex(vector["hex"]))
    assert message.type == vector["type"]
    assert message.header == vector["header"]
    assert bytes(message.payload) == bytes.fromhex(vector["payload_hex"])


@pytest.mark.parametrize("vector", INVALID, ids=lambda v: v["name"])
def test_an_invalid_vector_is_refused(vector):
    with pytest.raises(MessageError):
        unpack(bytes.fromhex(vector["hex"]))


def test_there_are_vectors_of_every_type_that_pages_know():
    assert {v["type"] for v in VALID} >= {
        "frame", "traces", "state", "error", "ack", "ping", "pong", "control",
    }  # fmt: skip
    assert len(INVALID) >= 8


@given(st.sampled_from(get_args(Type)), st.dictionaries(st.text(), json_values), st.binary())
def test_what_was_packed_unpacks_to_the_same(kind, header, payload):
    message = unpack(pack(kind, header, payload))
    assert (message.type, message.header, bytes(message.payload)) == (kind, header, payload)


@given(st.binary())
def test_any_bytes_decode_or_raise_message_error(data):
    with suppress(MessageError):
        assert unpack(data).type in get_args(Type)


@given(st.sampled_from(get_args(Type)), st.binary(max_size=40), st.binary(max_size=8))
def test_any_header_decodes_or_raises_message_error(kind, text, payload):
    prefix = pack(kind, {})[:4] + len(text).to_bytes(4, "big")
    try:
        message = unpack(prefix + text + payload)
    except MessageError:
        return
    assert message.header == json.loads(text.decode())
    assert message.payload == payload


@given(st.data())
def test_a_message_cut_inside_its_header_is_refused(data):
    packed = pack("ack", {"number": 123456})
    with pytest.raises(MessageError):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"n":' + b"9" * 5000 + b"}"], ids=["nesting", "digits"]
)
def test_a_header_that_python_cannot_read_is_refused(text):
    with pytest.raises(MessageError, match="is not JSON"):
        unpack(pack("ack", {})[:4] + len(text).to_bytes(4, "big") + text)


def test_a_header_above_the_limit_is_refused_before_it_is_read():
    text = b'{"a":"' + b"x" * MAX_HEADER_BYTES + b'"}'
    with pytest.raises(MessageError, match="does not fit"):
        unpack(pack("ack", {})[:4] + len(text).to_bytes(4, "big") + text)


def test_a_number_that_json_lacks_is_not_sent():
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack("ping", {"t_page": math.nan})


def test_the_payload_is_not_copied():
    data = pack("traces", {}, b"abcd")
    payload = unpack(data).payload
    assert isinstance(payload, memoryview)
    assert payload.obj is data


def test_types_keep_their_numbers():
    # What recorded streams and other people's pages rely on: append, never insert.
    numbers = {kind: pack(kind, {})[3] for kind in get_args(Type)}
    assert numbers == {
        "frame": 1, "traces": 2, "state": 3, "error": 4, "ack": 5, "ping": 6, "pong": 7,
        "control": 8, "stimulus": 9, "epoch": 10, "raw": 11, "marker": 12, "telemetry": 13,
        "painter": 14,
    }  # fmt: skip
