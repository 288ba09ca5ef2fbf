"""A recording goes onto LSL and comes back whole, gaps, markers, names and all."""

import os
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import made_recordings as made
import numpy as np
import pytest

os.environ.setdefault("PHOSPHENE_LSL_SESSION", f"test-{uuid.uuid4()}")

from acquisition.errors import RecordingError, SourceError
from acquisition.lsl import open_lsl
from acquisition.lsl_network import StreamFinder, load_pylsl
from acquisition.lsl_replay import WARNING, LSLReplay, Pushed, load_streams
from acquisition.recording import load_recording
from acquisition.source import Chunk, Marker, SourceOptions
from acquisition.stream_info import StreamInfo

ROOT = Path(__file__).resolve().parents[2]
NONE = SourceOptions()
EIGHT = SourceOptions(ch_names=("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2"), unit="uV")


@pytest.fixture(autouse=True)
def _open_quickly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names here are unique: no need to look on for others, but where that is tested."""
    if "several" not in request.node.name:
        monkeypatch.setattr("acquisition.lsl_search._OTHERS_S", 0.0)


@dataclass
class Received:
    info: StreamInfo
    chunks: list[Chunk]
    markers: list[Marker]
    pushed: list[Pushed]

    @property
    def data(self) -> np.ndarray:
        return np.concatenate([c.data for c in self.chunks], axis=1)

    @property
    def jumps(self) -> list[int]:
        ends = [0, *[c.end for c in self.chunks]]
        found = [c.first_sample - e for c, e in zip(self.chunks, ends, strict=False)]
        return [f for f in found if f]


def round_trip(
    path: Path, speed: float, query: dict[str, str], options: SourceOptions = NONE
) -> Received:
    """Replay in a thread, receive here: the two meet only on the loopback interface."""
    streams = load_streams(path, options)
    n_eeg = max(s.n_times for s in streams if s.is_eeg)
    n_markers = sum(s.n_times for s in streams if s.is_markers and s.sfreq == 0)
    replay = LSLReplay(streams, speed)
    ended = threading.Event()

    def play() -> None:
        if replay.wait_for_consumer(15):
            replay.run()
        ended.set()

    player = threading.Thread(target=play)
    player.start()
    try:
        source = open_lsl("", query, SourceOptions())
        chunks: list[Chunk] = []
        markers: list[Marker] = []
        n_quiet = 0
        while n_quiet < 5:
            reading = source.read(0.2)
            chunks += reading.chunks
            markers += reading.markers
            is_all = sum(c.n_times for c in chunks) >= n_eeg and len(markers) >= n_markers
            # A little longer than needed: nothing may come twice either.
            n_quiet += ended.is_set() and not reading.chunks and not reading.markers
            if is_all and ended.is_set():
                n_quiet += 1
        source.close()
    finally:
        replay.stop()
        player.join()
        replay.close()
    return Received(source.info, chunks, markers, replay.pushed())


def shared(name: str) -> Path:
    path = made.SHARED / name
    if not path.exists():
        pytest.skip(f"shared/data/{name} is not here")
    return path


def test_a_recording_comes_back_whole(tmp_path: Path) -> None:
    path = made.session_xdf(tmp_path / "s.xdf")
    received = round_trip(path, 1.0, {"name": "Head"})
    assert received.info.ch_names == ("C3", "Cz", "C4")
    assert received.info.honesty == "replay"
    np.testing.assert_array_equal(received.data, made.noise(500, 3).T)
    assert received.jumps == [250]
    assert sum(c.n_lost for c in received.chunks) == 0
    assert [m.label for m in received.markers] == ["onset/dog", "offset", "onset/cat"]
    counted = {(p.name, p.type): (p.n_samples, p.had_consumer) for p in received.pushed}
    assert counted == {
        ("Head", "ACC"): (100, False),
        ("Head", "EEG"): (500, True),
        ("Shown", "Markers"): (3, True),
        ("Empty", "Markers"): (0, False),
    }
    # Relative times are those of the recording: markers stand at the same samples.
    original = load_recording(path)
    stamps = np.concatenate([c.timestamps for c in received.chunks])
    np.testing.assert_allclose(
        stamps - stamps[0], original.timestamps - original.timestamps[0], atol=0.002
    )
    since = [m.timestamp - stamps[0] for m in received.markers]
    expected = [m.timestamp - original.timestamps[0] for m in original.markers]
    np.testing.assert_allclose(since, expected, atol=0.003)


def test_every_stream_is_announced_with_its_names_and_honesty(tmp_path: Path) -> None:
    replay = LSLReplay(load_streams(made.session_xdf(tmp_path / "s.xdf"), SourceOptions()))
    try:
        finder = StreamFinder(load_pylsl())
        threading.Event().wait(1.2)
        found = {(s.name, s.type, s.n_channels) for s in finder.streams()}
        assert {("Head", "EEG", 3), ("Head", "ACC", 3), ("Shown", "Markers", 1)} <= found
    finally:
        replay.close(linger=0)


def test_waiting_for_a_consumer_ends(tmp_path: Path) -> None:
    replay = LSLReplay(load_streams(made.session_xdf(tmp_path / "s.xdf"), SourceOptions()))
    assert replay.wait_for_consumer(0.05) is False
    replay.stop()
    assert replay.wait_for_consumer(60.0) is False
    replay.close(linger=0)


def test_a_loop_goes_round_until_it_is_stopped(tmp_path: Path) -> None:
    streams = load_streams(made.session_xdf(tmp_path / "s.xdf"), SourceOptions())
    replay = LSLReplay(streams, speed=50.0, is_looped=True)
    pushed = replay.run(on_round=lambda n: replay.stop() if n == 2 else None)
    replay.close(linger=0)
    assert [p.n_samples for p in pushed] == [200, 1000, 6, 0]


def test_the_operators_names_and_unit_are_announced(tmp_path: Path) -> None:
    bare = made.XDFStream(
        "Bare", "EEG", 250.0, made.noise(100, 2), made.gap_times(100, 250.0, {}), source_id="b"
    )
    path = made.write_xdf(tmp_path / "b.xdf", [bare])
    options = SourceOptions(ch_names=("O1", "O2"), unit="mV")
    received = round_trip(path, 1.0, {"name": "Bare"}, options)
    assert received.info.ch_names == ("O1", "O2")
    np.testing.assert_allclose(received.data, 1e3 * made.noise(100, 2).T, rtol=1e-6)
    with pytest.raises(SourceError, match="'Bare' has 2 channels, but --ch-names gives 1"):
        load_streams(path, SourceOptions(ch_names=("O1",)))


def test_a_recording_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    empty = made.XDFStream("Amp", "EEG", 250.0, made.noise(0, 2), np.zeros(0), ("C3", "C4"), "uV")
    with pytest.raises(RecordingError, match=r"e\.xdf holds no sample at all"):
        load_streams(made.write_xdf(tmp_path / "e.xdf", [empty]), SourceOptions())


def test_a_speed_of_zero_is_refused(tmp_path: Path) -> None:
    streams = load_streams(made.session_xdf(tmp_path / "s.xdf"), SourceOptions())
    with pytest.raises(SourceError, match=r"speed is 0\. Give a speed between 0 and 1000"):
        LSLReplay(streams, speed=0)


def test_the_warning_says_who_can_read_it() -> None:
    assert "whoever is on the network can read" in WARNING


SENDER = """
import sys
from pathlib import Path
from acquisition.lsl_replay import LSLReplay, load_streams
from acquisition.source import SourceOptions
replay = LSLReplay(load_streams(Path(sys.argv[1]), SourceOptions()), speed=2.0)
replay.wait_for_consumer(20)
print(sum(p.n_samples for p in replay.run() if p.type == "EEG"), flush=True)
replay.close(1.0)
"""


def test_two_processes_lose_no_sample(tmp_path: Path) -> None:
    path = made.session_xdf(tmp_path / "s.xdf", n=1000, gap_s=0.5)
    sender = subprocess.Popen(
        [sys.executable, "-c", SENDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        source = open_lsl("", {"name": "Head", "timeout": "20"}, SourceOptions())
        chunks: list[Chunk] = []
        for _ in range(100):
            chunks += source.read(0.2).chunks
            if sum(c.n_times for c in chunks) >= 1000:
                break
        source.close()
        pushed, _ = sender.communicate(timeout=20)
    finally:
        sender.kill()
    assert int(pushed) == 1000
    data = np.concatenate([c.data for c in chunks], axis=1)
    np.testing.assert_array_equal(data, made.noise(1000, 3).T)


@pytest.mark.parametrize(
    ("name", "speed", "query", "options"),
    [
        ("xdf-mentalab/explore_8ch_325s.xdf", 100.0, {"name": "Explore_CA46_ExG"}, EIGHT),
        ("xdf-example-files/clock_resets.xdf", 200.0, {"name": "BioSemi"}, EIGHT),
        (
            "xdf-muse-lsl2/sub-P003_ses-S001_task-Default_run-001_eeg.xdf",
            5.0,
            {"name": "Muse"},
            None,
        ),
        (
            "xdf-muse-lsl2/sub-P050_ses-S001_task-Default_run-001_eeg.xdf",
            5.0,
            {"name": "Muse"},
            None,
        ),
    ],
)
def test_real_recordings_come_back_whole(
    name: str, speed: float, query: dict[str, str], options: SourceOptions | None
) -> None:
    path = shared(name)
    received = round_trip(path, speed, query, options or SourceOptions())
    original = load_recording(path, options)
    np.testing.assert_array_equal(received.data, original.data)
    assert sum(c.n_lost for c in received.chunks) == 0
    gaps = original.n_missing[original.n_missing > 0]
    np.testing.assert_allclose(received.jumps, gaps, atol=0.01 * np.max(gaps, initial=1))
    assert [m.label for m in received.markers] == [m.label for m in original.markers]
