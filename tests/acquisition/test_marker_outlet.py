"""Markers onto LSL, and not back into the session that sent them."""

from __future__ import annotations

import json
import os
import time
import uuid

import pytest

os.environ.setdefault("PHOSPHENE_LSL_SESSION", f"test-{uuid.uuid4()}")

from acquisition.lsl_markers import MarkerInlets
from acquisition.lsl_network import StreamFinder, load_pylsl
from acquisition.marker_outlet import MarkerOutlet
from acquisition.source import Marker


def test_markers_arrive_with_label_details_and_their_own_time() -> None:
    lsl = load_pylsl()
    name = f"stimuli {uuid.uuid4()}"
    outlet = MarkerOutlet(name, f"id {name}")
    finder = StreamFinder(lsl)
    strange = MarkerInlets(lsl, finder, name)
    own = MarkerInlets(lsl, finder, name, own=f"id {name}")
    [info] = lsl.resolve_byprop("name", name, timeout=10)
    assert (info.type(), info.channel_count(), info.nominal_srate()) == ("Markers", 2, 0.0)
    inlet = lsl.StreamInlet(info, processing_flags=lsl.proc_clocksync)
    inlet.open_stream(timeout=10)
    deadline = time.monotonic() + 10
    while not strange._threads and time.monotonic() < deadline:
        strange.join()
        own.join()
        time.sleep(0.05)
    details = {"label": 1, "picture": "cat 1", "trial": 4, "run": 2, "is_catch": False}
    t = time.monotonic() - 0.3
    found: list[Marker] = []
    # Who joins late misses the first ones.
    while not found and time.monotonic() < deadline:
        outlet.send(Marker(t, "onset/cat", details))
        time.sleep(0.1)
        found = strange.take()
    sample, timestamp = inlet.pull_sample(timeout=5)
    assert sample[0] == "onset/cat"
    assert json.loads(sample[1]) == details
    assert timestamp == pytest.approx(t, abs=0.005)
    assert (found[0].label, found[0].timestamp) == ("onset/cat", pytest.approx(t, abs=0.005))
    assert own._threads == {}
    assert own.take() == []
    for inlets in (strange, own):
        inlets.close()
    outlet.close()
