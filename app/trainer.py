"""The trainer process: a person's recordings into a bundle of their own, while the stream goes on.

It is started when an operator asks for it and ends when it is done. What it knows it tells in
telemetry; how it ended, the supervisor tells. One that was stopped goes on when it is asked for
again.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app.bus import Bus
from app.child import begin_child
from app.cores import give_way
from app.messages import pack

if TYPE_CHECKING:
    from app.calibrate import Progress

REQUEST = "training.json"
RECORDING_GOES_ON = "A recording goes on, which training would read half. End it, then train."


def main() -> None:
    """Run as the child process `trainer`."""
    # Before libraries begin threads, which would keep the priority of their beginning.
    give_way()
    with begin_child("trainer") as child:
        # They take long to load where the cores are busy: by now it can be stopped meanwhile.
        from app.bundle import find_bundle
        from app.calibrate import calibrate
        from app.personal import find_sessions

        request = json.loads((child.folder / REQUEST).read_text(encoding="utf-8"))
        settings, subject = child.settings, request["subject"]
        sessions = find_sessions(settings, subject)
        out = Path(settings.recordings) / subject
        with Bus(child.folder, "trainer") as bus:
            telemetry, began = bus.publisher("telemetry"), time.monotonic()

            def tell(progress: Progress) -> None:
                if child.stop.is_set():
                    raise SystemExit
                t = time.monotonic()
                header = {
                    "from": "trainer",
                    "t": t,
                    "state": "finished" if progress.done >= 1 else "running",
                    "asked": request["asked"],
                    "done": round(progress.done, 4),
                    "what": progress.what,
                    "seconds": round(t - began, 1),
                }
                telemetry.send(pack("telemetry", header))

            calibrate(sessions, find_bundle(settings.bundle), out, tell)
    # Python would take torch apart for seconds, and nothing is left to tidy.
    os._exit(0)


if __name__ == "__main__":
    main()
