import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import app.serve
from acquisition.simulated_subject import CH_NAMES
from app.cli import app as commands
from app.errors import AddressError, ExitCode
from app.scale_model import app as scale_model
from app.serve import listen_once, recording_source
from app.settings import ROOT, TEXTS, Settings, flag_name
from tests.command import run


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Enough of a bundle for what looks at it without torch."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "epoch_spec.json").write_text(json.dumps({"ch_names": list(CH_NAMES)}))
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of the sessions that would have run."""
    ran: list[Settings] = []

    class Fake:
        def __init__(self, settings: Settings, *_: object, **__: object) -> None:
            ran.append(settings)

        def run(self) -> None:
            pass

    monkeypatch.setattr(app.serve, "Session", Fake)
    return ran


def test_help_answers_at_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['phosphene', '--help']\n"
        "from app.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mne', 'pylsl', 'brainflow', 'numpy', 'scipy', 'fastapi', 'zmq'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    before = os.times().children_user
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    # 0.1 s on a quiet machine; the processor's time, since tests may share it.
    assert os.times().children_user - before < 1
    for command in ("demo", "serve", "sources", "replay", "prepare", "pretrain", "finetune",
                    "distill", "scale-model", "evaluate", "results", "import", "export",
                    "doctor"):  # fmt: skip
        assert command in result.stdout


def test_help_lists_the_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for code in ExitCode:
        assert f"{code.value} " in text
    assert "8 the electrodes cannot be mapped to the bundle's" in text


def test_serve_has_a_flag_for_every_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "serve", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, described in TEXTS.items():
        assert flag_name(name) in text
        assert described[:20] in text


def test_every_command_has_a_help_text() -> None:
    for command in (*commands.registered_commands, *scale_model.registered_commands):
        assert command.callback is not None
        assert (command.callback.__doc__ or "").strip().endswith(".")


def test_flags_reach_the_session(
    monkeypatch: pytest.MonkeyPatch, sessions: list[Settings], bundle: Path, tmp_path: Path
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("seed = 5\nthreads = 3\n")
    monkeypatch.setenv("PHOSPHENE_THREADS", "2")

    code = run(
        monkeypatch, "serve", "--source", "simulated:?seed=1", "--bundle", str(bundle), "--port",
        "0", "--ch-names", "Fp1,Fp2,Cz", "--no-open-browser", "--config", str(config),
    )  # fmt: skip

    assert code == 0
    [settings] = sessions
    assert settings.source == "simulated:?seed=1"
    assert settings.ch_names == ("Fp1", "Fp2", "Cz")
    assert (settings.seed, settings.threads, settings.open_browser) == (5, 2, False)
    assert settings.port > 0
    assert settings.bundle == str(bundle)


def test_further_sources_are_guests_with_ports_and_settings_of_their_own(
    monkeypatch: pytest.MonkeyPatch, sessions: list[Settings], bundle: Path, tmp_path: Path
) -> None:
    begun: list[Settings] = []

    @contextmanager
    def guests(settings: list[Settings], _: object) -> Iterator[list[Path]]:
        begun.extend(settings)
        yield []

    monkeypatch.setattr(app.serve, "guests", guests)
    ports = iter([4000, 4001, 4001, 4002])
    monkeypatch.setattr(app.serve, "listen_once", lambda *_: next(ports))
    assert run(
        monkeypatch, "serve", "--bundle", str(bundle), "--port", "0", "--seed", "3",
        "--also", "simulated:?subject=1,lsl:name=Muse", "--marker-outlet", "first",
        "--summary", str(tmp_path / "first.json"),
    ) == 0  # fmt: skip
    [first] = sessions
    assert (first.source, first.port, first.marker_outlet) == ("simulated:", 4000, "first")
    assert [s.source for s in begun] == ["simulated:?subject=1", "lsl:name=Muse"]
    assert {s.port for s in begun} == {4001, 4002}
    for settings in begun:
        assert (settings.also, settings.summary, settings.marker_outlet) == ((), "", "")
        assert (settings.seed, settings.bundle) == (3, first.bundle)


def test_which_epochs_are_painted_is_found_unless_it_is_told(
    monkeypatch: pytest.MonkeyPatch, sessions: list[Settings], bundle: Path
) -> None:
    command = ("demo", "--bundle", str(bundle), "--port", "0")
    assert run(monkeypatch, *command) == 0
    assert run(monkeypatch, *command, "--epochs", "sliding") == 0
    assert run(monkeypatch, "serve", "--bundle", str(bundle), "--port", "0") == 0
    assert [s.epochs for s in sessions] == ["auto", "sliding", "auto"]


def test_demo_takes_another_port_when_its_own_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    sessions: list[Settings],
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def first_is_taken(host: str, port: int) -> int:
        if port == 8765:
            raise AddressError(f"{host}:8765 is taken by another program.")
        return port or 4321

    monkeypatch.setattr(app.serve, "listen_once", first_is_taken)
    assert run(monkeypatch, "demo", "--bundle", str(bundle)) == 0
    assert (sessions[0].port, sessions[0].source) == (4321, "simulated:")
    assert "Port 8765 is taken; using 4321." in capsys.readouterr().err

    assert run(monkeypatch, "serve", "--bundle", str(bundle)) == ExitCode.ADDRESS


def test_a_recording_is_replayed_as_a_source(
    monkeypatch: pytest.MonkeyPatch, sessions: list[Settings], bundle: Path
) -> None:
    arguments = ("--bundle", str(bundle), "--port", "0")
    assert run(monkeypatch, "replay", "a.xdf", "--speed", "2", "--loop", *arguments) == 0
    assert run(monkeypatch, "replay", "b.edf", *arguments) == 0
    assert [s.source for s in sessions] == ["xdf:a.xdf?speed=2&loop=true", "file:b.edf"]


BAD = [
    (ExitCode.USAGE, ["serve", "--nonsense"], "No such option"),
    (ExitCode.USAGE, ["serve", "--port", "x"], "port expects a whole number, not 'x'"),
    (ExitCode.USAGE, ["serve", "--epochs", "all"], "--epochs expects one of auto"),
    (ExitCode.USAGE, ["serve", "--host", "0.0.0.0"], "--allow-remote"),
    (ExitCode.SOURCE, ["serve", "--source", "nonsense"], "'nonsense' is not a source"),
    (ExitCode.SOURCE, ["serve", "--also", "simulated:,nonsense"], "'nonsense' is not a source"),
    (ExitCode.BUNDLE, ["serve", "--bundle", "nowhere"], "There is no bundle at"),
    (ExitCode.OUTPUT, ["serve", "--summary", "/nowhere/x.json"], "summary cannot be written"),
    (ExitCode.SOURCE_NOT_FOUND, ["prepare", "out", "nowhere.edf"], "no recording nowhere.edf"),
    (ExitCode.SOURCE_NOT_FOUND, ["replay", "nowhere.xdf", "--lsl"], "no recording nowhere.xdf"),
    (ExitCode.USAGE, ["prepare", "out"], "found none"),
    (ExitCode.TRAINING, ["scale-model", "vae", "nowhere", "out"], "nowhere is not a prepared set"),
    (ExitCode.TRAINING, ["scale-model", "clip", "a", "b", "--steps", "0"], "--steps expects a"),
    (ExitCode.USAGE, ["scale-model", "judge", "a", "b"], "--held-out"),
    (ExitCode.BUNDLE, ["distill", "nowhere", "a", "b"], "There is no bundle at"),
    (ExitCode.TRAINING, ["distill", "a", "b", "c", "--guidance", "0.5"], "--guidance expects 0"),
]


@pytest.mark.parametrize(("code", "arguments", "sentence"), BAD)
def test_a_bad_argument_gets_its_sentence_and_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    tmp_path: Path,
    code: ExitCode,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--bundle" not in arguments:
        monkeypatch.setenv("PHOSPHENE_BUNDLE", str(bundle))
    assert run(monkeypatch, *arguments) == code
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err


def test_a_bundle_that_was_not_copied_whole_is_known_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
    sessions: list[Settings],
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
) -> None:
    (bundle / "vae.safetensors").write_bytes(b"cut off")
    assert run(monkeypatch, "serve", "--bundle", str(bundle), "--port", "0") == ExitCode.BUNDLE
    assert "vae.safetensors does not hold weights" in capsys.readouterr().err
    assert sessions == []


def test_a_damaged_specification_is_the_bundles_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    for text in ("{", "[]", '{"ch_names": []}', '{"ch_names": 3}', '{"n_times": 5}'):
        (bundle / "epoch_spec.json").write_text(text)
        assert run(monkeypatch, "serve", "--bundle", str(bundle)) == ExitCode.BUNDLE
        assert "epoch_spec.json" in capsys.readouterr().err


def test_a_taken_address_is_said_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sessions: list[Settings],
    bundle: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code = run(monkeypatch, "serve", "--bundle", str(bundle), "--port", port)
    assert code == ExitCode.ADDRESS
    assert f"127.0.0.1:{port} is taken by another program. Choose" in capsys.readouterr().err
    assert sessions == []


def test_tracebacks_are_shown_only_with_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "serve", "--bundle", "nowhere") == ExitCode.BUNDLE
    assert "Traceback" not in capsys.readouterr().err
    assert run(monkeypatch, "serve", "--bundle", "nowhere", "--debug") == ExitCode.BUNDLE
    assert "Traceback" in capsys.readouterr().err


def test_a_defect_is_one_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(app.serve, "find_bundle", broken)
    assert run(monkeypatch, "serve", "--bundle", str(bundle)) == ExitCode.FAILURE
    assert capsys.readouterr().err == (
        "Something unexpected happened (ZeroDivisionError: division by zero). "
        "Run again with --debug to see where.\n"
    )


def test_doctor_fails_where_something_must_be_mended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.doctor import Finding

    findings = [Finding("Python", "ok", "3.11"), Finding("LSL", "warn", "old", "Upgrade.")]
    monkeypatch.setattr("app.doctor.examine", lambda _: findings)
    assert run(monkeypatch, "doctor", "--json") == 0
    assert json.loads(capsys.readouterr().out)[1]["remedy"] == "Upgrade."
    findings.append(Finding("Bundle", "fail", "none", "Give one."))
    assert run(monkeypatch, "doctor") == ExitCode.DOCTOR


def test_a_recordings_source_has_no_question_mark_in_its_file() -> None:
    assert recording_source(Path("A.XDF")) == "xdf:A.XDF"
    with pytest.raises(Exception, match="no question mark"):
        recording_source(Path("what?.edf"))


def test_port_zero_takes_a_free_one() -> None:
    assert listen_once("127.0.0.1", 0) > 0
    with pytest.raises(AddressError, match="cannot be listened on"):
        listen_once("192.0.2.1", 0)


def test_prepare_writes_a_set(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "set"
    code = run(
        monkeypatch, "prepare", str(out), "--source", "simulated:?session=1", "--seconds", "12",
        "--bundle", str(bundle), "--epochs", "sliding,marker-locked",
    )  # fmt: skip
    assert code == 0
    assert (out / "spec.json").is_file()
    assert "epochs" in capsys.readouterr().err


@pytest.mark.slow
def test_bad_input_in_a_child_ends_serve_with_its_sentence(bundle: Path, tmp_path: Path) -> None:
    """A real acquisition process; the others would need torch and the page."""
    code = (
        "import sys, app.session\n"
        "from app.cli import main\n"
        "made = app.session.child_commands\n"
        "app.session.Session.__init__.__defaults__ = (\n"
        "    lambda folder: {'acquisition': made(folder)['acquisition']}, None, (), None)\n"
        f"sys.argv = ['phosphene', 'serve', '--port', '0', '--bundle', {str(bundle)!r},\n"
        "            '--source', sys.argv[1]]\n"
        "main()\n"
    )
    few = tmp_path / "few.csv"
    rows = [f"{i / 256},1.0,2.0" for i in range(512)]
    few.write_text("\n".join(["timestamps,TP9,AF7", *rows]) + "\n")
    cut = tmp_path / "cut.xdf"
    cut.write_bytes(b"XDF:\x01")
    for source, expected in (
        (f"file:{few}", ExitCode.MONTAGE),
        (f"xdf:{cut}", ExitCode.RECORDING),
        ("file:nowhere.edf", ExitCode.SOURCE_NOT_FOUND),
    ):
        result = subprocess.run(
            [sys.executable, "-c", code, source],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert result.returncode == expected, (source, result.stderr)
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_ctrl_c_ends_a_replay_to_lsl_quietly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from acquisition import lsl_replay
    from acquisition.lsl_replay import Pushed
    from acquisition.source import SourceOptions
    from app.lsl_outlets import send_to_lsl

    stopped = threading.Event()

    class Fake:
        duration = 10.0

        def __init__(self, *_: object) -> None:
            pass

        def wait_for_consumer(self, timeout: float) -> bool:
            assert timeout == float("inf")
            os.kill(os.getpid(), signal.SIGINT)
            return stopped.wait(5)

        def run(self) -> list[Pushed]:
            return [Pushed("EEG", "EEG", 0, False)]

        def stop(self) -> None:
            stopped.set()

        def close(self) -> None:
            pass

    monkeypatch.setattr("app.lsl_outlets.load_streams", lambda *_: [])
    monkeypatch.setattr("app.lsl_outlets.LSLReplay", Fake)
    said: list[str] = []

    send_to_lsl(tmp_path / "a.xdf", SourceOptions(), said.append)

    assert stopped.is_set()
    assert said[0] == lsl_replay.WARNING
    assert said[-1] == "Sent 0 samples of 'EEG' (EEG), and nobody listened."
