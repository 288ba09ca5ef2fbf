"""A bundle's files are looked at before torch is loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.bundle_files import check_bundle
from models.errors import BundleError

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """All that is looked at: nothing in it could be loaded."""
    index = {
        "_class_name": "EEGToImagePipeline",
        "concepts": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    for name in ("unet", "scheduler"):
        (tmp_path / name).mkdir()
    files = {"model_index": index, "epoch_spec": {}, "unet/config": {},
             "scheduler/scheduler_config": {}}  # fmt: skip
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    tensors = {"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16)}
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    return tmp_path


def test_a_whole_bundle_passes(bundle: Path) -> None:
    check_bundle(bundle)


def test_the_shipped_bundle_passes() -> None:
    check_bundle(ROOT / "weights" / "scale-model")


def cut(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:n_bytes])


@pytest.mark.parametrize("name", ["model_index.json", "epoch_spec.json"])
def test_a_folder_without_either_of_the_two_is_no_bundle(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"is not a bundle: it has no {name}\. .* --bundle"):
        check_bundle(bundle)


@pytest.mark.parametrize(
    "name", ["model_index.json", "epoch_spec.json", "unet/config.json", "painter.json"]
)
def test_json_that_is_cut_off_is_named(bundle: Path, name: str) -> None:
    (bundle / name).write_text('{"a": ')
    with pytest.raises(BundleError, match=rf"{name} is not JSON \(.*\)\. Copy the bundle again"):
        check_bundle(bundle)


def test_json_that_is_no_object_is_named(bundle: Path) -> None:
    (bundle / "scheduler" / "scheduler_config.json").write_text("[]")
    with pytest.raises(BundleError, match=r"scheduler_config\.json does not hold a JSON object"):
        check_bundle(bundle)


def test_weights_that_are_cut_off_are_named_with_their_length(bundle: Path) -> None:
    n_bytes = (bundle / WEIGHTS).stat().st_size
    cut(bundle / WEIGHTS, n_bytes - 1)
    sentence = rf"{WEIGHTS} has {n_bytes - 1} bytes, but its header promises {n_bytes}\."
    with pytest.raises(BundleError, match=sentence):
        check_bundle(bundle)


@pytest.mark.parametrize("n_bytes", [0, 7, 8, 40])
def test_weights_without_a_whole_header_are_named(bundle: Path, n_bytes: int) -> None:
    cut(bundle / WEIGHTS, n_bytes)
    with pytest.raises(BundleError, match=rf"{WEIGHTS} does not hold weights: its header is"):
        check_bundle(bundle)


@pytest.mark.parametrize("content", [b"\xff" * 99, b"version https://git-lfs.github.com/spec/v1"])
def test_what_is_no_safetensors_file_is_named(bundle: Path, content: bytes) -> None:
    (bundle / WEIGHTS).write_bytes(content)
    with pytest.raises(BundleError, match="does not hold weights"):
        check_bundle(bundle)


def test_a_component_without_its_folder_or_weights_is_missing(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    with pytest.raises(BundleError, match=r"lacks its unet: it has no weights"):
        check_bundle(bundle)
    shutil.rmtree(bundle / "unet")
    with pytest.raises(BundleError, match=r"lacks its unet: it is named in model_index\.json"):
        check_bundle(bundle)


def test_looking_takes_no_torch() -> None:
    code = "import models.bundle_files, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
