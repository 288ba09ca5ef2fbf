"""`phosphene few-steps`: LCM-LoRA and TAESD in small, put into a bundle of SD 1.5's structure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from app.checkpoints import import_checkpoint
from app.errors import ExitCode
from models.painter import StreamPainter, open_painter
from models.pipeline import load_bundle
from tests.command import run
from tests.published_checkpoint import finetuned_tensors, narrow_parts, save_finetuned

Capture = pytest.CaptureFixture[str]
RANK, ALPHA = 4, 2.0
# As LCM-LoRA, which is in the layers of the attention and of the convolutions.
LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
    "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.1.attentions.0.proj_in",
    "mid_block.resnets.0.conv1",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few-steps")
    parts = narrow_parts(n_channels=8, n_times=64, depth=1)
    checkpoint = save_finetuned(folder / "checkpoint.pth", finetuned_tensors(parts))
    spec = {"ch_names": [f"E{i}" for i in range(8)], "sfreq": 64.0, "n_times": 64, "h_freq": 25.0}
    (folder / "spec.json").write_text(json.dumps(spec))
    import_checkpoint(checkpoint, folder / "bundle", folder / "spec.json", {}, lambda _: None)
    (folder / "bundle" / "README.md").write_text("The card of the first.")
    return folder / "bundle"


def lora_of(unet: UNet2DConditionModel, path: Path, prefix: str = "lora_unet_") -> Path:
    """A LoRA by the names that LCM-LoRA's file has."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name in LAYERS:
        weight = unet.get_submodule(name).weight
        tail = (1,) * (weight.dim() - 2)
        key = prefix + name.replace(".", "_")
        down = torch.randn(RANK, *weight.shape[1:], generator=generator)
        up = torch.randn(weight.shape[0], RANK, *tail, generator=generator)
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        tensors[f"{key}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path)
    return path


def tiny_vae(folder: Path, **changes: object) -> Path:
    config = {
        "encoder_block_out_channels": (16,) * 4,
        "decoder_block_out_channels": (16,) * 4,
        "num_encoder_blocks": (1,) * 4,
        "num_decoder_blocks": (1,) * 4,
    }
    AutoencoderTiny(**config | changes).save_pretrained(folder)
    return folder


def test_a_bundle_with_lora_and_small_vae_paints_live(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_bundle(bundle)
    lora = lora_of(before.unet, tmp_path / "lora.safetensors")
    vae = tiny_vae(tmp_path / "taesd")
    out = tmp_path / "few"
    assert (
        run(monkeypatch, "few-steps", bundle, out, "--lora", lora, "--vae", vae, "--steps", 2) == 0
    )

    after = load_bundle(out)
    generator = torch.Generator().manual_seed(0)
    changed = set()
    for name in LAYERS:
        weight = before.unet.get_submodule(name).weight
        tail = (1,) * (weight.dim() - 2)
        down = torch.randn(RANK, *weight.shape[1:], generator=generator)
        up = torch.randn(weight.shape[0], RANK, *tail, generator=generator)
        product = (up.flatten(1) @ down.flatten(1)).view_as(weight)
        expected = weight + ALPHA / RANK * product
        found = after.unet.get_submodule(name).weight
        # Bundles are kept in half precision.
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
        changed.add(f"{name}.weight")
    for name, weight in before.unet.state_dict().items():
        if name not in changed:
            torch.testing.assert_close(after.unet.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
    assert isinstance(after.vae, AutoencoderTiny)
    assert json.loads((out / "painter.json").read_text()) == {
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
    }
    assert not (out / "README.md").exists(), "the card is of other weights"

    painter = open_painter(out, device="cpu")
    assert isinstance(painter, StreamPainter)
    painter.aim(np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32))
    frame = painter.step(1 / 30)
    assert frame is not None
    assert (frame.state, frame.rgb.shape) == ("painted", (64, 64, 3))


def test_either_is_enough_and_none_is_refused(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "few-steps", bundle, tmp_path / "few") == ExitCode.USAGE
    assert "give --lora, --vae or both" in capsys.readouterr().err
    assert (
        run(monkeypatch, "few-steps", bundle, tmp_path / "few", "--vae", tiny_vae(tmp_path / "vae"))
        == 0
    )
    few = load_bundle(tmp_path / "few")
    assert type(few.scheduler).__name__ == "PNDMScheduler"
    # Without LCM it needs as many steps as before.
    assert json.loads((tmp_path / "few" / "painter.json").read_text())["num_inference_steps"] == 250
    lora = lora_of(few.unet, tmp_path / "lora.safetensors")
    assert run(monkeypatch, "few-steps", tmp_path / "few", tmp_path / "both", "--lora", lora) == 0
    assert run(monkeypatch, "few-steps", tmp_path / "both", tmp_path / "again", "--lora", lora) != 0
    assert "paints in few steps already" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_what_does_not_fit_is_refused_in_a_sentence(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wide = UNet2DConditionModel(block_out_channels=(64, 64, 64, 64), cross_attention_dim=24,
                                attention_head_dim=8, sample_size=8)  # fmt: skip
    unet = load_bundle(bundle).unet
    partly = lora_of(unet, tmp_path / "partly.safetensors")
    tensors = load_file(partly)
    for name in [name for name in tensors if "mid_block" in name]:
        tensors[name.replace("resnets_0", "resnets_7")] = tensors[name].clone()
    save_file(tensors, partly)
    (tmp_path / "cut.safetensors").write_bytes(b"nothing that can be read")
    cases = {
        ("--lora", tmp_path / "none"): "cannot be taken",
        ("--lora", tmp_path / "cut.safetensors"): "cannot be taken",
        ("--lora", lora_of(wide, tmp_path / "wide.safetensors")): "cannot be taken",
        ("--lora", lora_of(unet, tmp_path / "te.safetensors", "lora_te_")): "LoRA",
        ("--lora", partly): "layers, of which this bundle's U-Net has 4",
        ("--vae", tmp_path / "none"): "cannot be taken",
        ("--vae", tiny_vae(tmp_path / "wide", latent_channels=16)): "latents of 16 channels",
    }
    for (option, value), sentence in cases.items():
        assert run(monkeypatch, "few-steps", bundle, tmp_path / "out", option, value) != 0
        said = capsys.readouterr().err
        assert sentence in said, said
        assert "Traceback" not in said
        assert not (tmp_path / "out").exists()
