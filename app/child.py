"""What the three child processes have in common: how they begin, stop and fail.

The supervisor starts a child as `python -m app.<module> FOLDER`, or has it forked
(`app.zygote`), with a pipe as its standard input. A byte in it asks the child to end. Its end
without a byte means that the supervisor is gone, however it died: then the child ends too, and
takes the session's folder away.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, NoReturn, Self

from app.errors import ExitCode, exit_code, sentence
from app.settings import Settings

Role = Literal["acquisition", "worker", "server", "recorder", "trainer", "guest"]
# Those of every session; recorder and trainer come and go, and a guest is a session's supervisor.
ROLES: tuple[Role, ...] = ("acquisition", "worker", "server")

# Seconds a child has to tidy up after its parent has gone. The house allows five until the
# last is gone, and on two busy cores a worker that loads torch needs three more to notice.
GRACE = 1.0


def write_session(
    folder: Path,
    settings: Settings,
    operator_token: str,
    viewer_token: str = "",
    guests: Sequence[Path] = (),
) -> None:
    """Write what the children need to know, readable by this user alone.

    Parameters
    ----------
    guests : folders of sessions that this one's worker paints for, too.
    """
    path = folder / "session.json"
    path.touch(mode=0o600)
    known = {
        "operator_token": operator_token,
        "viewer_token": viewer_token,
        "guests": [str(guest) for guest in guests],
    }
    path.write_text(json.dumps({"settings": settings.to_dict(), **known}), encoding="utf-8")


def read_error(folder: Path, role: Role) -> tuple[str, ExitCode] | None:
    """What a child that ended said; reading it takes it away."""
    path = folder / f"error.{role}.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return str(report["sentence"]), ExitCode(report["exit_code"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Child:
    """A child process of a session, seen from inside; made by `begin_child`.

    Used as a context manager, it turns an error that leaves the block into a report
    to the supervisor and an exit code.

    Attributes
    ----------
    role : which child this is.
    folder : of the session, for `app.bus.Bus`.
    settings : of the session.
    operator_token, viewer_token : secrets of the session; "" where none is needed.
    guests : folders of sessions that this one's worker paints for, too.
    stop : set when the process shall end; wait on it instead of sleeping.
    """

    def __init__(self, role: Role, folder: Path) -> None:
        session: dict[str, Any] = json.loads((folder / "session.json").read_text(encoding="utf-8"))
        self.role = role
        self.folder = folder
        self.settings = Settings.from_dict(session["settings"])
        self.operator_token: str = session["operator_token"]
        self.viewer_token: str = session["viewer_token"]
        self.guests = [Path(guest) for guest in session["guests"]]
        self.stop = threading.Event()

    def fail(self, error: Exception) -> NoReturn:
        """Tell the supervisor what went wrong, and end the process."""
        code = exit_code(error)
        if self.settings.debug:
            traceback.print_exception(error)
        report = {"sentence": sentence(error), "exit_code": int(code)}
        path = self.folder / f"error.{self.role}.json"
        try:
            unfinished = path.with_suffix(".part")
            unfinished.write_text(json.dumps(report), encoding="utf-8")
            unfinished.replace(path)
        except OSError:
            # The folder goes when the session ends: then nobody is left to read it.
            pass
        raise SystemExit(int(code))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            if self.stop.is_set():
                # Torn sockets while ending are nobody's news.
                raise SystemExit(int(ExitCode.OK)) from None
            self.fail(error)


def _watch_parent(folder: Path, grace: float) -> None:
    # Below Python's buffers: a thread that holds their lock stops the interpreter's end.
    if not os.read(0, 1):
        shutil.rmtree(folder, ignore_errors=True)
    # The main thread tidies up as for any other SIGTERM (uvicorn puts its own handler there).
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(int(ExitCode.FAILURE))


def set_up_logging(child: Child) -> None:
    """Let this process log as the session's settings say, and libraries warn nobody."""
    logging.basicConfig(
        level=child.settings.log_level.upper(),
        format=f"{child.role}: %(levelname)s %(name)s: %(message)s",
    )
    logging.captureWarnings(True)
    if not child.settings.debug:
        # What libraries warn their programmers of is nothing for people.
        logging.getLogger("py.warnings").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")


def session_folder() -> Path:
    """The session's folder: the last argument of the command."""
    folder = Path(sys.argv[-1])
    if not (folder / "session.json").is_file():
        raise SystemExit(f"There is no session in {folder}; `phosphene serve` starts one.")
    return folder


def begin_child(role: Role, grace: float = GRACE) -> Child:
    """Set up this process as the child `role`, as its first act.

    SIGTERM sets `Child.stop`, SIGINT is left to the supervisor, and a thread watches
    the parent. For the session's folder see `session_folder`.

    Parameters
    ----------
    grace : seconds to tidy up, once the end is asked for.
    """
    child = Child(role, session_folder())

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        child.stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, args=(child.folder, grace), daemon=True).start()
    set_up_logging(child)
    return child
