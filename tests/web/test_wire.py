"""The page's reader and writer of messages, on the vectors that the server's is tested on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from app.messages import Type, unpack

pytestmark = pytest.mark.browser

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "messages.json").read_text())

READ = """async (hex) => {
  const { unpack } = await import("/wire.js");
  const bytes = Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  try {
    const { type, header, payload } = unpack(bytes.buffer);
    return { type, header, payload: [...payload] };
  } catch (error) {
    return { error: error.message };
  }
}"""

WRITE = """async ([type, header]) => {
  const { pack } = await import("/wire.js");
  return [...pack(type, header, Uint8Array.of(1, 2, 3))];
}"""


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_the_page_reads_what_the_server_writes(modules: Any, vector: dict[str, Any]) -> None:
    found = modules.evaluate(READ, vector["hex"])
    if vector.get("error"):
        assert list(found) == ["error"]
        return
    assert found == {
        "type": vector["type"],
        "header": vector["header"],
        "payload": list(bytes.fromhex(vector["payload_hex"])),
    }


@pytest.mark.parametrize(
    ("hex", "sentence"),
    [
        ("", "at least 8 bytes, this one 0"),
        ("0000000500000002", "longer than its message"),
        ("000000ff000000027b7d", "no message type 255"),
        ("00000000000000027b7d", "no message type 0"),
        ("00000005000000025b5d", "not a JSON object"),
        ("0000000500000001ff", "."),
    ],
)
def test_what_is_no_message_is_refused_with_a_sentence(
    modules: Any, hex: str, sentence: str
) -> None:
    assert sentence in modules.evaluate(READ, hex)["error"]


def test_the_server_reads_what_the_page_writes(modules: Any) -> None:
    header = {"number": 7, "name": "\u00b5V \U0001f408"}
    message = unpack(bytes(modules.evaluate(WRITE, ["ack", header])))
    assert (message.type, message.header, bytes(message.payload)) == ("ack", header, b"\1\2\3")


def test_both_sides_number_the_types_alike(modules: Any) -> None:
    types = modules.evaluate("async () => (await import('/wire.js')).TYPES")
    assert tuple(types) == get_args(Type)
