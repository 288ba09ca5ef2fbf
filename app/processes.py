"""How the supervisor begins and ends a child process, be it a command or a fork of a zygote."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from signal import Signals

_CLOSED = -1
# Seconds from one zygote to the next, when they die and no worker is wanted.
BETWEEN_ZYGOTES = 5.0


def _popen(
    command: Sequence[str], environment: Mapping[str, str], stdin: int
) -> subprocess.Popen[bytes]:
    # A session of its own: the terminal's Ctrl-C is for the supervisor alone.
    return subprocess.Popen(command, stdin=stdin, env=environment, start_new_session=True)


class Process(ABC):
    """A child process that watches the pipe which is its standard input (`app.child`)."""

    _pipe: int

    def ask_to_end(self) -> None:
        """Write to the pipe and close it; no harm if that was done, or if the process has ended."""
        pipe, self._pipe = self._pipe, _CLOSED
        if pipe == _CLOSED:
            return
        with suppress(OSError):
            os.write(pipe, b"\n")
        os.close(pipe)

    @abstractmethod
    def poll(self) -> int | None:
        """The exit status, as `subprocess.Popen` gives it, or None while the process runs."""

    @abstractmethod
    def kill(self) -> None:
        """End the process if it runs, and wait until it has."""


class Started(Process):
    """A process started as a command."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        stdin, self._pipe = os.pipe()
        self._process = _popen(command, environment, stdin)
        os.close(stdin)

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Forked(Process):
    """A process that a zygote forks, as soon as it can.

    Parameters
    ----------
    zygote : the process that is asked; if it dies before it forks, so does this one.
    door : to the zygote, which its helper for one fork holds open as well: this process is to come
        until the answer is there, or nobody who could give it.
    """

    def __init__(self, zygote: subprocess.Popen[bytes], door: socket.socket) -> None:
        self._zygote = zygote
        self._door = door.dup()
        self._number: int | None = None
        self._status: int | None = None
        stdin, self._pipe = os.pipe()
        with suppress(OSError):  # the zygote has died, as `poll` will find
            socket.send_fds(door, [b"\n"], [stdin])
        os.close(stdin)

    def poll(self) -> int | None:
        if self._number is None:
            try:
                answer = self._door.recv(16)
            except BlockingIOError:
                return None
            except OSError:  # the zygote died before it heard, or the door is closed
                answer = b""
            self._door.close()
            if not answer:
                return self._zygote.poll()
            self._number = int(answer)
        if self._status is None:
            # For a moment the process is still its maker's child, not ours.
            with suppress(ChildProcessError):
                number, status = os.waitpid(self._number, os.WNOHANG)
                if number:
                    self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def kill(self) -> None:
        while self.poll() is None:
            if self._number:
                os.kill(self._number, Signals.SIGKILL)
            time.sleep(0.01)


class Zygote:
    """The process that forks (`app.zygote`), always there for the next fork.

    When it dies, what it forked lives on: that is the supervisor's own child.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        self._door, stdin = socket.socketpair()
        self._door.setblocking(False)
        with stdin:
            self._process = _popen(self._command, self._environment, stdin.fileno())

    def fork(self) -> Forked:
        """Ask for a new process."""
        if self._process.poll() is not None:
            self._start_again()
        return Forked(self._process, self._door)

    def attend(self) -> None:
        """Start it again if it has died, but not at every tick."""
        is_due = time.monotonic() - self._started >= BETWEEN_ZYGOTES
        if is_due and self._process.poll() is not None:
            self._start_again()

    def _start_again(self) -> None:
        self._door.close()
        self._start()

    def kill(self) -> None:
        """End it, and with it what it has not begun to fork yet."""
        self._process.kill()
        self._process.wait()
        self._door.close()
