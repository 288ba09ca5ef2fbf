"""Other programs' recordings as sessions: to the bit and the sample, in runs that do not leak."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyxdf
from PIL import Image

from acquisition.errors import RecordingError, StreamInfoError
from acquisition.recording import Recording, load_recording
from acquisition.source import Marker, SourceOptions
from acquisition.stream_info import StreamInfo
from acquisition.xdf_writer import XDFWriter, read_notes
from app.errors import ExitCode, SettingsError, SummaryError
from app.import_session import Wanted, import_session
from app.public_sessions import PUBLIC
from app.recorder import CONSENT
from app.session_recordings import JoinedRecordings
from app.session_trials import Trial, by_pauses, by_position, said
from tests.acquisition import made_recordings as made
from tests.app.test_cli import run
from tests.sessions import CH_NAMES, write_session

NOW = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
LEFT_RIGHT = Wanted({"1": "left", "2": "right", "9": "offset"})
MUSE = made.SHARED / "muse-lsl"


def record(
    path: Path,
    markers: list[Any],
    *,
    at: list[int] | None = None,
    kind: str = "int32",
    t_first: float = 100.0,
    gaps: dict[int, float] | None = None,
    seed: int = 1,
    scale: float = 1.0,
    names: tuple[str, ...] = ("O1", "O2", "Pz"),
) -> Path:
    """EEG of 20 s and a stream of markers beside it, as LabRecorder writes them."""
    n = 5000
    times = made.gap_times(n, 250.0, gaps or {}, t_first)
    places = at or [500 + 300 * i for i in range(len(markers))]
    values = np.array(markers, dtype=object if kind == "text" else np.float32).reshape(-1, 1)
    eeg = made.noise(n, len(names), seed) * np.float32(scale)
    return made.write_xdf(
        path,
        [
            made.XDFStream("PsychoPy", "Markers", 0.0, values, times[places]),
            made.XDFStream("cap", "EEG", 250.0, eeg, times, names, "microvolts", "EEG"),
        ],
    )


def take(
    sources: list[Path] | list[str],
    folder: Path,
    wanted: Wanted = LEFT_RIGHT,
    subject: str = "P01",
    has_consent: bool = True,
) -> tuple[Path, list[str]]:
    """Import, and what was said."""
    lines: list[str] = []
    path = import_session(
        [str(s) for s in sources], folder, subject, 30, has_consent, wanted, NOW, lines.append
    )
    return path, lines


def load(path: Path) -> tuple[dict[str, Any], list[tuple[float, dict[str, Any]]]]:
    """By pyxdf: the EEG, and markers with their times."""
    streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
    by_type = {s["info"]["type"][0]: s for s in streams}
    texts = [text for [text] in by_type["Markers"]["time_series"]]
    read = [json.loads(t) if t.startswith("{") else {"label": t} for t in texts]
    return by_type["EEG"], list(zip(by_type["Markers"]["time_stamps"], read, strict=True))


def onsets(path: Path) -> list[dict[str, Any]]:
    return [m for _, m in load(path)[1] if m["label"].startswith("onset/")]


def test_samples_gaps_and_markers_are_carried_over_to_the_bit(tmp_path: Path) -> None:
    source = record(tmp_path / "a-2020-02-29.xdf", [1, 9, 2, 9, 1, 9, 2, 9], gaps={2000: 0.5})
    path, said_ = take([source], tmp_path / "recordings")
    assert path == tmp_path / "recordings" / "P01" / "2026-11-27T09-30-00.xdf"
    eeg, markers = load(path)
    times = made.gap_times(5000, 250.0, {2000: 0.5})
    np.testing.assert_array_equal(eeg["time_series"], made.noise(5000, 3))
    np.testing.assert_array_equal(eeg["time_stamps"], times)
    channels = eeg["info"]["desc"][0]["channels"][0]["channel"]
    assert [(c["label"][0], c["unit"][0]) for c in channels] == [
        (name, "microvolts") for name in ("O1", "O2", "Pz")
    ]
    assert [t for t, _ in markers] == [times[500 + 300 * i] for i in range(8)]
    assert [m["label"] for _, m in markers] == ["onset/left", "offset", "onset/right", "offset"] * 2
    assert markers[2][1] == {
        "label": "onset/right",
        "number": 1,
        "picture": "right",
        "trial": 1,
        "run": 0,
        "is_catch": False,
    }
    notes = read_notes(path)
    assert (notes["subject"], notes["recorded_on"]) == ("P01", "2020-02-29")
    assert (notes["imported_on"], notes["keep_until"]) == ("2026-11-27", "2026-12-27")
    assert notes["consent"] == CONSENT
    assert b"a-2020" not in path.read_bytes(), "a file's name may be a person's"
    assert "WARNING: all trials are in one run" in said_[0]
    assert said_[-1].endswith("1 run(s); left 2, right 2 trials; 3 electrodes, 250 Hz.")
    again, source_again = load_recording(path), load_recording(source)
    np.testing.assert_array_equal(again.n_missing, source_again.n_missing)


@pytest.mark.parametrize("kind", ["text", "float32"])
def test_markers_of_psychopy_may_be_texts_or_numbers(tmp_path: Path, kind: str) -> None:
    values = ["face", "house", "99", "face", "house"] if kind == "text" else [1, 2, 99, 1, 2]
    labels = {"face": "face", "house": "house"} if kind == "text" else {"1": "face", "2": "house"}
    path, lines = take(
        [record(tmp_path / "a.xdf", values, kind=kind)],
        tmp_path / "r",
        Wanted({**labels, "7": "car"}),
    )
    assert [m["label"] for m in onsets(path)] == ["onset/face", "onset/house"] * 2
    assert "1 markers that name no class were left out: 99 (1)." in lines
    assert "--labels names markers that do not occur: 7." in lines


def test_recordings_follow_one_another_and_each_is_a_run(tmp_path: Path) -> None:
    first = record(tmp_path / "a.xdf", [1, 2, 1, 2])
    # Its clock begins before the first one's end; the third one's comes later.
    second = record(tmp_path / "b.xdf", [2, 1, 2, 1], t_first=50.0, seed=2, gaps={3000: 2.0})
    third = record(tmp_path / "c.xdf", [2, 2, 1, 1], t_first=1000.0, seed=3)
    path, _ = take([first, second, third], tmp_path / "r")
    eeg, markers = load(path)
    assert [m["run"] for _, m in markers] == [0] * 4 + [1] * 4 + [2] * 4
    assert [m["trial"] for _, m in markers] == list(range(12))
    np.testing.assert_array_equal(
        eeg["time_series"], np.concatenate([made.noise(5000, 3, seed) for seed in (1, 2, 3)])
    )
    times = eeg["time_stamps"]
    places = np.searchsorted(times, [t for t, _ in markers])
    assert places.tolist() == [5000 * i + 500 + 300 * k for i in range(3) for k in range(4)]
    np.testing.assert_allclose(times[places], [t for t, _ in markers], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(times[10000:], made.gap_times(5000, 250.0, {}, 1000.0))
    missing = load_recording(path).n_missing
    assert np.flatnonzero(missing).tolist() == [5000, 8000, 10000]


def test_a_recording_is_cut_into_runs_at_its_breaks(tmp_path: Path) -> None:
    at = [500, 700, 900, 1100, 3000, 3200, 3400, 3600]
    source = record(tmp_path / "a.xdf", [1, 2, 2, 1, 2, 1, 1, 2], at=at)
    path, lines = take([source], tmp_path / "r", replace(LEFT_RIGHT, run_gap=5.0))
    assert [m["run"] for m in onsets(path)] == [0] * 4 + [1] * 4
    assert not any("WARNING" in line for line in lines)


def test_a_gap_that_the_times_do_not_show_is_shown(tmp_path: Path) -> None:
    n_missing = np.zeros(1000, np.int64)
    n_missing[400] = 1
    times = np.arange(1000) / 250
    data = made.noise(1000, 2).T
    markers = (Marker(times[399], "onset/a"), Marker(times[400], "onset/b"))
    recording = Recording(
        StreamInfo("joined", ("O1", "O2"), 250.0, "replay"), data, times, n_missing, markers
    )
    joined = JoinedRecordings()
    joined.append(recording, said({}), by_pauses(), False)
    [moved] = joined.recordings
    assert moved.data is data
    np.testing.assert_array_equal(moved.timestamps[:400], times[:400])
    np.testing.assert_array_equal(moved.timestamps[400:], times[400:] + 1)
    assert [t.timestamp for t in joined.trials] == [times[399], times[400] + 1]


def test_markers_name_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("animals/cat_01", "animals/cat_02", "tools/saw"):
        (tmp_path / "stimuli" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "stimuli" / f"{name}.png")
    texts = ["cat_01", "saw.png", "onset/cat_02", "break", "tools/saw"]
    source = record(tmp_path / "a.xdf", texts, kind="text")
    path, lines = take([source], tmp_path / "r", Wanted(stimuli=tmp_path / "stimuli"))
    assert [(m["label"], m["picture"]) for m in onsets(path)] == [
        ("onset/animals", "animals/cat_01"),
        ("onset/tools", "tools/saw"),
        ("onset/animals", "animals/cat_02"),
        ("onset/tools", "tools/saw"),
    ]
    assert any("break (1)" in line for line in lines)


def test_a_session_of_this_program_is_taken_as_it_is(tmp_path: Path) -> None:
    source = write_session(tmp_path / "other" / "a.xdf", n_classes=3, n_runs=3, trials_per_class=6)
    path, _ = take([source], tmp_path / "r", Wanted())
    eeg, markers = load(path)
    before, markers_before = load(source)
    assert markers == markers_before
    np.testing.assert_array_equal(eeg["time_series"], before["time_series"])
    np.testing.assert_array_equal(eeg["time_stamps"], before["time_stamps"])


def test_blocks_are_imported_in_their_order_with_a_warning(tmp_path: Path) -> None:
    for name, blocked in (("mixed", False), ("blocked", True)):
        source = write_session(tmp_path / f"{name}.xdf", blocked=blocked)
        path, lines = take([source], tmp_path / name, Wanted())
        warned = [line for line in lines if "label and time are confounded" in line]
        assert bool(warned) == blocked
        labels = [m["number"] for m in onsets(path)]
        assert (labels == sorted(labels)) == blocked


def test_published_data_need_no_consent_of_ours(tmp_path: Path) -> None:
    source = record(tmp_path / "a.xdf", [1, 2, 1, 2])
    with pytest.raises(SettingsError, match="only of a person who agreed"):
        take([source], tmp_path / "r", has_consent=False)
    published = replace(LEFT_RIGHT, licence="CC0; example.org")
    notes = read_notes(take([source], tmp_path / "r", published, has_consent=False)[0])
    assert notes["licence"] == "CC0; example.org"
    assert "consent" not in notes


def test_the_same_eeg_is_not_taken_twice(tmp_path: Path) -> None:
    source = record(tmp_path / "a.xdf", [1, 2, 1, 2])
    other = record(tmp_path / "b.xdf", [1, 2, 1, 2], seed=2)
    with pytest.raises(SettingsError, match="Recording 1 is named twice"):
        take([source, source], tmp_path / "r")
    path, _ = take([source], tmp_path / "r")
    kept = path.read_bytes()
    with pytest.raises(SettingsError, match="holds the same EEG already"):
        take([other, source], tmp_path / "r")
    assert [p.name for p in (tmp_path / "r" / "P01").iterdir()] == [path.name]
    # At the same second.
    assert take([other], tmp_path / "r")[0].name == "2026-11-27T09-30-00-2.xdf"
    assert path.read_bytes() == kept
    assert take([source], tmp_path / "r", subject="P02")[0].is_file()


@pytest.mark.parametrize(
    ("markers", "given", "wanted", "error", "text"),
    [
        ([], {}, LEFT_RIGHT, RecordingError, "There are no markers beside the EEG"),
        ([3, 4], {}, LEFT_RIGHT, SettingsError, r"names a class: there are 3 \(1\), 4 \(1\). Say"),
        ([1, 2], {}, Wanted(), SettingsError, "None of the markers names a class"),
        ([1, 1], {}, LEFT_RIGHT, SettingsError, "All 2 trials are of the class 'left'"),
        ([1, 1, 2], {}, LEFT_RIGHT, SettingsError, "class 'right' has a single trial"),
        ([1, 2], {"scale": 1e-6}, LEFT_RIGHT, StreamInfoError, "differ by 2.*e-05 uV.*--unit V"),
        ([1, 2], {"names": ("1", "2")}, LEFT_RIGHT, StreamInfoError, "--ch-names"),
    ],
)
def test_what_is_no_session_is_refused_in_a_sentence(
    tmp_path: Path,
    markers: list[int],
    given: dict[str, Any],
    wanted: Wanted,
    error: type[Exception],
    text: str,
) -> None:
    source = record(tmp_path / "a.xdf", markers, **given)
    with pytest.raises(error, match=text):
        take([source], tmp_path / "r", wanted)
    assert not (tmp_path / "r").exists()


def test_markers_by_another_clock_are_refused(tmp_path: Path) -> None:
    times = made.gap_times(500, 250.0, {})
    streams = [
        made.XDFStream("m", "Markers", 0.0, np.array([["onset/a"]], dtype=object), times[:1] - 50),
        made.XDFStream("e", "EEG", 250.0, made.noise(500, 1), times, ("O1",), "uV", "EEG"),
    ]
    with pytest.raises(RecordingError, match="All 1 onsets lie before or after the EEG"):
        take([made.write_xdf(tmp_path / "a.xdf", streams)], tmp_path / "r", Wanted())


def test_other_electrodes_or_sets_are_no_part_of_a_session(tmp_path: Path) -> None:
    a = record(tmp_path / "a.xdf", [1, 2])
    b = record(tmp_path / "b.xdf", [1, 2], names=("O1", "O2", "Cz"), seed=2)
    with pytest.raises(StreamInfoError, match="has one headset: the electrodes"):
        take([a, b], tmp_path / "r")
    with pytest.raises(SettingsError, match="a session of its own"):
        take(["faces:N170", str(a)], tmp_path / "r", Wanted())
    with pytest.raises(SettingsError, match="leave out"):
        take(["faces:N170"], tmp_path / "r", LEFT_RIGHT)
    with pytest.raises(SettingsError, match="holds no recordings"):
        take([f"faces:{tmp_path}"], tmp_path / "r", Wanted())


def test_without_room_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = record(tmp_path / "a.xdf", [1, 2, 1, 2])
    monkeypatch.setattr(XDFWriter, "add_text", refuse)
    with pytest.raises(SummaryError, match="No space left on device"):
        take([source], tmp_path / "r")
    assert list((tmp_path / "r" / "P01").iterdir()) == []


def test_the_command_says_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = record(tmp_path / "a.xdf", [1, 2, 1, 2]), str(tmp_path / "r")
    words = ["import-session", str(source), "--subject", "P01", "--recordings", folder]
    assert run(monkeypatch, *words, "--labels", "1") == ExitCode.USAGE
    assert "as 1=left,2=right, not '1'" in capsys.readouterr().err
    labels = ["--labels", "1=left,2=right", "--consented"]
    assert run(monkeypatch, *words, *labels, "--unit", "V") == ExitCode.STREAM_INFO
    assert run(monkeypatch, *words, *labels) == 0
    assert "left 2, right 2 trials" in capsys.readouterr().err
    assert run(monkeypatch, "subjects", "list", "--recordings", folder) == 0
    assert "P01: 1 recording(s)" in capsys.readouterr().out


# Public recordings


def test_runs_of_places_are_the_same_places_in_every_recording() -> None:
    trials = [Trial(float(i), "a", "a") for i in range(10)]
    assert by_position(5)(trials) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert by_position(5)([]) == by_pauses(1.0)([]) == []


@pytest.mark.parametrize(
    ("source", "n_runs", "counts"),
    [
        ("gratings:muse-lsl/spatial_freq", 5, {"high": 120, "low": 120}),
        ("faces:muse-lsl/N170", 6, {"face": 583, "house": 591}),
        ("faces-expy:eeg-expy", 2, {"face": 195, "house": 200}),
        ("cats-dogs:muse-lsl/P300", 6, {"cat": 185, "dog": 976}),
    ],
)
def test_public_recordings_become_sessions(
    tmp_path: Path, source: str, n_runs: int, counts: dict[str, int]
) -> None:
    if not MUSE.is_dir():
        pytest.skip("shared/data/muse-lsl is not here")
    kind, _, place = source.partition(":")
    path, lines = take(
        [f"{kind}:{made.SHARED / place}"], tmp_path, Wanted(options=SourceOptions()), "X01", False
    )
    eeg, markers = load(path)
    tables = [
        np.loadtxt(p, delimiter=",", skiprows=1)
        for p in sorted((made.SHARED / place).glob("*.csv"))
    ]
    table = np.concatenate(tables)
    np.testing.assert_array_equal(eeg["time_series"], table[:, 1:6].astype(np.float32))
    # Times that jitter backwards are levelled, as in live use.
    level = np.concatenate([np.maximum.accumulate(t[:, 0]) for t in tables])
    np.testing.assert_array_equal(eeg["time_stamps"], level)
    marked = table[table[:, 6:].any(axis=1)]
    np.testing.assert_array_equal([t for t, _ in markers], marked[:, 0])
    shown = onsets(path)
    found = Counter(m["label"].removeprefix("onset/") for m in shown)
    assert {name: found[name] for name in counts} == counts
    assert len({m["run"] for m in shown}) == n_runs
    assert "BSD-3-Clause" in read_notes(path)["licence"]
    assert len(lines) == 1, "no warning: a run that is held out is not known from the others"
    if kind == "gratings":
        # Place in the order: trial 0 of each recording is in run 0, and so on.
        by_place = np.array([m["run"] for m in shown]).reshape(3, 80)
        np.testing.assert_array_equal(by_place, np.tile(np.arange(80) * 5 // 80, (3, 1)))
        orders = np.array([m["picture"] for m in shown]).reshape(3, 80)
        assert (orders == orders[0]).all(), "what a held-out recording would leak"


def test_gratings_are_classes_of_frequency_or_of_their_image() -> None:
    high, gone = Marker(0.0, "2/1/45"), Marker(1.5, "4/1/45")
    for kind, name in (("gratings", "high"), ("grating-images", "high 45°")):
        meaning = PUBLIC[kind]().meaning
        shown = meaning(high)
        assert isinstance(shown, Trial)
        assert (shown.name, shown.picture) == (name, "high 45°")
        assert meaning(gone) == "offset"


# The helper of other tests


def test_a_made_session_has_its_effect_and_no_other(tmp_path: Path) -> None:
    means = {}
    for effect in (20.0, 0.0):
        path = write_session(
            tmp_path / f"{effect}.xdf", trials_per_class=60, effect_uv=effect, n_runs=3
        )
        eeg, markers = load(path)
        assert eeg["time_series"].shape[1] == len(CH_NAMES)
        by_class: dict[int, list[np.ndarray]] = {0: [], 1: []}
        for t, marker in markers:
            if "number" in marker:
                at = np.searchsorted(eeg["time_stamps"], t)
                by_class[marker["number"]].append(eeg["time_series"][at : at + 100])
        assert [len(epochs) for epochs in by_class.values()] == [60, 60]
        difference = np.mean(by_class[0], axis=0) - np.mean(by_class[1], axis=0)
        means[effect] = np.abs(difference).max()
    assert means[20.0] > 15
    assert means[0.0] < 6
    first = write_session(tmp_path / "same" / "a.xdf")
    again = write_session(tmp_path / "same" / "b.xdf")
    assert first.read_bytes() == again.read_bytes()
