"""How many of the machine's cores each process may keep busy."""

from __future__ import annotations

import os


def n_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_threads(setting: int) -> int:
    """CPU threads of the worker: as set, else all cores but one, which the others share."""
    return setting or max(1, n_cores() - 1)
