"""The zygote: it has imported what a worker needs, and each worker is a fork of it.

Importing torch and diffusers takes most of the time that a worker needs to begin; a fork takes
none. What makes the fork safe: until then there is one thread, no model, no bus and no CUDA.
Linux alone: elsewhere a worker is started as a command (`app.processes`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from pathlib import Path

from app.child import Child, session_folder, set_up_logging

# From Linux's <sys/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

REFUSED = "The system lets no worker begin ({}). Close other programs, or raise the limit."


def _prctl(option: int, value: int) -> bool:
    unused = ctypes.c_ulong(0)
    arguments = (option, ctypes.c_ulong(value), unused, unused, unused)
    return bool(ctypes.CDLL(None).prctl(*arguments) == 0)


def adopt_orphans() -> bool:
    """Become the parent of what a zygote forks; False where the system has no such thing."""
    return sys.platform == "linux" and _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _fork(door: socket.socket, pipe: int) -> bool:
    """Fork a worker whose standard input is `pipe`; True in the worker."""
    try:
        middle = os.fork()
    except OSError as error:
        raise SystemExit(REFUSED.format(error.strerror)) from error
    if middle:
        os.close(pipe)
        if os.waitpid(middle, 0)[1]:
            # The supervisor sees the zygote end, and begins again after a while.
            raise SystemExit(REFUSED.format("no second process"))
        return False
    # The worker's parent ends at once: the supervisor becomes its parent (`adopt_orphans`).
    try:
        worker = os.fork()
    except OSError:
        os._exit(1)
    if worker:
        door.send(str(worker).encode())
        os._exit(0)
    os.setsid()
    os.dup2(pipe, door.detach())
    os.close(pipe)
    return True


def _rename() -> None:
    """Let process lists show a worker's command, as long as the zygote's, in its place."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    start, end = (int(field) for field in fields[45:47])  # arg_start and arg_end of proc(5)
    command = ctypes.string_at(start, end - start).replace(b"\0app.zygote\0", b"\0app.worker\0")
    ctypes.memmove(start, command, len(command))


def serve_forks() -> None:
    """Fork a worker whenever the supervisor asks; returns in workers, and only there.

    Each request on standard input, a socket, carries the worker's standard input; the answer is
    the worker's process number.
    """
    # Workers that collected their zygote's garbage would write to, and so copy, what they share.
    gc.freeze()
    with socket.socket(fileno=0) as door:
        while True:
            _, pipes, *_ = socket.recv_fds(door, 1, 1)
            if not pipes:
                raise SystemExit  # the supervisor has closed its end
            if _fork(door, *pipes):
                break
    gc.enable()
    _rename()


def main() -> None:
    """Run as the supervisor's zygote."""
    # While it imports it reads nothing, and would not see that the supervisor is gone.
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Next to nothing that is made by an import is garbage: to look for it takes two seconds.
    gc.disable()
    with Child("worker", session_folder()) as child:
        set_up_logging(child)
        import app.worker
        from app.painter_import import import_painter

        import_painter(child.settings.bundle)
    serve_forks()
    app.worker.main()


if __name__ == "__main__":
    main()
