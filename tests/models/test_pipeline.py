"""The pipeline: saved, loaded, run, and refused where it is broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, LCMScheduler, PNDMScheduler, UNet2DConditionModel

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.errors import BundleError, EpochShapeError
from models.pipeline import EEGToImagePipeline, load_bundle
from tests.tiny_bundle import TinySizes, tiny_parts


def eeg(n: int = 1) -> torch.Tensor:
    return torch.randn(n, 32, 256, generator=torch.Generator().manual_seed(0))


def noise(pipeline: EEGToImagePipeline, n: int = 1) -> torch.Tensor:
    return torch.randn(pipeline.latent_shape(n), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> EEGToImagePipeline:
    return load_bundle(tiny_bundle)


def test_a_saved_pipeline_paints_the_same_after_loading(
    pipeline: EEGToImagePipeline, tmp_path: Path, tiny_bundle: Path
) -> None:
    pipeline.save_pretrained(tmp_path)
    shutil.copy(tiny_bundle / "epoch_spec.json", tmp_path)
    again = load_bundle(tmp_path)
    kwargs = {"num_inference_steps": 3, "latents": noise(pipeline, 2), "output_type": "pt"}
    a, b = (p(eeg(2), **kwargs) for p in (pipeline, again))
    torch.testing.assert_close(a.images, b.images)
    torch.testing.assert_close(a.concept_probabilities, b.concept_probabilities)
    assert a.images.shape == (2, 3, 32, 32)


def test_pictures_depend_on_the_eeg_and_on_the_noise(pipeline: EEGToImagePipeline) -> None:
    # Untrained, the tiny bundle hardly listens: compare before the VAE.
    def latents(x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        context, time_embedding, _ = pipeline.encode(x)[:3]
        return pipeline.denoise(context, time_embedding, start, 3)

    start = noise(pipeline)
    base = latents(eeg(), start)
    torch.testing.assert_close(base, latents(eeg(), start))
    assert not torch.allclose(base, latents(-eeg(), start), atol=1e-5)
    assert not torch.allclose(base, latents(eeg(), -start), atol=1e-2)


def test_pil_images_and_probabilities_come_out(pipeline: EEGToImagePipeline) -> None:
    output = pipeline(eeg().numpy(), num_inference_steps=1)
    assert output.images[0].size == (32, 32)
    assert output.concept_probabilities.sum().item() == pytest.approx(1.0, abs=1e-5)


def test_guidance_moves_away_from_the_empty_condition(pipeline: EEGToImagePipeline) -> None:
    context, time_embedding, _ = pipeline.encode(eeg())[:3]
    start = noise(pipeline)
    plain = pipeline.denoise(context, time_embedding, start, 2)
    empty = pipeline.denoise(torch.zeros_like(context), torch.zeros_like(time_embedding), start, 2)
    guided = pipeline.denoise(context, time_embedding, start, 2, guidance_scale=3.0)
    assert ((guided - plain) * (plain - empty)).sum() > 0


def test_the_time_embedding_of_the_eeg_reaches_the_unet(pipeline: EEGToImagePipeline) -> None:
    context, time_embedding, _ = pipeline.encode(eeg())[:3]
    start = noise(pipeline)
    assert not time_embedding.any(), "the time conditioning begins at zero"
    moved = pipeline.denoise(context, time_embedding + 1, start, 1)
    assert not torch.allclose(moved, pipeline.denoise(context, time_embedding, start, 1))


def test_epochs_of_another_shape_are_refused(pipeline: EEGToImagePipeline) -> None:
    with pytest.raises(EpochShapeError, match="32 channels x 256 samples"):
        pipeline(torch.zeros(1, 31, 256))


@pytest.mark.parametrize("scheduler", [PNDMScheduler, LCMScheduler])
def test_other_schedulers_and_a_full_vae_work(scheduler: type) -> None:
    parts = tiny_parts()
    parts["scheduler"] = scheduler.from_config(
        {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    )
    parts["vae"] = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        scaling_factor=0.18215,
    )
    pipeline = EEGToImagePipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(eeg(), num_inference_steps=4, output_type="pt")
    assert output.images.shape == (1, 3, 8, 8)
    assert output.images.isfinite().all()


def test_parts_of_sd_1_5_s_size_fit_together() -> None:
    with torch.device("meta"):
        encoder = EEGEncoder()
        conditioner = EEGConditioner()
        unet = UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=768,
            attention_head_dim=8,
            class_embed_type="identity",
        )
        tokens = encoder(torch.empty(1, 128, 512))
        context, time_embedding, clip_embeds = conditioner(tokens)
        out = unet(torch.empty(1, 4, 64, 64), 1, context, class_labels=time_embedding).sample
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert context.shape == (1, 77, 768)
    assert clip_embeds.shape == (1, 768)
    assert out.shape == (1, 4, 64, 64)


def break_bundle(folder: Path, how: str) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if how == "no index":
        (folder / "model_index.json").unlink()
    elif how == "no epoch spec":
        (folder / "epoch_spec.json").unlink()
    elif how == "index is not JSON":
        (folder / "model_index.json").write_text("{")
    elif how == "weights cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "weights missing":
        weights.unlink()
    elif how == "component missing":
        shutil.rmtree(folder / "conditioner")
    elif how == "wrong class":
        index = json.loads((folder / "model_index.json").read_text())
        index["eeg_encoder"] = ["models.eeg_encoder", "Nonsense"]
        (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "how",
    [
        "no index",
        "no epoch spec",
        "index is not JSON",
        "weights cut",
        "weights missing",
        "component missing",
        "wrong class",
    ],
)
def test_a_broken_bundle_gets_one_sentence(tiny_bundle: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    break_bundle(folder, how)
    with pytest.raises(BundleError) as raised:
        load_bundle(folder)
    text = str(raised.value)
    assert str(folder) in text
    assert "\n" not in text


def test_a_missing_bundle_names_the_embedded_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"weights/scale-model; give another with --bundle"):
        load_bundle(tmp_path / "nowhere")


def test_weights_in_half_precision_load_as_single(tmp_path: Path, tiny_bundle: Path) -> None:
    half = EEGToImagePipeline(**tiny_parts()).to(torch.float16)
    half.save_pretrained(tmp_path)
    shutil.copy(tiny_bundle / "epoch_spec.json", tmp_path)
    pipeline = load_bundle(tmp_path)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            assert {p.dtype for p in part.parameters()} == {torch.float32}, name
    assert pipeline(eeg(), 1, output_type="pt").images.isfinite().all()


def test_sizes_other_than_the_default_work() -> None:
    sizes = TinySizes(n_channels=8, n_times=128)
    pipeline = EEGToImagePipeline(**tiny_parts(sizes))
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(torch.zeros(1, 8, 128), 1, output_type="pt").images.isfinite().all()


def test_a_bundle_without_concepts_is_loaded(tmp_path: Path, tiny_bundle: Path) -> None:
    EEGToImagePipeline(**tiny_parts() | {"concepts": None}).save_pretrained(tmp_path)
    shutil.copy(tiny_bundle / "epoch_spec.json", tmp_path)
    assert load_bundle(tmp_path)(eeg(), 1).concept_probabilities is None
