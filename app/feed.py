"""Markers and stimuli as they happen, for programs: lines of JSON (`GET /api/events`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

# Lines that wait for a slow reader; further ones are counted instead.
MOST_WAITING = 1024


class _Reader:
    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.n_missed = 0


class Feed:
    """One stream of events to any number of readers; used by the event loop alone."""

    def __init__(self) -> None:
        self._readers: set[_Reader] = set()

    def add(self, event: dict[str, Any]) -> None:
        """Give everyone an event."""
        for reader in self._readers:
            if reader.lines.qsize() >= MOST_WAITING:
                reader.n_missed += 1
                continue
            if reader.n_missed:
                reader.lines.put_nowait(_line({"type": "missed", "n": reader.n_missed}))
                reader.n_missed = 0
            reader.lines.put_nowait(_line(event))

    async def lines(self) -> AsyncIterator[bytes]:
        """What happens from now on, one line for each event, until `end`."""
        reader = _Reader()
        self._readers.add(reader)
        try:
            # At once, so that a reader knows that it is connected.
            yield _line({"type": "begin"})
            while (line := await reader.lines.get()) is not None:
                yield line
        finally:
            self._readers.discard(reader)

    def end(self) -> None:
        """Let every reader's stream end."""
        for reader in self._readers:
            reader.lines.put_nowait(None)


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"
