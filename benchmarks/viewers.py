"""Fifty viewers, one of them slow, with and without acknowledgement.

`python -m benchmarks.viewers` measures both. Server and viewers are processes of their own on
this machine, so that one clock times both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from app import viewer_slot
from app.flash_guard import GuardedFrame
from app.hub import Hub
from app.listener import listen, uvicorn_config
from app.messages import pack, unpack
from app.metrics import Metrics
from app.relay import Relay
from app.rights import Rights
from app.server import create_app
from app.session_state import SessionState
from app.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
N_VIEWERS = 50
RATE = 12.0
# The slow one takes a quarter of what is sent.
SLOWNESS = 4
# Noise of this side is some 40 kB as a JPEG.
SIDE = 128


@dataclass(frozen=True, slots=True)
class Served:
    """How old frames were when they were read.

    Attributes
    ----------
    slow_lag_ms : of the slow viewer's last frame.
    others_p99_ms : over all frames of the others.
    kilobytes : of a frame.
    per_second : frames that each of the others got, the mean.
    """

    slow_lag_ms: float
    others_p99_ms: float
    kilobytes: float
    per_second: float


class _Open:
    """Instead of the flash guard, whose cost has a row of its own."""

    n_replaced = n_breaches = 0

    def __init__(self) -> None:
        self.is_moving = False
        self._n = 0
        self._rgb = np.zeros((1, 1, 3), np.uint8)

    def show(self, rgb: np.ndarray, _t: float) -> None:
        self._rgb, self.is_moving = rgb, True
        self._n += 1

    def tick(self, _t: float) -> GuardedFrame:
        self.is_moving = False
        return GuardedFrame(self._rgb, 1.0, "painted", True, self._n)


def serve(is_acknowledged: bool) -> None:
    """Serve noise, and say on standard output at which port; ends with standard input."""
    if not is_acknowledged:
        viewer_slot.MAX_IN_FLIGHT = 1_000_000_000
        viewer_slot.STALL = viewer_slot.SLOW = float("inf")
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    hub = Hub(_Open())
    rights = Rights(port=port, operator_token="a-token-of-26-characters-x")
    relay = Relay(
        SessionState("noise", "none"), hub, rights, Metrics(), lambda _topic, _header: None
    )
    server = uvicorn.Server(uvicorn_config(create_app(relay), Settings()))

    def paint() -> None:
        generator = np.random.default_rng(0)
        pictures = generator.integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
        t_next = time.monotonic()
        for number in range(1, 1_000_000):
            t_next += 1 / RATE
            time.sleep(max(0.0, t_next - time.monotonic()))
            t = time.monotonic()
            header = {
                "number": number, "epoch": number, "kind": "sliding", "state": "painted",
                "t_eeg": t, "t_published": t, "t_encoded": t, "t_painted": t, "seed": 0,
                "height": SIDE, "width": SIDE, "concepts": [], "chance": 0.0, "is_sure": True,
                "honesty": "simulated",
            }  # fmt: skip
            hub.show(unpack(pack("frame", header, pictures[number % 8].tobytes())))
            hub.tick()

    def end() -> None:
        sys.stdin.read()
        server.should_exit = True

    for task in (paint, end):
        threading.Thread(target=task, daemon=True).start()
    print(port, flush=True)
    server.run(sockets=[listener])


async def _view(
    socket: ClientConnection, ends: float, pause: float, ages: list[float], sizes: list[int]
) -> None:
    while time.monotonic() < ends:
        data = await socket.recv()
        assert isinstance(data, bytes)
        message = unpack(data)
        if message.type != "frame":
            continue
        ages.append(time.monotonic() - message.header["t_painted"])
        sizes.append(len(data))
        await socket.send(pack("ack", {"number": message.header["number"], "shown_ms": 0}))
        await asyncio.sleep(pause)


async def _view_all(port: int, seconds: float) -> Served:
    origin: Any = f"http://127.0.0.1:{port}"
    address = f"ws://127.0.0.1:{port}/ws"
    sockets = [
        # Little waits in the slow one's own process: what it does not read stays on the way.
        await connect(address, origin=origin, max_queue=1 if k == 0 else 16, compression=None)
        for k in range(N_VIEWERS)
    ]
    ages: list[list[float]] = [[] for _ in sockets]
    sizes: list[int] = []
    ends = time.monotonic() + seconds
    tasks = [
        _view(socket, ends, SLOWNESS / RATE if k == 0 else 0.0, ages[k], sizes)
        for k, socket in enumerate(sockets)
    ]
    await asyncio.gather(*tasks)
    for socket in sockets:
        socket.transport.abort()
    others = np.concatenate([np.array(a[int(RATE) :]) for a in ages[1:]])
    return Served(
        round(1e3 * ages[0][-1], 1),
        round(1e3 * float(np.percentile(others, 99)), 1),
        round(float(np.mean(sizes)) / 1000, 1),
        round(sum(map(len, ages[1:])) / len(ages[1:]) / seconds, 2),
    )


def measure(is_acknowledged: bool, seconds: float) -> Served:
    """Serve in another process, and watch from this one."""
    command = [sys.executable, "-m", "benchmarks.viewers", "--serve"]
    command += [] if is_acknowledged else ["--unacknowledged"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        found = asyncio.run(_view_all(int(server.stdout.readline()), seconds))
        server.stdin.close()
    return found


def markdown(rows: dict[str, Served]) -> str:
    """A table of both."""
    lines = [
        f"{N_VIEWERS} viewers, {RATE:g} frames a second, one viewer takes a {SLOWNESS}th of them.",
        "",
        "| | slow viewer's lag, ms | others' p99, ms | kB a frame | frames a second, others |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {row.slow_lag_ms:g} | {row.others_p99_ms:g} | {row.kilobytes:g} "
        f"| {row.per_second:g} |"
        for name, row in rows.items()
    ]
    return "\n".join([*lines, ""])


def measure_both(out: Path, seconds: float) -> None:
    """Print the table, and write `viewers.md` and `viewers.json`."""
    rows = {
        "acknowledged": measure(True, seconds),
        "without acknowledgement": measure(False, seconds),
    }
    out.mkdir(parents=True, exist_ok=True)
    found = {name: asdict(row) for name, row in rows.items()}
    (out / "viewers.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    (out / "viewers.md").write_text(markdown(rows), encoding="utf-8")
    print(markdown(rows))


def main() -> None:
    """Be the server of a measurement, or measure both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.viewers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="folder")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--unacknowledged", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.serve:
        serve(not a.unacknowledged)
    else:
        measure_both(a.out, a.seconds)


if __name__ == "__main__":
    main()
