"""Begins and ends the sessions that share a worker with the first one."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from app.bus import Bus
from app.child import write_session
from app.guest import GRACE
from app.processes import Started
from app.settings import Settings, child_environment


class Guests:
    """Begins sessions that share a worker, and ends them with the context.

    Parameters
    ----------
    settings : of each.

    Attributes
    ----------
    folders : of each, for the worker.
    """

    def __init__(self, settings: Sequence[Settings]) -> None:
        self._settings = settings
        self._stack = ExitStack()
        self._processes: list[Started] = []
        self.folders: list[Path] = []

    def __enter__(self) -> Self:
        parent = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="phosphene-", ignore_cleanup_errors=True)
        )
        for number, settings in enumerate(self._settings):
            folder = Path(parent) / str(number)
            Bus.make_folder(folder)
            # It makes secrets of its own when it begins.
            write_session(folder, settings, "")
            self.folders.append(folder)
            command = [sys.executable, "-P", "-m", "app.guest", str(folder)]
            self._processes.append(Started(command, child_environment(1)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.ask_to_end()
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(p.poll() is None for p in self._processes):
            time.sleep(0.05)
        for process in self._processes:
            process.kill()
        self._stack.close()
