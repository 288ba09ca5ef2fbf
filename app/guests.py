"""Begins and ends the sessions that share a worker with the first one."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.bus import Bus
from app.child import write_session
from app.guest import GRACE
from app.processes import Started
from app.session import child_commands, manner
from app.settings import Settings, child_environment

# Seconds between looks at whether all are there.
TICK = 0.5


@contextmanager
def guests(settings: Sequence[Settings], say: Callable[[str], None]) -> Iterator[list[Path]]:
    """Run guests while the context is open; their folders, for the worker.

    Parameters
    ----------
    settings : of each.
    say : takes sentences for the terminal.
    """
    with tempfile.TemporaryDirectory(prefix="phosphene-", ignore_cleanup_errors=True) as parent:
        folders = [Path(parent) / str(number) for number in range(len(settings))]
        for folder, of_one in zip(folders, settings, strict=True):
            Bus.make_folder(folder)
            # It makes secrets of its own when it begins.
            write_session(folder, of_one, "")
        processes = [
            Started(child_commands(folder)["guest"], child_environment(1)) for folder in folders
        ]
        ended = threading.Event()
        sources = [of_one.source for of_one in settings]
        watcher = threading.Thread(target=_watch, args=(processes, sources, say, ended))
        watcher.start()
        try:
            yield folders
        finally:
            ended.set()
            watcher.join()
            for process in processes:
                process.ask_to_end()
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline and any(p.poll() is None for p in processes):
                time.sleep(0.05)
            for process in processes:
                process.kill()


def _watch(
    processes: Sequence[Started],
    sources: Sequence[str],
    say: Callable[[str], None],
    ended: threading.Event,
) -> None:
    """Tell of guests that could not say themselves why they ended, until the end of all."""
    there = list(zip(sources, processes, strict=True))
    while there and not ended.wait(TICK):
        for source, process in list(there):
            status = process.poll()
            if status is None:
                continue
            there.remove((source, process))
            if status < 0:
                say(f"The session of {source} {manner(status)}; the others go on.")
