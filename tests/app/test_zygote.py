"""Workers that are forked from a process which has imported everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import app.processes
from app.session import Session
from app.settings import Settings
from app.zygote import adopt_orphans
from tests.app.test_session import fakes, interrupt, is_alive, pid_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")


def stat(pid: int) -> list[str]:
    """From the third field of proc(5)'s stat on: state, parent, group, session, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_a_fork_is_to_the_supervisor_what_a_started_worker_is(tmp_path: Path) -> None:
    seen: list[object] = []

    def look(_: object) -> None:
        worker, zygote = pid_of(tmp_path, "worker"), pid_of(tmp_path, "zygote")
        seen.extend([stat(worker)[1] == str(os.getpid()), stat(worker)[3] == str(worker)])
        seen.extend(["app.worker" in command(worker), "app.zygote" in command(zygote)])
        seen.append(len(command(worker)) == len(command(zygote)))
        seen.append(os.readlink(f"/proc/{worker}/fd/0").startswith("pipe:"))
        # What a fork does not copy is safe only if it is not there.
        seen.append(len(os.listdir(f"/proc/{zygote}/task")) == 1)
        interrupt()

    Session(Settings(duration=60), print, look, fakes(tmp_path)).run()
    assert seen == [True] * 7


def test_a_zygote_forks_again_and_again(tmp_path: Path) -> None:
    n_back = 0

    def kill(_: object) -> None:
        os.kill(pid_of(tmp_path, "worker", n_back), signal.SIGKILL)

    def say(sentence: str) -> None:
        nonlocal n_back
        if sentence == "The worker process is back.":
            n_back += 1
            kill(None) if n_back < 3 else interrupt()

    Session(Settings(duration=60), say, kill, fakes(tmp_path)).run()
    assert len(list(tmp_path.glob("worker.*"))) == 4
    assert len(list(tmp_path.glob("zygote.*"))) == 1


def test_a_killed_zygote_takes_no_worker_along_and_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.processes, "BETWEEN_ZYGOTES", 0.0)
    out = tmp_path / "summary.json"
    lived: list[bool] = []
    said: list[str] = []

    def kill_zygote(_: object) -> None:
        os.kill(pid_of(tmp_path, "zygote"), signal.SIGKILL)

    class Watching(Session):
        """Waits for the second zygote, then ends its worker, then itself."""

        def _attend(self, child: object, folder: Path) -> None:
            super()._attend(child, folder)  # type: ignore[arg-type]
            if (tmp_path / "zygote.1").exists() and not lived:
                lived.append(is_alive(pid_of(tmp_path, "worker")))
                os.kill(pid_of(tmp_path, "worker"), signal.SIGKILL)

    def say(sentence: str) -> None:
        said.append(sentence)
        if sentence == "The worker process is back.":
            interrupt()

    Watching(Settings(duration=30, summary=str(out)), say, kill_zygote, fakes(tmp_path)).run()
    assert lived == [True]
    assert json.loads(out.read_text())["restarts"]["worker"] == 1
    assert said[-1] == "The worker process is back."


def test_a_worker_whose_zygote_dies_before_the_fork_has_died_too() -> None:
    zygote = app.processes.Zygote([sys.executable, "-c", "raise SystemExit(3)"], os.environ)
    try:
        worker = zygote.fork()
        while worker.poll() is None:
            time.sleep(0.01)
        assert worker.poll() == 3
        worker.ask_to_end()
        worker.kill()
    finally:
        zygote.kill()


def test_a_worker_that_is_not_forked_yet_ends_with_its_zygote() -> None:
    zygote = app.processes.Zygote([sys.executable, "-c", "import time; time.sleep(60)"], os.environ)
    worker = zygote.fork()
    assert worker.poll() is None
    worker.ask_to_end()
    zygote.kill()
    assert worker.poll() == -signal.SIGKILL


def test_a_worker_that_comes_after_its_zygotes_end_is_ended_too(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = (
        "import os, pathlib, time, app.zygote as zygote\n"
        "fork, calls = os.fork, []\n"
        "def slow():\n"
        "    calls.append(0)\n"
        "    if len(calls) == 2:\n"
        f"        pathlib.Path({str(begun)!r}).touch()\n"
        "        time.sleep(1)\n"
        "    return fork()\n"
        "os.fork = slow\n"
        "zygote.serve_forks()\n"
        "time.sleep(60)\n"
    )
    assert adopt_orphans()
    zygote = app.processes.Zygote([sys.executable, "-c", code], os.environ)
    worker = zygote.fork()
    try:
        while not begun.exists():
            assert worker.poll() is None
            time.sleep(0.01)
    finally:
        zygote.kill()
    assert worker.poll() is None
    while worker._number is None:
        assert worker.poll() is None
        time.sleep(0.01)
    worker.kill()
    assert not is_alive(worker._number)
    worker.ask_to_end()


@pytest.mark.parametrize("refused", [1, 2])
def test_a_fork_that_the_system_refuses_ends_the_zygote_with_a_sentence(refused: int) -> None:
    # In a process of its own: half of it goes on in forks.
    code = (
        "import os, socket, app.zygote as zygote\n"
        "fork, calls = os.fork, []\n"
        "def limited():\n"
        "    calls.append(0)\n"
        f"    if len(calls) == {refused}:\n"
        "        raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        "    return fork()\n"
        "os.fork = limited\n"
        "zygote._fork(socket.socketpair()[0], os.open(os.devnull, os.O_RDONLY))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("The system lets no worker begin (")
    assert done.stderr.count("\n") == 1
