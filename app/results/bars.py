"""What was asked of a figure, and whether it is met."""

from __future__ import annotations


def at_least(value: float, bar: float, form: str = "g") -> str:
    """`value` must be `bar` or more.

    >>> at_least(0.7, 0.65)
    'at least 0.65: met'
    """
    return f"at least {bar:{form}}: {_word(value >= bar)}"


def at_most(value: float, bar: float, form: str = "g") -> str:
    """`value` must be `bar` or less.

    >>> at_most(0.16, 0.15, ".0%")
    'at most 15%: missed'
    """
    return f"at most {bar:{form}}: {_word(value <= bar)}"


def _word(is_met: bool) -> str:
    return "met" if is_met else "missed"
