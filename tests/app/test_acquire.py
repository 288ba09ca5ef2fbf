import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from acquisition.epoch_spec import EpochSpec
from acquisition.errors import MontageError, SourceError
from acquisition.simulated_subject import BLOCK, CH_NAMES, SFREQ, SimulatedSubject
from acquisition.source import Chunk, Marker, Reading
from acquisition.stream_info import StreamInfo
from app.acquire import PRESENTED_S, Acquisition, Traces
from app.messages import Message, unpack

SPEC = EpochSpec(ch_names=CH_NAMES)
INFO = StreamInfo("test", CH_NAMES, SFREQ, "simulated")


class Sent:
    """Keeps what is published, by topic."""

    def __init__(self) -> None:
        self.messages: dict[str, list[Message]] = {
            topic: [] for topic in ("epoch", "traces", "raw", "marker", "telemetry")
        }
        self.sinks = {topic: Sink(kept) for topic, kept in self.messages.items()}

    def headers(self, topic: str) -> list[dict[str, object]]:
        return [m.header for m in self.messages[topic]]


class Sink:
    def __init__(self, kept: list[Message]) -> None:
        self._kept = kept

    def send(self, message: bytes) -> None:
        self._kept.append(unpack(message))


class Listed:
    """A source that gives the readings it was made with."""

    def __init__(self, readings: Sequence[Reading], info: StreamInfo = INFO) -> None:
        self.info = info
        self._readings = iter(readings)

    def read(self, timeout: float, _n_due: int | None = None) -> Reading:
        reading = next(self._readings, None)
        if reading is None:
            raise SourceError("The device is gone. Plug it in again.")
        return reading

    def close(self) -> None:
        pass


def simulated_readings(seconds: int) -> list[Reading]:
    subject = SimulatedSubject(seed=1)
    readings = []
    for block in range(seconds):
        data, events = subject.next_block()
        first = block * BLOCK
        for start in range(0, BLOCK, 25):
            index = first + np.arange(start, start + 25)
            markers = tuple(
                Marker(sample / SFREQ, label, {"label": composition.label} if composition else {})
                for sample, label, composition in events
                if index[0] <= sample <= index[-1]
            )
            chunk = Chunk(data[:, start : start + 25], index / SFREQ, int(index[0]))
            readings.append(Reading((chunk,), markers))
    return readings


def acquire(readings: Sequence[Reading], kind: str = "sliding") -> tuple[Acquisition, Sent]:
    sent = Sent()
    clock = iter(np.arange(0, 1e6, 0.1))
    acquisition = Acquisition(
        Listed(readings), SPEC, kind, sent.sinks, lambda: float(next(clock))  # type: ignore[arg-type]
    )  # fmt: skip
    for reading in readings:
        acquisition.take_in(reading)
    return acquisition, sent


@pytest.fixture(scope="module")
def twelve_seconds() -> list[Reading]:
    return simulated_readings(12)


def test_epochs_have_the_header_that_the_worker_reads(twelve_seconds: list[Reading]) -> None:
    _, sent = acquire(twelve_seconds)

    epoch = sent.messages["epoch"][-1]
    names = {"number", "began", "kind", "first_sample", "t_first", "t_last", "t_published",
             "n_channels", "n_times", "honesty", "fidelity"}  # fmt: skip
    assert set(epoch.header) == names
    data = np.frombuffer(epoch.payload, np.float32).reshape(32, 256)
    np.testing.assert_allclose(data.std(axis=1), 1, rtol=1e-4)
    # 12 s less the settling and an epoch, four times a second and a bit less.
    assert 20 <= len(sent.messages["epoch"]) <= 46


def test_the_decoder_is_never_told_what_was_shown(twelve_seconds: list[Reading]) -> None:
    _, sent = acquire(twelve_seconds, "marker-locked")

    shown = [str(h["label"]) for h in sent.headers("marker") if h["label"] != "offset"]
    assert len(shown) >= 3
    assert len(sent.messages["epoch"]) >= 2
    for header in sent.headers("epoch"):
        text = json.dumps(header)
        assert not any(label.partition("/")[2] in text for label in shown)
        assert "label" not in text


def test_only_epochs_of_the_chosen_kind_are_published(twelve_seconds: list[Reading]) -> None:
    for kind in ("sliding", "marker-locked"):
        _, sent = acquire(twelve_seconds, kind)
        assert {h["kind"] for h in sent.headers("epoch")} == {kind}


def test_sliding_epochs_rest_while_pictures_are_presented() -> None:
    readings = [
        # Nothing is presented before 6 s and after 14 s.
        replace(r, markers=tuple(m for m in r.markers if 6 <= m.timestamp < 14))
        for r in simulated_readings(25)
    ]
    _, sent = acquire(readings, "auto")
    onsets = [h["timestamp"] for h in sent.headers("marker") if h["label"] != "offset"]
    assert len(onsets) >= 2
    rest = onsets[0], onsets[-1] + PRESENTED_S
    epochs = sent.headers("epoch")
    ends = [h["t_last"] for h in epochs if h["kind"] == "sliding"]
    assert min(ends) < rest[0] - 0.5
    assert max(ends) > rest[1] + 0.5
    # A marker comes with the reading that it lies in, 0.1 s long.
    assert not [t for t in ends if rest[0] + 0.1 < t < rest[1]]
    assert sum(h["kind"] == "marker-locked" for h in epochs) == len(onsets)
    assert [h["number"] for h in epochs] == list(range(len(epochs)))


def test_markers_that_present_nothing_leave_sliding_epochs_alone() -> None:
    def marked(label: str, ahead: float) -> list[dict[str, Any]]:
        readings = [
            replace(r, markers=tuple(replace(m, label=label, timestamp=m.timestamp + ahead)
                                     for m in r.markers if m.label != "offset"))
            for r in simulated_readings(14)
        ]  # fmt: skip
        return acquire(readings, "auto")[1].headers("epoch")

    # Keys that were pressed, and onsets of a clock that is an hour ahead.
    for label, ahead in (("key/space", 0.0), ("onset/cat", 3600.0)):
        epochs = marked(label, ahead)
        assert len(epochs) > 20
        assert {h["kind"] for h in epochs} == {"sliding"}


def test_markers_reach_the_page_even_without_samples() -> None:
    _, sent = acquire([Reading((), (Marker(1.0, "onset/cat", {"label": 3}),))])

    assert sent.headers("marker") == [
        {"timestamp": 1.0, "label": "onset/cat", "details": {"label": 3}}
    ]


def test_traces_hold_every_filtered_sample_once(twelve_seconds: list[Reading]) -> None:
    _, sent = acquire(twelve_seconds)

    expected = 0
    for message in sent.messages["traces"]:
        assert message.header["first_sample"] == expected
        assert len(message.payload) == 32 * message.header["n_times"] * 4
        expected += message.header["n_times"]
    assert expected == 12 * BLOCK


def test_telemetry_counts_samples_and_says_how_electrodes_sit(
    twelve_seconds: list[Reading],
) -> None:
    acquisition, sent = acquire(twelve_seconds)
    acquisition.tell()

    last = sent.messages["telemetry"][-1].header
    assert last["samples_in"] == 12 * BLOCK
    assert last["samples_lost"] == 0
    assert last["epochs_published"] == len(sent.messages["epoch"])
    assert last["is_ready"] is True
    assert last["fidelity"] == 1.0
    assert last["info"] == {
        "name": "test", "ch_names": list(CH_NAMES), "sfreq": 250.0, "honesty": "simulated",
    }  # fmt: skip
    assert [q["name"] for q in last["quality"]] == list(CH_NAMES)


def test_lost_samples_are_counted_and_a_change_of_state_is_told_at_once() -> None:
    ones = np.ones((32, 10), np.float32)
    readings = [
        Reading((Chunk(ones, np.arange(10) / SFREQ, 0),)),
        Reading((), (), "stalled", "No sample for 0.6 s."),
        Reading((Chunk(ones, np.arange(15, 25) / SFREQ, 15, n_lost=5),)),
    ]
    sent = Sent()
    acquisition = Acquisition(Listed(readings), SPEC, "sliding", sent.sinks, lambda: 0.0)
    for reading in readings:
        acquisition.take_in(reading)

    told = sent.headers("telemetry")
    assert [h["state"] for h in told] == ["running", "stalled", "running"]
    assert told[1]["message"] == "No sample for 0.6 s."
    assert (told[2]["samples_in"], told[2]["samples_lost"]) == (20, 5)


def test_a_recording_that_ended_leaves_the_process_running() -> None:
    sent = Sent()
    stop = threading.Event()

    class Telemetry(Sink):
        def send(self, message: bytes) -> None:
            super().send(message)
            if len(sent.messages["telemetry"]) == 3:
                stop.set()

    sent.sinks["telemetry"] = Telemetry(sent.messages["telemetry"])
    ended = Reading((), (), "finished", "The recording has ended.")
    # A second read would raise: nothing is read after the end.
    Acquisition(Listed([ended]), SPEC, "sliding", sent.sinks).run(stop)

    assert [h["state"] for h in sent.headers("telemetry")] == ["finished"] * 3


def test_a_source_that_can_never_go_on_is_an_error() -> None:
    acquisition = Acquisition(Listed([Reading()]), SPEC, "sliding", Sent().sinks)
    with pytest.raises(SourceError, match="Plug it in again"):
        acquisition.run(threading.Event())


def test_too_few_known_electrodes_are_refused() -> None:
    info = StreamInfo("test", ("Fp1", "X", "Y"), SFREQ, "live")
    with pytest.raises(MontageError, match="At least three electrodes"):
        Acquisition(Listed([], info), SPEC, "sliding", Sent().sinks)


def test_traces_gather_until_they_are_worth_a_message() -> None:
    traces = Traces(10)
    part = np.zeros((2, 4), np.float32)

    assert traces.push(0, part, 0.1) == []
    assert traces.push(4, part, 0.2) == []
    [(first, data, t_last)] = traces.push(8, part, 0.3)

    assert (first, data.shape, t_last) == (0, (2, 12), 0.3)


def test_traces_never_join_what_a_gap_parts() -> None:
    traces = Traces(10)
    part = np.zeros((2, 8), np.float32)

    assert traces.push(0, part, 0.1) == []
    [(first, data, t_last)] = traces.push(20, part, 0.2)
    assert (first, data.shape, t_last) == (0, (2, 8), 0.1)
    [(first, data, _)] = traces.push(28, part, 0.3)
    assert (first, data.shape) == (20, (2, 16))


class Presented:
    """What a page says, to be taken once."""

    def __init__(self, *headers: dict[str, object]) -> None:
        self.headers = list(headers)

    def receive(self, _timeout: float) -> Message | None:
        return Message("stimulus", self.headers.pop(0)) if self.headers else None


def stimulus(event: str, t: float) -> dict[str, object]:
    return {
        "event": event, "trial": 4, "run": 2, "picture": "cat 1", "class": "cat", "label": 1,
        "is_catch": False, "t": t, "error_s": 0.009,
    }  # fmt: skip


def blank_readings(seconds: int) -> list[Reading]:
    subject = SimulatedSubject(seed=1, looks=False)
    return [
        Reading((Chunk(subject.next_block()[0], (first + np.arange(BLOCK)) / SFREQ, first),))
        for first in range(0, seconds * BLOCK, BLOCK)
    ]


def test_presented_onsets_are_markers_and_lock_epochs_that_do_not_tell_what_was_shown() -> None:
    sent, presented = Sent(), Presented()
    outlet: list[Marker] = []

    class Outlet:
        def send(self, marker: Marker) -> None:
            outlet.append(marker)

    source = Listed([])
    acquisition = Acquisition(
        source, SPEC, "marker-locked", sent.sinks, lambda: 0.0, presented, Outlet()
    )
    for n, reading in enumerate(blank_readings(8)):
        if n == 6:
            # Told while its samples are there already, as from a page.
            presented.headers = [
                stimulus("planned", 9.0), stimulus("shown", 5.0), stimulus("response", 5.5),
                stimulus("gone", 6.0), stimulus("ended", 6.5),
            ]  # fmt: skip
        acquisition.take_in_stimuli()
        acquisition.take_in(reading)

    details = {"label": 1, "picture": "cat 1", "trial": 4, "run": 2, "is_catch": False,
               "error_s": 0.009}  # fmt: skip
    assert sent.headers("marker") == [
        {"timestamp": 5.0, "label": "onset/cat", "details": details},
        {"timestamp": 6.0, "label": "offset", "details": {"trial": 4, "run": 2}},
    ]
    assert [(m.timestamp, m.label) for m in outlet] == [(5.0, "onset/cat"), (6.0, "offset")]
    [epoch] = sent.messages["epoch"]
    assert epoch.header["t_first"] == pytest.approx(5.0 + SPEC.tmin, abs=1 / SFREQ)
    assert "cat" not in json.dumps(epoch.header)


def test_a_guided_source_is_told_what_is_shown_before_it_is_read() -> None:
    class Guided(Listed):
        seen: tuple[Marker, ...] = ()

        def see(self, marker: Marker) -> None:
            self.seen += (marker,)

        def read(self, timeout: float, n_due: int | None = None) -> Reading:
            assert len(self.seen) == 2
            stop.set()
            return super().read(timeout, n_due)

    stop = threading.Event()
    presented = Presented(stimulus("shown", 5.0), stimulus("gone", 6.0))
    source = Guided([Reading()])
    Acquisition(source, SPEC, "sliding", Sent().sinks, stimuli=presented).run(stop)
    assert [marker.label for marker in source.seen] == ["onset/cat", "offset"]
