"""The real page and the real server, without the processes behind them.

A `Room` serves web/ through `app.server.create_app` in a thread; a test plays acquisition
and worker by calling it. Pictures pass `FlashGuard`, or an `OpenGuard` where a test wants to
see what the page does alone.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import uvicorn

from app.flash_guard import FlashGuard, GuardedFrame
from app.hub import Hub
from app.listener import listen, uvicorn_config
from app.messages import Type, pack, unpack
from app.metrics import Metrics
from app.picture_set import find_pictures
from app.presentation import Presentation
from app.relay import Relay
from app.rights import Rights
from app.server import create_app
from app.session_state import SessionState
from app.settings import ROOT, Settings

TOKEN = "a-token-of-26-characters-x"
CH_NAMES = ("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "O1", "O2")
SFREQ = 250.0
CONCEPTS = (("cat", "\U0001f408", 0.42), ("dog", "\U0001f415", 0.2), ("fish", "\U0001f41f", 0.02))

# A picture of one red point.
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AA"
    "AAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


class OpenGuard:
    """Lets everything through."""

    def __init__(self) -> None:
        self.is_moving = False
        self._number = 0
        self._rgb = np.zeros((1, 1, 3), np.uint8)

    def show(self, rgb: np.ndarray, t: float) -> None:
        self._rgb = rgb
        self._number += 1
        self.is_moving = True

    def tick(self, t: float) -> GuardedFrame:
        self.is_moving = False
        return GuardedFrame(self._rgb, 1.0, "painted", True, self._number)


class Room:
    """A session whose pictures and samples a test makes up."""

    def __init__(
        self,
        guard: FlashGuard | OpenGuard,
        port: int = 0,
        settings: Settings | None = None,
        bundle_says: str = "",
    ) -> None:
        self._listener = listen("127.0.0.1", port)
        self.port = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self.sent: list[dict[str, Any]] = []
        self.acknowledged: list[int] = []
        self.stimuli: list[dict[str, Any]] = []
        self.hub = Hub(guard)
        self._guard = guard
        self._n_pictures = 0
        self._n_samples = 0
        self._acquisition: dict[str, Any] = {}
        rights = Rights(port=self.port, operator_token=TOKEN)
        self.relay = Relay(
            SessionState("simulated:", "scale-model", {"grating": DOT}, bundle_says),
            self.hub,
            rights,
            Metrics(),
            self._send,
            presentation=Presentation(
                find_pictures("", ROOT / "weights" / "scale-model"), time.monotonic
            ),
        )
        acknowledge = self.hub.acknowledge

        def note(slot: Any, number: int, *args: Any, **kwargs: Any) -> None:
            self.acknowledged.append(number)
            acknowledge(slot, number, *args, **kwargs)

        self.hub.acknowledge = note  # type: ignore[method-assign]
        app = create_app(self.relay, settings=settings)
        self._server = uvicorn.Server(uvicorn_config(app, Settings()))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._lock = threading.Lock()

    def start(self) -> Room:
        self._thread.start()
        self._ticker.start()
        wait_until(lambda: self._server.started)
        return self

    def close(self) -> None:
        self._stop.set()
        self._server.should_exit = True
        self._thread.join()
        self._ticker.join()
        self._listener.close()

    def _send(self, topic: str, header: dict[str, Any]) -> None:
        if topic == "control":
            self.sent.append(header)
        elif topic == "stimulus":
            self.stimuli.append({**header, "told": time.monotonic()})

    def _tick(self) -> None:
        for n in itertools.count():
            if self._stop.wait(1 / 30):
                return
            if n % 8 == 0 and self._acquisition:
                self._receive("telemetry", {**self._acquisition, "t": time.monotonic()})
            with self._lock:
                if self._guard.is_moving:
                    self.hub.tick()

    def _receive(self, type: Type, header: dict[str, Any], payload: bytes = b"") -> None:
        loop = self.relay._loop
        assert loop is not None
        loop.call_soon_threadsafe(self.relay.receive, unpack(pack(type, header, payload)))

    # The worker's part

    def show(
        self,
        rgb: np.ndarray,
        concepts: tuple[tuple[str, str, float], ...] = CONCEPTS,
        is_sure: bool = True,
        honesty: str = "simulated",
        age: float = 0.6,
    ) -> None:
        self._n_pictures += 1
        now = time.monotonic()
        header = {
            "number": self._n_pictures, "epoch": self._n_pictures,
            "kind": "sliding", "t_eeg": now - age, "t_published": now - age, "t_encoded": now,
            "t_painted": now,
            "seed": 0, "height": rgb.shape[0], "width": rgb.shape[1],
            "concepts": [{"name": n, "character": c, "confidence": p} for n, c, p in concepts],
            "chance": 0.025, "is_sure": is_sure, "honesty": honesty,
            "encode_ms": 5.0, "paint_ms": 100.0, "state": "painted",
        }  # fmt: skip
        with self._lock:
            self.hub.show(unpack(pack("frame", header, np.ascontiguousarray(rgb).tobytes())))
            if isinstance(self._guard, OpenGuard):
                self.hub.tick()

    def work(
        self, frames_painted: int = 0, painted_ms: tuple[float, ...] = (), **more: Any
    ) -> None:
        header = {
            "from": "worker", "t": time.monotonic(), "state": "ready", "message": "",
            "bundle": "scale-model", "frames_painted": frames_painted, "epochs_replaced": 0,
            "encode_ms": 5.0, "paint_ms": 100.0, "painted_ms": list(painted_ms), **more,
        }  # fmt: skip
        self._receive("telemetry", header)

    # Acquisition's part

    def acquire(
        self,
        honesty: str = "simulated",
        ch_names: tuple[str, ...] = CH_NAMES,
        quality: dict[str, tuple[str, tuple[str, ...]]] | None = None,
        **more: Any,
    ) -> None:
        """Say how acquisition is, and go on saying it as it does four times a second."""
        found = quality or {}
        grades = [(name, *found.get(name, ("good", ()))) for name in ch_names]
        self._acquisition = {
            "from": "acquisition", "t": time.monotonic(), "samples_in": self._n_samples,
            "samples_lost": 0, "state": "running", "message": "",
            "info": {
                "name": "simulated", "ch_names": list(ch_names), "sfreq": SFREQ, "honesty": honesty,
            },
            "fidelity": 0.97,
            "fidelity_text": "14 of 32 electrodes are there; the rest is interpolated.",
            "quality": [{"name": n, "grade": g, "reasons": list(why)} for n, g, why in grades],
            "epochs_published": 0, "is_ready": True, **more,
        }  # fmt: skip
        self._receive("telemetry", self._acquisition)

    def trace(self, data: np.ndarray, n_lost: int = 0, honesty: str = "simulated") -> None:
        self._n_samples += n_lost
        header = {
            "first_sample": self._n_samples, "n_channels": data.shape[0], "n_times": data.shape[1],
            "sfreq": SFREQ, "t_last": time.monotonic(), "honesty": honesty, "is_ready": True,
        }  # fmt: skip
        self._n_samples += data.shape[1]
        self._receive("traces", header, np.ascontiguousarray(data, "<f4").tobytes())

    def mark(self, label: str) -> None:
        self._receive("marker", {"timestamp": time.monotonic(), "label": label, "details": {}})

    def supervise(self, **children: dict[str, Any]) -> None:
        self._receive(
            "telemetry", {"from": "supervisor", "t": time.monotonic(), "children": children}
        )


def wait_until(condition: Callable[[], bool], limit: float = 20.0) -> None:
    """Wait for another thread or the browser; fails after `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "what the test waits for has not happened"
        time.sleep(0.01)


def begin(page: Any, room: Room, fragment: str = "") -> None:
    """Open the page, acknowledge the warning, and wait for the connection."""
    page.goto(room.address + fragment)
    page.get_by_role("button", name="Show the pictures").click()
    wait_until(lambda: len(room.hub.viewers) == 1)
