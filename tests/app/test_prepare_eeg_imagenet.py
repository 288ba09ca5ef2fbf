import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.interpolate import interp1d

from acquisition.eeg_imagenet import REFERENCE_SPEC
from acquisition.epoch_spec import EpochSpec
from acquisition.errors import RecordingError
from acquisition.source import SourceOptions
from acquisition.stimuli import concepts
from app.eeg_imagenet import is_reference, stretch
from app.errors import SettingsError
from app.prepare import Wanted, prepare_sources
from models.training.prepared import PreparedSet

N_CHANNELS = 128
WNIDS = [concepts()[0].wnid, concepts()[1].wnid]


def trial(n_times: int, label: int, image: int, subject: int) -> dict[str, Any]:
    rng = np.random.default_rng([n_times, label, image, subject])
    t = np.arange(n_times) / 1000
    wave = np.sin(2 * np.pi * rng.uniform(5, 40, (N_CHANNELS, 1)) * t + rng.uniform(0, 6))
    return {
        "eeg": torch.from_numpy(wave.astype(np.float32)),
        "label": label,
        "image": image,
        "subject": subject,
    }


class Files:
    """A small data set with the faults that the real one has."""

    def __init__(self, folder: Path, **saved: Any) -> None:
        self.trials = [
            trial(500, 0, 0, 4),
            trial(1527, 0, 1, 4),  # too long
            trial(511, 0, 2, 2),  # another subject
            trial(511, 1, 3, 4),  # its image is damaged
            trial(430, 1, 4, 4),  # too short
            trial(511, 1, 5, 4),
            trial(520, 0, 1, 4),
            trial(511, 1, 4, 4),  # its image is missing
            trial(600, 1, 5, 4),
        ]
        self.path, self.splits = folder / "eeg_5_95_std.pth", folder / "splits.pth"
        names = [f"{WNIDS[n // 3]}_{n}" for n in range(6)]
        data = {"dataset": self.trials, "labels": WNIDS, "images": names}
        torch.save(data, self.path, **saved)
        self.save_splits(train=[0, 2, 5], val=[6], test=[8])
        self.images = folder / "images"
        for number in (0, 1, 2, 3, 5):
            file = self.images / WNIDS[number // 3] / f"{names[number]}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40), (40 * number, 0, 0)).save(file)
            if number == 3:
                file.write_bytes(file.read_bytes()[:300])

    def save_splits(self, **splits: list[int]) -> None:
        torch.save({"splits": [splits]}, self.splits)

    def source(self, *parameters: str) -> str:
        return f"eeg-imagenet:{self.path}?" + "&".join((f"splits={self.splits}", *parameters))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def prepare(out: Path, source: str, spec: EpochSpec | None = None, **wanted: Any) -> list[str]:
    said: list[str] = []
    prepare_sources(out, [source], Wanted(spec or REFERENCE_SPEC, **wanted), said.append)
    return said


def test_the_reference_s_window_is_stretched_as_the_reference_does() -> None:
    eeg = trial(511, 0, 0, 4)["eeg"].numpy()
    window = eeg[:, 20:460].T.astype(np.float64)  # the reference's own way, by scipy
    theirs = interp1d(np.linspace(0, 1, 440), window, axis=0)(np.linspace(0, 1, 512)).T
    np.testing.assert_allclose(stretch(eeg), theirs, atol=1e-12)
    also = torch.nn.functional.interpolate(
        torch.from_numpy(window.T[None]), size=512, mode="linear", align_corners=True
    )
    np.testing.assert_allclose(stretch(eeg), also[0].numpy(), atol=1e-12)


def test_trials_become_a_set_whose_splits_count_the_whole_list(
    files: Files, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    said = prepare(out, files.source("subject=4", f"images={files.images}"), pixels=16)

    data = PreparedSet(out)
    epochs = data.epochs()
    kept = [0, 5, 6, 8]
    eeg = [stretch(files.trials[i]["eeg"].numpy()).astype(np.float32) for i in kept]
    np.testing.assert_array_equal(epochs.rows("eeg", torch.arange(4)), eeg)
    # The reference would have looked index 5 up in the five trials that it kept.
    assert epochs["split"].tolist() == [0, 0, 1, 2]
    assert epochs["label"].tolist() == [0, 1, 0, 1]
    assert epochs["subject"].tolist() == [4] * 4
    assert epochs["run"].tolist() == epochs["session"].tolist() == [-1] * 4
    assert epochs["t_onset"].isnan().all()

    pictures = data.pictures()
    assert epochs["image_id"].tolist() == [0, 1, 2, 1], "trials 5 and 8 showed the same image"
    assert pictures["label"].tolist() == [0, 1, 0]
    red = pictures.rows("images", torch.arange(3))[:, 8, 8, 0].tolist()
    assert red == pytest.approx([0, 200, 40], abs=3)
    assert data.captions()[0] == concepts()[0].imagenet_class

    spec = data.spec
    assert spec["skipped"] == {
        "not 460 to 600 samples long": {"trial 1: 1527 samples": 1, "trial 4: 430 samples": 1},
        "the image is damaged": {f"{WNIDS[1]}_3.JPEG": 1},
        "the image is missing": {f"{WNIDS[1]}_4.JPEG": 1},
    }
    assert (spec["honesty"], spec["is_block_design"], spec["band"]) == ("replay", True, [5, 95])
    assert spec["labels"] == {concepts()[i].imagenet_class: i for i in range(2)}
    assert "linearly stretched to 512, as the reference does" in spec["sources"][0]["treatment"]
    assert "10.1109/TPAMI.2020.2973153" in spec["confounding"]["warning"]

    text = "\n".join(said)
    assert f"1 trial was left out: the image is damaged ({WNIDS[1]}_3.JPEG)." in said
    assert "The splits name 5 of the 9 trials, indices 0 to 8 of the whole list" in text
    assert "All 50 images of a class were shown in one block" in text
    assert "WARNING: label and time are confounded by the design" in text


def test_without_splits_subject_and_images_everything_is_taken(tmp_path: Path) -> None:
    files = Files(tmp_path)
    said = prepare(tmp_path / "set", f"eeg-imagenet:{files.path}")
    epochs = PreparedSet(tmp_path / "set").epochs()
    assert epochs["subject"].tolist() == [4, 2, 4, 4, 4, 4, 4]
    assert set(epochs["split"].tolist()) == {-1}
    assert epochs["image_id"].tolist() == [0, 2, 3, 5, 1, 4, 5]
    assert any("No splits were given" in s for s in said)
    assert any("image_id counts the file's list" in s for s in said)


def test_another_specification_is_met_by_the_house_s_resampler(
    files: Files, tmp_path: Path
) -> None:
    spec = EpochSpec(
        ch_names=("O1", "Oz", "O2"), sfreq=250, n_times=100, tmin=0.04, h_freq=40, l_freq=5,
        reference="none", normalisation="none",
    )  # fmt: skip
    prepare(tmp_path / "set", files.source("subject=4"), spec)

    data = PreparedSet(tmp_path / "set")
    row = data.epochs().rows("eeg", torch.tensor([0])).numpy()[0]
    at = np.array([REFERENCE_SPEC.ch_names.index(name) for name in spec.ch_names])
    exact = files.trials[0]["eeg"].numpy()[at, 40:440:4]  # the grids meet at every 4 ms
    assert np.abs(row - exact).max() < 2e-3
    assert "1000 to 250 Hz by windowed-sinc" in data.spec["sources"][0]["treatment"]
    assert data.spec["units"].startswith("none: as the data set's authors")


def test_a_window_that_the_trials_do_not_cover_is_refused(files: Files, tmp_path: Path) -> None:
    spec = EpochSpec(ch_names=REFERENCE_SPEC.ch_names)
    with pytest.raises(RecordingError, match=r"wants -0\.100 to 0\.924 s\. Give another with"):
        prepare(tmp_path / "set", files.source(), spec)


def test_normalisation_of_data_without_unit_knows_no_microvolt(
    files: Files, tmp_path: Path
) -> None:
    for name, options in (("none", SourceOptions()), ("volts", SourceOptions(unit="V"))):
        spec = replace(REFERENCE_SPEC, normalisation="channel")
        prepare(tmp_path / name, files.source(), spec, options=options)
        eeg = PreparedSet(tmp_path / name).epochs().rows("eeg", torch.arange(2))
        np.testing.assert_allclose(eeg.std(dim=2, correction=0), 1, atol=1e-4)


def test_torch_s_old_format_is_read_too(tmp_path: Path) -> None:
    files = Files(tmp_path, _use_new_zipfile_serialization=False)
    prepare(tmp_path / "set", files.source("subject=4"))
    assert len(PreparedSet(tmp_path / "set").epochs()) == 6


def test_a_pickle_that_would_run_something_is_not_opened(files: Files, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            import os

            return os.mkdir, (str(tmp_path / "made by the pickle"),)

    torch.save({"dataset": Malicious(), "labels": [], "images": []}, files.path)
    with pytest.raises(RecordingError, match="is not opened, as it could run any program"):
        prepare(tmp_path / "set", files.source())
    assert not (tmp_path / "made by the pickle").exists()


def test_splits_that_do_not_belong_are_refused(files: Files, tmp_path: Path) -> None:
    files.save_splits(train=[0], val=[], test=[9])  # one beyond the end: the reference's i <= len
    with pytest.raises(RecordingError, match=r"names trial 9, but there are only 9"):
        prepare(tmp_path / "a", files.source())
    files.save_splits(train=[0, 1], val=[], test=[1])
    with pytest.raises(RecordingError, match="puts trial 1 into two splits"):
        prepare(tmp_path / "b", files.source())


def test_other_files_get_a_sentence(files: Files, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no trial of subject 9; its subjects are 2, 4"):
        prepare(tmp_path / "a", files.source("subject=9"))
    with pytest.raises(SettingsError, match="leave --epochs marker-locked"):
        prepare(tmp_path / "b", files.source(), kinds=("sliding",))
    files.trials[3]["label"] = 2
    torch.save({"dataset": files.trials, "labels": WNIDS, "images": ["x"] * 6}, files.path)
    with pytest.raises(RecordingError, match=r"Trial 3 of .* has label 2 of 2"):
        prepare(tmp_path / "c", files.source())
    torch.save({"dataset": files.trials}, files.path)
    with pytest.raises(RecordingError, match="lacks labels, images"):
        prepare(tmp_path / "d", files.source())
    files.path.write_bytes(files.path.read_bytes()[:5000])
    with pytest.raises(RecordingError, match=r"eeg_5_95_std\.pth is damaged"):
        prepare(tmp_path / "e", files.source())


def test_the_specification_of_the_reference_is_valid_and_known_as_such() -> None:
    spec = REFERENCE_SPEC
    assert (spec.n_channels, len(set(spec.ch_names)), spec.n_times) == (128, 128, 512)
    assert (spec.ch_names[28], spec.ch_names[29], spec.ch_names[30]) == ("O1", "Oz", "O2")
    assert is_reference(spec)
    again = EpochSpec.from_dict(json.loads(json.dumps({**spec.to_dict(), "sfreq": 511 / 0.439})))
    assert is_reference(again)
    assert not is_reference(EpochSpec(ch_names=spec.ch_names))
