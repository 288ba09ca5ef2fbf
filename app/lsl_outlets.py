"""`phosphene replay FILE --lsl`: a recording as outlets, for whoever listens."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from acquisition.lsl_replay import WARNING, LSLReplay, load_streams
from acquisition.source import SourceOptions


def send_to_lsl(
    file: Path,
    options: SourceOptions,
    say: Callable[[str], None],
    speed: float = 1.0,
    is_looped: bool = False,
    waits: bool = True,
) -> None:
    """Send a recording until its end, or until Ctrl-C.

    Parameters
    ----------
    say : takes sentences for the terminal.
    waits : whether the first sample waits for a listener.

    Raises
    ------
    SourceError
        The file is missing, damaged or empty, or there is no liblsl.
    """
    streams = load_streams(file, options)
    replay = LSLReplay(streams, speed, is_looped, options.known_peers)

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        replay.stop()

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        say(WARNING)
        say(f"On LSL: {'; '.join(s.describe() for s in streams)} ({replay.duration:.0f} s).")
        if waits:
            say("Waiting for a listener (--now begins without one, Ctrl-C ends).")
            replay.wait_for_consumer(float("inf"))
        for pushed in replay.run():
            heard = "" if pushed.had_consumer else ", and nobody listened"
            say(f"Sent {pushed.n_samples} samples of '{pushed.name}' ({pushed.type}){heard}.")
    finally:
        replay.close()
        for number, handler in before.items():
            signal.signal(number, handler)
