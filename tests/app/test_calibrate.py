"""From a session's file to an answer, and to a bundle."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from typer.testing import CliRunner

from acquisition.epoch_spec import EpochSpec
from acquisition.errors import RecordingError
from acquisition.simulated_subject import CH_NAMES
from app.calibrate import KEPT, Progress, calibrate
from app.cli import app
from app.errors import SettingsError, SummaryError
from app.personal import REPORT
from app.session_epochs import NOTHING, UNKNOWN, SessionEpochs, read_sessions
from models.pipeline import EEGToImagePipeline, load_bundle
from models.template_reader import TemplateReader
from models.training.personal import hold_out
from tests.sessions import LEAST_S, write_session
from tests.tiny_bundle import TINY, make_tiny_bundle, tiny_parts

SPEC = EpochSpec(CH_NAMES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """With a reader, so that it says how concepts are painted."""
    folder = make_tiny_bundle(tmp_path_factory.mktemp("bundle"))
    reader = TemplateReader(
        n_lags=1, rank=4, n_context=TINY.context, cross_attention_dim=TINY.cross
    )
    reader.contexts.data = torch.randn(40, TINY.context, TINY.cross)
    EEGToImagePipeline(**tiny_parts(), reader=reader).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "P01" / "session.xdf"
    return write_session(path, n_classes=3, trials_per_class=24, n_runs=3, effect_uv=12.0)


def test_epochs_are_those_of_live_use(session):
    found = read_sessions([session], SPEC, [])
    assert found.classes == ["class0", "class1", "class2"]
    assert found.locked.shape == (72, 32, 256)
    assert np.bincount(found.label).tolist() == [24, 24, 24]
    assert len(np.unique(found.run)) == 3
    np.testing.assert_allclose(found.locked.mean(axis=2), 0, atol=1e-4)
    np.testing.assert_allclose(found.locked.std(axis=2), 1, atol=1e-3)
    # Eight electrodes make up all: what they show of the model's has their number of dimensions.
    assert np.linalg.matrix_rank(found.matrix, tol=1e-6) <= 8
    windows = found.windows
    answering = windows.trial >= 0
    # Of every trial some windows; the last picture in a window is the one.
    assert set(windows.trial[answering]) == set(range(72))
    assert (windows.trial[answering] == windows.after[answering]).all()
    assert (windows.trial == NOTHING).sum() > 5
    assert windows.after[windows.trial == NOTHING][0] == -1
    assert (np.diff(windows.first) == SPEC.hop).all()
    assert found.apart == pytest.approx(LEAST_S, abs=0.03)


def test_the_answer_is_right(session, bundle, tmp_path):
    told: list[Progress] = []
    report = calibrate([session], bundle, tmp_path, told.append)
    assert report["verdict"] == "decodes"
    assert report["accuracy"]["low"] > report["chance"] == pytest.approx(1 / 3)
    assert report["shuffled"]["low"] < 1 / 3 < report["shuffled"]["high"]
    assert [point["n_trials"] for point in report["learning_curve"]] == [18, 36, 54, 72]
    assert json.loads((tmp_path / REPORT).read_text()) == report
    assert "no pictures of these classes" in report["no_bundle"]
    assert not (tmp_path / "bundle").exists()
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == 1


def test_one_that_was_stopped_goes_on(session, bundle, tmp_path, monkeypatch):
    whole = calibrate([session], bundle, tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.done >= 0.56:
            raise SystemExit

    with pytest.raises(SystemExit):
        calibrate([session], bundle, tmp_path / "stopped", stop)
    kept = sorted((tmp_path / "stopped" / KEPT).iterdir())
    assert len(kept) >= 2
    assert not (tmp_path / "stopped" / REPORT).exists()
    assert (tmp_path / "stopped").stat().st_mode & 0o077 == 0
    # One was cut off by a kill.
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    n_made = []
    monkeypatch.setattr("app.person.hold_out", lambda *args: n_made.append(1) or hold_out(*args))
    again = calibrate([session], bundle, tmp_path / "stopped")
    # Ours, the baseline, three of the curve and one for the p-value.
    assert len(n_made) == 6 - len(kept) + 1
    took = {"took_s": 0}
    assert {**again, **took} == {**whole, **took}
    assert not (tmp_path / "stopped" / KEPT).exists()


def test_of_a_recorder_that_was_killed_what_there_is_is_used(session, tmp_path):
    whole = read_sessions([session], SPEC, [])
    path = tmp_path / "killed.xdf"
    path.write_bytes(session.read_bytes()[:-10])
    found = read_sessions([path], SPEC, [])
    assert "killed.xdf is cut off" in found.dropped[0]
    assert found.label.tolist() == whole.label.tolist()
    path.write_bytes(b"XDF:" + bytes(100))
    with pytest.raises(RecordingError):
        read_sessions([path], SPEC, [])


def test_without_a_moment_of_nothing_there_is_a_bundle_too(bundle, tmp_path, monkeypatch):
    path = write_session(
        tmp_path / "P03" / "s.xdf", class_names=("cat", "dog"), effect_uv=12.0, n_runs=2
    )
    # As a presentation without breaks.
    whole = read_sessions

    def without(*known: Any) -> SessionEpochs:
        found = whole(*known)
        trial = found.windows.trial
        unknown = np.where(trial == NOTHING, UNKNOWN, trial)
        return replace(found, windows=replace(found.windows, trial=unknown))

    monkeypatch.setattr("app.calibrate.read_sessions", without)
    report = calibrate([path], bundle, tmp_path / "out")
    assert load_bundle(report["bundle"]).reader is not None


def test_nothing_is_called_nothing(bundle, tmp_path):
    path = write_session(tmp_path / "P02" / "s.xdf", trials_per_class=30, effect_uv=0.0)
    report = calibrate([path], bundle, tmp_path / "out")
    assert report["verdict"] == "not above chance"
    assert "does not work" in report["sentence"]


def test_blocks_are_warned_of(bundle, tmp_path):
    path = write_session(
        tmp_path / "P03" / "s.xdf", n_classes=3, trials_per_class=20, n_runs=1, blocked=True
    )
    report = calibrate([path], bundle, tmp_path / "out")
    assert any("confounded" in text for text in report["warnings"])


def test_a_bundle_of_the_persons_own(bundle, tmp_path):
    """Classes that the painter knows: a reader of them, and everything else shared."""
    names = ["banana", "guitar", "rocket"]
    path = tmp_path / "P04" / "s.xdf"
    write_session(
        path, n_classes=3, trials_per_class=24, n_runs=3, effect_uv=12.0, class_names=names
    )
    report = calibrate([path], bundle, tmp_path / "out")
    assert report["verdict"] == "decodes"
    made = tmp_path / "out" / "bundle"
    assert report["bundle"] == str(made)
    assert (made / "unet").is_symlink()
    pipeline = load_bundle(made)
    found = read_sessions([path], SPEC, list(pipeline.concepts.config.names))
    # It knows how soon pictures followed each other.
    c = pipeline.reader.config
    assert c.stream_apart * c.width == pytest.approx(LEAST_S * SPEC.sfreq, abs=1.2 * c.width)
    encoded = pipeline.encode(torch.from_numpy(found.locked))
    said = encoded.probabilities.argmax(1).numpy()
    assert (said == found.label).mean() > 0.8
    # Of classes that were never shown none is named.
    assert {pipeline.concepts.config.names[i] for i in said} <= set(names)
    torch.testing.assert_close(
        encoded.context, load_bundle(bundle).reader.contexts.data[said], atol=2e-3, rtol=1e-2
    )


def test_an_older_bundle_outlives_a_full_disk(bundle, tmp_path, monkeypatch):
    path = tmp_path / "P06" / "s.xdf"
    names = ["banana", "guitar"]
    write_session(path, trials_per_class=12, class_names=names, effect_uv=12.0)
    calibrate([path], bundle, tmp_path / "out")
    before = sorted(p.name for p in (tmp_path / "out" / "bundle").iterdir())

    def full(*_args, **_kwargs):
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(TemplateReader, "save_pretrained", full)
    with pytest.raises(SummaryError, match=r"No space left.*Make room"):
        calibrate([path], bundle, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out" / "bundle").iterdir()) == before
    load_bundle(tmp_path / "out" / "bundle")


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"n_classes": 1}, "Two classes"), ({"trials_per_class": 1, "n_runs": 1}, "two trials")],
)
def test_too_little_is_told(bundle, tmp_path, sizes, said):
    path = write_session(tmp_path / "P05" / "s.xdf", **sizes)
    with pytest.raises(SettingsError, match=said):
        calibrate([path], bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_electrodes_are_told(session, tmp_path):
    other = write_session(tmp_path / "P01" / "s.xdf", ch_names=("O1", "O2", "Oz", "Pz"))
    with pytest.raises(SettingsError, match="other electrodes"):
        read_sessions([session, other], SPEC, [])


def test_runs_of_two_sessions_are_apart(session, tmp_path):
    other = write_session(
        tmp_path / "P01" / "s.xdf", n_classes=3, trials_per_class=10, n_runs=2, seed=1
    )
    found = read_sessions([session, other], SPEC, [])
    assert len(np.unique(found.run)) == 5
    assert len(found.locked) == 102


def test_epochs_of_movement_are_left_out(session):
    found = read_sessions([session], replace(SPEC, normalisation="none"), [])
    assert not found.dropped
    assert found.n_trials == len(found.locked)


def test_the_command_says_it_in_words(session, bundle, tmp_path):
    out = tmp_path / "out"
    ran = CliRunner().invoke(
        app, ["calibrate", str(session), "--bundle", str(bundle), "--out", str(out)]
    )
    assert ran.exit_code == 0, ran.output
    assert "EEG: simulated." in ran.output
    assert "chance 33.3%" in ran.output
    missing = CliRunner().invoke(app, ["calibrate", str(tmp_path / "none.xdf")])
    assert missing.exit_code != 0
