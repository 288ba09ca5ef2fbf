"""Begins and ends the sessions that share a worker with the first one."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.bus import Bus
from app.child import write_session
from app.guest import GRACE
from app.processes import Started
from app.settings import Settings, child_environment


@contextmanager
def guests(settings: Sequence[Settings]) -> Iterator[list[Path]]:
    """Run guests of these settings while the context is open; their folders, for the worker."""
    with tempfile.TemporaryDirectory(prefix="phosphene-", ignore_cleanup_errors=True) as parent:
        folders = [Path(parent) / str(number) for number in range(len(settings))]
        for folder, of_one in zip(folders, settings, strict=True):
            Bus.make_folder(folder)
            # It makes secrets of its own when it begins.
            write_session(folder, of_one, "")
        processes = [
            Started([sys.executable, "-P", "-m", "app.guest", str(folder)], child_environment(1))
            for folder in folders
        ]
        try:
            yield folders
        finally:
            for process in processes:
                process.ask_to_end()
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline and any(p.poll() is None for p in processes):
                time.sleep(0.05)
            for process in processes:
                process.kill()
