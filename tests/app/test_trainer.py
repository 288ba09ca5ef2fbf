"""The trainer's process around a calibration that is made up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.bus import Bus
from app.child import read_error, write_session
from app.errors import ExitCode
from app.settings import ROOT, Settings, child_environment

# Stands where app.calibrate would be; its first argument says what it does.
FAKE = """
import json, sys, time, types
from pathlib import Path
from types import SimpleNamespace as Progress

manner, begun = sys.argv[1:3]

def calibrate(sessions, bundle, out, tell):
    said = [[str(path) for path in sessions], str(bundle), str(out)]
    Path(begun).write_text(json.dumps(said))
    if manner == "deaf":
        time.sleep(60)
    if manner == "full":
        from app.errors import SummaryError
        raise SummaryError("There is no room.")
    for i in range(600 if manner == "long" else 20):
        tell(Progress(done=0.5, what="Testing."))
        time.sleep(0.05)
    tell(Progress(done=1.0, what="It works."))

def loading(name):
    if name != "calibrate":
        raise AttributeError(name)
    if manner == "loading":
        Path(begun).write_text("[]")
        time.sleep(60)
    return calibrate

fake = types.ModuleType("app.calibrate")
fake.__getattr__ = loading
sys.modules["app.calibrate"] = fake
from app.trainer import main
main()
"""


class Trainer:
    def __init__(self, folder: Path, manner: str) -> None:
        self.folder = folder / "session"
        self._begun = folder / "begun.json"
        recordings = folder / "r"
        (recordings / "P01").mkdir(parents=True)
        (recordings / "P01" / "a.xdf").touch()
        Bus.make_folder(self.folder)
        write_session(self.folder, Settings(recordings=str(recordings)), "token")
        request = {"subject": "P01", "asked": 4.5}
        (self.folder / "training.json").write_text(json.dumps(request))
        command = [sys.executable, "-c", FAKE, manner, str(self._begun), str(self.folder)]
        environment = child_environment(1)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)

    def begun(self) -> list[object]:
        end = time.monotonic() + 20
        while not self._begun.exists() or not self._begun.read_text():
            assert time.monotonic() < end, "it has not begun"
            time.sleep(0.02)
        found: list[object] = json.loads(self._begun.read_text())
        return found

    def stop(self) -> float:
        """Seconds until it has ended."""
        assert self.process.stdin is not None
        t = time.monotonic()
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        self.process.wait(20)
        return time.monotonic() - t


Start = Callable[[str], Trainer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def start(manner: str) -> Trainer:
        started.append(Trainer(tmp_path, manner))
        return started[0]

    yield start
    with started[0].process as process:
        process.kill()


def test_a_persons_sessions_are_learnt_from_and_it_is_told_how_it_goes(
    tmp_path: Path, start: Start
) -> None:
    trainer = start("well")
    with Bus(trainer.folder, "supervisor") as bus:
        heard, told = bus.subscriber("telemetry"), []
        while trainer.process.poll() is None:
            if message := heard.receive(0.05):
                told.append(message.header)
        while message := heard.receive(0):
            told.append(message.header)
    assert trainer.process.returncode == 0
    home = tmp_path / "r" / "P01"
    assert trainer.begun() == [
        [str(home / "a.xdf")], str(ROOT / "weights" / "scale-model"), str(home),
    ]  # fmt: skip
    assert {(h["from"], h["asked"]) for h in told} == {("trainer", 4.5)}
    assert (told[0]["state"], told[0]["done"], told[0]["what"]) == ("running", 0.5, "Testing.")
    assert (told[-1]["state"], told[-1]["done"]) == ("finished", 1.0)
    assert told[-1]["seconds"] >= told[0]["seconds"]


@pytest.mark.parametrize("manner", ["loading", "long", "deaf"])
def test_it_ends_when_asked_whatever_it_does(start: Start, manner: str) -> None:
    trainer = start(manner)
    trainer.begun()
    assert trainer.stop() < 10
    assert read_error(trainer.folder, "trainer") is None


def test_what_goes_wrong_reaches_the_supervisor_in_a_sentence(start: Start) -> None:
    trainer = start("full")
    assert trainer.process.wait(20) == ExitCode.OUTPUT
    assert read_error(trainer.folder, "trainer") == ("There is no room.", ExitCode.OUTPUT)
