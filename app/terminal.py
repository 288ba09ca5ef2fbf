"""What people are told on the terminal."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Tell people something, on the terminal's error stream."""
    print(text, file=sys.stderr, flush=True)
