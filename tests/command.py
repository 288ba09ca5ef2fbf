"""The command line in a test's own process."""

from __future__ import annotations

import sys

import pytest

from app.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `phosphene` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["phosphene", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)
