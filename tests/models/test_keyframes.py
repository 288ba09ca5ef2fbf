"""The keyframe painter: same epoch and seed, same picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler

from models.errors import BundleError, EpochShapeError
from models.keyframes import KeyframePainter
from models.pipeline import fixed_noise, load_bundle


def epoch(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(32, 256)).astype(np.float32)


def picture(painter: KeyframePainter, seed: int) -> np.ndarray:
    return painter.paint(epoch(seed))[1].rgb


def test_the_same_epoch_and_seed_give_the_same_picture(tiny_bundle: Path) -> None:
    painter = KeyframePainter.from_bundle(tiny_bundle, seed=3)
    a = picture(painter, 0)
    picture(painter, 1)
    np.testing.assert_array_equal(picture(painter, 0), a)
    assert not np.array_equal(picture(KeyframePainter.from_bundle(tiny_bundle, seed=4), 0), a)


def test_an_epoch_is_painted_once(tiny_bundle: Path) -> None:
    painter = KeyframePainter.from_bundle(tiny_bundle)
    assert not painter.is_moving
    assert painter.step(0.1) is None
    painter.aim(epoch(0))
    painter.aim(epoch(1))
    assert painter.is_moving
    frame = painter.step(0.1)
    assert frame is not None
    assert frame.state == "painted"
    np.testing.assert_array_equal(frame.rgb, picture(painter, 1))
    assert painter.step(0.1) is None


def test_noise_that_a_scheduler_adds_is_the_same_for_every_picture(tiny_bundle: Path) -> None:
    pipeline = load_bundle(tiny_bundle)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    painter = KeyframePainter(pipeline, seed=3, num_inference_steps=4)
    first = picture(painter, 0)
    torch.randn(5)  # whoever else draws
    np.testing.assert_array_equal(picture(painter, 0), first)
    # As in an evaluation, where several are painted at once.
    noise, generator = fixed_noise(pipeline, 3)
    eeg = np.stack([epoch(1), epoch(0), epoch(0)])
    generators = [generator.clone_state() for _ in eeg]
    images = pipeline(eeg, 4, 1.0, generators, noise.expand(3, -1, -1, -1), "pt").images
    pixels = (images * 255).round().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pixels[1], first, atol=1)
    np.testing.assert_array_equal(pixels[1], pixels[2])
    other = picture(KeyframePainter(pipeline, seed=4, num_inference_steps=4), 0)
    assert not np.array_equal(other, first)


def test_a_frame_has_pixels_all_concepts_and_times(tiny_bundle: Path) -> None:
    decoded, frame = KeyframePainter.from_bundle(tiny_bundle).paint(epoch(0))
    assert frame.rgb.shape == (32, 32, 3)
    assert frame.rgb.dtype == np.uint8
    assert len(decoded.concepts) == 40
    confidences = [c for _, c in decoded.concepts]
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) == pytest.approx(1.0, abs=1e-4)
    assert decoded.encode_ms > 0
    assert frame.paint_ms > 0


def test_sampler_settings_come_from_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (folder / "painter.json").write_text(
        json.dumps({"num_inference_steps": 1, "guidance_scale": 2.0})
    )
    painter = KeyframePainter.from_bundle(folder)
    assert (painter.num_inference_steps, painter.guidance_scale) == (1, 2.0)


def test_a_sampler_that_is_not_understood_is_a_bundle_error(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    for text in ("{", '{"steps": 3}', "[]", '{"num_inference_steps": 0}'):
        (folder / "painter.json").write_text(text)
        with pytest.raises(BundleError, match=r"painter\.json"):
            KeyframePainter.from_bundle(folder)


def test_an_epoch_of_another_shape_is_refused(tiny_bundle: Path) -> None:
    with pytest.raises(EpochShapeError, match="not \\(16, 256\\)"):
        KeyframePainter.from_bundle(tiny_bundle).paint(np.zeros((16, 256), np.float32))
