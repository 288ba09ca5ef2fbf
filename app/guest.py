"""The supervisor of a session whose frames are painted by another session's worker.

It has a source, a server and a page of its own, and is begun and ended by `app.guests`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from app.child import begin_child
from app.errors import exit_code, sentence
from app.session import PATIENCE, Commands, Session, announce, child_commands
from app.terminal import say

# Seconds that it has to end its own processes, and a little more.
GRACE = PATIENCE + 1


def guest_commands(folder: Path) -> Commands:
    """Of a session whose frames another's worker paints."""
    every = child_commands(folder)
    return {role: every[role] for role in every if role not in ("worker", "zygote", "guest")}


def main() -> None:
    """Run as a guest."""
    child = begin_child("guest", GRACE)
    settings = child.settings
    try:
        on_address = partial(announce, settings)
        Session(settings, say, on_address, guest_commands, folder=child.folder).run()
    # The others go on without it.
    except Exception as error:
        if settings.debug:
            raise
        say(f"{settings.source}: {sentence(error)}")
        raise SystemExit(int(exit_code(error))) from None


if __name__ == "__main__":
    main()
