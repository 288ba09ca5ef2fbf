"""The event loop's own: telemetry and traces come in, states and traces go to viewers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from app.bus import Subscriber
from app.feed import Feed
from app.hub import IDLE, Hub
from app.messages import Message, pack
from app.metrics import Metrics
from app.presentation import Presentation
from app.recorder import Request
from app.rights import Rights, Role
from app.session_state import Action, SessionState
from app.viewer_slot import ViewerSlot

# Seconds between states without a change, and at least between two.
STATE_INTERVAL = 0.5
STATE_PAUSE = 0.05

TELEMETRY_INTERVAL = 0.25

Sent = Literal["telemetry", "control", "stimulus"]

TRACES_HEADER = ("first_sample", "n_channels", "n_times", "sfreq", "honesty")


class Relay:
    """Knows the viewers and their rights, and tells everyone what they may know.

    Parameters
    ----------
    state, hub, rights, metrics : of the session.
    send : publishes a header on a topic, to the other processes.
    clock : of the session.
    presentation : what can be presented; by default nothing.

    Attributes
    ----------
    feed : of markers and stimuli.
    """

    def __init__(
        self,
        state: SessionState,
        hub: Hub,
        rights: Rights,
        metrics: Metrics,
        send: Callable[[Sent, dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
        presentation: Presentation | None = None,
    ) -> None:
        self.state = state
        self.hub = hub
        self.rights = rights
        self.metrics = metrics
        self.clock = clock
        self.presentation = presentation or Presentation((), clock)
        self.feed = Feed()
        self._send = send
        self._roles: dict[ViewerSlot, Role] = {}
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, news: Subscriber, stop: threading.Event) -> None:
        """Bring telemetry, markers and traces from the bus, in a thread, until `stop` is set."""
        while not stop.is_set():
            message = news.receive(IDLE)
            if message is not None and self._loop is not None:
                with suppress(RuntimeError):  # the loop has just ended
                    self._loop.call_soon_threadsafe(self.receive, message)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tell viewers and the supervisor as long as the context is open."""
        self._loop = asyncio.get_running_loop()
        self.hub.attach(self._loop)
        tasks = [asyncio.create_task(self._tell()), asyncio.create_task(self._report())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.report()

    def receive(self, message: Message) -> None:
        """Take in telemetry, a marker or traces from the bus."""
        if message.type == "traces":
            header = {name: message.header[name] for name in TRACES_HEADER}
            traces = pack("traces", header, message.payload)
            for slot, wake in self.hub.viewers.items():
                if self.rights.sees_eeg(self._roles[slot]):
                    slot.offer_traces(traces)
                    wake()
            return
        if message.type == "telemetry":
            if message.header["from"] == "server":
                return
            self.metrics.add(message.header)
        if message.type == "marker":
            self.feed.add({"type": "marker", **message.header})
        if self.state.add(message):
            self._changed.set()

    def join(self, wake: Callable[[], None], role: Role) -> ViewerSlot:
        """Add a viewer, who gets the state and the newest frame at once."""
        slot = self.hub.join(wake)
        self._roles[slot] = role
        self._changed.set()
        wake()
        return slot

    def leave(self, slot: ViewerSlot) -> None:
        """Forget a viewer."""
        self.hub.leave(slot)
        self._roles.pop(slot, None)

    def act(self, action: Action) -> None:
        """Do what the operator asks for."""
        self.state.ask(action)
        self._changed.set()
        self._send("control", {"action": action})

    def record(self, request: Request | None) -> None:
        """Begin a recording, or end the one that goes on."""
        if request is None:
            self._send("control", {"action": "stop-recording"})
        else:
            self._send("control", {"action": "record", "request": request.to_dict()})

    def train(self, subject: str | None) -> None:
        """Begin to train a person's bundle, or stop it."""
        if subject is None:
            self._send("control", {"action": "stop-training"})
            return
        asked = self.clock()
        self.state.ask_training(subject, asked)
        self._changed.set()
        self._send("control", {"action": "train", "subject": subject, "asked": asked})

    def present(self, said: dict[str, Any]) -> None:
        """Publish what an operator's page says of a stimulus; ValueError if it cannot be."""
        header = self.presentation.check(said)
        self._send("stimulus", header)
        self.feed.add({"type": "stimulus", **header})

    async def _tell(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(STATE_INTERVAL):
                    await self._changed.wait()
            self._changed.clear()
            header = {**self.state.to_dict(self.clock()), "viewers": len(self._roles)}
            # Where a recording lies and who it is of is for the operator alone.
            known: dict[Role, dict[str, Any]] = {
                "viewer": {"is_operator": False},
                "operator": {
                    "is_operator": True,
                    "recording_file": self.state.recording_file,
                    "training": self.state.training,
                },
            }
            messages = {
                role: pack("state", {**header, **known[role]}) for role in set(self._roles.values())
            }
            for slot, wake in self.hub.viewers.items():
                slot.offer_state(messages[self._roles[slot]])
                wake()
            await asyncio.sleep(STATE_PAUSE)

    async def _report(self) -> None:
        while True:
            self.report()
            if action := self.state.overdue:
                self._send("control", {"action": action})
            await asyncio.sleep(TELEMETRY_INTERVAL)

    def report(self) -> None:
        """Publish the server's telemetry."""
        drawn_ms, stages_ms = self.hub.take_drawn_ms(), self.hub.take_stages_ms()
        self.state.add_drawn(drawn_ms)
        header = {
            "from": "server",
            "t": self.clock(),
            "viewers": len(self._roles),
            **self.hub.counts(),
            "drawn_ms": [round(sample, 2) for sample in drawn_ms],
            "stages_ms": {
                stage: [round(sample, 2) for sample in samples]
                for stage, samples in stages_ms.items()
            },
        }
        self.metrics.add(header)
        self._send("telemetry", header)
