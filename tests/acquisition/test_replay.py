"""A replay releases what is due, on a clock that is handed in."""

from pathlib import Path

import made_recordings as made
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.recording import Recording, load_recording
from acquisition.replay import CHUNK_S, RecordingSource, Replay
from acquisition.source import Chunk, Marker
from acquisition.stream_info import StreamInfo


def recording(n: int = 500, gap_s: float = 1.0) -> Recording:
    times = made.gap_times(n, 250.0, {n // 2: gap_s})
    missing = np.zeros(n, int)
    missing[n // 2] = round(gap_s * 250)
    markers = (Marker(times[10], "onset/dog"), Marker(times[n // 2 + 5], "offset"))
    info = StreamInfo("made", ("C3", "Cz", "C4"), 250.0, "replay")
    return Recording(info, made.noise(n, 3).T.copy(), times, missing, markers)


def all_samples(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([c.data for c in chunks], axis=1)


def test_samples_are_released_when_they_are_due() -> None:
    replay = Replay(recording(), t_start=50.0)
    assert replay.t_next == 50.0
    reading = replay.release(50.0)
    assert [c.n_times for c in reading.chunks] == [1]
    assert replay.t_next == 50.0 + CHUNK_S
    (chunk,) = replay.release(50.1).chunks
    assert (chunk.first_sample, chunk.n_times) == (1, 25)
    np.testing.assert_allclose(chunk.timestamps, 50.0 + np.arange(1, 26) / 250)
    assert replay.release(50.1).chunks == ()


def test_speed_makes_it_faster_and_keeps_the_samples() -> None:
    replay = Replay(recording(), t_start=0.0, speed=2.0)
    (chunk,) = replay.release(0.1).chunks
    assert chunk.n_times == 51
    assert chunk.timestamps[-1] == pytest.approx(0.1)


def test_a_gap_lasts_as_long_as_it_was_and_says_so() -> None:
    replay = Replay(recording(gap_s=3.0), t_start=0.0)
    replay.release(1.0)
    reading = replay.release(1.2)
    assert (reading.chunks, reading.state) == ((), "stalled")
    assert reading.message == "The recording has a gap here and goes on in 3 s."
    assert replay.t_next == pytest.approx(4.0)
    (chunk,) = replay.release(4.0).chunks
    assert (chunk.first_sample, chunk.n_times, chunk.n_lost) == (1000, 1, 0)


def test_markers_come_with_their_samples_at_their_times() -> None:
    replay = Replay(recording(), t_start=7.0)
    first = replay.release(7.03)
    assert first.markers == ()
    second = replay.release(7.05)
    assert [m.label for m in second.markers] == ["onset/dog"]
    stamps = np.concatenate([c.timestamps for c in (*first.chunks, *second.chunks)])
    assert second.markers[0].timestamp == stamps[10]


def test_the_end_is_told_and_nothing_comes_after_it() -> None:
    replay = Replay(recording(), t_start=0.0)
    reading = replay.release(60.0)
    assert sum(c.n_times for c in reading.chunks) == 500
    assert len(reading.markers) == 2
    assert (reading.state, reading.message) == ("finished", "The recording made has ended.")
    assert replay.release(61.0).chunks == ()
    assert replay.t_next == np.inf


def test_a_loop_begins_again_behind_a_gap() -> None:
    whole = recording()
    replay = Replay(whole, t_start=0.0, is_looped=True)
    reading = replay.release(2.5 * whole.duration)
    chunks = list(reading.chunks)
    assert reading.state == "running"
    n_rounds = sum(c.n_times for c in chunks) / 500
    assert 2 < n_rounds < 3
    ends = [c.end for c in chunks]
    jumps = [c.first_sample - end for c, end in zip(chunks[1:], ends, strict=False)]
    assert [j for j in jumps if j] == [250, 1, 250, 1, 250][: len([j for j in jumps if j])]
    stamps = np.concatenate([c.timestamps for c in chunks])
    assert np.all(np.diff(stamps) > 0)
    assert [m.label for m in reading.markers][:4] == ["onset/dog", "offset"] * 2


@given(st.lists(st.floats(0.001, 0.5), min_size=1, max_size=40), st.sampled_from([0.5, 1.0, 3.0]))
def test_whenever_it_is_asked_the_samples_are_those_of_the_recording(
    waits: list[float], speed: float
) -> None:
    whole = recording()
    replay = Replay(whole, t_start=5.0, speed=speed)
    chunks: list[Chunk] = []
    for t in [*np.cumsum(waits), 1000.0]:
        chunks += replay.release(5.0 + t).chunks
    expected = list(whole.chunks())
    np.testing.assert_array_equal(all_samples(chunks), all_samples(expected))
    numbers = [
        np.concatenate([np.arange(c.first_sample, c.end) for c in cs]) for cs in (chunks, expected)
    ]
    assert numbers[0].tolist() == numbers[1].tolist()


class Clock:
    """A session clock that sleeping moves."""

    def __init__(self) -> None:
        self.t = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.t

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.t += seconds


def test_the_source_sleeps_until_a_chunk_is_due_and_never_past_the_timeout(tmp_path: Path) -> None:
    clock = Clock()
    whole = load_recording(made.session_xdf(tmp_path / "s.xdf"))
    source = RecordingSource(whole, now=clock.now, sleep=clock.sleep)
    lengths, states = [], []
    while not states or states[-1] != "finished":
        reading = source.read(0.25)
        lengths += [c.n_times for c in reading.chunks]
        states.append(reading.state)
    source.close()
    source.close()
    assert sum(lengths) == 500
    assert max(lengths) <= 10
    assert max(clock.slept) <= 0.25
    assert clock.t == pytest.approx(1000 + whole.duration, abs=0.1)
    assert states.count("stalled") == 1 or "stalled" not in states
