"""Recordings: who agreed, what is in the file to the sample, and what becomes of it under fire."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import pyxdf

from acquisition.recording import load_recording
from acquisition.simulated_subject import CH_NAMES, SFREQ
from acquisition.source import SourceOptions, open_source
from app.bundle import find_bundle, find_stimuli
from app.errors import ExitCode, SettingsError, SummaryError
from app.messages import Message, pack, unpack
from app.recorder import CONSENT, Recorder, Request, new_file
from app.serve import recording_commands
from app.session import Session
from app.settings import Settings
from tests.app.test_cli import run

REQUEST = Request("P01", 30, True)
TODAY = date(2026, 11, 27)
INFO: dict[str, Any] = {
    "name": "cap", "ch_names": ["Fp1", "Fp2"], "sfreq": 250.0, "honesty": "live"
}  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.t = 100.0

    def __call__(self) -> float:
        return self.t


def raw(
    number: int,
    values: np.ndarray,
    t: np.ndarray,
    began: float = 1.0,
    first_sample: int = 0,
    **info: Any,
) -> Message:
    header = {
        "began": began,
        "number": number,
        "first_sample": first_sample,
        "n_times": values.shape[1],
        "info": {**INFO, **info},
    }
    return unpack(pack("raw", header, t.tobytes() + values.astype(np.float32).tobytes()))


def load(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    streams, header = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
    return sorted(streams, key=lambda s: int(s["info"]["stream_id"])), header["info"]


def eeg_of(streams: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [s for s in streams if s["info"]["type"] == ["EEG"]]


def test_a_recording_says_who_agreed_to_what_and_holds_all_to_the_bit(tmp_path: Path) -> None:
    clock, sent = Clock(), list[bytes]()
    path = tmp_path / "a.xdf"
    recorder = Recorder(path, REQUEST, sent.append, TODAY, clock)
    rng = np.random.default_rng(0)
    values, t = rng.normal(size=(2, 40)).astype(np.float32), 50 + np.arange(40) / 250
    recorder.take_in(raw(0, values[:, :25], t[:25]))
    marker = {"timestamp": 50.05, "label": "onset/cat", "details": {"image_id": 3}}
    recorder.take_in(unpack(pack("marker", marker)))
    recorder.take_in(unpack(pack("marker", {**marker, "label": "offset", "details": {}})))
    quality = {"from": "acquisition", "t": 50.1, "quality": [{"name": "Fp1", "grade": "good"}]}
    for _ in range(2):
        recorder.take_in(unpack(pack("telemetry", quality)))
    recorder.take_in(unpack(pack("telemetry", {"from": "worker", "t": 50.1})))
    recorder.take_in(raw(1, values[:, 25:], t[25:]))
    for _ in range(25):
        clock.t += 0.5
        recorder.tick()
    recorder.close()
    streams, header = load(path)
    assert header["subject"] == ["P01"]
    assert header["consent"] == [CONSENT]
    assert (header["recorded_on"], header["keep_until"]) == (["2026-11-27"], ["2026-12-27"])
    [eeg] = eeg_of(streams)
    np.testing.assert_array_equal(eeg["time_series"], values.T)
    np.testing.assert_array_equal(eeg["time_stamps"], t)
    assert eeg["info"]["desc"][0]["honesty"] == ["live"]
    channels = eeg["info"]["desc"][0]["channels"][0]["channel"]
    assert [(c["label"], c["unit"]) for c in channels] == [
        (["Fp1"], ["microvolts"]),
        (["Fp2"], ["microvolts"]),
    ]
    markers, qualities = streams[:2]
    assert markers["time_series"][1] == ["offset"]
    assert json.loads(markers["time_series"][0][0]) == {"label": "onset/cat", "image_id": 3}
    assert [json.loads(text) for [text] in qualities["time_series"]] == [quality["quality"]]
    assert len(eeg["clock_times"]) == 2
    told = unpack(sent[-1]).header
    assert (told["n_samples"], told["n_missed"], told["n_segments"]) == (40, 0, 1)
    # Nothing of the machine or of whoever is logged in.
    names = {os.uname().nodename, os.environ.get("USER") or "root-of-nobody"}
    assert not any(name.encode() in path.read_bytes() for name in names)


def test_an_acquisition_that_begins_again_opens_a_segment_and_gaps_are_counted(
    tmp_path: Path,
) -> None:
    sent = list[bytes]()
    recorder = Recorder(tmp_path / "a.xdf", REQUEST, sent.append, TODAY)
    t = np.arange(5) / 250
    # The recorder comes later than the acquisition, which is no loss.
    recorder.take_in(raw(7, np.ones((2, 5)), t))
    recorder.take_in(raw(10, np.ones((2, 5)), 1 + t))
    recorder.take_in(raw(0, np.zeros((3, 5)), 9 + t, began=5.0, ch_names=["a", "b", "c"]))
    recorder.tell()
    recorder.close()
    first, second = eeg_of(load(tmp_path / "a.xdf")[0])
    assert first["time_series"].shape == (10, 2)
    assert second["time_series"].shape == (5, 3)
    assert second["info"]["desc"][0]["segment"] == ["2"]
    told = unpack(sent[-1]).header
    assert (told["n_missed"], told["n_segments"]) == (2, 2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("P01", 30, False), "only of a person who agreed"),
        (("P01", 30, "yes"), "only of a person who agreed"),
        (("../x", 30, True), "A pseudonym has"),
        ((None, 30, True), "A pseudonym has"),
        (("P01", 0, True), "1 to 3650 days"),
        (("P01", 1.5, True), "1 to 3650 days"),
        (("P01", True, True), "1 to 3650 days"),
    ],
)
def test_what_makes_no_sense_is_refused(values: tuple[Any, Any, Any], said: str) -> None:
    names = ("subject", "keep_days", "has_consent")
    with pytest.raises(SettingsError, match=said):
        Request.from_dict(dict(zip(names, values, strict=True)))


def test_each_pseudonym_has_a_private_folder_and_no_file_is_written_over(tmp_path: Path) -> None:
    now = datetime(2026, 11, 27, 1, 2, 3, tzinfo=UTC)
    path = new_file(tmp_path / "r", REQUEST, now)
    assert path == tmp_path / "r" / "P01" / "2026-11-27T01-02-03.xdf"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.touch()
    assert new_file(tmp_path / "r", REQUEST, now).name == "2026-11-27T01-02-03-2.xdf"
    (tmp_path / "file").touch()
    with pytest.raises(SummaryError, match="--recordings"):
        new_file(tmp_path / "file", REQUEST, now)


def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.xdf", REQUEST, lambda _: None, TODAY)
    recorder.take_in(raw(0, np.ones((2, 5)), np.arange(5.0)))

    class Full:
        def __getattr__(self, name: str) -> Any:
            raise OSError(28, "No space left on device")

    good = recorder._writer
    recorder._writer = Full()  # type: ignore[assignment]
    with pytest.raises(SummaryError, match=r"No space left .* written before is whole"):
        recorder.take_in(raw(1, np.ones((2, 5)), np.arange(5.0)))
    with pytest.raises(SummaryError, match="No space left"):
        recorder.close()
    good._file.close()
    assert eeg_of(load(tmp_path / "a.xdf")[0])[0]["time_series"].shape == (5, 2)


@pytest.mark.slow
def test_the_command_records_what_the_source_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = "simulated:?subject=2&session=5"
    words = ["record", "--source", source, "--subject", "P01", "--duration", "7"]
    words += ["--recordings", str(tmp_path)]
    assert run(monkeypatch, *words) == ExitCode.USAGE
    assert "Ask them" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run(monkeypatch, *words, "--consented") == 0
    [path] = (tmp_path / "P01").iterdir()
    assert str(path) in capsys.readouterr().err
    [eeg] = eeg_of(load(path)[0])
    recorded = eeg["time_series"].T
    assert recorded.shape[1] > SFREQ
    options = SourceOptions(stimuli=find_stimuli(find_bundle("weights/scale-model")))
    subject = open_source(source, options)._subject  # type: ignore[attr-defined]
    given = np.concatenate([subject.next_block()[0] for _ in range(12)], axis=1)
    # It may have come a moment after the first samples.
    [first] = np.flatnonzero((given[:, :1000] == recorded[:, :1]).all(0))
    np.testing.assert_array_equal(recorded, given[:, first : first + recorded.shape[1]])
    read = load_recording(path, SourceOptions())
    assert read.info.ch_names == CH_NAMES
    assert read.info.sfreq == SFREQ


def kill(module: str, folder: Path) -> None:
    [process] = [
        child
        for child in psutil.Process().children()
        # What earlier tests orphaned may be there still, ended.
        if child.status() != psutil.STATUS_ZOMBIE and {module, str(folder)} <= set(child.cmdline())
    ]
    process.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_a_recording_comes_and_goes_while_the_session_goes_on(tmp_path: Path) -> None:
    settings = Settings(duration=40, recordings=str(tmp_path / "r"))
    said = list[str]()

    session = Session(settings, said.append, lambda _: None, recording_commands)
    take_in, acted = session._take_in, list[str]()

    def ask(action: str, **more: Any) -> None:
        session._control({"action": action, **more})
        acted.append(action)

    def watch(timeout: float) -> None:
        take_in(timeout)
        n = session._recorded.get("n_samples", 0)
        is_there = "recorder" in session._children
        if not acted and session._children["acquisition"].was_ever_ready:
            ask("stop-recording")  # of none
            ask("record", request=REQUEST.to_dict())
        elif len(acted) == 2 and n > 250:
            ask("record", request=Request("P02", 1, True).to_dict())  # one goes on
            ask("stop-recording")
        elif len(acted) == 4 and not is_there:
            session._recorded = {}
            ask("record", request=Request("P02", 1, True).to_dict())
        elif len(acted) == 5 and n > 100:
            ask("stop")

    session._take_in = watch  # type: ignore[method-assign]
    session.run()
    assert acted[-1] == "stop"
    assert said == []
    for subject in ("P01", "P02"):
        [path] = (tmp_path / "r" / subject).iterdir()
        [eeg] = eeg_of(load(path)[0])
        assert eeg["footer"]["info"]["sample_count"] == [str(len(eeg["time_stamps"]))]


@pytest.mark.slow
def test_whatever_is_killed_the_recording_goes_on(tmp_path: Path) -> None:
    settings = Settings(duration=60, recordings=str(tmp_path / "r"))
    said = list[str]()

    session = Session(settings, said.append, lambda _: None, recording_commands, REQUEST)
    take_in, acted = session._take_in, list[str]()

    def watch(timeout: float) -> None:
        take_in(timeout)
        n, segments = (session._recorded.get(k, 0) for k in ("n_samples", "n_segments"))
        if not acted and n > 250:
            acted.append("acquisition")
            kill("app.acquire", session._folder)
        elif acted == ["acquisition"] and segments == 2 and n > 500:
            acted.append("recorder")
            kill("app.recorder", session._folder)
        elif len(acted) == 2 and segments == 1 and n > 100:
            session._is_ending = True

    session._take_in = watch  # type: ignore[method-assign]
    began = time.monotonic()
    session.run()
    assert time.monotonic() - began < 55
    before, after = sorted((tmp_path / "r" / "P01").iterdir())
    first, second = eeg_of(load(before)[0])
    assert len(first["time_stamps"]) > 200
    assert len(second["time_stamps"]) > 100
    assert "footer" not in first or not first["footer"]
    [last] = eeg_of(load(after)[0])
    assert last["footer"]["info"]["sample_count"] == [str(len(last["time_stamps"]))]
    assert sum("Starting the" in line for line in said) == 2
