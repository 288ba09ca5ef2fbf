"""Guests: begun in folders of their own, missed when they are killed, ended with the first."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app import guests as module
from app.child import Child
from app.guests import guests
from app.settings import Settings

# Tells its process number, and ends when it is asked to or when its maker is gone.
CODE = "import os, sys; open(sys.argv[1] + '/pid', 'w').write(str(os.getpid())); os.read(0, 1)"


def wait_for(claim: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pid_of(folder: Path) -> int:
    path = folder / "pid"
    wait_for(lambda: path.is_file() and path.read_text())
    return int(path.read_text())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_that_is_killed_is_told_of_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = [sys.executable, "-c", CODE]
    monkeypatch.setattr(module, "child_commands", lambda f: {"guest": [*command, str(f)]})
    said: list[str] = []
    settings = [Settings(source=f"simulated:?subject={n}", port=5000 + n) for n in (1, 2)]
    with guests(settings, said.append) as folders:
        assert [Child("guest", folder).settings for folder in folders] == settings
        assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
        first, second = map(pid_of, folders)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: said)
        assert is_alive(second)
    assert said == ["The session of simulated:?subject=1 was ended by SIGKILL; the others go on."]
    assert not is_alive(second)
    assert not any(folder.exists() for folder in folders)


def test_one_that_ends_by_itself_has_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", CODE.replace("os.read(0, 1)", "sys.exit(4)")]
    monkeypatch.setattr(module, "child_commands", lambda f: {"guest": [*command, str(f)]})
    monkeypatch.setattr(module, "TICK", 0.05)
    said: list[str] = []
    with guests([Settings()], said.append) as folders:
        pid_of(folders[0])
        time.sleep(0.5)
    assert said == []
