"""What is in a recording, to the sample, when something goes wrong around it."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acquisition.epoch_spec import EpochSpec
from acquisition.recorded_stream import read_streams
from acquisition.recording import load_recording
from acquisition.source import Chunk, Marker, Reading, Source, SourceOptions
from acquisition.stream_info import StreamInfo
from app.acquire import Acquisition
from app.bus import Bus
from app.messages import Message, pack, unpack
from app.recorded_session import Segment, segment_of
from app.recorder import Recorder, Request
from tests.acquisition.test_brainflow import FakeCyton, cyton
from tests.app.test_acquire import Listed
from tests.app.test_recorder import eeg_of, load, raw

REQUEST = Request("P01", 30, True)
TODAY = date(2026, 11, 27)
NAMES = ("Fp1", "Fp2", "C3", "C4")
SPEC = EpochSpec(NAMES)


class ToRecorder:
    """A sink that hands what an acquisition publishes to a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def send(self, message: bytes) -> None:
        self._recorder.take_in(unpack(message))


def acquisition(source: Source, recorder: Recorder) -> Acquisition:
    sink = ToRecorder(recorder)
    nowhere: Any = type("Nowhere", (), {"send": lambda *_: None})()
    sinks = {"epoch": nowhere, "traces": nowhere, "raw": sink, "marker": sink, "telemetry": sink}
    return Acquisition(source, SPEC, "sliding", sinks)


def readings(data: np.ndarray, first: int, t: float, state: Any = "running") -> list[Reading]:
    """Samples (n_channels, n) from an index on, in readings of 20."""
    return [
        Reading((Chunk(data[:, k : k + 20], t + np.arange(k, k + 20) / 250, first + k),), (), state)
        for k in range(0, data.shape[1], 20)
    ]


def noise(n: int, n_channels: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 20, (n_channels, n)).astype(np.float32)


def record(path: Path, runs: Sequence[tuple[StreamInfo, list[Reading]]]) -> dict[str, Any]:
    """Acquisitions one after the other into one recording; what the recorder told last."""
    sent: list[bytes] = []
    recorder = Recorder(path, REQUEST, sent.append, TODAY)
    for info, given in runs:
        running = acquisition(Listed(given, info), recorder)
        for reading in given:
            running.take_in(reading)
    recorder.tell()
    recorder.close()
    return unpack(sent[-1]).header


def test_a_source_that_is_lost_and_comes_back_leaves_a_gap_that_is_told(tmp_path: Path) -> None:
    path, data = tmp_path / "a.xdf", noise(1000)
    t = 50.0
    told = record(
        path,
        [
            (
                StreamInfo("cap", NAMES, 250.0, "live"),
                [
                    *readings(data[:, :400], 7, t),
                    Reading((), (), "stalled", "No sample comes."),
                    Reading((), (), "reconnecting", "Is it on?"),
                    # 300 samples are lost, by the source's own count.
                    *readings(data[:, 400:], 707, t + 700 / 250),
                ],
            ),
            # Somebody put on other electrodes.
            (StreamInfo("cap", NAMES[:3], 250.0, "live"), readings(data[:3, :200], 0, 90.0)),
        ],
    )
    assert (told["n_samples"], told["n_missed"], told["n_segments"]) == (1200, 0, 2)
    first, second = eeg_of(load(path)[0])
    np.testing.assert_array_equal(first["time_series"], data.T)
    np.testing.assert_array_equal(second["time_series"], data[:3, :200].T)
    expected = t + np.concatenate([np.arange(400), np.arange(700, 1300)]) / 250
    np.testing.assert_allclose(first["time_stamps"], expected, rtol=0, atol=1e-9)
    streams = {s["info"]["type"][0]: s for s in load(path)[0] if s["info"]["type"] != ["EEG"]}
    places = [json.loads(text) for [text] in streams["Segments"]["time_series"]]
    assert places == [
        {"segment": 1, "sample": 0, "first_sample": 7},
        {"segment": 1, "sample": 400, "first_sample": 707},
        {"segment": 2, "sample": 0, "first_sample": 0},
    ]
    # What this program reads of it: each segment by its name, the gap where it was.
    read = load_recording(path, SourceOptions(), {"stream": "cap"})
    assert np.flatnonzero(read.n_missing).tolist() == [400]
    assert read.n_missing[400] == 300
    other = load_recording(path, SourceOptions(), {"stream": "cap (segment 2)"})
    assert other.info.ch_names == NAMES[:3]


def test_the_wall_clock_may_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter(3600.0 * np.random.default_rng(0).integers(-9999, 9999, 10**6))
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * float(next(hours))))
    info = StreamInfo("cap", NAMES, 250.0, "live")
    began = time.monotonic()
    record(tmp_path / "a.xdf", [(info, readings(noise(2000), 0, began))])
    [eeg] = eeg_of(load(tmp_path / "a.xdf")[0])
    np.testing.assert_array_equal(
        eeg["time_stamps"],
        np.concatenate([began + np.arange(k, k + 20) / 250 for k in range(0, 2000, 20)]),
    )


@pytest.mark.parametrize(("step", "first", "last"), [(3600.0, 981, 1000), (-3600.0, 1000, 1481)])
def test_a_board_whose_clock_is_set_loses_no_sample(
    tmp_path: Path, step: float, first: int, last: int
) -> None:
    class SetClock(FakeCyton):
        def get_board_data(self) -> np.ndarray:
            rows = super().get_board_data()
            rows[22, rows[1] >= 1000] += step
            return rows

    board = SetClock()
    sent: list[bytes] = []
    recorder = Recorder(tmp_path / "a.xdf", REQUEST, sent.append, TODAY)
    running = acquisition(cyton(board), recorder)
    while board.t < 12:
        running.take_in(running._source.read(0.1))
    recorder.tell()
    recorder.close()
    assert unpack(sent[-1]).header["n_missed"] == 0
    [eeg] = eeg_of(load(tmp_path / "a.xdf")[0])
    numbers = eeg["time_series"][:, 0]
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    # Set forward it is noticed with the same reading, set back after two seconds: until then times
    # are an hour early, and the gaps around them are told.
    late = eeg["time_stamps"] - numbers / 250
    assert np.flatnonzero(abs(late) > 0.1).tolist() == list(range(first, last))
    assert abs(np.delete(late, np.s_[first:last])).max() < 0.03
    [segment] = read_session_of(tmp_path / "a.xdf")
    assert [sample for sample, _ in segment.places] == [0, first, last]


def read_session_of(path: Path) -> list[Segment]:
    """The segments of a recording without a painter."""
    streams = read_streams(path, {})
    places = [json.loads(t) for s in streams if s.type == "Segments" for (t,) in s.samples]
    return [segment_of(s, places) for s in streams if "began" in s.notes]


def test_a_recorder_slower_than_the_bus_counts_what_it_missed(tmp_path: Path) -> None:
    Bus.make_folder(tmp_path / "bus")
    sent: list[bytes] = []
    recorder = Recorder(tmp_path / "a.xdf", REQUEST, sent.append, TODAY)
    with Bus(tmp_path / "bus", "acquisition") as theirs, Bus(tmp_path / "bus", "recorder") as mine:
        publisher = theirs.publisher("raw", depth=4)
        incoming = mine.subscriber("raw", depth=4)
        deadline = time.monotonic() + 20
        while not publisher.has_joined():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # The disk stands still, and nobody waits for it; messages are big enough to fill the pipe.
        values, t = np.zeros((2, 4000)), np.arange(4000.0)
        number = 0
        while number < 200:
            publisher.send(packed(raw(number, values, t)))
            number += 1
        recorder.run(incoming, lambda: True)
        # Some of the 200 may be on their way still.
        while recorder._raw._next <= number:
            publisher.send(packed(raw(number, values[:, :1], t[1:2])))
            if message := incoming.receive(0.1):
                recorder.take_in(message)
    recorder.tell()
    recorder.close()
    told = unpack(sent[-1]).header
    [eeg] = eeg_of(load(tmp_path / "a.xdf")[0])
    n_written = int((np.diff(eeg["time_stamps"]) < 0).sum()) + 1
    assert 0 < told["n_missed"] == 201 - n_written


def packed(message: Message) -> bytes:
    return pack(message.type, message.header, message.payload)


class Counted:
    """Counts the system calls that write."""

    def __init__(self, file: Any) -> None:
        self._file, self.n = file, 0

    def write(self, data: bytes) -> int:
        self.n += 1
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_message_is_written_by_one_system_call(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.xdf", REQUEST, lambda _: None, TODAY)
    recorder._writer._file = counted = Counted(recorder._writer._file)  # type: ignore[assignment]
    t = np.arange(5) / 250
    recorder.take_in(raw(0, np.ones((2, 5)), t))
    assert counted.n == 2, "a segment's header besides"
    marker = {"timestamp": 0.1, "label": "onset/cat", "details": {"label": 3, "picture": "cat 1"}}
    for message in (
        raw(1, np.ones((2, 5)), t),
        raw(2, np.ones((2, 5)), 9 + t),  # behind a gap, which is told in the same call
        unpack(pack("marker", marker)),
        unpack(pack("stimulus", STIMULUS)),
    ):
        before = counted.n
        recorder.take_in(message)
        assert counted.n == before + 1
    recorder.close()
    assert len(eeg_of(load(tmp_path / "a.xdf")[0])[0]["time_stamps"]) == 15


STIMULUS = {
    "event": "shown", "trial": 3, "run": 1, "picture": "cat 1", "class": "cat", "label": 1,
    "is_catch": False, "t": 12.25, "error_s": 0.001,
}  # fmt: skip


def test_stimuli_are_kept_as_they_were_told_and_are_no_markers(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.xdf", REQUEST, lambda _: None, TODAY)
    recorder.take_in(raw(0, np.ones((2, 500)), 11 + np.arange(500) / 250))
    given = [
        STIMULUS | {"event": event, "t": t}
        for event, t in (("planned", 11.5), ("shown", 12.25), ("gone", 12.75), ("ended", 12.9))
    ]
    for header in given:
        recorder.take_in(unpack(pack("stimulus", header)))
    details = {"label": 1, "picture": "cat 1"}
    marker = {"timestamp": 12.25, "label": "onset/cat", "details": details}
    recorder.take_in(unpack(pack("marker", marker)))
    ended = {"timestamp": 12.75, "label": "offset", "details": {"trial": 3}}
    recorder.take_in(unpack(pack("marker", ended)))
    recorder.close()
    [stimuli] = [s for s in load(tmp_path / "a.xdf")[0] if s["info"]["type"] == ["Stimuli"]]
    assert [json.loads(text) for [text] in stimuli["time_series"]] == given
    assert stimuli["time_stamps"].tolist() == [header["t"] for header in given]
    assert load_recording(tmp_path / "a.xdf").markers == (
        Marker(12.25, "onset/cat", {"number": 1, "picture": "cat 1"}),
        Marker(12.75, "offset", {"trial": 3}),
    )


def test_memory_does_not_grow_with_a_recording(tmp_path: Path) -> None:
    names = [f"E{k}" for k in range(64)]
    recorder = Recorder(tmp_path / "a.xdf", REQUEST, lambda _: None, TODAY)
    values = noise(20, 64)
    sizes = []
    tracemalloc.start()
    for number in range(1500):
        t = (number * 20 + np.arange(20)) / 250
        recorder.take_in(raw(number, values, t, first_sample=20 * number, ch_names=names))
        if number % 500 == 499:
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    recorder.close()
    # Two minutes, of which the second adds less than a message.
    assert sizes[2] - sizes[0] < values.nbytes
    [eeg] = eeg_of(load(tmp_path / "a.xdf")[0])
    np.testing.assert_array_equal(eeg["time_series"], np.tile(values.T, (1500, 1)))
    assert (tmp_path / "a.xdf").stat().st_size < 1500 * (20 * (9 + 64 * 4) + 16) + 20_000
