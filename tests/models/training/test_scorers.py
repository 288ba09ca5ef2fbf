"""What pictures are scored with: classifiers, CLIP and how pictures are handed to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification

from models.errors import ScorerError
from models.training.clip import Words, build_clip
from models.training.judge import Judge
from models.training.prepared import images_to_tensor
from models.training.scorers import (
    NotMeasured,
    Preprocessing,
    open_classifier,
    open_encoder,
    open_inception,
)

CPU = torch.device("cpu")


def pictures(n: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures as bytes (n, H, W, 3) and as the scorers take them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, height, width, 3), generator=generator, dtype=torch.uint8)
    return images, images.permute(0, 3, 1, 2).float() / 255


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A ViT of the real classes with random weights."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_labels=1000,
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "size": {"height": 32, "width": 32},
                "resample": 2,
                "image_mean": [0.485, 0.456, 0.406],
                "image_std": [0.229, 0.224, 0.225],
            }
        )
    )
    return tmp_path / "vit"


def test_the_judge_sees_what_it_was_trained_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = Judge(n_concepts=7, width=8)
    judge.save_pretrained(tmp_path)
    images, given = pictures(2, 128, 128)
    classifier = open_classifier(f"judge:{tmp_path}", {}, CPU)
    with torch.inference_mode():
        expected = judge(images_to_tensor(images)).softmax(1)
        torch.testing.assert_close(classifier(given), expected)
    assert classifier.classes_of(["a", "b"]).tolist() == [0, 1]
    with pytest.raises(ScorerError, match=r"knows 7 concepts.*labels up to 7"):
        classifier.classes_of([str(i) for i in range(8)])


def test_imagenets_classes_are_found_by_what_the_set_calls_them(vit: Path) -> None:
    classifier = open_classifier(f"vit:{vit}", {"Egyptian cat": 285, "n02106662": 235}, CPU)
    assert classifier.classes_of(["n02106662", "cat", "Egyptian cat"]).tolist() == [235, -1, 285]
    _, given = pictures(3, 40, 40)
    with torch.inference_mode():
        probabilities = classifier(given)
    assert probabilities.shape == (3, 1000)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3))


@pytest.mark.parametrize(("number", "resample"), [(2, "BILINEAR"), (3, "BICUBIC")])
def test_pictures_are_resized_and_cropped_as_published_models_expect(
    tmp_path: Path, number: int, resample: str
) -> None:
    config = {
        "size": {"shortest_edge": 24},
        "do_center_crop": True,
        "crop_size": {"height": 20, "width": 20},
        "resample": number,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    # Not white noise: no picture is.
    rough = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = rough.resize((96, 72), Image.Resampling.BICUBIC)
    resized = image.resize((32, 24), Image.Resampling[resample]).crop((6, 2, 26, 22))
    expected = (np.asarray(resized) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]

    given = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    found = Preprocessing.of(str(tmp_path), 99)(given)[0].permute(1, 2, 0).numpy()
    # Pillow rounds to bytes, twice.
    np.testing.assert_allclose(found, expected, atol=2 / 255 / 0.5)


def test_the_encoder_embeds_as_alignment_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = build_clip(Words(["cat"]), pixels=32).eval()
    clip.save_pretrained(tmp_path)
    images, given = pictures(2, 32, 32)
    with torch.inference_mode():
        pooled = clip.vision_model(pixel_values=images_to_tensor(images)).pooler_output
        expected = clip.visual_projection(pooled)
        torch.testing.assert_close(open_encoder(str(tmp_path), CPU)(given), expected)


def test_what_cannot_be_loaded_is_named(tmp_path: Path, vit: Path) -> None:
    with pytest.raises(ScorerError, match=r"expects judge:FOLDER or vit:.*not 'resnet'"):
        open_classifier("resnet", {}, CPU)
    with pytest.raises(ScorerError, match=r"The judge .*nowhere cannot be loaded.*Give a folder"):
        open_classifier(f"judge:{tmp_path / 'nowhere'}", {}, CPU)
    with pytest.raises(ScorerError, match=r"The classifier .*nowhere cannot be loaded"):
        open_classifier(f"vit:{tmp_path / 'nowhere'}", {}, CPU)
    with pytest.raises(ScorerError, match=r"The CLIP .*nowhere cannot be loaded"):
        open_encoder(str(tmp_path / "nowhere"), CPU)
    weights = vit / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ScorerError, match=r"vit cannot be loaded"):
        open_classifier(f"vit:{vit}", {}, CPU)


def test_a_checkpoint_that_lacks_weights_is_refused_and_nothing_is_made_up(vit: Path) -> None:
    weights = load_file(vit / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, vit / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScorerError, match=r"1 of its weights are missing, as classifier\.bias"):
        open_classifier(f"vit:{vit}", {}, CPU)


def test_without_inceptions_weights_the_fid_is_not_measured(tmp_path: Path) -> None:
    found = open_inception(tmp_path / "nothing.pth")
    assert isinstance(found, NotMeasured)
    assert "torch-fidelity" in found.reason or "--inception FILE" in found.reason
