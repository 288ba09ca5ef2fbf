import subprocess
import sys
from pathlib import Path

import pytest

from acquisition.errors import MontageError
from app.child import Child, read_error, write_session
from app.errors import ExitCode
from app.settings import ROOT, Settings


@pytest.fixture
def session(tmp_path: Path) -> Path:
    write_session(tmp_path, Settings(seed=7), "operator", "viewer")
    return tmp_path


def test_settings_and_tokens_reach_the_child(session: Path) -> None:
    child = Child("worker", session)

    assert child.settings == Settings(seed=7)
    assert (child.operator_token, child.viewer_token) == ("operator", "viewer")


def test_only_this_user_may_read_the_tokens(session: Path) -> None:
    assert (session / "session.json").stat().st_mode & 0o077 == 0


def test_an_error_is_reported_once_with_its_code(session: Path) -> None:
    with pytest.raises(SystemExit) as caught, Child("acquisition", session):
        raise MontageError("Two electrodes are known.")

    assert caught.value.code == ExitCode.MONTAGE
    assert read_error(session, "worker") is None
    assert read_error(session, "acquisition") == ("Two electrodes are known.", ExitCode.MONTAGE)
    assert read_error(session, "acquisition") is None


def test_a_report_that_is_no_report_is_none(session: Path) -> None:
    for text in ("", "[]", '{"sentence": "x", "exit_code": 99}'):
        (session / "error.worker.json").write_text(text)
        assert read_error(session, "worker") is None


def test_what_breaks_while_ending_is_no_news(session: Path) -> None:
    child = Child("worker", session)
    child.stop.set()
    with pytest.raises(SystemExit) as caught, child:
        raise OSError("the socket is closed")

    assert caught.value.code == ExitCode.OK
    assert read_error(session, "worker") is None


def test_debug_shows_where(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_session(session, Settings(debug=True), "operator")
    with pytest.raises(SystemExit), Child("worker", session):
        raise KeyError("sfreq")

    assert "Traceback" in capsys.readouterr().err
    assert read_error(session, "worker") == (
        "Something unexpected happened (KeyError: 'sfreq'). Run again with --debug to see where.",
        ExitCode.FAILURE,
    )


BEGUN = """
import sys
from app.child import begin_child
with begin_child("worker") as child:
    print(child.settings.seed, flush=True)
    child.stop.wait(20)
print("tidied up", flush=True)
"""


def begin(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BEGUN, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("word", ["\n", ""])
def test_a_child_tidies_up_when_asked_and_when_its_parent_is_gone(session: Path, word: str) -> None:
    with begin(session) as process:
        assert process.stdout
        assert process.stdout.readline() == "7\n"
        out, err = process.communicate(word, timeout=10)

    assert (out, err) == ("tidied up\n", "")
    # A parent that asks looks after the folder itself.
    assert session.exists() is bool(word)


def test_sigterm_ends_a_child_tidily(session: Path) -> None:
    with begin(session) as process:
        assert process.stdout
        assert process.stdout.readline() == "7\n"
        process.terminate()
        assert process.stdout.readline() == "tidied up\n"


def test_without_a_session_a_child_says_so(tmp_path: Path) -> None:
    with begin(tmp_path / "gone") as process:
        _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "There is no session in" in err
    assert "Traceback" not in err
