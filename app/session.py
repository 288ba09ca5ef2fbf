"""The supervisor: three children in a session, recorder and trainer at times; watched and ended."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from app.bus import Bus, Publisher, Subscriber
from app.child import ROLES, Role, read_error, write_session
from app.cores import worker_threads
from app.errors import ChildFailedError, ExitCode
from app.messages import pack
from app.processes import Process, Started, Zygote
from app.recorder import REQUEST, Request
from app.rights import page_address
from app.settings import Settings, child_environment, has_display
from app.summary import Summary, write_summary
from app.trainer import RECORDING_GOES_ON
from app.trainer import REQUEST as TRAINING_REQUEST
from app.zygote import adopt_orphans

MODULES: dict[Role | Literal["zygote"], str] = {
    "acquisition": "app.acquire",
    "worker": "app.worker",
    "server": "app.server",
    "recorder": "app.recorder",
    "trainer": "app.trainer",
    "zygote": "app.zygote",
    "guest": "app.guest",
}
FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.2, 5.0
# A child that ran this long starts its next back-off from the beginning (seconds).
RAN_WELL = 10.0
# Deaths without words before a child was ever ready; then the session ends.
MOST_EARLY_DEATHS = 5
# Seconds between asking a child to end and killing it.
PATIENCE = 3.0
TICK = 0.05

ChildState = Literal["running", "restarting", "failed", "finished"]
Commands = Mapping[Role | Literal["zygote"], Sequence[str]]


def child_commands(folder: Path) -> Commands:
    """How each is started. -P: an `app` in the working directory is not ours."""
    return {
        role: [sys.executable, "-P", "-m", module, str(folder)] for role, module in MODULES.items()
    }


def _is_ready(telemetry: Mapping[str, Any]) -> bool:
    """Whether a child that says this does its work."""
    if telemetry["from"] == "worker":
        return telemetry.get("state") == "ready"
    return telemetry["from"] in ("server", "recorder") or telemetry.get("state") in (
        "running",
        "finished",
    )


def manner(status: int) -> str:
    """How a process ended that left no word."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended unexpectedly with exit code {status}"


class _Watched:
    """One child process and what became of its predecessors."""

    def __init__(self, role: Role, begin: Callable[[], Process]) -> None:
        self.role = role
        self.state: ChildState = "running"
        self.message = ""
        self.restarts = 0
        self.was_ever_ready = False
        self.early_deaths = 0
        self.process: Process | None = None
        self.restart_at = 0.0
        # Asked to end while the session goes on.
        self.is_dismissed = False
        self._begin = begin
        self._started = 0.0
        self._back_off = FIRST_BACK_OFF

    def start(self) -> None:
        self._started = time.monotonic()
        self.process = self._begin()

    def ended(self) -> int | None:
        """The exit status, once, when the process has ended."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.process.ask_to_end()  # nobody reads it: this closes the pipe
        self.process = None
        return status

    def await_restart(self) -> float:
        """Plan the next start; returns the seconds until then."""
        now = time.monotonic()
        if now - self._started > RAN_WELL:
            self._back_off = FIRST_BACK_OFF
        wait = self._back_off
        self._back_off = min(2 * self._back_off, LONGEST_BACK_OFF)
        self.restart_at = now + wait
        self.state = "restarting"
        self.restarts += 1
        return wait

    def to_dict(self) -> dict[str, Any]:
        return {"state": self.state, "restarts": self.restarts, "message": self.message}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a session's page is, for the operator and for those who watch."""

    operator: str
    viewers: str


def announce(settings: Settings, addresses: Addresses) -> None:
    """Tell where a session's page is, and open it where that is wanted and can be done."""
    print(f"Phosphene paints {settings.source} at {addresses.operator}", flush=True)
    if settings.allow_remote:
        print(f"For those who watch: {addresses.viewers}", flush=True)
    if settings.open_browser and has_display():
        # Some browsers (those of a terminal, above all) return only when they are closed.
        threading.Thread(target=webbrowser.open, args=(addresses.operator,), daemon=True).start()


class Session:
    """One run of Phosphene, from the first process to the last.

    Parameters
    ----------
    settings : of the session; the port is not 0.
    say : takes sentences for the terminal.
    on_address : called once, when there is a page and EEG for it.
    commands : makes the children's commands from the session's folder. The worker is forked by
        the one called "zygote", if there is one and the system can do it.
    request : of a recording that begins with the session, which then ends with it.
    guests : folders of sessions that the worker paints for, too.
    folder : of a session that is such a guest; others make their own.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None],
        on_address: Callable[[Addresses], None],
        commands: Callable[[Path], Commands] = child_commands,
        request: Request | None = None,
        guests: Sequence[Path] = (),
        folder: Path | None = None,
    ) -> None:
        self._settings = settings
        self._say = say
        self._on_address = on_address
        self._make_commands = commands
        self._commands: Commands = {}
        self._request = request
        self._recorded: dict[str, Any] = {}
        # The newest training: what was asked for, and what became of it.
        self._training: dict[str, Any] | None = None
        self._guests, self._given_folder = guests, folder
        self._folder = Path()
        self._operator_token = secrets.token_urlsafe(24)
        self._viewer_token = "" if settings.is_loopback else secrets.token_urlsafe(24)
        self._summary = Summary(settings.source, settings.bundle)
        self._is_ending = False
        self._is_address_told = False
        self._bus: Subscriber
        self._children: dict[Role, _Watched] = {}
        self._zygote: Zygote | None = None

    @property
    def recorded(self) -> str:
        """What the last recording holds, in a sentence."""
        last = self._recorded
        if not last:
            return "Nothing was recorded."
        missed = f"; {last['n_missed']} pieces were missed" if last["n_missed"] else ""
        return (
            f"{last['file']} holds {last['n_samples']:,} samples of each electrode in "
            f"{last['n_segments']} piece(s){missed}."
        )

    def addresses(self) -> Addresses:
        """Where the page is; tokens stand in the fragment, which no log sees."""
        settings = self._settings
        scheme = "https" if settings.tls_cert else "http"
        page = page_address(scheme, settings.host, settings.port)
        return Addresses(
            f"{page}#operator={self._operator_token}",
            f"{page}#viewer={self._viewer_token}" if self._viewer_token else page,
        )

    def run(self) -> None:
        """Run until the duration is over, someone stops it, or it cannot begin.

        Raises
        ------
        ChildFailedError
            A child ended with a reason that a restart cannot mend before it was ever ready.
        SummaryError
            The summary cannot be written.
        """
        started = time.monotonic()
        with self._made_folder() as folder:
            self._folder = folder
            tokens = self._operator_token, self._viewer_token
            write_session(folder, self._settings, *tokens, self._guests)
            with Bus(folder, "supervisor") as bus, self._ending_on_signals():
                self._bus = bus.subscriber("telemetry", "control", depth=256)
                try:
                    self._start(folder)
                    self._watch(folder, bus, started)
                finally:
                    duration = time.monotonic() - started
                    self._end()
                    if self._settings.summary:
                        write_summary(Path(self._settings.summary), self._summary.to_dict(duration))
                if report := read_error(folder, "recorder"):
                    # The last samples of a recording found no room.
                    raise ChildFailedError(*report)

    @contextmanager
    def _made_folder(self) -> Iterator[Path]:
        if self._given_folder:
            yield self._given_folder
            return
        with tempfile.TemporaryDirectory(prefix="phosphene-", ignore_cleanup_errors=True) as name:
            Bus.make_folder(Path(name))
            yield Path(name)

    @contextmanager
    def _ending_on_signals(self) -> Iterator[None]:
        def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
            self._is_ending = True

        names = ("SIGINT", "SIGTERM", "SIGHUP")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        before = [(number, signal.signal(number, on_signal)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    def _start(self, folder: Path) -> None:
        commands = self._commands = self._make_commands(folder)
        threads = {"worker": worker_threads(self._settings.threads)}
        for role in (role for role in ROLES if role in commands):
            environment = child_environment(threads.get(role, 1))
            begin: Callable[[], Process] = partial(Started, commands[role], environment)
            if role == "worker" and "zygote" in commands and adopt_orphans():
                # OpenBLAS would begin threads with NumPy's import, and so before the fork.
                environment["OPENBLAS_NUM_THREADS"] = "1"
                # Whoever asks PyTorch for a GPU would begin CUDA, which no fork survives.
                environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
                self._zygote = Zygote(commands["zygote"], environment)
                begin = self._zygote.fork
            self._children[role] = _Watched(role, begin)
            self._children[role].start()
        if self._request:
            self._record(self._request)

    def _record(self, request: Request) -> None:
        """Begin a recording; one that goes on stays as it is."""
        child = self._children.get("recorder")
        if "recorder" not in self._commands or (child and child.state != "failed"):
            return
        self._begin("recorder", REQUEST, request.to_dict())

    def _train(self, subject: str, asked: float) -> None:
        """Begin to train a person's bundle; a training that goes on stays as it is."""
        if "trainer" not in self._commands or "trainer" in self._children:
            return
        request = {"subject": subject, "asked": asked}
        recorder = self._children.get("recorder")
        if recorder and recorder.state != "failed":
            self._training = {**request, "state": "failed", "message": RECORDING_GOES_ON}
            return
        self._training = {**request, "state": "running", "message": ""}
        self._begin("trainer", TRAINING_REQUEST, request, worker_threads(self._settings.threads))

    def _begin(self, role: Role, file: str, request: Mapping[str, Any], threads: int = 1) -> None:
        """Start a child that comes and goes, which reads from a file what is asked of it."""
        (self._folder / file).write_text(json.dumps(request), encoding="utf-8")
        command, environment = self._commands[role], child_environment(threads)
        self._children[role] = _Watched(role, partial(Started, command, environment))
        self._children[role].start()

    def _dismiss(self, role: Role) -> None:
        """Ask a child that comes and goes to end, if it is there."""
        child = self._children.get(role)
        if child and child.process is None:
            del self._children[role]
        elif child and child.process:
            child.is_dismissed = True
            child.process.ask_to_end()

    def _control(self, header: Mapping[str, Any]) -> None:
        """Do what the operator asks for."""
        match header["action"]:
            case "stop":
                self._is_ending = True
            case "record":
                self._record(Request.from_dict(header["request"]))
            case "stop-recording":
                self._dismiss("recorder")
            case "train":
                self._train(header["subject"], header["asked"])
            case "stop-training":
                self._dismiss("trainer")

    def _watch(self, folder: Path, bus: Bus, started: float) -> None:
        publisher = bus.publisher("telemetry")
        last_told: tuple[float, Any] = (0.0, None)
        while not self._is_ending:
            self._take_in(TICK)
            for child in list(self._children.values()):
                self._attend(child, folder)
            if self._zygote:
                self._zygote.attend()
            last_told = self._tell(publisher, last_told)
            duration = self._settings.duration
            if duration and time.monotonic() - started >= duration:
                self._is_ending = True

    def _take_in(self, timeout: float) -> None:
        while message := self._bus.receive(timeout):
            timeout, header = 0, message.header
            if message.type == "control":
                self._control(header)
                continue
            self._summary.add(header)
            if header["from"] == "recorder":
                self._recorded = header
            child = self._children.get(header["from"])
            if child is None:
                continue
            if child.role == "acquisition" and header.get("state") == "finished":
                child.state, child.message = "finished", str(header.get("message", ""))
                child.was_ever_ready = True
            elif _is_ready(header):
                if child.state == "restarting":
                    self._say(f"The {child.role} process is back.")
                child.state, child.message = "running", ""
                child.was_ever_ready = True
        if not self._is_address_told and all(
            self._children[role].was_ever_ready
            for role in ("server", "acquisition")
            if role in self._children
        ):
            self._is_address_told = True
            self._on_address(self.addresses())

    def _attend(self, child: _Watched, folder: Path) -> None:
        if child.process is None:
            if child.state != "failed" and time.monotonic() >= child.restart_at:
                child.start()
            return
        status = child.ended()
        if status is None:
            return
        # Its last words come before its successor's first.
        self._take_in(0)
        report = read_error(folder, child.role)
        sentence = report[0] if report else f"The {child.role} process {manner(status)}."
        if child.role == "trainer":
            self._end_training(child, status, sentence)
            return
        if child.is_dismissed and not (report and report[1] is not ExitCode.FAILURE):
            # Whoever asked it to end does not want it back.
            del self._children[child.role]
            if report:
                self._say(sentence)
            return
        if child.role == "recorder" and report and report[1] is not ExitCode.FAILURE:
            # What it cannot mend itself, as a full disk, ends the recording; a session that was
            # begun for it ends, too.
            child.state, child.message = "failed", sentence
            if self._request:
                raise ChildFailedError(sentence, report[1])
            self._say(sentence)
            return
        if not child.was_ever_ready:
            child.early_deaths += 1
            code = report[1] if report else ExitCode.FAILURE
            if code is not ExitCode.FAILURE or child.early_deaths == MOST_EARLY_DEATHS:
                child.state = "failed"
                raise ChildFailedError(sentence, code)
        wait = child.await_restart()
        child.message = sentence
        self._summary.restarted(child.role)
        self._say(f"{sentence} Starting the {child.role} again in {wait:.1f} s.")

    def _end_training(self, child: _Watched, status: int, sentence: str) -> None:
        """Note how a training ended: only the operator begins it again."""
        del self._children["trainer"]
        state = "stopped" if child.is_dismissed else "failed" if status else "finished"
        message = sentence if state == "failed" else ""
        self._training = {**(self._training or {}), "state": state, "message": message}
        if message:
            self._say(message)

    def _tell(self, publisher: Publisher, last: tuple[float, Any]) -> tuple[float, Any]:
        """Publish how children and training are, once a second and on every change."""
        now = time.monotonic()
        children = {role: child.to_dict() for role, child in self._children.items()}
        told = {"children": children, "training": self._training}
        if told == last[1] and now - last[0] < 1:
            return last
        publisher.send(pack("telemetry", {"from": "supervisor", "t": now, **told}))
        return now, told

    def _end(self) -> None:
        """Ask every child to end, and kill what has not after `PATIENCE`."""
        processes = [child.process for child in self._children.values() if child.process]
        for process in processes:
            process.ask_to_end()
        if self._zygote:
            self._zygote.kill()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            self._take_in(TICK)
        for process in processes:
            process.kill()
