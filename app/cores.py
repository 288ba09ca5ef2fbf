"""How many of the machine's cores each process may keep busy."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Of a process that gives way; the highest is 19.
NICENESS = 10


def n_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_threads(setting: int) -> int:
    """CPU threads of the worker: as set, else all cores but one, which the others share."""
    return setting or max(1, n_cores() - 1)


def give_way() -> None:
    """Let this process compute with what others leave of the cores."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    # Where Linux groups processes by session (sched(7)), niceness counts within one only, and
    # every child has its own; the group has a niceness, too.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))
