"""The worker process: one thread owns the model and paints what the newest epoch says.

A second thread tells how things are four times a second, also while a bundle loads.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from acquisition.stimuli import concepts
from app.bundle import find_bundle
from app.bus import Bus, Subscribers
from app.child import begin_child
from app.cores import worker_threads
from app.messages import Message, pack
from app.painter_import import import_painter
from app.painter_log import DEPTH, Aimed, Begun, Event, PainterLog, Stepped, begun, digest_of
from app.quiet import silence_libraries
from models.bundle_files import folder_digest
from models.errors import EpochShapeError
from models.ladder import TICK

if TYPE_CHECKING:
    # They import torch, which takes seconds.
    from models.frames import Decoded, Frame, Painter, Painters

TELEMETRY_PERIOD = 0.25

# Seconds between looks at `stop` while no epoch comes.
IDLE = 0.1

# Marker-locked epochs that wait: with more, pictures would lag behind what is seen.
MOST_WAITING = 4

N_CONCEPTS = 5

COMPILING = "The bundle is being loaded; compiling a large one for a GPU takes minutes, once."

# Seconds that a frame goes on at most.
LONGEST_STEP = 0.25


class Log(Protocol):
    """What is told of all that the painter does (`app.painter_log.PainterLog`)."""

    def begin(self, began: float) -> None: ...
    def add(self, event: Event) -> None: ...


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
            "drift": None,
        }

    def set(self, **values: Any) -> None:
        """Change values of the header."""
        with self._lock:
            self._header |= values

    def painted(self) -> None:
        """Count a frame that the U-Net was called for."""
        with self._lock:
            self._header["frames_painted"] += 1

    def used(self, latency_ms: float) -> None:
        """Keep the time from an epoch's last sample to the first frame made from it."""
        with self._lock:
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
    """What comes in of one session, and the frames that go out; used by one thread.

    Parameters
    ----------
    painter : ready to paint.
    seed : that the painter was made with.
    report : told of every picture.
    send : publishes a packed frame.
    clock : of the session.
    log : told of all that the painter does.
    """

    def __init__(
        self,
        painter: Painter,
        seed: int,
        report: Report,
        send: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
        log: Log | None = None,
    ) -> None:
        self._painter = painter
        self._seed = seed
        self._report = report
        self._send = send
        self._clock = clock
        self._log = log
        self._number = 0
        self._is_paused = False
        # Names the stream of epochs that the painter follows.
        self._began: float | None = None
        # Of the newest epoch: its header, what it says, and whether a frame was made from it.
        self._epoch: dict[str, Any] = {}
        self._decoded: Decoded | None = None
        self._is_used = True
        # When the next frame is due, and when the last one was made if the next one follows it.
        self._t_next = -np.inf
        self._t_last: float | None = None
        # Of the frame that is being made: the seconds since the one before, and the rung.
        self._step = 0.0, ""
        self.inbox = Inbox()

    def read(self) -> None:
        """Read the epoch that waits."""
        # Each is read once: what was not painted of the one before gives way.
        if epoch := self.inbox.take():
            self._aim(epoch)
        if not self._is_moving:
            self._t_last = None

    @property
    def wait(self) -> float:
        """Seconds until the next frame is due."""
        return self._t_next - self._clock() if self._is_moving else np.inf

    def begin_frame(self) -> float:
        """Plan the frame after the one that is made now; seconds since the one before it."""
        t, period = self._clock(), self._painter.period
        # The first after a rest begins to move; after a stall it goes on, and does not leap.
        dt = period if self._t_last is None else min(t - self._t_last, LONGEST_STEP)
        # On a grid while it is kept; from now on where it was not, so that there is no burst.
        self._t_next = (self._t_next if t - self._t_next < period else t) + period
        self._t_last = t
        self._step = dt, self._painter.rung
        return dt

    @property
    def _is_moving(self) -> bool:
        return self._painter.is_moving and not self._is_paused

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

    def _aim(self, epoch: Message) -> None:
        header = epoch.header
        shape = header["n_channels"], header["n_times"]
        # A copy, because torch does not take arrays that cannot be written to.
        eeg = np.frombuffer(epoch.payload, np.float32).reshape(shape).copy()
        if header["began"] != self._began:
            self._begin(header["began"])
        is_locked = header["kind"] == "marker-locked"
        try:
            self._decoded = self._painter.aim(eeg, is_locked, header["first_sample"])
        except EpochShapeError as error:
            self._report.set(message=str(error))
            return
        self._report.set(message="", encode_ms=self._decoded.encode_ms, drift=self._decoded.drift)
        self._epoch, self._is_used = {**header, "t_encoded": self._clock()}, False
        if self._log:
            self._log.add(Aimed(header["first_sample"], is_locked))

    def _begin(self, began: float) -> None:
        """Paint anew: what is recorded begins with these epochs, and nothing before is known."""
        self._began, self._t_last = began, None
        self._painter.restart()
        if self._log:
            self._log.begin(began)

    def show(self, frame: Frame | None) -> None:
        """Publish the frame that was begun, with what the newest epoch says."""
        decoded = self._decoded
        if self._log:
            self._log.add(Stepped(*self._step, digest_of(frame.rgb if frame else None)))
        if frame is None or decoded is None:
            return
        t_painted = self._clock()
        self._number += 1
        self._report.set(paint_ms=frame.paint_ms)
        if frame.state == "painted":
            self._report.painted()
        if not self._is_used:
            self._is_used = True
            self._report.used((t_painted - self._epoch["t_last"]) * 1000)
        rgb = frame.rgb
        header = {
            "number": self._number,
            "epoch": self._epoch["number"],
            "kind": self._epoch["kind"],
            "state": frame.state,
            "t_eeg": self._epoch["t_last"],
            "t_published": self._epoch["t_published"],
            "t_encoded": self._epoch["t_encoded"],
            "t_painted": t_painted,
            "seed": self._seed,
            "height": rgb.shape[0],
            "width": rgb.shape[1],
            "concepts": [
                {"name": name, "character": _characters().get(name, ""), "confidence": confidence}
                for name, confidence in decoded.concepts[:N_CONCEPTS]
            ],
            "chance": 1 / len(decoded.concepts) if decoded.concepts else 0.0,
            "is_sure": decoded.is_sure,
            "honesty": self._epoch["honesty"],
            "encode_ms": decoded.encode_ms,
            "paint_ms": frame.paint_ms,
        }
        self._send(pack("frame", header, np.ascontiguousarray(rgb).tobytes()))


class Room:
    """Sessions that one worker paints for; used by one thread.

    Parameters
    ----------
    workers : one for each session.
    painters : theirs, in the same order.
    """

    def __init__(self, workers: Sequence[Worker], painters: Painters) -> None:
        self._workers, self._painters = workers, painters

    def run(self, incoming: Subscribers, stop: threading.Event) -> None:
        """Paint until `stop` is set."""
        while not stop.is_set():
            wait = min(worker.wait for worker in self._workers)
            for i, message in incoming.receive(min(max(0.0, wait), IDLE)):
                self._workers[i].take_in(message)
            self.work()

    def work(self) -> None:
        """Read the epochs that wait, and make the frames that are due."""
        for worker in self._workers:
            worker.read()
        if all(worker.wait > 0 for worker in self._workers):
            return
        # Whose frame is due before the next tick has it now, and so shares the U-Net's calls.
        soon = TICK if len(self._workers) > 1 else 0.0
        dts = [w.begin_frame() if w.wait <= soon else None for w in self._workers]
        frames = self._painters.step(dts)
        for worker, dt, frame in zip(self._workers, dts, frames, strict=True):
            if dt is not None:
                worker.show(frame)


def tell(told: Sequence[tuple[Report, Callable[[bytes], None]]], stop: threading.Event) -> None:
    """Send telemetry until `stop` is set, and once more then.

    Parameters
    ----------
    told : the report of each session, and what publishes there.
    """
    while True:
        is_last = stop.is_set()
        for report, send in told:
            send(report.take(time.monotonic()))
        if is_last:
            return
        stop.wait(TELEMETRY_PERIOD)


def main() -> None:
    """Run as the child process `worker`."""
    with begin_child("worker") as child, ExitStack() as stack:
        settings = child.settings
        folders = [child.folder, *child.guests]
        buses = [stack.enter_context(Bus(folder, "worker")) for folder in folders]
        reports = [Report(Path(settings.bundle).name) for _ in buses]
        ended = threading.Event()
        told = [(r, b.publisher("telemetry").send) for r, b in zip(reports, buses, strict=True)]
        teller = threading.Thread(target=tell, args=(told, ended))
        teller.start()
        try:
            bundle = find_bundle(settings.bundle)
            # Before a recorder that waits for another worker finds this one ready.
            events = [bus.publisher("painter", DEPTH) for bus in buses]
            # torch takes seconds to import: telemetry says that it is coming.
            open_painters = import_painter(settings.bundle).open_painters
            from models.keyframes import chosen_device

            if chosen_device(settings.device) != "cpu":
                for report in reports:
                    report.set(message=COMPILING)
            if not settings.debug:
                silence_libraries()
            # Of gigabytes it takes seconds, which no epoch shall wait for.
            digest = ThreadPoolExecutor(1).submit(folder_digest, bundle)
            threads = worker_threads(settings.threads)
            painters = open_painters(bundle, len(buses), settings.seed, threads, settings.device)

            def describe(began: float) -> Begun:
                return begun(settings, bundle.name, digest.result(), began)

            workers = [
                Worker(
                    painter,
                    settings.seed,
                    report,
                    bus.publisher("frame").send,
                    log=PainterLog(event.send, describe),
                )
                for painter, report, bus, event in zip(
                    painters.painters, reports, buses, events, strict=True
                )
            ]
            incoming = Subscribers([bus.subscriber("epoch", "control") for bus in buses])
            for report in reports:
                report.set(state="ready", message="")
            Room(workers, painters).run(incoming, child.stop)
        finally:
            ended.set()
            teller.join()
    # Python would take torch apart for two seconds, and nothing is left to tidy.
    os._exit(0)


if __name__ == "__main__":
    main()
