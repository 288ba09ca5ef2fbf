"""A presentation to a simulated subject, faster than it is."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acquisition.recorded_stream import read_streams
from acquisition.recording import Recording, load_recording
from acquisition.simulated_subject import CH_NAMES, SFREQ, SimulatedSubject
from acquisition.simulated_viewer import LAG, GuidedSource
from acquisition.source import Chunk, Marker, SourceOptions
from acquisition.stimuli import features
from acquisition.xdf_writer import read_notes
from app.bundle import read_epoch_spec
from app.errors import ExitCode, SettingsError
from app.presentation import TRIALS_PER_CATCH
from app.rehearse_session import (
    Clock,
    Sitting,
    plan_of,
    present,
    rehearse_session,
    to_electrodes,
)
from app.settings import ROOT
from tests.command import run

BUNDLE = ROOT / "weights" / "scale-model"
TODAY = date(2026, 11, 27)


def read(path: Path) -> Recording:
    return load_recording(path, SourceOptions(), {})


def onsets(recording: Recording) -> list[Marker]:
    return [marker for marker in recording.markers if marker.label.startswith("onset/")]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rehearsed") / "deep" / "session.xdf"
    rehearse_session(path, Sitting(20, seed=3, ch_names=("O1", "Oz", "P7")), BUNDLE, 3.5, TODAY)
    return path


def test_the_file_is_as_the_recorder_writes_it(session: Path) -> None:
    assert [p.name for p in session.parent.iterdir()] == ["session.xdf"]
    assert read_notes(session)["subject"] == "simulated-20"
    streams = {stream.type: stream for stream in read_streams(session, {})}
    assert set(streams) == {"EEG", "Markers", "Quality", "Stimuli", "Painter", "Segments"}
    eeg = streams["EEG"]
    assert eeg.notes["honesty"] == "simulated"
    assert [channel.label for channel in eeg.channels] == ["O1", "Oz", "P7"]
    assert np.diff(eeg.timestamps) == pytest.approx(1 / SFREQ)
    assert len(streams["Quality"].timestamps) >= 1


def test_every_picture_of_the_plan_is_in_it_and_runs_are_apart(session: Path) -> None:
    plan, _ = plan_of(BUNDLE, 3.5, seed=3)
    found = onsets(read(session))
    told = [
        (m.label, *(m.details[name] for name in ("picture", "trial", "run", "is_catch")))
        for m in found
    ]
    assert told == [
        (f"onset/{t.picture.class_name}", t.picture.name, t.number, t.run, t.is_catch) for t in plan
    ]
    assert {t.run for t in plan} == {1}
    assert sum(t.is_catch for t in plan) == round(len(plan) / TRIALS_PER_CATCH)
    gaps = np.diff([m.timestamp for m in found])
    assert gaps.min() >= 1.4
    assert gaps.max() <= 1.8
    offsets = [m.timestamp for m in read(session).markers if m.label == "offset"]
    assert np.array(offsets) - [m.timestamp for m in found] == pytest.approx(1.0)


def test_between_runs_is_a_break() -> None:
    plan, stimuli = plan_of(BUNDLE, 5, seed=0)
    shown: list[dict[str, Any]] = []

    def take(message: Any) -> None:
        if message.type == "stimulus" and message.header["event"] in ("run", "shown"):
            shown.append(message.header)

    spec = read_epoch_spec(BUNDLE)
    present(Sitting(20, ch_names=("O1", "O2", "Oz")), plan, stimuli, spec, take, Clock())
    times = {run: [h["t"] for h in shown if h["run"] == run] for run in (1, 2)}
    assert [h["event"] for h in shown].count("run") == 2
    assert times[2][0] - times[1][-1] > 10


def test_samples_are_those_of_the_live_source(tmp_path: Path) -> None:
    rehearse_session(tmp_path / "a.xdf", Sitting(21, seed=4), BUNDLE, 0.2, TODAY)
    recording = read(tmp_path / "a.xdf")
    _, stimuli = plan_of(BUNDLE, 0.2, seed=4)
    # Read as live, some samples at a time, and told of what is shown when it is.
    clock = Clock()
    subject = SimulatedSubject(21, seed=4, looks=False)
    source = GuidedSource(subject, stimuli, clock, lambda _: None)
    waiting = list(recording.markers)
    chunks: list[Chunk] = []
    while clock.t < recording.timestamps[-1] + LAG:
        clock.t += 0.02
        chunks += source.read(0.0).chunks
        while waiting and waiting[0].timestamp <= clock.t:
            source.see(waiting.pop(0))
    live = np.concatenate([chunk.data for chunk in chunks], axis=1)
    n = min(live.shape[1], recording.n_times)
    assert n > 15 * SFREQ
    # The end of a response that is not known yet rounds otherwise.
    np.testing.assert_allclose(live[:, :n], recording.data[:, :n], atol=1e-3)


def test_the_subject_sees_what_is_shown(session: Path) -> None:
    recording = read(session)
    _, stimuli = plan_of(BUNDLE, 3.5, seed=3)
    subject = SimulatedSubject(20, seed=3)
    rows = [CH_NAMES.index(name) for name in recording.info.ch_names]
    n = round(0.6 * SFREQ)
    measured, expected = [], []
    for marker in onsets(recording):
        shown = stimuli[marker.details["picture"]]
        at = int(np.searchsorted(recording.timestamps, marker.timestamp))
        before = recording.data[:, at - 25 : at].mean(axis=1, keepdims=True)
        measured.append(recording.data[:, at : at + n] - before)
        expected.append(subject.mean_response(features(shown), shown.label)[rows, :n])
    # What differs from trial to trial, so that what is common to all does not count.
    a, b = (np.array(x) - np.mean(x, axis=0) for x in (measured, expected))
    shuffled = np.random.default_rng(0).permutation(len(b))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.15
    assert abs(np.corrcoef(a.ravel(), b[shuffled].ravel())[0, 1]) < 0.05


def test_the_same_numbers_give_the_same_file_and_others_another(tmp_path: Path) -> None:
    for name, sitting in {
        "a": Sitting(20, seed=1),
        "b": Sitting(20, seed=1),
        "c": Sitting(20, seed=2),
    }.items():
        rehearse_session(tmp_path / name, sitting, BUNDLE, 0.1, TODAY, classes=("cat", "fish"))
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_some_classes_alone_can_be_presented() -> None:
    plan, _ = plan_of(BUNDLE, 1, 0, ("cat", "fish"))
    assert {trial.picture.class_name for trial in plan} == {"cat", "fish"}


def test_the_command_writes_and_refuses_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.xdf"
    given = ("--minutes", "0.1", "--electrodes", "O1,O2,Oz,Pz", str(out))
    assert run(monkeypatch, "rehearse-session", *given) == ExitCode.OK
    assert read(out).info.ch_names == ("O1", "O2", "Oz", "Pz")
    before = out.read_bytes()
    for wrong, code, words in (
        (given, ExitCode.USAGE, "is there already"),
        (("--electrodes", "O1,X9", str(tmp_path / "b")), ExitCode.USAGE, "has no electrode X9"),
        (("--electrodes", "O1,O1", str(tmp_path / "b")), ExitCode.USAGE, "Name each once"),
        (("--electrodes", "O1,O2", str(tmp_path / "b")), ExitCode.MONTAGE, "electrodes"),
        (("--minutes", "0", str(tmp_path / "b")), ExitCode.USAGE, "0.1 to 60 minutes"),
        ((str(out / "b")), ExitCode.OUTPUT, "Name a file in another folder"),
    ):
        capsys.readouterr()
        assert (
            run(monkeypatch, "rehearse-session", *((wrong,) if isinstance(wrong, str) else wrong))
            == code
        )
        assert words in capsys.readouterr().err
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.xdf"]


def test_a_bundle_without_stimuli_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has none\. Take one"):
        plan_of(tmp_path, 1, 0)


def test_no_electrodes_are_all() -> None:
    assert to_electrodes("") == CH_NAMES
