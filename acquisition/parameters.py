"""Parameters of a source's name, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping

from acquisition.errors import SourceError


def check_parameters(what: str, parameters: Mapping[str, str], known: tuple[str, ...]) -> None:
    """Refuse a parameter that is not known, rather than leave it without effect."""
    for name in parameters:
        if name not in known:
            raise SourceError(f"{what} has no parameter '{name}'. It knows {', '.join(known)}.")


def number(name: str, text: str) -> float:
    """A finite number, or a sentence about it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SourceError(f"{name} is '{text}'; expected a number.")
    return value


def flag(name: str, text: str) -> bool:
    """True or false, or a sentence about it."""
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise SourceError(f"{name} is '{text}'; expected true or false.")
    return text.lower() in ("true", "1", "yes")


def whole_numbers(parameters: Mapping[str, str]) -> dict[str, int]:
    """Parameters of a source's name that are whole numbers.

    Raises
    ------
    SourceError
        One is not.
    """
    if wrong := [f"{n}={text}" for n, text in parameters.items() if not text.isdecimal()]:
        raise SourceError(f"{', '.join(wrong)}: expected whole numbers from zero upwards.")
    return {name: int(text) for name, text in parameters.items()}
