import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from acquisition.epoch_spec import EpochSpec
from acquisition.errors import RecordingError, SourceError, SourceNotFoundError
from app.prepare import Wanted, prepare_sources
from app.things_eeg2 import words
from models.training.prepared import PreparedSet

CH_NAMES = ("P3", "Pz", "P4", "O1", "Oz", "O2")
# Three concepts of two images to train on, two of one to test on; 4 and 8 repetitions.
TRAIN = [(f"0000{c}_thing_{c}", f"thing_{c}_0{i}.jpg") for c in (1, 2, 3) for i in (1, 2)]
TEST = [("00001_aardvark", "aardvark_06b.jpg"), ("00002_acorn", "acorn_03s.jpg")]
SPEC = EpochSpec(
    ch_names=CH_NAMES, sfreq=100, n_times=60, tmin=0.0, l_freq=1, h_freq=40,
    reference="none", normalisation="none",
)  # fmt: skip


class Files:
    def __init__(self, folder: Path, n_dropped: int = 0) -> None:
        rng = np.random.default_rng(0)
        self.folder, self.images = folder / "sub-01", folder / "images"
        self.folder.mkdir()
        times = np.linspace(-0.2, 0.79, 100)
        self.eeg = {}
        for part, names, n_repetitions in (("training", TRAIN, 4), ("test", TEST, 8)):
            shape = (len(names), n_repetitions, len(CH_NAMES), 100 - n_dropped)
            self.eeg[part] = rng.normal(size=shape)
            self.save(part, {"preprocessed_eeg_data": self.eeg[part],
                             "ch_names": list(CH_NAMES), "times": times})  # fmt: skip
            for concept, file in names:
                path = self.images / f"{part}_images" / concept / file
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (20, 20), (0, 0, 99)).save(path)
        metadata = {
            f"{part}_img_{what}": [name[place] for name in names]
            for part, names in (("train", TRAIN), ("test", TEST))
            for place, what in enumerate(("concepts", "files"))
        }
        np.save(self.images / "image_metadata.npy", metadata, allow_pickle=True)  # type: ignore[arg-type]

    def save(self, part: str, data: dict[str, Any]) -> None:
        """As the authors of the data set do, and as others do who preprocess it anew."""
        path = self.folder / f"preprocessed_eeg_{part}.npy"
        if part == "test":
            np.save(path, data, allow_pickle=True)  # type: ignore[arg-type]
        else:
            path.write_bytes(pickle.dumps(data, protocol=4))

    def source(self, *parameters: str) -> str:
        return f"things-eeg2:{self.folder}?" + "&".join((f"images={self.images}", *parameters))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def prepare(out: Path, *sources: str, spec: EpochSpec = SPEC) -> list[str]:
    said: list[str] = []
    prepare_sources(out, sources, Wanted(spec, pixels=16), said.append)
    return said


def test_every_repetition_is_a_trial_and_the_split_the_authors(
    files: Files, tmp_path: Path
) -> None:
    said = prepare(tmp_path / "set", files.source("subject=1"))

    data = PreparedSet(tmp_path / "set")
    epochs = data.epochs()
    assert len(epochs) == 6 * 4 + 2 * 8
    assert epochs["split"].tolist() == [0] * 24 + [2] * 16
    assert epochs["image_id"].tolist() == [n // 4 for n in range(24)] + [6] * 8 + [7] * 8
    eeg = epochs.rows("eeg", torch.arange(40)).numpy()
    training = files.eeg["training"].reshape(24, 6, 100)[:, :, 20:80]
    test = files.eeg["test"].reshape(16, 6, 100)[:, :, 20:80]
    np.testing.assert_array_equal(eeg, np.concatenate([training, test]).astype(np.float32))
    numbers = data.spec["labels"]
    assert len(numbers) == 5
    of = [numbers[concept] for concept, _ in TRAIN for _ in range(4)]
    assert epochs["label"].tolist()[:24] == of
    assert not set(epochs["label"][:24].tolist()) & set(epochs["label"][24:].tolist())
    assert (set(epochs["subject"].tolist()), set(epochs["run"].tolist())) == ({1}, {-1})
    assert data.captions()[5:7] == ["thing 3", "aardvark"]
    assert data.pictures()["label"].tolist() == [numbers[c] for c, _ in [*TRAIN, *TEST]]
    assert (data.spec["is_block_design"], data.spec["skipped"]) == (False, {})
    assert any("they have no unit" in s for s in said)


def test_averaging_and_a_single_part_are_options_that_are_named(
    files: Files, tmp_path: Path
) -> None:
    said = prepare(tmp_path / "set", files.source("part=test", "average=true"))
    epochs = PreparedSet(tmp_path / "set").epochs()
    mean = files.eeg["test"].mean(axis=1)[:, :, 20:80]
    np.testing.assert_allclose(epochs.rows("eeg", torch.arange(2)), mean, atol=1e-6)
    assert set(epochs["split"].tolist()) == {2}
    assert any("Each trial is the mean of its image's repetitions" in s for s in said)


def test_times_may_begin_before_the_eeg_does(tmp_path: Path) -> None:
    files = Files(tmp_path, n_dropped=20)  # what came before the onset was cut from the EEG
    prepare(tmp_path / "set", files.source("part=training"))
    eeg = PreparedSet(tmp_path / "set").epochs().rows("eeg", torch.tensor([5])).numpy()[0]
    np.testing.assert_array_equal(eeg, files.eeg["training"][1, 1, :, :60].astype(np.float32))


def test_other_electrodes_and_rates_are_met(files: Files, tmp_path: Path) -> None:
    spec = EpochSpec(
        ch_names=("Oz", "POz", "PO8"), sfreq=125, n_times=60, tmin=0.0, l_freq=1, h_freq=30
    )
    prepare(tmp_path / "set", files.source("part=test"), spec=spec)
    data = PreparedSet(tmp_path / "set")
    eeg = data.epochs().rows("eeg", torch.arange(16))
    assert eeg.shape == (16, 3, 60)
    assert 0.3 < data.spec["sources"][0]["fidelity"] < 1
    np.testing.assert_allclose(eeg.std(dim=2, correction=0), 1, atol=1e-3)
    assert data.spec["units"].startswith("standard deviations")


WRITING = """
import sys
from pathlib import Path
import app.epoch_shards
from acquisition.epoch_spec import EpochSpec
from app.prepare import Wanted, prepare_sources

app.epoch_shards.SHARD_BYTES = 8_000_000
names = tuple(f"E{i}" for i in range(16))
spec = EpochSpec(ch_names=names, sfreq=250, n_times=200, tmin=0.0, reference="none")
found = []
flush = app.epoch_shards.EpochShards.flush

def noting(self):
    flush(self)
    text = Path("/proc/self/status").read_text()
    found.append(int(text.partition("RssAnon:")[2].split()[0]) / 1024)

app.epoch_shards.EpochShards.flush = noting
n = prepare_sources(Path(sys.argv[2]), [f"things-eeg2:{sys.argv[1]}?part=training&metadata="
                                        f"{sys.argv[1]}/image_metadata.npy"], Wanted(spec))
print(n, len(found), max(found) - found[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="RssAnon is Linux's")
def test_memory_does_not_grow_with_what_is_read_and_written(tmp_path: Path) -> None:
    """128 MB of trials are read and 51 MB of epochs written within 30 MB more."""
    names = [f"E{i}" for i in range(16)]
    eeg = np.random.default_rng(0).normal(size=(1000, 4, 16, 250))
    data = {"preprocessed_eeg_data": eeg, "ch_names": names, "times": np.arange(250) / 250}
    (tmp_path / "preprocessed_eeg_training.npy").write_bytes(pickle.dumps(data, protocol=4))
    listed = {"train_img_concepts": [str(i) for i in range(1000)], "train_img_files": ["x"] * 1000}
    np.save(tmp_path / "image_metadata.npy", listed, allow_pickle=True)  # type: ignore[arg-type]
    del eeg, data
    done = subprocess.run(
        [sys.executable, "-c", WRITING, str(tmp_path), str(tmp_path / "set")],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    n_epochs, n_shards, more = done.stdout.split()
    assert (int(n_epochs), int(n_shards) > 5) == (4000, True)
    assert float(more) < 30


def test_two_subjects_share_their_pictures(files: Files, tmp_path: Path) -> None:
    prepare(tmp_path / "set", files.source("subject=1"), files.source("subject=2"))
    data = PreparedSet(tmp_path / "set")
    assert len(data.pictures()) == 8
    image_id, subject = data.epochs()["image_id"], data.epochs()["subject"]
    assert image_id[subject == 1].tolist() == image_id[subject == 2].tolist()


def test_missing_images_are_left_out_by_name(files: Files, tmp_path: Path) -> None:
    (files.images / "test_images" / TEST[0][0] / TEST[0][1]).unlink()
    said = prepare(tmp_path / "set", files.source())
    assert len(PreparedSet(tmp_path / "set").epochs()) == 24 + 8
    assert "1 trial was left out: the image is missing (aardvark_06b.jpg)." in said


def test_what_does_not_fit_gets_a_sentence(files: Files, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="expected training or test"):
        prepare(tmp_path / "a", files.source("part=validation"))
    with pytest.raises(SourceError, match="no parameter 'avarage'"):
        prepare(tmp_path / "b", files.source("avarage=true"))
    with pytest.raises(SourceNotFoundError, match="There is no file"):
        prepare(tmp_path / "c", f"things-eeg2:{tmp_path}?images={files.images}")
    files.save("test", {"preprocessed_eeg_data": files.eeg["training"],
                        "ch_names": list(CH_NAMES), "times": np.arange(100)})  # fmt: skip
    with pytest.raises(RecordingError, match=r"holds 6 images, but image_metadata\.npy lists 2"):
        prepare(tmp_path / "d", files.source("part=test"))
    files.save("test", {"preprocessed_eeg_data": np.zeros((2, 3)),
                        "ch_names": list(CH_NAMES), "times": np.arange(100)})  # fmt: skip
    with pytest.raises(RecordingError, match=r"found \(2, 3\)"):
        prepare(tmp_path / "e", files.source("part=test"))
    files.save("test", {"eeg": np.zeros(3)})
    with pytest.raises(RecordingError, match="expects preprocessed_eeg_data, ch_names, times"):
        prepare(tmp_path / "f", files.source("part=test"))


def test_a_concept_s_name_is_read_without_its_number() -> None:
    assert words("01234_ice_cream") == "ice cream"
