"""`phosphene import` and `export`: from file to a bundle that paints, and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from acquisition.eeg_imagenet import DREAMDIFFUSION_SPEC
from acquisition.epoch_spec import EpochSpec
from acquisition.montage import Montage
from acquisition.simulated_subject import CH_NAMES
from app.bundle import read_epoch_spec
from app.checkpoints import unfinished
from app.errors import ExitCode, SummaryError
from models.keyframes import KeyframePainter
from models.masked_autoencoder import load_masked_autoencoder, save_masked_autoencoder
from models.pipeline import load_bundle
from tests.command import run
from tests.published_checkpoint import (
    finetuned_tensors,
    narrow_parts,
    pretraining_tensors,
    save_finetuned,
    save_pretraining,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    return save_finetuned(folder / "checkpoint.pth", finetuned_tensors(narrow_parts()))


@pytest.fixture
def other_checkpoint(tmp_path: Path) -> Path:
    """Of other electrodes than EEG-ImageNet's."""
    parts = narrow_parts(n_channels=8, n_times=64, depth=1)
    return save_finetuned(tmp_path / "other.pth", finetuned_tensors(parts))


def test_an_imported_checkpoint_is_a_bundle_that_paints(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "bundle"
    assert run(monkeypatch, "import", checkpoint, out) == 0
    said = capsys.readouterr().err
    assert "a bundle for 128 channels x 512 samples and pictures of 64 pixels" in said
    assert "taken for granted is the paper's, EEG-ImageNet" in said
    assert [p.name for p in out.parent.iterdir()] == ["bundle"]

    spec = read_epoch_spec(out)
    assert spec == DREAMDIFFUSION_SPEC
    assert "fidelity" in Montage.from_channels(CH_NAMES, spec).sentence
    sampler = json.loads((out / "painter.json").read_text())
    assert sampler == {"num_inference_steps": 250, "guidance_scale": 1.0}
    pipeline = load_bundle(out)
    assert type(pipeline.scheduler).__name__ == "PNDMScheduler"
    pipeline.scheduler.set_timesteps(250)
    # As the reference's PLMS: the second timestep twice, 997 to 1.
    timesteps = pipeline.scheduler.timesteps.tolist()
    assert (len(timesteps), timesteps[0], timesteps[-1]) == (251, 997, 1)
    sampler["num_inference_steps"] = 3
    (out / "painter.json").write_text(json.dumps(sampler))
    painter = KeyframePainter.from_bundle(out, device="cpu")
    eeg = np.random.default_rng(0).normal(size=(128, 512)).astype(np.float32)
    _, painted = painter.paint(eeg)
    assert painted.rgb.shape == (64, 64, 3)
    assert painted.rgb.std() > 0
    assert (painter.paint(-eeg)[1].rgb != painted.rgb).any()


def test_what_is_exported_can_be_imported_again(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, checkpoint: Path, tmp_path: Path
) -> None:
    first, exported, second = tmp_path / "first", tmp_path / "out.pth", tmp_path / "second"
    assert run(monkeypatch, "import", checkpoint, first) == 0
    capsys.readouterr()
    assert run(monkeypatch, "export", first, exported) == 0
    said = capsys.readouterr().err
    assert "Not in it: CLIP's image tower (image_embedder.*)" in said
    assert "the state of the random generator" in said
    assert "plain dictionary" in said
    content = torch.load(exported, weights_only=True)
    assert content["config"]["embed_dim"] == 32
    assert run(monkeypatch, "import", exported, second) == 0
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    assert Path("unet/diffusion_pytorch_model.safetensors") in files
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_pre_training_comes_back_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    tensors = pretraining_tensors()
    path = save_pretraining(tmp_path / "pretrain.pth", tensors)
    assert run(monkeypatch, "import", path, tmp_path / "encoder") == 0
    assert "pre-trained encoder for 8 channels x 64 samples" in capsys.readouterr().err
    assert run(monkeypatch, "export", tmp_path / "encoder", tmp_path / "again.pth") == 0
    assert "the state of the optimiser" in capsys.readouterr().err
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    torch.testing.assert_close(again["model"], tensors, rtol=0, atol=0)
    assert again["config"]["decoder_num_heads"] == 2

    code = run(monkeypatch, "import", path, tmp_path / "b", "--spec", "epoch_spec.json")
    assert code == ExitCode.USAGE
    assert "Leave out --spec" in capsys.readouterr().err
    (tmp_path / "encoder" / "eeg_encoder" / "config.json").unlink()
    assert run(monkeypatch, "export", tmp_path / "encoder", tmp_path / "c.pth") == ExitCode.BUNDLE
    assert "does not hold a pre-trained encoder" in capsys.readouterr().err


def test_a_house_autoencoder_without_cls_token_is_not_exported(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    from models.eeg_encoder import EEGEncoder
    from models.masked_autoencoder import MaskedAutoencoder

    encoder = EEGEncoder(8, 64, 4, 32, 1, 4, 1.0)
    save_masked_autoencoder(MaskedAutoencoder(encoder, 16, 1, 2), tmp_path / "ours")
    assert load_masked_autoencoder(tmp_path / "ours").cls_token is None
    assert run(monkeypatch, "export", tmp_path / "ours", tmp_path / "a.pth") == ExitCode.BUNDLE
    assert "has no cls token" in capsys.readouterr().err
    assert not (tmp_path / "a.pth").exists()


def test_other_electrodes_need_their_specification(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, other_checkpoint: Path, tmp_path: Path
) -> None:
    out, spec = tmp_path / "bundle", tmp_path / "spec.json"
    assert run(monkeypatch, "import", other_checkpoint, out) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "is for 8 channels x 64 samples, and EEG-ImageNet has 128 channels x 512" in said
    assert "--spec" in said
    own = EpochSpec(CH_NAMES[:8], n_times=64)
    spec.write_text(json.dumps(EpochSpec(CH_NAMES[:7], n_times=64).to_dict()))
    assert run(monkeypatch, "import", other_checkpoint, out, "--spec", spec) == ExitCode.USAGE
    assert "spec.json has 7 channels" in capsys.readouterr().err
    assert not out.exists()
    spec.write_text(json.dumps(own.to_dict()))
    assert run(monkeypatch, "import", other_checkpoint, out, "--spec", spec) == 0
    assert "taken for granted" not in capsys.readouterr().err
    assert read_epoch_spec(out) == own


def test_what_no_tensor_tells_can_be_given(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    given = ("--heads", 8, "--unet-heads", 4, "--image-size", 128)
    assert run(monkeypatch, "import", checkpoint, out, *given) == 0
    pipeline = load_bundle(out)
    assert pipeline.eeg_encoder.config.num_heads == 8
    assert pipeline.unet.config.attention_head_dim == 4
    assert pipeline.latent_shape(1) == (1, 4, 16, 16)
    code = run(monkeypatch, "import", checkpoint, tmp_path / "b", "--heads", 5)
    assert code == ExitCode.BUNDLE
    assert "5 attention heads do not divide" in capsys.readouterr().err


def test_bad_files_and_places_get_one_sentence_and_leave_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    checkpoint: Path,
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    cut = tmp_path / "cut.pth"
    cut.write_bytes(checkpoint.read_bytes()[:5000])
    out = tmp_path / "out"
    assert run(monkeypatch, "import", cut, out) == ExitCode.BUNDLE
    assert "damaged or incomplete" in capsys.readouterr().err
    assert run(monkeypatch, "import", tmp_path / "no.pth", out) == ExitCode.BUNDLE
    assert run(monkeypatch, "export", tiny_bundle, out) == ExitCode.BUNDLE
    assert run(monkeypatch, "export", tmp_path / "nowhere", out) == ExitCode.BUNDLE
    capsys.readouterr()
    out.mkdir()
    assert run(monkeypatch, "import", checkpoint, out) == ExitCode.OUTPUT
    text = capsys.readouterr().err
    assert "exists already" in text
    assert "Traceback" not in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.pth", "out"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("pos"), SafetensorError("I/O")]
)
def test_a_full_disk_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    def write() -> None:
        with unfinished(tmp_path / "a") as folder:
            folder.mkdir()
            (folder / "half").touch()
            raise error

    with pytest.raises(SummaryError, match=r"cannot be written"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".a.part").mkdir()
    with unfinished(tmp_path / "a") as a:
        a.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"
