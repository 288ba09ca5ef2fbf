"""How the processes of one session talk: newest wins, one socket per topic.

ZMQ_CONFLATE knows no kinds of messages and does not count what it replaces, so the
subscriber takes the newest itself (`Subscriber.newest`). Sockets are files in a folder
of mode 0700; where the system has no `ipc:`, loopback TCP with CURVE keys that are made
per session.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import zmq

from app.errors import SettingsError
from app.messages import Message, unpack

Topic = Literal["epoch", "frame", "traces", "raw", "marker", "telemetry", "control", "stimulus",
                "painter"]  # fmt: skip

# Who publishes what; a topic with several publishers has one socket for each.
PUBLISHERS: dict[Topic, tuple[str, ...]] = {
    "epoch": ("acquisition",),
    "traces": ("acquisition",),
    "raw": ("acquisition",),
    "marker": ("acquisition",),
    "stimulus": ("server",),
    "frame": ("worker",),
    "painter": ("worker",),
    "telemetry": ("acquisition", "worker", "server", "recorder", "trainer", "supervisor"),
    "control": ("server",),
}

# Of the sockets' names: with it a path may have `zmq.IPC_PATH_MAX_LEN` bytes, 107 on Linux.
LONGEST_NAME = max((f"{t}.{role}" for t, roles in PUBLISHERS.items() for role in roles), key=len)

# What a publisher is told of a subscription begins with this; of its end, with zero.
_JOINED = b"\x01"


class Publisher:
    """The sending end of a topic; never blocks."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket

    def send(self, message: bytes) -> None:
        """Send a packed message; it is dropped for a subscriber whose queue is full."""
        self._socket.send(message, zmq.DONTWAIT)

    def has_joined(self) -> bool:
        """Whether somebody began to listen since this was asked last."""
        found = False
        with suppress(zmq.Again):
            while news := self._socket.recv(zmq.DONTWAIT):
                found |= news[:1] == _JOINED
        return found


class Subscriber:
    """The receiving end of one topic or of several, to be used by one thread."""

    def __init__(self, sockets: Sequence[zmq.Socket[bytes]]) -> None:
        self.sockets = sockets
        # Those that have a message, served in turn: a busy one cannot starve the others.
        self._ready: deque[zmq.Socket[bytes]] = deque()
        self._poller = zmq.Poller()
        for socket in sockets:
            self._poller.register(socket, zmq.POLLIN)

    def receive(self, timeout: float) -> Message | None:
        """The next message, or None after `timeout` seconds without one.

        Messages of one publisher on one topic keep their order.
        """
        if not self._ready:
            # Rounded up: a timeout below a millisecond must not become a busy loop.
            self._ready.extend(s for s, _ in self._poller.poll(math.ceil(timeout * 1000)))
        return unpack(self._ready.popleft().recv(zmq.DONTWAIT)) if self._ready else None

    def newest(self, timeout: float) -> tuple[Message | None, int]:
        """The newest message that is there, and how many older ones it replaced."""
        message, replaced = self.receive(timeout), 0
        while message and (newer := self.receive(0)):
            message, replaced = newer, replaced + 1
        return message, replaced


class Subscribers:
    """Subscribers of several sessions, waited for at once; used by one thread."""

    def __init__(self, each: Sequence[Subscriber]) -> None:
        self._each = each
        self._poller = zmq.Poller()
        for socket in (socket for subscriber in each for socket in subscriber.sockets):
            self._poller.register(socket, zmq.POLLIN)

    def receive(self, timeout: float) -> Iterator[tuple[int, Message]]:
        """All that is there or comes first within `timeout` seconds, and whom it came to."""
        self._poller.poll(math.ceil(timeout * 1000))
        for i, subscriber in enumerate(self._each):
            while message := subscriber.receive(0):
                yield i, message


class Bus:
    """The sockets of one process in one session.

    Parameters
    ----------
    folder : of the session, made by `make_folder`.
    role : of this process, one of the publishers.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self.folder = folder
        self.role = role
        self._context = zmq.Context()
        # Held until `close`, also where the caller lets go of a publisher earlier.
        self._sockets: list[zmq.Socket[bytes]] = []
        keys = folder / "keys.json"
        self._keys = json.loads(keys.read_text()) if keys.is_file() else None

    @staticmethod
    def make_folder(folder: Path) -> None:
        """Prepare a session's folder, readable by this user alone.

        Raises
        ------
        SettingsError
            Its path is too long for a socket's.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        if zmq.has("ipc"):
            n_bytes = len(os.fsencode(folder / LONGEST_NAME))
            if n_bytes > zmq.IPC_PATH_MAX_LEN:
                raise SettingsError(
                    f"The sockets of a session in {folder} would have paths of {n_bytes} bytes, "
                    f"and the system knows {zmq.IPC_PATH_MAX_LEN}. Set TMPDIR to a short path "
                    "that can be written, such as /tmp."
                )
        else:
            public, secret = zmq.curve_keypair()
            ports = {
                f"{topic}.{role}": 49152 + secrets.randbelow(16384)
                for topic, roles in PUBLISHERS.items()
                for role in roles
            }
            path = folder / "keys.json"
            path.touch(mode=0o600)
            path.write_text(
                json.dumps({"public": public.decode(), "secret": secret.decode(), "ports": ports})
            )

    def _socket(self, kind: int, name: str) -> tuple[zmq.Socket[bytes], str]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        # A process's last words are still on their way when it closes.
        socket.linger = 200 if kind == zmq.XPUB else 0
        self._sockets.append(socket)
        if self._keys is None:
            return socket, f"ipc://{self.folder / name}"
        # One key pair for the session: whoever can read the folder may take part.
        socket.curve_publickey = self._keys["public"].encode()
        socket.curve_secretkey = self._keys["secret"].encode()
        if kind == zmq.XPUB:
            socket.curve_server = True
        else:
            socket.curve_serverkey = self._keys["public"].encode()
        return socket, f"tcp://127.0.0.1:{self._keys['ports'][name]}"

    def publisher(self, topic: Topic, depth: int = 8) -> Publisher:
        """Open the sending end; `depth` messages wait at most for a slow subscriber."""
        assert self.role in PUBLISHERS[topic], f"{self.role} does not publish {topic}"
        name = f"{topic}.{self.role}"
        socket, address = self._socket(zmq.XPUB, name)
        socket.sndhwm = depth
        # Of each that listens, not of the first alone.
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        if address.startswith("ipc:"):
            # Left behind by a predecessor that was killed.
            (self.folder / name).unlink(missing_ok=True)
        socket.bind(address)
        return Publisher(socket)

    def subscriber(self, *topics: Topic, depth: int = 64) -> Subscriber:
        """Open the receiving end to all publishers of one topic or several.

        Parameters
        ----------
        topics : what to receive; the type of a message says which it is of.
        depth : messages of one publisher that wait at most; further ones are dropped.
        """
        sockets = []
        for name in (f"{topic}.{role}" for topic in topics for role in PUBLISHERS[topic]):
            socket, address = self._socket(zmq.SUB, name)
            socket.rcvhwm = depth
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            # A publisher that restarts is found again within this time.
            socket.reconnect_ivl = 50
            socket.reconnect_ivl_max = 200
            socket.connect(address)
            sockets.append(socket)
        return Subscriber(sockets)

    def close(self) -> None:
        self._context.destroy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
