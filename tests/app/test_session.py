import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import app.session
from app.bus import Publisher
from app.child import ROLES, Role
from app.errors import ChildFailedError, ExitCode, SummaryError
from app.session import Addresses, Commands, Session, child_commands
from app.settings import Settings
from app.summary import STAGES, Summary, check_writable, percentiles, write_summary
from app.trainer import RECORDING_GOES_ON

FAKE = Path(__file__).with_name("fake_child.py")
# Linux: a file that takes nothing.
FULL_DISK = Path("/dev/full")


def fakes(pids: Path, has_zygote: bool = True, **manners: str) -> Callable[[Path], Commands]:
    """Commands of fake children; `manners` by role, "well" where none is named."""

    def command(name: str, role: Role, folder: Path) -> list[str]:
        return [sys.executable, str(FAKE), name, manners.get(role, "well"), str(pids), str(folder)]

    def commands(folder: Path) -> Commands:
        roles: tuple[Role, ...] = (*ROLES, "recorder", "trainer")
        started: Commands = {role: command(role, role, folder) for role in roles}
        zygote: Commands = {"zygote": command("app.zygote", "worker", folder)}
        return {**started, **zygote} if has_zygote else started

    return commands


def pid_of(pids: Path, role: str, generation: int = 0) -> int:
    return int((pids / f"{role}.{generation}").read_text())


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("has_zygote", [False, True])
def test_ctrl_c_ends_all_children_and_writes_the_summary(tmp_path: Path, has_zygote: bool) -> None:
    out = tmp_path / "summary.json"
    said: list[str] = []
    settings = Settings(duration=60, summary=str(out))
    session = Session(settings, said.append, lambda _: interrupt(), fakes(tmp_path, has_zygote))

    session.run()

    assert not any(is_alive(int(path.read_text())) for path in tmp_path.glob("*.0"))
    assert said == []
    summary = json.loads(out.read_text())
    assert summary["duration_s"] < 30
    assert summary["frames_sent"] == 20


def test_the_address_carries_the_token_in_its_fragment(tmp_path: Path) -> None:
    told: list[Addresses] = []

    def on_address(addresses: Addresses) -> None:
        told.append(addresses)
        interrupt()

    Session(Settings(port=4321), print, on_address, fakes(tmp_path)).run()

    [addresses] = told
    page, _, token = addresses.operator.partition("#operator=")
    assert page == addresses.viewers == "http://127.0.0.1:4321/"
    assert len(token) >= 32


def test_beyond_this_machine_viewers_have_a_token_of_their_own() -> None:
    settings = Settings(host="::", allow_remote=True, tls_cert="c", tls_key="k", port=4321)
    addresses = Session(settings, print, lambda _: None).addresses()

    page, _, token = addresses.viewers.partition("#viewer=")
    assert page == f"https://{socket.gethostname()}:4321/"
    assert len(token) >= 32
    assert token not in addresses.operator


def test_no_address_is_told_before_there_is_eeg(tmp_path: Path) -> None:
    said: list[Addresses] = []
    commands = fakes(tmp_path, acquisition="montage")
    with pytest.raises(ChildFailedError):
        Session(Settings(duration=60), print, said.append, commands).run()
    assert said == []


@pytest.mark.parametrize("has_zygote", [False, True])
def test_a_killed_child_is_started_again_and_counted(tmp_path: Path, has_zygote: bool) -> None:
    out = tmp_path / "summary.json"
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        if sentence == "The worker process is back.":
            interrupt()

    settings = Settings(duration=60, summary=str(out))
    Session(
        settings,
        say,
        lambda _: os.kill(pid_of(tmp_path, "worker"), signal.SIGKILL),
        fakes(tmp_path, has_zygote),
    ).run()

    assert said[0] == (
        "The worker process was ended by SIGKILL. Starting the worker again in 0.2 s."
    )
    assert said[-1] == "The worker process is back."
    assert not is_alive(pid_of(tmp_path, "worker", 1))
    restarts = json.loads(out.read_text())["restarts"]
    assert restarts == {"acquisition": 0, "worker": 1, "server": 0}


def test_telemetry_says_which_child_is_restarting(tmp_path: Path) -> None:
    # This server notes how the worker is said to be, and stops the session when it is back.
    Session(
        Settings(duration=60),
        lambda _: None,
        lambda _: os.kill(pid_of(tmp_path, "worker"), signal.SIGKILL),
        fakes(tmp_path, server="listens"),
    ).run()

    assert json.loads((tmp_path / "heard.json").read_text())[-2:] == [
        {
            "state": "restarting",
            "restarts": 1,
            "message": "The worker process was ended by SIGKILL.",
        },
        {"state": "running", "restarts": 1, "message": ""},
    ]


class Asked:
    """A session whose operator does one thing after the other, as a training goes on or ends."""

    def __init__(self, pids: Path, **manners: str) -> None:
        self.states: list[dict[str, object]] = []
        self.said: list[str] = []
        self.session = Session(
            Settings(duration=30), self.said.append, self._begin, fakes(pids, **manners)
        )
        self.tell, self.session._tell = self.session._tell, self._note  # type: ignore[method-assign]
        self.actions: list[dict[str, object]] = []

    def _begin(self, _: Addresses) -> None:
        self.session._control(self.actions.pop(0))

    def _note(self, publisher: Publisher, last: tuple[float, object]) -> tuple[float, object]:
        training = self.session._training
        if training is not None and training not in self.states:
            self.states.append(training)
        # What was asked for has begun; whatever comes next comes after a moment of it.
        trainer = self.session._children.get("trainer")
        is_quiet = training is not None
        if trainer:
            is_quiet = trainer.was_ever_ready and not trainer.is_dismissed
        if is_quiet:
            self.session._control(self.actions.pop(0) if self.actions else {"action": "stop"})
        return self.tell(publisher, last)

    def run(self, *actions: dict[str, object]) -> list[tuple[object, ...]]:
        self.actions = list(actions)
        self.session.run()
        return [(s["subject"], s["asked"], s["state"], s["message"]) for s in self.states]


def train(asked: float, subject: str = "P01") -> dict[str, object]:
    return {"action": "train", "subject": subject, "asked": asked}


def test_a_training_comes_and_goes_while_the_session_goes_on(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    # While one goes on a second changes nothing; stopped, it begins anew.
    found = asked.run(train(1.0), train(2.0, "P02"), {"action": "stop-training"}, train(3.0))
    assert found == [
        ("P01", 1.0, "running", ""), ("P01", 1.0, "stopped", ""), ("P01", 3.0, "running", ""),
    ]  # fmt: skip
    assert asked.said == []
    assert len(list(tmp_path.glob("trainer.*"))) == 2
    assert not any(is_alive(pid_of(tmp_path, "trainer", n)) for n in (0, 1))


def test_what_is_asked_of_the_trainer_lies_in_the_sessions_folder(tmp_path: Path) -> None:
    asked, found = Asked(tmp_path), list[object]()
    begin = asked._begin

    def look(addresses: Addresses) -> None:
        begin(addresses)
        path = asked.session._folder / "training.json"
        found.append(json.loads(path.read_text()))

    asked.session._on_address = look
    asked.run(train(1.5))
    assert found == [{"subject": "P01", "asked": 1.5}]


def test_a_training_that_is_done_leaves_no_child_behind(tmp_path: Path) -> None:
    found = Asked(tmp_path, trainer="done").run(train(1.0), train(2.0))
    assert [row[1:3] for row in found] == [
        (1.0, "running"), (1.0, "finished"), (2.0, "running"), (2.0, "finished"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("manner", "sentence"),
    [
        ("montage", "Two electrodes are known; three are needed."),
        ("silent", "The trainer process ended unexpectedly with exit code 7."),
    ],
)
def test_a_training_that_fails_is_told_and_not_begun_again(
    tmp_path: Path, manner: str, sentence: str
) -> None:
    asked = Asked(tmp_path, trainer=manner)
    assert asked.run(train(1.0))[-1] == ("P01", 1.0, "failed", sentence)
    assert asked.said == [sentence]
    assert len(list(tmp_path.glob("trainer.*"))) == 1


def test_nobody_is_trained_while_a_recording_goes_on(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    request = {"subject": "P01", "keep_days": 1, "has_consent": True}
    asked.session._on_address = lambda _: (
        asked.session._control({"action": "record", "request": request}),
        asked.session._control(train(1.0)),
    )[0]
    [found] = asked.run()
    assert found == ("P01", 1.0, "failed", RECORDING_GOES_ON)
    assert list(tmp_path.glob("trainer.*")) == []


def test_bad_input_ends_the_session_with_the_childs_sentence_and_code(tmp_path: Path) -> None:
    session = Session(
        Settings(duration=60), print, lambda _: None, fakes(tmp_path, acquisition="montage")
    )
    with pytest.raises(ChildFailedError, match="Two electrodes are known; three") as caught:
        session.run()

    assert caught.value.exit_code is ExitCode.MONTAGE
    assert not any(is_alive(int(path.read_text())) for path in tmp_path.glob("*.0"))
    assert not list(tmp_path.glob("acquisition.1"))


def test_a_child_that_never_gets_ready_is_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.session, "MOST_EARLY_DEATHS", 2)
    said: list[str] = []
    session = Session(
        Settings(duration=60), said.append, lambda _: None, fakes(tmp_path, worker="silent")
    )
    with pytest.raises(ChildFailedError, match="ended unexpectedly with exit code 7") as caught:
        session.run()

    assert caught.value.exit_code is ExitCode.FAILURE
    assert [s for s in said if "Starting the worker again" in s]
    assert len(list(tmp_path.glob("worker.*"))) == 2


def test_a_defect_is_named_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app.session, "MOST_EARLY_DEATHS", 1)
    session = Session(
        Settings(duration=60), print, lambda _: None, fakes(tmp_path, worker="defect")
    )
    with pytest.raises(ChildFailedError, match=r"KeyError: 'sfreq'.*--debug"):
        session.run()

    assert "Traceback" not in capfd.readouterr().err


def test_the_operator_may_stop_the_session_from_the_page(tmp_path: Path) -> None:
    started = time.monotonic()
    Session(Settings(duration=60), print, lambda _: None, fakes(tmp_path, server="stops")).run()
    assert time.monotonic() - started < 30


def test_the_session_ends_by_itself_after_its_duration(tmp_path: Path) -> None:
    out = tmp_path / "summary.json"
    Session(Settings(duration=1.5, summary=str(out)), print, lambda _: None, fakes(tmp_path)).run()
    assert 1.5 <= json.loads(out.read_text())["duration_s"] < 6


def test_a_child_that_does_not_listen_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.session, "PATIENCE", 0.3)
    Session(
        Settings(duration=60), print, lambda _: interrupt(), fakes(tmp_path, worker="deaf")
    ).run()
    assert not is_alive(pid_of(tmp_path, "worker"))


SUPERVISOR = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from app.session import Session
from app.settings import Settings
from test_session import fakes
up = lambda _: print("up", flush=True)
Session(Settings(duration=30), print, up, fakes(Path({pids!r}))).run()
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, as sockets need."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path, short: Path) -> None:
    code = SUPERVISOR.format(tests=str(FAKE.parent), pids=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(short)},
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "up\n"
        pids = [int(path.read_text()) for path in tmp_path.glob("*.0")]
        assert len(pids) == (4 if sys.platform == "linux" else 3)
        assert all(map(is_alive, pids))
        supervisor.kill()

    deadline = time.monotonic() + 5
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
    assert not list(short.glob("phosphene-*")), "the session's folder stays behind"


def test_the_commands_ignore_an_app_in_the_working_directory() -> None:
    for command in child_commands(Path("/session")).values():
        assert command[1] == "-P"
        assert command[-1] == "/session"


def test_counters_go_on_over_restarts() -> None:
    summary = Summary("simulated:", "weights")
    summary.add({"from": "worker", "frames_painted": 3, "painted_ms": [10.0]})
    summary.add({"from": "worker", "frames_painted": 7, "painted_ms": [20.0]})
    summary.restarted("worker")
    summary.add({"from": "worker", "frames_painted": 2, "painted_ms": [30.0]})

    told = summary.to_dict(60)

    assert told["frames_painted"] == 9
    assert told["latency_ms"]["painted"] == {"p50": 20.0, "p95": 29.0, "p99": 29.8}
    assert told["restarts"] == {"acquisition": 0, "worker": 1, "server": 0}


def test_the_stages_of_first_use_are_summed_up() -> None:
    summary = Summary("simulated:", "weights")
    for samples in ([10.0], [20.0, 30.0]):
        summary.add({"from": "server", "stages_ms": {"encoded": samples, "drawn": []}})
    told = summary.to_dict(60)["stages_ms"]
    assert told["encoded"]["p50"] == 20.0
    assert told["drawn"]["p50"] is None
    assert list(told) == list(STAGES)


def test_what_was_never_told_is_null() -> None:
    told = Summary("simulated:", "weights").to_dict(1)

    names = ("frames_painted", "frames_sent", "frames_drawn", "frames_replaced",
             "samples_in", "samples_lost", "honesty")  # fmt: skip
    assert all(told[name] is None for name in names)
    assert told["latency_ms"]["drawn"] == {"p50": None, "p95": None, "p99": None}


def test_a_single_sample_is_every_percentile() -> None:
    assert percentiles([4.0]) == {"p50": 4.0, "p95": 4.0, "p99": 4.0}


def test_an_unwritable_summary_is_known_before(tmp_path: Path) -> None:
    with pytest.raises(SummaryError, match="folder that exists"):
        check_writable(tmp_path / "nowhere" / "summary.json")
    with pytest.raises(SummaryError, match="is not a file"):
        check_writable(tmp_path)


@pytest.mark.skipif(not FULL_DISK.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_known_before_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    for write in (check_writable, lambda path: write_summary(path, {"frames_painted": 1})):
        (tmp_path / ".summary.json.part").symlink_to(FULL_DISK)
        with pytest.raises(SummaryError, match="No space left on device"):
            write(path)
        assert list(tmp_path.iterdir()) == []


def test_checking_and_writing_leave_only_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old"
    write_summary(path, {"frames_painted": 1})
    assert json.loads(path.read_text()) == {"frames_painted": 1}
    assert list(tmp_path.iterdir()) == [path]
