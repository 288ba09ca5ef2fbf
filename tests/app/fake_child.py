"""A child process for tests of the supervisor: python fake_child.py ROLE MANNER PIDS FOLDER.

ROLE is app.zygote for one that forks workers of this manner.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

role, manner, pids = sys.argv[1:4]


def note_pid() -> None:
    name = role.removeprefix("app.")
    count = len(list(Path(pids).glob(f"{name}.*")))
    # Whole at once: it may be killed while it writes.
    unfinished = Path(pids) / f".{name}"
    unfinished.write_text(str(os.getpid()))
    unfinished.rename(Path(pids) / f"{name}.{count}")


note_pid()
if role == "app.zygote":
    from app.zygote import serve_forks

    serve_forks()
    role = "worker"
    note_pid()

if manner == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

from acquisition.errors import MontageError  # noqa: E402
from app.bus import Bus  # noqa: E402
from app.child import Child, begin_child  # noqa: E402
from app.messages import pack  # noqa: E402

child = Child(role, Path(sys.argv[-1])) if manner == "deaf" else begin_child(role)

SAYS = {
    "acquisition": {"samples_in": 100, "samples_lost": 1, "state": "running",
                    "info": {"honesty": "simulated"}},
    "worker": {"frames_painted": 10, "state": "ready", "painted_ms": [100.0]},
    "recorder": {"n_missed": 0},
    "trainer": {"state": "running", "done": 0.5, "what": "Testing.", "seconds": 1.0},
    "server": {"frames_sent": 20, "frames_drawn": 5, "frames_replaced": 2, "drawn_ms": [200.0]},
}  # fmt: skip

with child, Bus(child.folder, role) as bus:
    if manner == "montage":
        raise MontageError("Two electrodes are known; three are needed.")
    if manner == "defect":
        raise KeyError("sfreq")
    if manner == "silent":
        sys.exit(7)
    if manner == "done":
        sys.exit(0)
    control = bus.publisher("control") if role == "server" else None
    heard = bus.subscriber("telemetry")
    states: list[dict[str, object]] = []
    telemetry = bus.publisher("telemetry")
    while not child.stop.wait(0.03):
        telemetry.send(pack("telemetry", {"from": role, "t": time.monotonic(), **SAYS[role]}))
        while manner == "listens" and (message := heard.receive(0)):
            if message.header["from"] == "supervisor":
                worker = message.header["children"]["worker"]
                states += [worker] * (worker not in states)
        has_seen = [state["state"] for state in states[-2:]] == ["restarting", "running"]
        if control and (manner == "stops" or has_seen):
            control.send(pack("control", {"action": "stop"}))
if manner == "listens":
    (Path(pids) / "heard.json").write_text(json.dumps(states))
