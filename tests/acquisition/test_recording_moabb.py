"""MOABB's data sets: by a fake of their interface, and by MOABB's own where that is installed."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import mne
import numpy as np
import pytest

from acquisition.errors import SourceError, SourceNotFoundError
from acquisition.recording_moabb import find_dataset, moabb_runs

CH_NAMES = ["C3", "Cz", "C4"]


def raw(seed: int, seconds: int = 10) -> mne.io.BaseRaw:
    """EEG of 20 uV in volts, as mne has it, and a trigger channel."""
    data = 2e-5 * np.random.default_rng(seed).normal(size=(3, 128 * seconds))
    info = mne.create_info([*CH_NAMES, "stim"], 128.0, ["eeg"] * 3 + ["stim"])
    made = mne.io.RawArray(np.concatenate([data, data[:1] > 0]), info, verbose="ERROR")
    made.set_annotations(mne.Annotations([4.0], [1.0], ["left_hand"]))
    return made


class FakeDataset:
    """What `moabb.datasets.base.BaseDataset` offers."""

    code = "Fake2026"
    subject_list = (1, 2, 5)

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def get_data(self, subjects: list[int]) -> dict[int, dict[str, dict[str, Any]]]:
        self.asked.append(subjects)
        return {
            s: {
                session: {run: raw(10 * s + int(run)) for run in ("0", "1")}
                for session in ("0train", "1test")
            }
            for s in subjects
        }


def test_runs_come_subject_by_subject_in_microvolts() -> None:
    dataset = FakeDataset()
    runs = moabb_runs(dataset, [2, 5])

    first = next(runs)
    assert dataset.asked == [[2]], "the next subject is not fetched before it is wanted"
    assert (first.subject, first.session, first.run) == (2, 0, 0)
    assert first.recording.info.ch_names == ("C3", "Cz", "C4")
    assert first.recording.info.sfreq == 128
    assert first.recording.data.std() == pytest.approx(20, rel=0.05)
    assert [m.label for m in first.recording.markers] == ["left_hand"]
    rest = [(r.subject, r.session, r.run) for r in runs]
    assert rest == [(2, 0, 1), (2, 1, 0), (2, 1, 1), (5, 0, 0), (5, 0, 1), (5, 1, 0), (5, 1, 1)]


def test_all_subjects_are_taken_where_none_is_named() -> None:
    assert {r.subject for r in moabb_runs(FakeDataset())} == {1, 2, 5}


def test_a_subject_that_is_not_there_is_said() -> None:
    with pytest.raises(SourceNotFoundError, match=r"Fake2026 has no subject 3, 4; .* 1, 2, 5\."):
        next(moabb_runs(FakeDataset(), [1, 3, 4]))


def with_fake_moabb(monkeypatch: pytest.MonkeyPatch) -> None:
    base = SimpleNamespace(BaseDataset=FakeDataset)
    datasets = ModuleType("moabb.datasets")
    datasets.__dict__.update(Fake2026=type("Fake2026", (FakeDataset,), {}), base=base)
    moabb = ModuleType("moabb")
    moabb.__dict__["datasets"] = datasets
    for name, module in (("moabb", moabb), ("moabb.datasets", datasets)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "moabb.datasets.base", base)  # type: ignore[arg-type]


def test_a_data_set_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with_fake_moabb(monkeypatch)
    assert find_dataset("Fake2026").code == "Fake2026"
    with pytest.raises(SourceNotFoundError, match=r"no data set 'Fake2027'\. It has Fake2026\."):
        find_dataset("Fake2027")


def test_without_moabb_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("moabb", "moabb.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SourceError, match=r"pip install -c constraints\.txt moabb\."):
        find_dataset("BNCI2014_001")


def test_a_set_for_pre_training_is_prepared_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from safetensors.numpy import load_file

    from acquisition.epoch_spec import EpochSpec
    from app.errors import SettingsError
    from app.prepare import Wanted, prepare_sources

    with_fake_moabb(monkeypatch)
    spec = EpochSpec(ch_names=("C3", "Cz", "C4"), sfreq=100, n_times=100, hop=50)
    source = ["moabb:Fake2026?subjects=1,5"]
    n_epochs = prepare_sources(tmp_path, source, Wanted(spec, kinds=("sliding",)))

    columns = load_file(tmp_path / "epochs-00000.safetensors")
    assert len(columns["eeg"]) == n_epochs > 8
    assert set(columns["subject"]) == {1, 5}
    assert set(columns["label"]) == {-1}, "what was shown is not known"
    keys = zip(columns["session"].tolist(), columns["run"].tolist(), strict=True)
    assert set(keys) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    with pytest.raises(SettingsError, match="add --epochs sliding"):
        prepare_sources(tmp_path / "other", source, Wanted(spec))


# moabb 1.5 places the electrodes of its fake by a montage that mne 1.13 has renamed.
@pytest.mark.filterwarnings("ignore:Montage name 'standard_1005':FutureWarning")
def test_moabb_s_own_fake_data_set_is_read() -> None:
    fake = pytest.importorskip("moabb.datasets.fake", reason="the extra moabb is not installed")
    dataset = fake.FakeDataset(
        n_subjects=2, n_sessions=1, n_runs=2, duration=20, n_events=3, seed=1
    )
    runs = list(moabb_runs(dataset))
    numbers = [(r.subject, r.session, r.run) for r in runs]
    assert numbers == [(1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 0, 1)]
    assert runs[0].recording.info.ch_names == ("C3", "Cz", "C4")
    assert runs[0].recording.data.std() == pytest.approx(20, rel=0.1)
    assert find_dataset("BNCI2014_001").subject_list == list(range(1, 10))
