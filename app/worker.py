"""The worker process: one thread owns the model and paints the newest epoch.

A second thread tells how things are four times a second, also while a bundle loads.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from acquisition.stimuli import concepts
from app.bundle import find_bundle
from app.bus import Bus, Subscriber
from app.child import begin_child
from app.cores import worker_threads
from app.messages import Message, pack
from app.quiet import silence_libraries
from models.errors import EpochShapeError

TELEMETRY_PERIOD = 0.25

# Seconds between looks at `stop` while no epoch comes.
IDLE = 0.1

# Marker-locked epochs that wait: with more, pictures would lag behind what is seen.
MOST_WAITING = 4

N_CONCEPTS = 5


class Painted(Protocol):
    """What comes of an epoch (`models.painter.Painted`)."""

    @property
    def rgb(self) -> np.ndarray: ...
    @property
    def concepts(self) -> list[tuple[str, float]]: ...
    @property
    def is_sure(self) -> bool: ...
    @property
    def encode_ms(self) -> float: ...
    @property
    def paint_ms(self) -> float: ...


class Painter(Protocol):
    """What paints (`models.painter.KeyframePainter`)."""

    def paint(self, eeg: np.ndarray) -> Painted: ...


class Inbox:
    """Epochs that wait: the newest sliding one, and a few marker-locked ones.

    Attributes
    ----------
    n_replaced : sliding epochs that a newer one replaced.
    n_dropped : marker-locked epochs that gave way because too many waited.
    """

    def __init__(self) -> None:
        self.n_replaced = self.n_dropped = 0
        self._sliding: Message | None = None
        self._locked: deque[Message] = deque()
        self._was_locked = False

    def put(self, epoch: Message) -> None:
        """Take an `epoch` message."""
        if epoch.header["kind"] == "sliding":
            self.n_replaced += self._sliding is not None
            self._sliding = epoch
            return
        self._locked.append(epoch)
        if len(self._locked) > MOST_WAITING:
            self._locked.popleft()
            self.n_dropped += 1

    def take(self) -> Message | None:
        """The epoch to paint next: of both kinds in turn, so that neither starves."""
        if self._locked and not (self._was_locked and self._sliding):
            self._was_locked = True
            return self._locked.popleft()
        self._was_locked = False
        sliding, self._sliding = self._sliding, None
        return sliding

    def clear(self) -> None:
        """Forget what waits."""
        self._sliding = None
        self._locked.clear()


class Report:
    """The worker's telemetry; written by the painting thread, sent by another.

    Parameters
    ----------
    bundle : as people call it.
    """

    def __init__(self, bundle: str) -> None:
        self._lock = threading.Lock()
        self._painted_ms: list[float] = []
        self._header: dict[str, Any] = {
            "from": "worker",
            "state": "loading",
            "message": "The bundle is being loaded.",
            "bundle": bundle,
            "is_paused": False,
            "frames_painted": 0,
            "epochs_replaced": 0,
            "epochs_dropped": 0,
            "encode_ms": None,
            "paint_ms": None,
        }

    def set(self, **values: Any) -> None:
        """Change values of the header."""
        with self._lock:
            self._header |= values

    def painted(self, latency_ms: float) -> None:
        """Count a picture and keep its latency."""
        with self._lock:
            self._header["frames_painted"] += 1
            self._painted_ms.append(round(latency_ms, 2))

    def take(self, t: float) -> bytes:
        """The message at session time `t`; latencies are in one message each."""
        with self._lock:
            header = {**self._header, "t": t, "painted_ms": self._painted_ms}
            self._painted_ms = []
        return pack("telemetry", header)


@cache
def _characters() -> dict[str, str]:
    return {concept.name: concept.character for concept in concepts()}


class Worker:
    """Paints what comes in; used by one thread.

    Parameters
    ----------
    painter : ready to paint.
    seed : that the painter was made with.
    report : told of every picture.
    send : publishes a packed frame.
    clock : of the session.
    """

    def __init__(
        self,
        painter: Painter,
        seed: int,
        report: Report,
        send: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._painter = painter
        self._seed = seed
        self._report = report
        self._send = send
        self._clock = clock
        self._number = 0
        self._is_paused = False
        self.inbox = Inbox()

    def run(self, incoming: Subscriber, stop: threading.Event) -> None:
        """Paint until `stop` is set."""
        while not stop.is_set():
            wait = IDLE
            while message := incoming.receive(wait):
                self.take_in(message)
                wait = 0
            if epoch := self.inbox.take():
                self.paint(epoch)

    def take_in(self, message: Message) -> None:
        """Take an epoch or an order."""
        if message.type == "control":
            action = message.header["action"]
            if action in ("pause", "resume"):
                self._is_paused = action == "pause"
                self._report.set(is_paused=self._is_paused)
                self.inbox.clear()
        elif not self._is_paused:
            self.inbox.put(message)
            self._report.set(
                epochs_replaced=self.inbox.n_replaced, epochs_dropped=self.inbox.n_dropped
            )

    def paint(self, epoch: Message) -> None:
        """Paint an epoch and publish the frame, which says where the EEG gives no clear answer."""
        header = epoch.header
        shape = header["n_channels"], header["n_times"]
        # A copy, because torch does not take arrays that cannot be written to.
        eeg = np.frombuffer(epoch.payload, np.float32).reshape(shape).copy()
        try:
            painted = self._painter.paint(eeg)
        except EpochShapeError as error:
            self._report.set(message=str(error))
            return
        t_painted = self._clock()
        self._number += 1
        self._report.set(message="", encode_ms=painted.encode_ms, paint_ms=painted.paint_ms)
        self._report.painted((t_painted - header["t_last"]) * 1000)
        rgb = painted.rgb
        frame = {
            "number": self._number,
            "epoch": header["number"],
            "kind": header["kind"],
            "t_eeg": header["t_last"],
            "t_painted": t_painted,
            "seed": self._seed,
            "height": rgb.shape[0],
            "width": rgb.shape[1],
            "concepts": [
                {"name": name, "character": _characters().get(name, ""), "confidence": confidence}
                for name, confidence in painted.concepts[:N_CONCEPTS]
            ],
            "chance": 1 / len(painted.concepts) if painted.concepts else 0.0,
            "is_sure": painted.is_sure,
            "honesty": header["honesty"],
            "encode_ms": painted.encode_ms,
            "paint_ms": painted.paint_ms,
        }
        self._send(pack("frame", frame, np.ascontiguousarray(rgb).tobytes()))


def tell(report: Report, send: Callable[[bytes], None], stop: threading.Event) -> None:
    """Send telemetry until `stop` is set, and once more then."""
    while True:
        is_last = stop.is_set()
        send(report.take(time.monotonic()))
        if is_last:
            return
        stop.wait(TELEMETRY_PERIOD)


def main() -> None:
    """Run as the child process `worker`."""
    with begin_child("worker") as child, Bus(child.folder, "worker") as bus:
        settings = child.settings
        report = Report(Path(settings.bundle).name)
        ended = threading.Event()
        teller = threading.Thread(
            target=tell, args=(report, bus.publisher("telemetry").send, ended)
        )
        teller.start()
        try:
            bundle = find_bundle(settings.bundle)
            # torch takes seconds to import: telemetry says that it is coming.
            from models.painter import KeyframePainter

            if not settings.debug:
                silence_libraries()
            painter = KeyframePainter.from_bundle(
                bundle, settings.seed, worker_threads(settings.threads), settings.device
            )
            painter.warm_up()
            worker = Worker(painter, settings.seed, report, bus.publisher("frame").send)
            incoming = bus.subscriber("epoch", "control")
            report.set(state="ready", message="")
            worker.run(incoming, child.stop)
        finally:
            ended.set()
            teller.join()
    # Python would take torch apart for two seconds, and nothing is left to tidy.
    os._exit(0)


if __name__ == "__main__":
    main()
