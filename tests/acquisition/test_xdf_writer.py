"""What is written to XDF is read by pyxdf to the bit, however the writing ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyxdf
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition import xdf_writer
from acquisition.channels import Channel
from acquisition.recording_xdf import read_xdf
from acquisition.xdf_writer import StreamHeader, XDFWriter

EEG = StreamHeader(
    "Cap & <Co>", "EEG", "float32", 250.0, [Channel("Fp1", "EEG", "microvolts")] * 3, {"a": "ü"}
)
MARKERS = StreamHeader("Markers", "Markers", "string", 0.0, [Channel("marker")])


def load(path: Path) -> list[dict[str, Any]]:
    streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False, synchronize_clocks=False)
    return sorted(streams, key=lambda s: int(s["info"]["stream_id"]))


def test_two_streams_and_all_that_is_said_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    writer = XDFWriter(path, {"subject": "P01", "keep_until": "2027-01-01"})
    eeg, markers = writer.add_stream(EEG), writer.add_stream(MARKERS)
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(3, 50)).astype(np.float32)
    times = 100 + np.cumsum(rng.random(50)) / 250
    writer.add_samples(eeg, times[:20], samples[:, :20])
    writer.add_text(markers, 100.5, "onset/größe, \n x")
    writer.mark()
    writer.add_clock_offset(eeg, 101.0, 0.0)
    writer.add_samples(eeg, times[20:], samples[:, 20:])
    writer.add_samples(eeg, times[:0], samples[:, :0])
    writer.add_text(markers, 101.5, "")
    writer.close()
    assert path.stat().st_size == writer.n_bytes
    first, second = load(path)
    np.testing.assert_array_equal(first["time_series"], samples.T)
    np.testing.assert_array_equal(first["time_stamps"], times)
    assert second["time_series"] == [["onset/größe, \n x"], [""]]
    assert second["time_stamps"].tolist() == [100.5, 101.5]
    assert first["info"]["desc"][0]["a"] == ["ü"]
    assert first["footer"]["info"]["sample_count"] == ["50"]
    assert float(first["footer"]["info"]["last_timestamp"][0]) == times[-1]
    assert first["clock_times"] == [101.0]
    _, header = pyxdf.load_xdf(str(path))
    assert header["info"]["subject"] == ["P01"]
    # What this program reads of it.
    stream = read_xdf(path)[0]
    assert (stream.name, stream.type, stream.sfreq) == ("Cap & <Co>", "EEG", 250.0)
    assert stream.channels[0] == Channel("Fp1", "EEG", "microvolts")


def test_whatever_a_stream_is_called_and_however_fast_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    name = "cap\x00\x1b\ud800 \U0001f9e0"
    writer = XDFWriter(path, {"subject": name})
    writer.add_stream(
        StreamHeader(name, "EEG", "float32", 1163.63636363, [Channel(name)], {"note": name})
    )
    writer.close()
    [found] = load(path)
    assert found["info"]["name"] == ["cap\ufffd\ufffd\ufffd \U0001f9e0"]
    assert float(found["info"]["nominal_srate"][0]) == 1163.63636363


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.integers(1, 70),
    st.floats(-1e6, 1e9),
    st.integers(0, 2**32 - 1),
)
def test_any_chunks_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    n_channels: int,
    start: float,
    seed: int,
) -> None:
    path = tmp_path_factory.mktemp("xdf") / "a.xdf"
    writer = XDFWriter(path, {})
    stream = writer.add_stream(
        StreamHeader("a", "EEG", "float32", 1000.0, [Channel(str(c)) for c in range(n_channels)])
    )
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    samples = rng.integers(0, 2**32, (n_channels, n), np.uint32).view(np.float32)
    times = start + np.sort(rng.random(n))
    at = 0
    for length in lengths:
        writer.add_samples(stream, times[at : at + length], samples[:, at : at + length])
        at += length
    writer.close()
    [found] = load(path)
    if n:
        bits = np.ascontiguousarray(found["time_series"]).view(np.uint32)
        np.testing.assert_array_equal(bits, samples.T.view(np.uint32))
        np.testing.assert_array_equal(found["time_stamps"], times)


def test_without_footers_a_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    code = f"""
import sys, time
import numpy as np
from pathlib import Path
from acquisition.channels import Channel
from acquisition.xdf_writer import StreamHeader, XDFWriter
w = XDFWriter(Path({str(path)!r}), {{}})
s = w.add_stream(StreamHeader("a", "EEG", "float32", 250.0, [Channel()] * 4))
for k in range(10**6):
    w.add_samples(s, np.arange(5) + 5.0 * k, np.full((4, 5), k, np.float32))
    print(k, flush=True)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 200:
                break
        process.send_signal(signal.SIGKILL)
        last = [int(line) for line in process.stdout.read().split()]
    [found] = load(path)
    # All that it had said, and no more than one chunk that it had not said yet.
    n_said = 5 * (max([200, *last]) + 1)
    assert n_said <= len(found["time_stamps"]) <= n_said + 5
    assert found["time_series"][-1].tolist() == [len(found["time_stamps"]) // 5 - 1] * 4
    assert len(read_xdf(path)) == 1


class FullDisk:
    """Takes so many bytes and no more; a real disk also takes a part of a write."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: memoryview) -> int:
        if not self._room:
            raise OSError(28, "No space left on device")
        n = min(len(data), self._room)
        self._room -= n
        return int(self._file.write(data[:n]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    writer = XDFWriter(path, {})
    stream = writer.add_stream(EEG)
    samples = np.ones((3, 10), np.float32)
    writer.add_samples(stream, np.arange(10.0), samples)
    writer._file = FullDisk(writer._file, 300)
    writer.add_samples(stream, 10 + np.arange(10.0), samples)
    with pytest.raises(OSError, match="No space"):
        writer.add_samples(stream, 20 + np.arange(10.0), samples)
    assert path.stat().st_size == writer.n_bytes
    with pytest.raises(OSError, match="No space"):
        writer.close()
    [found] = load(path)
    assert found["time_stamps"].tolist() == list(range(20))
    assert len(read_xdf(path)) == 1


def test_without_room_for_its_header_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(XDFWriter, "_append", full)
    with pytest.raises(OSError, match="No space"):
        XDFWriter(tmp_path / "a.xdf", {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        xdf_writer.XDFWriter(path, {})
    assert path.read_bytes() == b"mine"
