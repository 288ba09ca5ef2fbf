"""Recordings are read whole, gaps kept, and bad ones refused in a sentence."""

import warnings
from itertools import pairwise
from pathlib import Path

import made_recordings as made
import numpy as np
import pytest

from acquisition.errors import RecordingError, SourceError, SourceNotFoundError, StreamInfoError
from acquisition.recording import Recording, load_recording, open_recording
from acquisition.source import SourceOptions

EIGHT = SourceOptions(ch_names=("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2"), unit="uV")


def shared(name: str) -> Path:
    path = made.SHARED / name
    if not path.exists():
        pytest.skip(f"shared/data/{name} is not here")
    return path


def gaps(recording: Recording) -> list[int]:
    return [int(n) for n in recording.n_missing if n]


def test_xdf_gives_the_eeg_its_gap_and_its_markers(tmp_path: Path) -> None:
    recording = load_recording(made.session_xdf(tmp_path / "s.xdf"))
    assert recording.info.ch_names == ("C3", "Cz", "C4")
    assert (recording.info.sfreq, recording.info.honesty) == (250.0, "replay")
    np.testing.assert_array_equal(recording.data, made.noise(500, 3).T)
    assert np.flatnonzero(recording.n_missing).tolist() == [250]
    assert gaps(recording) == [250]
    assert [m.label for m in recording.markers] == ["onset/dog", "offset", "onset/cat"]
    # A marker on a sample keeps that sample's very time.
    assert recording.markers[0].timestamp == recording.timestamps[10]


@pytest.mark.parametrize(
    ("type_", "value", "labels"),
    [("Markers", 2.0, ["2", "2"]), ("Markers", 0.5, []), ("Gaze", 2.0, [])],
)
def test_whole_floats_of_a_marker_stream_are_markers(
    tmp_path: Path, type_: str, value: float, labels: list[str]
) -> None:
    times = made.gap_times(500, 250.0, {})
    values = np.full((2, 1), value, np.float32)
    streams = [
        made.XDFStream("PsychoPy", type_, 0.0, values, times[[10, 20]]),
        made.XDFStream("cap", "EEG", 250.0, made.noise(500, 1), times, ("Cz",), "microvolts"),
    ]
    recording = load_recording(made.write_xdf(tmp_path / "m.xdf", streams))
    assert [m.label for m in recording.markers] == labels


def test_chunks_cover_every_sample_and_jump_at_the_gap(tmp_path: Path) -> None:
    recording = load_recording(made.session_xdf(tmp_path / "s.xdf"))
    chunks = list(recording.chunks(8))
    np.testing.assert_array_equal(np.concatenate([c.data for c in chunks], axis=1), recording.data)
    jumps = [b.first_sample - a.end for a, b in pairwise(chunks)]
    assert [j for j in jumps if j] == [250]
    assert all(c.n_lost == 0 for c in chunks)


def test_gaps_shorter_than_pyxdfs_smoothing_sees_are_kept(tmp_path: Path) -> None:
    assert gaps(load_recording(made.session_xdf(tmp_path / "s.xdf", gap_s=0.4))) == [100]


def test_volts_become_microvolts(tmp_path: Path) -> None:
    samples = made.noise(300, 2)
    stream = made.XDFStream(
        "Amp", "EEG", 250.0, samples * 1e-6, made.gap_times(300, 250.0, {}), ("C3", "C4"), "volts"
    )
    recording = load_recording(made.write_xdf(tmp_path / "v.xdf", [stream]))
    np.testing.assert_allclose(recording.data, samples.T, rtol=1e-5)


@pytest.mark.parametrize("share", [0.2, 0.55, 0.999])
def test_a_truncated_xdf_is_refused_unless_the_part_is_asked_for(
    tmp_path: Path, share: float
) -> None:
    whole = made.session_xdf(tmp_path / "s.xdf").read_bytes()
    cut = tmp_path / "cut.xdf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    remedy = r"cut\.xdf is cut off: .* by --source 'xdf:.*cut\.xdf\?partial=true'"
    with pytest.raises(RecordingError, match=remedy):
        load_recording(cut)


def test_the_part_of_a_truncated_xdf_can_be_used(tmp_path: Path) -> None:
    whole = made.session_xdf(tmp_path / "s.xdf").read_bytes()
    cut = tmp_path / "cut.xdf"
    cut.write_bytes(whole[: int(len(whole) * 0.6)])
    recording = load_recording(cut, parameters={"partial": "true"})
    assert 0 < recording.n_times < 500
    np.testing.assert_array_equal(recording.data, made.noise(500, 3).T[:, : recording.n_times])


def test_what_is_no_xdf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.xdf"
    for content, found in ((b"RIFF....", "begins with 'RIFF'"), (b"", "is empty")):
        path.write_bytes(content)
        with pytest.raises(RecordingError, match=rf"x\.xdf is not an XDF file: .* but it {found}"):
            load_recording(path)


def test_damage_inside_an_xdf_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.xdf"
    path.write_bytes(b"XDF:" + made._chunk(2, b"\x01\0\0\0<info"))
    with pytest.raises(RecordingError, match=r"x\.xdf is damaged: pyxdf stops with ParseError"):
        load_recording(path)


def test_a_recording_without_eeg_lists_what_it_holds(tmp_path: Path) -> None:
    acc = made.XDFStream("Watch", "ACC", 50.0, made.noise(90, 3), made.gap_times(90, 50.0, {}))
    path = made.write_xdf(tmp_path / "a.xdf", [acc])
    match = r"Expected an EEG stream in a\.xdf; it holds 'Watch' \(ACC, 3 channels, 50 Hz, 90 samp"
    with pytest.raises(RecordingError, match=match):
        load_recording(path)


def test_several_eeg_streams_are_listed_and_one_is_chosen_by_name(tmp_path: Path) -> None:
    times = made.gap_times(100, 250.0, {})
    streams = [
        made.XDFStream(n, "EEG", 250.0, made.noise(100, 2, seed), times, ("C3", "C4"), "uV")
        for seed, n in enumerate(("One", "Two"))
    ]
    path = made.write_xdf(tmp_path / "two.xdf", streams)
    with pytest.raises(RecordingError, match=r"several EEG streams: 'One' .*; 'Two' .*stream=NAME"):
        load_recording(path)
    chosen = load_recording(path, parameters={"stream": "Two"})
    np.testing.assert_array_equal(chosen.data, made.noise(100, 2, 1).T)


def test_an_empty_eeg_stream_is_refused(tmp_path: Path) -> None:
    empty = made.XDFStream("Amp", "EEG", 250.0, made.noise(0, 2), np.zeros(0), ("C3", "C4"), "uV")
    with pytest.raises(RecordingError, match=r"The EEG stream of e\.xdf is empty"):
        load_recording(made.write_xdf(tmp_path / "e.xdf", [empty]))


def test_missing_names_and_units_are_asked_for(tmp_path: Path) -> None:
    times = made.gap_times(100, 250.0, {})
    bare = made.XDFStream("Amp", "EEG", 250.0, made.noise(100, 2), times)
    path = made.write_xdf(tmp_path / "b.xdf", [bare])
    with pytest.raises(StreamInfoError, match="'Amp' has 2 EEG channels and does not name them"):
        load_recording(path)
    with pytest.raises(StreamInfoError, match=r"'Amp' states no unit\. .*as they would in uV"):
        load_recording(path, SourceOptions(ch_names=("C3", "C4")))
    options = SourceOptions(ch_names=("C3", "C4"), unit="uV")
    assert load_recording(path, options).info.ch_names == ("C3", "C4")


def test_a_missing_file_is_not_found() -> None:
    with pytest.raises(SourceNotFoundError, match=r"There is no recording /nowhere/x\.xdf"):
        load_recording(Path("/nowhere/x.xdf"))


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"sped": "2"}, "A recording has no parameter 'sped'. It knows speed, loop"),
        ({"speed": "fast"}, "speed is 'fast'; expected a number"),
        ({"speed": "0"}, "speed is 0. Give a speed between 0 and 1000"),
        ({"loop": "often"}, "loop is 'often'; expected true or false"),
    ],
)
def test_wrong_parameters_are_refused(
    tmp_path: Path, parameters: dict[str, str], sentence: str
) -> None:
    path = made.session_xdf(tmp_path / "s.xdf")
    with pytest.raises(SourceError, match=sentence):
        open_recording(str(path), parameters, SourceOptions())


def test_muse_lsl_text_gives_markers_with_all_columns_in_label_and_details(tmp_path: Path) -> None:
    lines = ["timestamps,TP9,AF7,Right AUX,Marker0,Marker1,Marker2"]
    for i in range(300):
        mark = "3.000,1.000,45.000" if i == 100 else "0.000,0.000,0.000"
        lines.append(f"{1000 + i / 256:.3f},{i % 7}.0,2.0,3.0,{mark}")
    path = tmp_path / "m.csv"
    path.write_text("\n".join(lines) + "\n")
    recording = load_recording(path)
    assert recording.info.ch_names == ("TP9", "AF7", "Right AUX")
    assert (recording.info.sfreq, recording.n_times, gaps(recording)) == (256.0, 300, [])
    (marker,) = recording.markers
    assert marker.label == "3/1/45"
    assert marker.details == {"Marker0": 3.0, "Marker1": 1.0, "Marker2": 45.0}
    assert marker.timestamp == recording.timestamps[100]


def write_marked_csv(path: Path) -> None:
    marks = {100: "1,45", 200: "3,45", 250: "2,90"}
    rows = [f"{10 + i / 256:.4f},1,2,3,{marks.get(i, '0,0')}" for i in range(300)]
    path.write_text("\n".join(["timestamps,TP9,AF7,AF8,Marker0,Marker1", *rows]) + "\n")


def test_markers_are_called_what_a_file_says(tmp_path: Path) -> None:
    path, names = tmp_path / "m.csv", tmp_path / "names.json"
    write_marked_csv(path)
    names.write_text('{"1/45": "onset/low 45°", "3/45": "offset"}', encoding="utf-8")
    markers = load_recording(path, parameters={"markers": str(names)}).markers
    assert [m.label for m in markers] == ["onset/low 45°", "offset", "2/90"]
    assert [m.label for m in load_recording(path).markers] == ["1/45", "3/45", "2/90"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "names of markers cannot be read from .*names.json"),
        ("{", "names of markers cannot be read"),
        ("[1]", "does not name markers. Expected one JSON object"),
        ('{"1": 2}', "does not name markers"),
    ],
)
def test_a_wrong_file_of_marker_names_is_refused(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    path, names = tmp_path / "m.csv", tmp_path / "names.json"
    write_marked_csv(path)
    if text is not None:
        names.write_text(text)
    with pytest.raises(RecordingError, match=sentence):
        load_recording(path, parameters={"markers": str(names)})


def test_openbci_text_is_read_and_asks_for_the_electrodes(tmp_path: Path) -> None:
    names = ["Sample Index", "EXG Channel 0", "EXG Channel 1", "Accel Channel 0", "Timestamp"]
    lines = ["%OpenBCI Raw EXG Data", "%Number of channels = 2", "%Sample Rate = 250 Hz"]
    lines += ["%Board = OpenBCI_GUI$BoardCytonSerial", ", ".join([*names, "Timestamp (Formatted)"])]
    start_ms = 1557936053000
    lines += [f"{i % 256}, {i}.5, -1.0, 0.1, {start_ms + 4 * i}, 12:00" for i in range(260)]
    path = tmp_path / "o.txt"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(StreamInfoError, match="'o' has 2 EEG channels and only numbers them"):
        load_recording(path)
    recording = load_recording(path, SourceOptions(ch_names=("C3", "C4")))
    assert recording.data[0, :3].tolist() == [0.5, 1.5, 2.5]
    assert recording.duration == pytest.approx(1.04, abs=1e-3)


def test_brainflow_text_needs_its_board(tmp_path: Path) -> None:
    rows = np.zeros((100, 24))
    rows[:, 1:9] = np.arange(8)
    rows[:, 22] = 1.6e9 + np.arange(100) / 250
    rows[40, 23] = 7
    path = tmp_path / "BrainFlow-RAW.csv"
    np.savetxt(path, rows, fmt="%.6f", delimiter="\t")
    with pytest.raises(RecordingError, match=r"does not name the board. .*\?board=cyton \(24 col"):
        load_recording(path)
    with pytest.raises(RecordingError, match="has 24 columns, but a recording of Synthetic has 32"):
        load_recording(path, parameters={"board": "synthetic"})
    recording = load_recording(path, parameters={"board": "cyton"})
    assert recording.info.ch_names[:2] == ("Fp1", "Fp2")
    assert recording.data[:, 5].tolist() == list(range(8))
    assert [(m.label, m.timestamp) for m in recording.markers] == [("7", recording.timestamps[40])]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hello\n", r"is no recording that is known\. .*begins with 'hello'"),
        ("", "is no recording that is known"),
        ("timestamps,TP9,Marker0\n1.0,2.0,0\n1.004,2", "has a line that is not as the others"),
        ("timestamps,TP9,Marker0\n", "holds no sample"),
        ("%OpenBCI Raw EEG Data\n%Number of channels = 8\n", "OpenBCI text without 'Sample Rate'"),
    ],
)
def test_bad_text_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(RecordingError, match=sentence):
        load_recording(path)


def test_mne_formats_give_microvolts_annotations_and_skipped_parts(tmp_path: Path) -> None:
    import mne

    rng = np.random.default_rng(0)
    volts = rng.normal(0, 2e-5, (3, 1000))
    info = mne.create_info(["C3", "C4", "STI"], 250.0, ["eeg", "eeg", "stim"])
    raw = mne.io.RawArray(volts, info, verbose="ERROR")
    raw.set_annotations(
        mne.Annotations([1.0, 2.0], [0.0, 0.6], ["onset/dog", "BAD_ACQ_SKIP"]), verbose="ERROR"
    )
    path = tmp_path / "made_raw.fif"
    raw.save(path, verbose="ERROR")
    recording = load_recording(path)
    assert recording.info.ch_names == ("C3", "C4")
    assert recording.n_times == 850
    assert np.flatnonzero(recording.n_missing).tolist() == [500]
    assert gaps(recording) == [150]
    np.testing.assert_allclose(recording.data[:, :500], 1e6 * volts[:2, :500], rtol=1e-4)
    assert [(m.label, m.timestamp) for m in recording.markers] == [("onset/dog", 1.0)]


def test_what_mne_cannot_read_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.edf"
    path.write_bytes(b"nonsense")
    with pytest.raises(RecordingError, match=r"x\.edf cannot be read: .*BrainVision \(\.vhdr\)"):
        load_recording(path)


def test_a_file_of_mne_without_eeg_lists_what_it_holds(tmp_path: Path) -> None:
    import mne

    info = mne.create_info(["A", "B"], 100.0, ["ecg", "misc"])
    raw = mne.io.RawArray(np.zeros((2, 100)), info, verbose="ERROR")
    path = tmp_path / "heart_raw.fif"
    raw.save(path, verbose="ERROR")
    with pytest.raises(RecordingError, match=r"it holds 'heart_raw' \(ecg, misc, 2 channels"):
        load_recording(path)


@pytest.mark.parametrize(
    ("name", "n_times", "options", "found_gaps"),
    [
        ("xdf-mentalab/explore_8ch_325s.xdf", 81344, EIGHT, []),
        ("xdf-example-files/clock_resets.xdf", 27815, EIGHT, [27355]),
        ("xdf-example-files/minimal.xdf", 9, SourceOptions(("C3", "Cz", "C4"), "uV"), []),
        ("xdf-muse-lsl2/sub-P001_ses-S001_task-Default_run-001_eeg.xdf", 2820, None, []),
        ("xdf-muse-lsl2/sub-P003_ses-S001_task-Default_run-001_eeg.xdf", 2687, None, []),
        ("muse-lsl/spatial_freq/data_2017-09-27-22.54.54.csv", 57612, None, []),
        ("eeg-expy/data_2018-04-15-21.18.48.csv", 30732, None, []),
        ("openbci-gui-sample/OpenBCI_GUI-v6-blinks-jawClench-alpha.txt", 22490, EIGHT, []),
        ("ssvep-exoskeleton/subject01.gdf", 57024, None, []),
    ],
)
def test_real_recordings_are_read_whole(
    name: str, n_times: int, options: SourceOptions | None, found_gaps: list[int]
) -> None:
    recording = load_recording(shared(name), options)
    assert recording.n_times == n_times
    assert gaps(recording) == found_gaps
    assert np.all(np.diff(recording.timestamps) >= 0)
    assert sum(c.n_times for c in recording.chunks()) == n_times


def test_real_gratings_have_their_240_onsets() -> None:
    recording = load_recording(shared("muse-lsl/spatial_freq/data_2017-09-27-22.54.54.csv"))
    labels = [m.label.partition("/")[0] for m in recording.markers]
    assert {label: labels.count(label) for label in "1234"} == dict.fromkeys("1234", 40)
    assert {m.details["Marker2"] for m in recording.markers} == {0.0, 45.0, 90.0, 135.0}


def test_the_unit_of_a_gdf_can_be_put_right() -> None:
    path = shared("ssvep-exoskeleton/subject01.gdf")
    said = load_recording(path)
    right = load_recording(path, SourceOptions(unit="mV"))
    np.testing.assert_allclose(right.data, 1e3 * said.data, rtol=1e-5)
    assert 1 < np.median(right.data.std(axis=1)) < 50


def test_real_xdf_without_eeg_says_what_it_holds() -> None:
    with pytest.raises(RecordingError, match=r"'ctrl' \(control, 1 channel, irregular, 1 samples"):
        load_recording(shared("xdf-example-files/empty_streams.xdf"))


def test_reading_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_recording(made.session_xdf(tmp_path / "s.xdf"))
