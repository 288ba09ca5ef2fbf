from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from PIL import Image

from acquisition.epoch_spec import EpochSpec
from acquisition.simulated_subject import CH_NAMES
from acquisition.source import Marker
from app.errors import SettingsError
from app.picture_shards import PictureShards
from app.prepare import Wanted, prepare_sources
from app.skipped import Skipped
from app.stimulus_images import StimulusFolder, StimulusImages, read_image
from models.training.prepared import PreparedSet
from tests.acquisition.made_recordings import XDFStream, noise, write_xdf
from tests.app.test_prepare import write_muse_csv

SPEC = EpochSpec(ch_names=CH_NAMES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stimuli = tmp_path / "stimuli"
    for name, red in (("cat/1.png", 10), ("cat/tabby.jpg", 20), ("dog/2.png", 30), ("sun.png", 40)):
        path = stimuli / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (red, 0, 0)).save(path)
    (stimuli / "notes.txt").write_text("not an image")
    return stimuli


def opened(folder: Path, tmp_path: Path, **numbers: int) -> tuple[StimulusFolder, Skipped]:
    skipped = Skipped()
    images = StimulusImages(PictureShards(tmp_path / "set", 16), skipped)
    return StimulusFolder(folder, images, skipped, numbers), skipped


@pytest.mark.parametrize(
    ("text", "label"),
    [("tabby", 0), ("tabby.jpg", 0), ("cat/tabby", 0), ("onset/cat/tabby.jpg", 0), ("2", 1),
     ("cat\\1", 0), ("sun", 2)],
)  # fmt: skip
def test_a_marker_names_an_image_in_many_ways(
    folder: Path, tmp_path: Path, text: str, label: int
) -> None:
    stimuli, _ = opened(folder, tmp_path)
    assert stimuli.labels == {"cat": 0, "dog": 1, "sun": 2}
    assert stimuli(Marker(0.0, text)) == (label, 0)
    assert stimuli(Marker(9.0, text)) == (label, 0), "the picture is written once"


def test_markers_without_an_image_are_reported_and_left_out(folder: Path, tmp_path: Path) -> None:
    stimuli, skipped = opened(folder, tmp_path)
    assert [stimuli(Marker(0.0, text)) for text in ("fixation", "fixation", "offset")] == [None] * 3
    (folder / "dog/2.png").write_bytes(b"no image")
    assert stimuli(Marker(0.0, "2")) is None
    assert list(skipped.sentences()) == [
        "2 trials were left out: no image of that name is in the folder of stimuli (fixation, 2 "
        "times).",
        "1 trial was left out: the image is damaged (2.png).",
    ]


def test_named_markers_keep_their_own_numbers(folder: Path, tmp_path: Path) -> None:
    stimuli, skipped = opened(folder, tmp_path, **{"2": 7})
    assert stimuli(Marker(0.0, "2")) == (7, 0)
    assert stimuli(Marker(0.0, "tabby")) is None
    assert skipped.to_dict() == {}


def test_a_name_that_several_images_have_is_refused(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "dog/1.png")
    stimuli, _ = opened(folder, tmp_path)
    assert stimuli(Marker(0.0, "dog/1")) == (1, 0)
    with pytest.raises(SettingsError, match=r"'1' may mean .*cat/1\.png or .*dog/1\.png"):
        stimuli(Marker(0.0, "1"))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds none"):
        opened(tmp_path, tmp_path)
    with pytest.raises(SettingsError, match="is no folder"):
        opened(tmp_path / "nowhere", tmp_path)


def test_pictures_are_the_square_in_the_middle(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_image(tmp_path / "wide.png", 8), 255)


@pytest.mark.parametrize("kind", ["CSV", "FIF", "XDF"])
def test_recordings_of_any_kind_get_their_pictures(folder: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.csv"
    write_muse_csv(path)  # markers 1 and 2 in turn
    if kind == "FIF":
        rng = np.random.default_rng(0)
        info = mne.create_info(["TP9", "AF7", "AF8", "TP10", "POz"], 256.0, "eeg")
        raw = mne.io.RawArray(1e-5 * rng.normal(size=(5, 256 * 20)), info, verbose="ERROR")
        raw.set_annotations(mne.Annotations(np.arange(4, 20, 2), 0, ["2", "1"] * 4))
        path = tmp_path / "run_raw.fif"
        raw.save(path, verbose="ERROR")
    if kind == "XDF":
        names, times = ("TP9", "AF7", "AF8", "TP10", "POz"), 100 + np.arange(256 * 20) / 256
        shown = np.array([["2"], ["1"]] * 4, dtype=object)
        path = write_xdf(
            tmp_path / "run.xdf",
            [
                XDFStream("Muse", "EEG", 256.0, noise(256 * 20, 5), times, names, "uV", "EEG"),
                XDFStream("Shown", "Markers", 0.0, shown, times[256 * np.arange(4, 20, 2)]),
            ],
        )
    said: list[str] = []
    wanted = Wanted(SPEC, stimuli=folder, pixels=16)
    n_epochs = prepare_sources(tmp_path / "set", [f"file:{path}"], wanted, said.append)

    data = PreparedSet(tmp_path / "set")
    assert n_epochs > 4
    image_id, label = data.epochs()["image_id"], data.epochs()["label"]
    red = data.pictures().rows("images", image_id)[:, 8, 8, 0].tolist()
    assert red == [{0: 10, 1: 30}[n] for n in label.tolist()]
    assert {0, 1} == set(label.tolist())
    assert sorted(data.captions()) == ["cat", "dog"]
    assert data.spec["labels"] == {"cat": 0, "dog": 1, "sun": 2}
    assert data.pictures()["label"][image_id].tolist() == label.tolist()
    assert data.spec["units"] == "standard deviations of each channel in its epoch"
    assert data.spec["is_block_design"] is None


def test_pictures_are_written_as_a_shard_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.picture_shards.SHARD_BYTES", 3 * 8 * 8 * 3)
    shards = PictureShards(tmp_path, 8)
    for i in range(7):
        assert shards.append(np.full((8, 8, 3), i, np.uint8), i, f"number {i}") == i
        assert len(list(tmp_path.glob("pictures-*.safetensors"))) == (i + 1) // 3
    shards.flush()
    (tmp_path / "spec.json").write_text("{}")

    data = PreparedSet(tmp_path)
    assert data.pictures().rows("images", torch.arange(7))[:, 0, 0, 0].tolist() == list(range(7))
    assert data.captions() == [f"number {i}" for i in range(7)]
