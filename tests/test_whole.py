"""The whole stream in its own processes, as a person starts it, watched by a viewer.

The bundle is a tiny one with random weights: these tests are about the stream.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
from websockets.sync.client import connect

from app.messages import pack, unpack
from tests.acquisition.made_recordings import XDFStream, write_xdf
from tests.tiny_bundle import make_tiny_bundle

# Importing torch and diffusers takes a worker five seconds alone, and many where other
# work shares the cores: these tests wait for what must happen, not for how fast.
PATIENCE = 90.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("whole") / "tiny")


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "PHOSPHENE_LSL_SESSION": f"test-{uuid.uuid4().hex}"}


def wait_for(claim: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not claim():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for {what}"
        time.sleep(0.02)


def phosphene(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from app.cli import main; main()", *arguments]


class Viewer:
    """Acknowledges every frame at once, as a page does after drawing."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.frames: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = []
        self.n_traces = 0
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_done.is_set():
            try:
                with connect(self._address, max_size=None, open_timeout=5) as socket:
                    while not self._is_done.is_set():
                        try:
                            message = unpack(socket.recv(timeout=0.5))
                        except TimeoutError:
                            continue
                        self._take(message.type, message.header)
                        if message.type == "frame":
                            socket.send(pack("ack", {"number": message.header["number"]}))
            except Exception:
                # The server is away: come again, as the page does.
                time.sleep(0.1)

    def _take(self, kind: str, header: dict[str, Any]) -> None:
        if kind == "frame":
            self.frames.append(header)
        elif kind == "state":
            self.states.append(header)
        elif kind == "traces":
            self.n_traces += 1

    def sees_new_pictures(self) -> None:
        pictures = {f["picture"] for f in self.frames[-20:]}
        before = len(self.frames)
        wait_for(lambda: {f["picture"] for f in self.frames[before:]} - pictures, "a new picture")

    def close(self) -> None:
        self._is_done.set()
        self._thread.join()


class Session:
    """`phosphene serve`, with a viewer."""

    def __init__(self, environment: dict[str, str], summary: Path, *arguments: str) -> None:
        self.summary = summary
        command = phosphene(
            "serve", "--port", "0", "--no-open-browser", "--summary", str(summary), *arguments
        )
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.viewer = self.next_viewer()

    def next_viewer(self) -> Viewer:
        """Who watches the page that is told of next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://(127\.0\.0\.1:\d+)/", line)
        if not found:
            _, errors = self.process.communicate(timeout=PATIENCE)
            pytest.fail(f"no address in {line!r}: {errors}")
        return Viewer(f"ws://{found.group(1)}/ws")

    def children(self) -> dict[str, int]:
        """Process numbers by role."""
        listing = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        roles = {
            "app.acquire": "acquisition",
            "app.worker": "worker",
            "app.server": "server",
            "app.zygote": "zygote",
            "app.guest": "guest",
        }
        found = {}
        for line in listing.splitlines():
            for module, role in roles.items():
                if f"-m {module} " in line:
                    found[role] = int(line.split()[0])
        return found

    def end(self) -> dict[str, Any]:
        """Stop it as Ctrl-C does and read the summary."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors
        result: dict[str, Any] = json.loads(self.summary.read_text())
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.viewer.close()
        self.process.kill()
        self.process.communicate()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def test_children_that_are_killed_come_back_and_the_page_is_told(
    bundle: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("--source", "simulated:?seed=1", "--bundle", str(bundle))
    with Session(environment, tmp_path / "summary.json", *arguments) as session:
        viewer = session.viewer
        viewer.sees_new_pictures()
        assert {f["honesty"] for f in viewer.frames} == {"simulated"}
        assert all("label" not in f for f in viewer.frames)
        wait_for(lambda: viewer.n_traces > 3, "traces")
        wait_for(lambda: any(s["seen"] for s in viewer.states), "what the subject sees")
        zygote = session.children().get("zygote")
        if sys.platform == "linux":
            # It has imported torch and diffusers, and forks: no other thread may hold a lock.
            assert len(os.listdir(f"/proc/{zygote}/task")) == 1
        for role in ("worker", "acquisition", "server"):
            victim = session.children()[role]
            n_states = len(viewer.states)
            os.kill(victim, signal.SIGKILL)
            wait_for(
                lambda role=role, victim=victim: session.children().get(role, victim) != victim,
                f"another {role}",
            )
            if role != "server":
                wait_for(
                    lambda n=n_states: any(s["sentence"] for s in viewer.states[n:]), "a sentence"
                )
            viewer.sees_new_pictures()
        assert session.children().get("zygote") == zygote, "the worker was not forked"
        summary = session.end()
    assert summary["restarts"] == {"acquisition": 1, "worker": 1, "server": 1}
    assert summary["samples_in"] > 1000
    assert summary["samples_lost"] == 0
    assert summary["frames_painted"] > 0
    assert summary["frames_sent"] >= summary["frames_drawn"] > 0
    for kind in ("painted", "drawn"):
        values = summary["latency_ms"][kind]
        assert 0 < values["p50"] <= values["p95"] <= values["p99"]
    assert summary["latency_ms"]["painted"]["p50"] < summary["latency_ms"]["drawn"]["p50"]


def test_sessions_share_a_worker_and_end_together(
    bundle: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("--source", "simulated:?seed=1", "--also", "brainflow:synthetic")
    with Session(environment, tmp_path / "s.json", *arguments, "--bundle", str(bundle)) as session:
        viewers = [session.viewer, session.next_viewer()]
        try:
            for viewer in viewers:
                viewer.sees_new_pictures()
            # Each page is of its own source, and so of its own epochs.
            sources = [viewer.states[-1]["source"] for viewer in viewers]
            assert sorted("ynthetic" in source for source in sources) == [False, True], sources
            first, second = ({f["t_eeg"] for f in viewer.frames} for viewer in viewers)
            assert not first & second
            children = session.children()
            os.kill(children["worker"], signal.SIGKILL)
            for viewer in viewers:
                viewer.sees_new_pictures()
            assert session.children()["guest"] == children["guest"]
            session.end()
            wait_for(lambda: not is_alive(children["guest"]), "the guest to end")
        finally:
            viewers[1].close()


def test_nothing_is_left_behind_when_the_supervisor_is_killed(
    bundle: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("--source", "simulated:", "--also", "simulated:", "--bundle", str(bundle))
    with Session(environment, tmp_path / "summary.json", *arguments) as session:
        # A zygote that still imports forks later.
        first = "zygote" if sys.platform == "linux" else "worker"
        children = session.children()
        assert set(children) == {"acquisition", first, "server", "guest"}
        session.process.kill()
        wait_for(lambda: not any(map(is_alive, children.values())), "all to be gone", 15.0)


def test_brainflow_s_synthetic_board_is_painted_without_loss(
    bundle: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = ("--source", "brainflow:synthetic", "--bundle", str(bundle))
    with Session(environment, tmp_path / "summary.json", *arguments) as session:
        session.viewer.sees_new_pictures()
        summary = session.end()
    assert summary["samples_in"] > 500
    assert summary["samples_lost"] == 0
    assert summary["honesty"] == "simulated"


@pytest.fixture
def recording(tmp_path: Path) -> tuple[Path, int]:
    """Eleven seconds of EEG with a gap, markers, and another stream of the same name."""
    rng = np.random.default_rng(0)
    t = np.arange(2750) / 250 + 50.0
    t[1500:] += 1.5
    names = ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2")
    eeg = (20 * rng.normal(size=(len(t), 8))).astype(np.float32)
    motion = rng.normal(size=(500, 3)).astype(np.float32)
    labels = np.array([["onset/cat"], ["offset"]], dtype=object)
    return (
        write_xdf(
            tmp_path / "made.xdf",
            [
                XDFStream("Cap", "EEG", 250.0, eeg, t, names, "microvolts", "EEG"),
                XDFStream("Cap", "ACC", 50.0, motion, 50 + np.arange(500) / 50, source_id="acc"),
                XDFStream("Events", "Markers", 0.0, labels, np.array([57.0, 59.0])),
            ],
        ),
        len(t),
    )


def test_a_recording_with_a_gap_goes_over_lsl_and_is_painted_without_loss(
    bundle: Path,
    environment: dict[str, str],
    recording: tuple[Path, int],
    tmp_path: Path,
) -> None:
    path, n_samples = recording
    player = subprocess.Popen(
        phosphene("replay", str(path), "--lsl"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        arguments = ("--source", "lsl:type=EEG&timeout=60", "--bundle", str(bundle))
        with Session(environment, tmp_path / "summary.json", *arguments) as session:
            told, warned = player.communicate(timeout=PATIENCE)
            assert player.returncode == 0, warned
            assert str(n_samples) in told + warned
            assert "network" in told + warned

            def n_in() -> int:
                return session.viewer.states[-1]["samples_in"] if session.viewer.states else 0

            wait_for(lambda: n_in() == n_samples, "all samples")
            wait_for(lambda: session.viewer.n_traces > 3, "traces")
            summary = session.end()
    finally:
        player.kill()
        player.communicate()
    assert summary["samples_in"] == n_samples
    assert summary["samples_lost"] == 0
    assert summary["honesty"] == "replay"
