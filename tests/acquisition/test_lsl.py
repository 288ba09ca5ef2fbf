"""Streams of the network: found, named, converted, missed, lost and found again."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# A session of its own on the loopback interface; processes started here inherit it.
os.environ.setdefault("PHOSPHENE_LSL_SESSION", f"test-{uuid.uuid4()}")

from acquisition.errors import SourceError, SourceNotFoundError, StreamInfoError
from acquisition.lsl import LSLSource, open_lsl
from acquisition.lsl_network import (
    LSLStream,
    bundled_library,
    configuration,
    list_streams,
    load_pylsl,
)
from acquisition.lsl_search import LSLQuery
from acquisition.source import Chunk, Reading, SourceOptions

ROOT = Path(__file__).resolve().parents[2]
NONE = SourceOptions()


def outlet(
    name: str,
    type: str = "EEG",
    sfreq: float = 250.0,
    labels: tuple[str, ...] = ("C3", "C4"),
    units: str = "microvolts",
    types: tuple[str, ...] = (),
    source_id: str = "",
    n_channels: int = 2,
) -> Any:
    pylsl = load_pylsl()
    kind = "float32" if sfreq else "string"
    info = pylsl.StreamInfo(name, type, n_channels, sfreq, kind, source_id or f"id-{name}-{type}")
    channels = info.desc().append_child("channels")
    for i, label in enumerate(labels):
        node = channels.append_child("channel").append_child_value("label", label)
        if units:
            node.append_child_value("unit", units)
        if types:
            node.append_child_value("type", types[i])
    return pylsl.StreamOutlet(info)


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def collect(
    source: LSLSource, enough: Callable[[list[Reading]], bool], limit: float = 10.0
) -> list[Reading]:
    readings: list[Reading] = []
    t_end = time.monotonic() + limit
    while not enough(readings) and time.monotonic() < t_end:
        readings.append(source.read(0.1))
    return readings


def chunks_of(readings: list[Reading]) -> list[Chunk]:
    return [c for r in readings for c in r.chunks]


def n_samples(readings: list[Reading]) -> int:
    return sum(c.n_times for c in chunks_of(readings))


@pytest.fixture(autouse=True)
def _open_quickly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names here are unique: no need to look on for others, but where that is tested."""
    if "several" not in request.node.name:
        monkeypatch.setattr("acquisition.lsl_search._OTHERS_S", 0.0)


@pytest.fixture
def opened() -> Iterator[list[LSLSource]]:
    sources: list[LSLSource] = []
    yield sources
    for source in sources:
        source.close()
        source.close()


def test_settings_always_name_this_machine_and_what_the_operator_names() -> None:
    text = configuration(("10.0.0.7", "lab-pc"), "")
    assert "KnownPeers = {127.0.0.1, 10.0.0.7, lab-pc}" in text
    assert "SessionID" not in text
    local = configuration((), "abc", is_local=True)
    assert "SessionID = abc" in local
    assert "ListenAddress = 127.0.0.1" in local


def test_settings_cannot_be_changed_once_lsl_is_in_use() -> None:
    load_pylsl()
    with pytest.raises(SourceError, match="LSL is already in use with other known peers"):
        load_pylsl(("10.0.0.7",))


def test_mne_lsls_library_serves_where_pylsl_has_none() -> None:
    library = bundled_library()
    assert library is not None
    # In a process of its own: pylsl's library is hidden, the way in is the module's own.
    code = (
        "import ctypes, pathlib\n"
        "real = pathlib.Path.is_file\n"
        "import os.path; isfile = os.path.isfile\n"
        "os.path.isfile = lambda p: False if 'pylsl' in str(p) else isfile(p)\n"
        "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
        "from acquisition.lsl_network import load_pylsl\n"
        "print(load_pylsl().library_version())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert result.stdout.strip() == "117", result.stderr


def test_streams_of_eeg_are_preferred_among_those_of_one_name() -> None:
    def stream(type: str) -> LSLStream:
        return LSLStream("Muse", type, "x", "host", type, 5, 256.0, None)

    streams = [stream("ACC"), stream("EEG"), stream("PPG")]
    assert [s.type for s in LSLQuery(name="Muse").choose(streams)] == ["EEG"]
    assert [s.type for s in LSLQuery(name="Muse", type="acc").choose(streams)] == ["ACC"]
    assert LSLQuery(name="Muse", source_id="y").choose(streams) == []
    assert str(LSLQuery("Muse", "EEG")) == "name='Muse' and type='EEG'"


def test_samples_arrive_converted_and_stamped_on_the_session_clock(
    opened: list[LSLSource],
) -> None:
    name = unique("Amp")
    out = outlet(
        name, labels=("C3", "AUX", "C4"), units="volts", types=("EEG", "AUX", "EEG"), n_channels=3
    )
    source = open_lsl("", {"name": name}, NONE)
    opened.append(source)
    assert source.info.ch_names == ("C3", "C4")
    assert (source.info.sfreq, source.info.honesty) == (250.0, "live")
    t_first = time.monotonic()
    values = np.arange(300, dtype=np.float32).reshape(100, 3) * 1e-6
    out.push_chunk(values, [t_first + i / 250 for i in range(100)])
    readings = collect(source, lambda r: n_samples(r) >= 100)
    data = np.concatenate([c.data for c in chunks_of(readings)], axis=1)
    np.testing.assert_allclose(data, 1e6 * values[:, [0, 2]].T, rtol=1e-5)
    stamps = np.concatenate([c.timestamps for c in chunks_of(readings)])
    np.testing.assert_allclose(stamps, t_first + np.arange(100) / 250, atol=0.002)


def test_a_pause_of_the_device_is_a_gap_but_no_loss(opened: list[LSLSource]) -> None:
    name = unique("Amp")
    out = outlet(name)
    source = open_lsl("", {"name": name}, NONE)
    opened.append(source)
    t = time.monotonic() - 10
    zeros = np.zeros((100, 2), np.float32)
    out.push_chunk(zeros, [t + i / 250 for i in range(100)])
    out.push_chunk(zeros, [t + 4 + (100 + i) / 250 for i in range(100)])
    chunks = chunks_of(collect(source, lambda r: n_samples(r) >= 200))
    assert chunks[-1].end == 200 + 1000
    assert sum(c.n_lost for c in chunks) == 0


def test_only_samples_that_were_left_too_long_are_taken_for_lost(
    opened: list[LSLSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acquisition.lsl._BUFFER_S", 1)
    name = unique("Amp")
    out = outlet(name)
    source = open_lsl("", {"name": name}, NONE)
    opened.append(source)
    pair = np.zeros((2, 2), np.float32)

    def after(pause: Callable[[], object]) -> tuple[Chunk, float]:
        pause()
        t = time.monotonic()
        out.push_chunk(pair, [t, t + 0.004])
        return chunks_of(collect(source, lambda r: n_samples(r) >= 2))[0], t

    after(lambda: None)
    # The device paused, and we listened; then we did not.
    listened, t_before = after(lambda: collect(source, lambda _: False, limit=1.3))
    left, t = after(lambda: time.sleep(1.3))
    assert listened.n_lost == 0
    # However long the sleep really took; stamps of two clocks agree to a few milliseconds.
    assert left.n_lost == pytest.approx((t - t_before) * 250 - 2, abs=3)


def test_missing_labels_and_units_are_asked_for_and_given(opened: list[LSLSource]) -> None:
    name = unique("Bare")
    out = outlet(name, labels=(), units="")
    with pytest.raises(StreamInfoError, match=f"'{name}' has 2 EEG channels and does not name"):
        open_lsl("", {"name": name}, NONE)
    named = SourceOptions(ch_names=("C3", "C4"))
    stop = threading.Event()

    def push() -> None:
        while not stop.wait(0.02):
            out.push_chunk(np.random.default_rng(0).normal(0, 20, (5, 2)).astype(np.float32))

    thread = threading.Thread(target=push)
    thread.start()
    try:
        with pytest.raises(StreamInfoError, match=r"states no unit\. .*in uV\. Say .*--unit uV"):
            open_lsl("", {"name": name}, named)
    finally:
        stop.set()
        thread.join()
    opened.append(open_lsl("", {"name": name}, SourceOptions(ch_names=("O1", "O2"), unit="mV")))
    assert opened[0].info.ch_names == ("O1", "O2")


def test_a_stream_that_is_not_there_lists_those_that_are() -> None:
    name = unique("There")
    out = outlet(name)
    with pytest.raises(
        SourceNotFoundError,
        match=rf"No LSL stream matches name='Muse'\. On the network: .*'{name}' \(EEG, 2 channels, "
        r"250 Hz\).*Start the device",
    ):
        open_lsl("", {"name": "Muse", "timeout": "1.5"}, NONE)
    del out


def test_several_streams_that_match_are_listed() -> None:
    name = unique("Twin")
    outs = [outlet(name, source_id=i) for i in ("left", "right")]
    with pytest.raises(
        SourceError, match=r"2 LSL streams match .*source_id='left'; .*'right'\. Ch"
    ):
        open_lsl("", {"name": name}, NONE)
    source = open_lsl("", {"name": name, "source_id": "right"}, NONE)
    source.close()
    del outs


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(SourceError, match=r"lsl: has no parameter 'nmae'\. It knows name, type"):
        open_lsl("", {"nmae": "x"}, NONE)
    with pytest.raises(SourceError, match="expected lsl:name="):
        open_lsl("Muse", {}, NONE)
    with pytest.raises(SourceError, match="timeout is 'long'; expected a number"):
        open_lsl("", {"timeout": "long"}, NONE)


def test_markers_are_joined_even_if_their_stream_comes_later(opened: list[LSLSource]) -> None:
    name = unique("Amp")
    out = outlet(name)
    source = open_lsl("", {"name": name, "markers": f"{name}-shown"}, NONE)
    opened.append(source)
    source.read(0.05)
    markers = outlet(f"{name}-shown", "Markers", 0.0, labels=(), n_channels=1)
    collect(source, lambda _: bool(markers.have_consumers()))
    t = time.monotonic()
    markers.push_sample(["onset/dog"], t)
    markers.push_sample(["offset"], t + 0.5)
    found = [
        m for r in collect(source, lambda r: sum(len(x.markers) for x in r) >= 2) for m in r.markers
    ]
    assert [m.label for m in found] == ["onset/dog", "offset"]
    assert found[0].timestamp == pytest.approx(t, abs=0.002)
    del out


def test_streams_are_listed_with_channels_and_rate() -> None:
    name = unique("Listed")
    out = outlet(name)
    listed = {s.name: s for s in list_streams(timeout=1.5)}
    assert listed[name].describe() == f"'{name}' (EEG, 2 channels, 250 Hz)"
    del out


DEVICE = """
import sys, time, numpy as np
from acquisition.lsl_network import load_pylsl
pylsl = load_pylsl()
info = pylsl.StreamInfo(sys.argv[1], "EEG", int(sys.argv[2]), 250, "float32", "device-1")
channels = info.desc().append_child("channels")
for i in range(int(sys.argv[2])):
    node = channels.append_child("channel")
    node.append_child_value("label", "C%d" % (i + 1)).append_child_value("unit", "uV")
outlet = pylsl.StreamOutlet(info)
t_first, n = time.monotonic(), 0
while time.monotonic() < t_first + 60:
    due = int((time.monotonic() - t_first) * 250)
    if due > n:
        rows = np.arange(n, due, dtype=np.float32)[:, None].repeat(int(sys.argv[2]), 1)
        outlet.push_chunk(rows)
        n = due
    time.sleep(0.02)
"""


def device(name: str, n_channels: int = 2) -> subprocess.Popen[bytes]:
    """A device in a process of its own, so that it can be killed and frozen."""
    return subprocess.Popen([sys.executable, "-c", DEVICE, name, str(n_channels)], cwd=ROOT)


@pytest.mark.slow
def test_a_device_that_dies_and_comes_back_is_found_and_the_loss_counted(
    opened: list[LSLSource],
) -> None:
    name = unique("Mortal")
    first = device(name)
    try:
        source = open_lsl("", {"name": name, "timeout": "20"}, NONE)
        opened.append(source)
        before = chunks_of(collect(source, lambda r: n_samples(r) > 250))
        first.kill()
        first.wait()
        gone = collect(source, lambda r: bool(r) and r[-1].state == "reconnecting")
        assert gone[-1].message.startswith(f"The LSL stream '{name}' was closed; looking for it.")
        second = device(name)
        try:
            after = chunks_of(collect(source, lambda r: n_samples(r) > 250, limit=20))
        finally:
            second.kill()
            second.wait()
    finally:
        first.kill()
    last = [*before, *[c for r in gone for c in r.chunks]][-1]
    away = after[0].timestamps[0] - last.timestamps[-1]
    assert after[0].n_lost == after[0].first_sample - last.end
    assert after[0].n_lost == pytest.approx(away * 250, abs=2)
    assert sum(c.n_lost for c in after[1:]) == 0


@pytest.mark.slow
def test_a_device_that_comes_back_with_other_channels_is_refused(opened: list[LSLSource]) -> None:
    name = unique("Changed")
    first = device(name)
    source = open_lsl("", {"name": name, "timeout": "20"}, NONE)
    opened.append(source)
    collect(source, lambda r: n_samples(r) > 50)
    first.kill()
    first.wait()
    second = device(name, n_channels=4)
    try:
        with pytest.raises(SourceError, match=r"2 channels, 250 Hz\) came back as .*4 channels"):
            collect(source, lambda _: False, limit=20)
    finally:
        second.kill()
        second.wait()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be frozen here")
def test_a_device_that_freezes_stalls_and_loses_nothing_when_it_goes_on(
    opened: list[LSLSource],
) -> None:
    name = unique("Frozen")
    process = device(name)
    try:
        source = open_lsl("", {"name": name, "timeout": "20"}, NONE)
        opened.append(source)
        readings = collect(source, lambda r: n_samples(r) > 100)
        process.send_signal(signal.SIGSTOP)
        readings += collect(source, lambda r: bool(r) and r[-1].state == "stalled")
        # The sentence stands still: a screen reader would say every change of it again.
        assert readings[-1].message == f"No sample comes from '{name}'."
        readings += collect(source, lambda r: bool(r) and r[-1].state == "reconnecting")
        assert "is silent; looking for it" in readings[-1].message
        process.send_signal(signal.SIGCONT)
        readings += collect(source, lambda r: n_samples(r) > 1000)
    finally:
        process.kill()
        process.wait()
    chunks = chunks_of(readings)
    values = np.concatenate([c.data[0] for c in chunks])
    assert np.all(np.diff(values) == 1)
    assert sum(c.n_lost for c in chunks) == 0
    assert readings[-1].state == "running"
