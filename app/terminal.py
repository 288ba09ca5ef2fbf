"""What people are told on the terminal."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Tell people something, on the terminal's error stream."""
    print(text, file=sys.stderr, flush=True)


def time_left(done: float, seconds: float) -> str:
    """How long the rest will take, if it goes on as it did.

    Parameters
    ----------
    done : 0 to 1; of less than a twentieth nothing is known.
    seconds : that this took.

    >>> time_left(0.25, 60)
    ', 3 min left.'
    >>> time_left(0.75, 60)
    ', 20 s left.'
    """
    if not 0.05 <= done < 1:
        return "."
    left = seconds * (1 - done) / done
    return f", {left / 60:.0f} min left." if left >= 90 else f", {left:.0f} s left."
