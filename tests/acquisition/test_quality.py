import csv
from pathlib import Path

import numpy as np
import pytest

from acquisition.quality import ElectrodeQuality, QualityMonitor, QualityParameters
from acquisition.source import Chunk
from acquisition.stream_info import StreamInfo

SFREQ = 250.0
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def eeg(seconds: float = 6, sfreq: float = SFREQ, amplitude: float = 12) -> np.ndarray:
    """Noise, alpha and an electrode's offset, as a good electrode gives them."""
    t = np.arange(int(seconds * sfreq)) / sfreq
    noise = np.random.default_rng(5).normal(0, amplitude, len(t))
    return noise + 1.5 * amplitude * np.sin(2 * np.pi * 10 * t) - 7000


def readings(
    data: np.ndarray,
    sfreq: float = SFREQ,
    length: int = 10,
    parameters: QualityParameters | None = None,
) -> list[list[ElectrodeQuality]]:
    data = np.atleast_2d(data).astype(np.float32)
    names = tuple(f"E{i}" for i in range(len(data)))
    monitor = QualityMonitor(StreamInfo("test", names, sfreq, "live"), parameters)
    found = []
    for at in range(0, data.shape[1], length):
        part = data[:, at : at + length]
        found.append(monitor.push(Chunk(part, at / sfreq + np.arange(part.shape[1]) / sfreq, at)))
    return [reading for reading in found if reading is not None]


def last(data: np.ndarray, sfreq: float = SFREQ) -> ElectrodeQuality:
    return readings(data, sfreq)[-1][0]


def wave(freq: float, amplitude: float, n_times: int, sfreq: float = SFREQ) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * freq * np.arange(n_times) / sfreq)


@pytest.mark.parametrize("sfreq", [100.0, 250.0, 256.0, 1000.0])
def test_a_good_electrode_is_good_at_any_rate(sfreq: float) -> None:
    assert last(eeg(sfreq=sfreq), sfreq) == ElectrodeQuality("E0", "good", ())


@pytest.mark.parametrize("length", [1, 8, 62, 63])
def test_a_reading_comes_four_times_a_second_after_the_first_second(length: int) -> None:
    # From 1 s to 6 s inclusive: 21, where the chunks are not longer than the quarter.
    assert abs(len(readings(eeg(6), length=length)) - 21) <= 1


def test_a_long_chunk_gives_one_reading() -> None:
    assert len(readings(eeg(30), length=7500)) == 1


def test_a_flat_electrode_is_off() -> None:
    assert last(eeg(amplitude=0.1)) == ElectrodeQuality("E0", "off", ("flat",))
    assert last(np.full(1500, 3.0)).grade == "off"
    assert last(np.full(1500, np.nan)) == ElectrodeQuality("E0", "off", ("flat",))


def test_railed_follows_the_thresholds_of_75_and_90_per_cent() -> None:
    full = QualityParameters().full_scale_uv
    assert last(eeg() + 7000 + 0.7 * full).grade == "good"
    assert last(eeg() + 7000 - 0.8 * full) == ElectrodeQuality("E0", "poor", ("railed",))
    assert last(eeg() + 7000 - 0.95 * full) == ElectrodeQuality("E0", "off", ("railed",))


def test_an_amplifier_that_clips_is_railed_whatever_its_range() -> None:
    swinging = wave(1.0, 3000, 1500) + eeg()
    assert "railed" not in last(swinging).reasons
    clipped = np.clip(swinging, -8000, None)
    assert last(clipped).grade == "off"
    assert last(clipped).reasons[0] == "railed"


@pytest.mark.parametrize("freq", [50.0, 60.0, 49.8])
def test_mains_is_line_noise_and_not_noise(freq: float) -> None:
    assert last(eeg() + wave(freq, 60, 1500)) == ElectrodeQuality("E0", "fair", ("line noise",))
    assert last(eeg() + wave(freq, 300, 1500)) == ElectrodeQuality("E0", "poor", ("line noise",))


def test_little_mains_and_strong_alpha_are_good() -> None:
    assert last(eeg() + wave(50, 8, 1500)).grade == "good"
    assert last(eeg() + wave(40, 30, 1500)).grade == "good"


def test_drift_is_seen_over_four_seconds() -> None:
    slope = np.arange(1500) / SFREQ
    assert last(eeg() + 20 * slope).grade == "good"
    assert last(eeg() - 150 * slope) == ElectrodeQuality("E0", "fair", ("drift",))
    assert last(eeg() + 1000 * slope) == ElectrodeQuality("E0", "poor", ("drift",))


def test_noise_is_graded_and_a_blink_is_no_noise() -> None:
    rng = np.random.default_rng(2)
    assert last(rng.normal(0, 70, 1500)) == ElectrodeQuality("E0", "fair", ("noisy",))
    assert last(rng.normal(0, 200, 1500)) == ElectrodeQuality("E0", "poor", ("noisy",))
    blink = np.exp(-(((np.arange(1500) / SFREQ - 3) / 0.1) ** 2)) * 250
    assert all(reading[0].grade == "good" for reading in readings(eeg() + blink))


def test_each_electrode_is_graded_for_itself_and_recovers() -> None:
    data = np.stack([eeg(12), eeg(12, amplitude=300), eeg(12)])
    data[1, 1500:] = eeg()
    data[2, :1500] = 0
    found = readings(data)
    assert [q.grade for q in found[10]] == ["good", "poor", "off"]
    assert [q.name for q in found[10]] == ["E0", "E1", "E2"]
    assert [q.grade for q in found[-1]] == ["good", "good", "good"]


def real(path: Path) -> Path:
    if not path.is_file():
        pytest.skip(f"the real recording {path.name} is not there")
    return path


def test_a_real_headset_that_sits_well_is_good_nearly_always() -> None:
    path = real(DATA / "muse-lsl" / "spatial_freq" / "data_2017-09-27-22.54.54.csv")
    with path.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    names = ("TP9", "AF7", "AF8", "TP10", "Right AUX")
    found = readings(np.array([[float(row[name]) for row in rows] for name in names]), 256)
    for i in range(len(names)):
        assert np.mean([reading[i].grade == "good" for reading in found]) > 0.98


def test_a_real_headset_full_of_mains_is_told_so() -> None:
    folder = DATA / "openbci-gui-sample"
    path = real(folder / "OpenBCI_GUI-v6-blinks-jawClench-alpha.txt")
    rows = [line.split(",") for line in path.read_text().splitlines() if line[:1].isdigit()]
    found = readings(np.array([[float(v) for v in row[1:9]] for row in rows]).T)
    for i in range(8):
        assert np.mean(["line noise" in reading[i].reasons for reading in found]) > 0.9
