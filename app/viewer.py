"""One viewer's WebSocket: what it may say, and how often."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect

from app.messages import MessageError, pack, unpack
from app.relay import Relay
from app.rights import NO_TOKEN, RateLimit, Role
from app.session_state import to_action
from app.viewer_slot import ViewerSlot

# A page acknowledges 30 frames and pings once a second.
MOST_PER_SECOND = 100.0

POLICY_VIOLATION = 1008

# Seconds for the page to close its end.
PARTING = 1.0


class _ViolationError(Exception):
    """The page said something that ends the connection."""


async def serve_viewer(websocket: WebSocket, relay: Relay, role: Role) -> None:
    """Serve an accepted WebSocket until it ends.

    Parameters
    ----------
    role : "operator" only where token and Origin were checked at the handshake.
    """
    wake = asyncio.Event()
    slot = relay.join(wake.set, role)
    sender = asyncio.create_task(_send(websocket, slot, wake, relay))
    violation = ""
    try:
        await _receive(websocket, slot, wake, relay, role)
    except _ViolationError as error:
        violation = str(error)
    finally:
        relay.leave(slot)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
    if violation:
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            await websocket.send_bytes(pack("error", {"sentence": violation}))
            await websocket.close(POLICY_VIOLATION, violation)
            # uvicorn stopped reading when its queue was full: what waits there must go
            # before it sees that the page closes too.
            async with asyncio.timeout(PARTING):
                while (await websocket.receive())["type"] != "websocket.disconnect":
                    pass


async def _send(websocket: WebSocket, slot: ViewerSlot, wake: asyncio.Event, relay: Relay) -> None:
    while True:
        await wake.wait()
        wake.clear()
        while (message := slot.take(relay.clock())) is not None:
            await websocket.send_bytes(message)


async def _receive(
    websocket: WebSocket, slot: ViewerSlot, wake: asyncio.Event, relay: Relay, role: Role
) -> None:
    limit = RateLimit(MOST_PER_SECOND, MOST_PER_SECOND, relay.clock)
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            return
        if not limit.allows():
            raise _ViolationError(f"A page may send {MOST_PER_SECOND:.0f} messages a second.")
        data = event.get("bytes")
        if data is None:
            raise _ViolationError("Messages are binary here, not text.")
        try:
            answer = _answer(data, slot, relay, role)
        except MessageError as error:
            raise _ViolationError(str(error)) from error
        if answer:
            slot.reply(answer)
        wake.set()


def _answer(data: bytes, slot: ViewerSlot, relay: Relay, role: Role) -> bytes | None:
    message = unpack(data)
    header = message.header
    if message.type == "ack":
        number = header.get("number")
        if not isinstance(number, int):
            raise MessageError("An acknowledgement names the number of a frame.")
        shown_ms = header.get("shown_ms", 0)
        if not isinstance(shown_ms, int | float) or shown_ms < 0:
            raise MessageError("What an acknowledgement says of shown_ms is no time.")
        relay.hub.acknowledge(slot, number, header.get("is_drawn") is not False, shown_ms)
        return None
    if message.type == "ping":
        t_page = header.get("t_page")
        if not isinstance(t_page, int | float):
            raise MessageError("A ping carries t_page, the page's time.")
        return pack("pong", {"t_page": t_page, "t_server": relay.clock()})
    if message.type == "control":
        if role != "operator":
            return pack("error", {"sentence": NO_TOKEN})
        try:
            relay.act(to_action(header.get("action")))
        except ValueError as error:
            return pack("error", {"sentence": str(error)})
        return None
    if message.type == "stimulus":
        if role != "operator":
            return pack("error", {"sentence": NO_TOKEN})
        try:
            relay.present(header)
        except ValueError as error:
            return pack("error", {"sentence": str(error)})
        return None
    raise MessageError(f"A page does not send messages of type {message.type}.")
