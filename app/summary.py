"""What happened in a session, added up over its children's restarts."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.child import ROLES, Role
from app.errors import SummaryError

COUNTERS: dict[Role, tuple[str, ...]] = {
    "acquisition": ("samples_in", "samples_lost"),
    "worker": ("frames_painted",),
    "server": ("frames_sent", "frames_drawn", "frames_replaced"),
}
# What first use is made of, from the last sample of an epoch on: until the epoch is on the bus, its
# EEG is encoded, a frame is painted, the flash guard has let it through and it is compressed, it is
# sent, it has arrived in the page, and it is drawn.
STAGES = ("published", "encoded", "painted", "compressed", "sent", "received", "drawn")
# Newest first-use samples kept: seven hours at four pictures a second, 3 MB.
KEPT = 100_000
# Bytes that a summary never reaches; it takes some 1,500.
ENOUGH = 4096


def percentiles(samples: Iterable[float]) -> dict[str, float | None]:
    """The 50th, 95th and 99th percentile, interpolated; None where there is no sample.

    >>> percentiles([1.0, 2.0, 3.0])
    {'p50': 2.0, 'p95': 2.9, 'p99': 2.98}
    """
    ordered = sorted(samples)
    return {f"p{percent}": _percentile(ordered, percent) for percent in (50, 95, 99)}


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    if not ordered:
        return None
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return round(ordered[low] + (ordered[high] - ordered[low]) * (place - low), 3)


class Summary:
    """Adds up telemetry; counters that begin again with a restarted child go on here."""

    def __init__(self, source: str, bundle: str) -> None:
        self._source = source
        self._bundle = bundle
        self._honesty: str | None = None
        self._before = {name: 0 for names in COUNTERS.values() for name in names}
        self._since: dict[str, int | None] = dict.fromkeys(self._before)
        self._was_told = dict.fromkeys(self._before, False)
        self._painted_ms: deque[float] = deque(maxlen=KEPT)
        self._drawn_ms: deque[float] = deque(maxlen=KEPT)
        self._stages_ms = {stage: deque[float](maxlen=KEPT) for stage in STAGES}
        self.restarts: dict[str, int] = dict.fromkeys(ROLES, 0)

    def add(self, header: dict[str, Any]) -> None:
        """Take in a telemetry message of any process."""
        role = header.get("from")
        if role not in COUNTERS:
            return
        for name in COUNTERS[role]:
            if name in header:
                self._since[name] = int(header[name])
                self._was_told[name] = True
        self._painted_ms.extend(header.get("painted_ms") or ())
        self._drawn_ms.extend(header.get("drawn_ms") or ())
        for stage, samples in (header.get("stages_ms") or {}).items():
            self._stages_ms[stage].extend(samples)
        if role == "acquisition" and header.get("info"):
            self._honesty = header["info"].get("honesty")

    def restarted(self, role: Role) -> None:
        """The child `role` begins to count again; its last message is already here."""
        self.restarts[role] = self.restarts.get(role, 0) + 1
        for name in COUNTERS.get(role, ()):
            self._before[name] += self._since[name] or 0
            self._since[name] = None

    def to_dict(self, duration: float) -> dict[str, Any]:
        """JSON values; a counter that no child ever told is null.

        Parameters
        ----------
        duration : of the session, seconds.
        """
        counts = {
            name: before + (self._since[name] or 0) if self._was_told[name] else None
            for name, before in self._before.items()
        }
        return {
            **counts,
            "latency_ms": {
                "painted": percentiles(self._painted_ms),
                "drawn": percentiles(self._drawn_ms),
            },
            "stages_ms": {
                stage: percentiles(samples) for stage, samples in self._stages_ms.items()
            },
            "restarts": dict(self.restarts),
            "honesty": self._honesty,
            "source": self._source,
            "bundle": self._bundle,
            "duration_s": round(duration, 3),
        }


def check_writable(path: Path) -> None:
    """Raise SummaryError if a file could not be put at `path`, leaving nothing behind."""
    unfinished = _unfinished(path)
    try:
        if path.exists() and not path.is_file():
            # Putting a file in the place of a folder, a pipe or /dev/null would be worse.
            raise OSError(0, "it is there and is not a file")
        # A full disk takes an empty file, too.
        unfinished.write_bytes(bytes(ENOUGH))
        unfinished.unlink()
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise SummaryError(
            f"The summary cannot be written to {path} ({error.strerror}). "
            "Give a file in a folder that exists and can be written, on a disk with room."
        ) from error


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write a summary so that the file is always whole.

    Raises
    ------
    SummaryError
        The file cannot be written.
    """
    unfinished = _unfinished(path)
    try:
        unfinished.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise SummaryError(
            f"The summary cannot be written to {path} ({error.strerror})."
        ) from error


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
