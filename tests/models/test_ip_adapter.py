"""The image route: a U-Net that paints by CLIP embeddings, from file to live frames."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from models.errors import BundleError, CheckpointError
from models.few_steps import fuse_lcm_lora
from models.graph_networks import GraphNetworks
from models.ip_adapter import ImageAdapter, hidden_sizes
from models.networks import EagerNetworks
from models.openvino_networks import OpenVinoNetworks
from models.painter import StreamPainter, open_painter
from models.pipeline import EEGToImagePipeline, load_bundle
from models.published_export import pipeline_to_reference
from models.training.published_adapter import convert
from tests.app.test_few_steps import LAYERS, lora_of
from tests.tiny_bundle import TINY, make_tiny_bundle, tiny_parts

N_TOKENS, N_TEXT = 4, 5


def published_form(
    unet: UNet2DConditionModel, clip_dim: int = TINY.clip
) -> dict[str, torch.Tensor]:
    """Random weights by the names of h94/IP-Adapter's file for this U-Net."""
    generator = torch.Generator().manual_seed(0)

    def weights(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    width = unet.config.cross_attention_dim
    tensors = {
        "image_proj.proj.weight": weights(N_TOKENS * width, clip_dim),
        "image_proj.proj.bias": weights(N_TOKENS * width),
        "image_proj.norm.weight": 1 + weights(width),
        "image_proj.norm.bias": weights(width),
    }
    for i, size in enumerate(hidden_sizes(unet)):
        for name in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * i + 1}.{name}.weight"] = weights(size, width)
    return tensors


def tiny_adapter(unet: UNet2DConditionModel) -> ImageAdapter:
    empty_prompt = torch.randn(1, N_TEXT, TINY.cross, generator=torch.Generator().manual_seed(1))
    return convert(published_form(unet), empty_prompt)


def image_parts() -> dict[str, Any]:
    parts = tiny_parts()
    return parts | {"image_adapter": tiny_adapter(parts["unet"])}


def make_image_bundle(folder: Path, is_distilled: bool = False) -> Path:
    """A tiny bundle that paints by an adapter."""
    make_tiny_bundle(folder)
    parts = image_parts()
    if is_distilled:
        parts["scheduler"] = LCMScheduler.from_config(
            parts["scheduler"].config, original_inference_steps=8, clip_sample=False
        )
    EEGToImagePipeline(**parts).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_bundle(tmp_path_factory.mktemp("image-route") / "bundle")


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> EEGToImagePipeline:
    return load_bundle(bundle)


def epochs(n: int) -> torch.Tensor:
    return torch.randn(n, TINY.n_channels, TINY.n_times, generator=torch.Generator().manual_seed(2))


def test_it_paints_as_diffusers_own_adapter() -> None:
    unet = tiny_parts()["unet"].eval()
    theirs = copy.deepcopy(unet)
    tensors, adapter = published_form(unet), tiny_adapter(unet)
    state: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        state[part][name] = value
    theirs._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    adapter.install(unet)
    embeds = torch.nn.functional.normalize(torch.randn(2, TINY.clip), dim=1)
    x, t, classes = torch.randn(2, 4, 4, 4), torch.tensor([500]), torch.zeros(2, 64)
    with torch.no_grad():
        found = unet(x, t, adapter(embeds), class_labels=classes).sample
        wanted = theirs(
            x,
            t,
            adapter.empty_prompt.expand(2, -1, -1),
            class_labels=classes,
            added_cond_kwargs={"image_embeds": [embeds[:, None]]},
        ).sample
        other = unet(x, t, adapter(embeds.flip(0)), class_labels=classes).sample
    torch.testing.assert_close(found, wanted)
    assert (found - other).abs().max() > 1e-3


def test_only_the_direction_counts_and_its_length_is_the_adapters() -> None:
    adapter = tiny_adapter(tiny_parts()["unet"])
    embeds = torch.randn(2, TINY.clip)
    torch.testing.assert_close(adapter(embeds), adapter(7 * embeds))
    short = adapter(embeds)
    adapter.register_to_config(embed_norm=20.0)
    assert (adapter(embeds) - short).abs().max() > 1e-3
    assert torch.isfinite(adapter.nothing(2)).all()


def test_a_bundle_keeps_the_adapter_beside_a_unet_that_is_the_bases(
    bundle: Path, tiny_bundle: Path, pipeline: EEGToImagePipeline
) -> None:
    name = Path("unet") / "diffusion_pytorch_model.safetensors"
    assert (bundle / name).read_bytes() == (tiny_bundle / name).read_bytes()
    assert (pipeline.route, pipeline.n_context) == ("image", N_TOKENS)
    plain = load_bundle(tiny_bundle)
    assert (plain.route, plain.n_context) == ("context", TINY.context)
    eeg = epochs(2)
    made = EEGToImagePipeline(**image_parts())
    made.set_progress_bar_config(disable=True)
    context, time_embedding, clip_embeds = pipeline.encode(eeg)[:3]
    torch.testing.assert_close(context, made.encode(eeg)[0])
    torch.testing.assert_close(clip_embeds, plain.encode(eeg)[2])
    assert context.shape == (2, N_TOKENS, TINY.cross)
    assert not time_embedding.any()
    latents = torch.randn(2, 4, 4, 4)
    pictures = [
        p(eeg, 2, latents=latents, output_type="pt").images for p in (pipeline, made, plain)
    ]
    torch.testing.assert_close(pictures[0], pictures[1])
    assert (pictures[0] - pictures[2]).abs().max() > 1e-3


def test_saving_leaves_the_adapter_where_it_was(tmp_path: Path) -> None:
    made = EEGToImagePipeline(**image_parts())
    told = made.encode(epochs(1))[:2]
    x = torch.randn(1, 4, 4, 4)
    before = made.denoise(*told, x, 1)
    made.save_pretrained(tmp_path)
    torch.testing.assert_close(made.denoise(*told, x, 1), before)


def test_guidance_leads_away_from_no_picture(pipeline: EEGToImagePipeline) -> None:
    asked = []

    def predict(x: torch.Tensor, _t: torch.Tensor, context: torch.Tensor, _: torch.Tensor) -> Any:
        asked.append(context)
        return torch.zeros_like(x)

    context, time_embedding, _ = pipeline.encode(epochs(2))[:3]
    pipeline.denoise(
        context, time_embedding, torch.randn(2, 4, 4, 4), 1, guidance_scale=2.0, predict=predict
    )
    torch.testing.assert_close(asked[0][2:], context)
    adapter = pipeline.image_adapter
    torch.testing.assert_close(asked[0][:2], adapter(torch.zeros(2, TINY.clip)))


def test_networks_of_any_number_answer_as_pytorchs_and_others_adapters_are_others(
    bundle: Path, tmp_path: Path
) -> None:
    p = load_bundle(bundle)
    eager = EagerNetworks(p)
    # What was converted for one picture a call is read again for two.
    for n in (1, 2):
        inputs = (torch.randn(n, 4, 4, 4), torch.tensor([321]), *p.encode(epochs(n))[:2])
        wanted = eager.predict(*inputs)
        for networks in (OpenVinoNetworks(p, n, 1, tmp_path), GraphNetworks(p, n)):
            torch.testing.assert_close(networks.predict(*inputs), wanted, atol=1e-4, rtol=1e-4)
    n_kept = len(list(tmp_path.glob("*.xml")))
    with torch.no_grad():
        p.image_adapter.layers[0].to_k_ip[0].weight *= 2
    changed = OpenVinoNetworks(p, 2, 1, tmp_path).predict(*inputs)
    torch.testing.assert_close(changed, eager.predict(*inputs), atol=1e-4, rtol=1e-4)
    assert (changed - wanted).abs().max() > 1e-4
    assert len(list(tmp_path.glob("*.xml"))) == n_kept + 1


def test_a_distilled_bundle_paints_live_and_turns_to_what_is_seen(tmp_path: Path) -> None:
    painter = open_painter(make_image_bundle(tmp_path / "few", is_distilled=True), device="cpu")
    assert isinstance(painter, StreamPainter)
    first, second = epochs(2).numpy()
    painter.aim(first)
    frames = [painter.step(1 / 30) for _ in range(3)]
    painter.aim(second)
    frames += [painter.step(1 / 30) for _ in range(20)]
    shown = [f.rgb.astype(int) for f in frames if f is not None]
    assert len(shown) > 5
    assert np.abs(shown[-1] - shown[0]).max() > 0


def test_lcm_lora_changes_the_unet_and_leaves_the_adapter(bundle: Path, tmp_path: Path) -> None:
    p = load_bundle(bundle)
    before = {name: value.clone() for name, value in p.unet.state_dict().items()}
    fuse_lcm_lora(p, str(lora_of(p.unet, tmp_path / "lora.safetensors")))
    after = p.unet.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {f"{name}.weight" for name in LAYERS}
    context, time_embedding, _ = p.encode(epochs(1))[:3]
    assert p.denoise(context, time_embedding, torch.randn(1, 4, 4, 4), 2).isfinite().all()


def test_the_reference_has_no_such_bundle(pipeline: EEGToImagePipeline) -> None:
    with pytest.raises(CheckpointError, match="by an image adapter"):
        pipeline_to_reference(pipeline)


def test_an_adapter_of_another_unet_is_refused_in_a_sentence(bundle: Path, tmp_path: Path) -> None:
    make_image_bundle(tmp_path / "wrong")
    folder = tmp_path / "wrong" / "image_adapter"
    config = json.loads((folder / "config.json").read_text())
    config["hidden_sizes"] = config["hidden_sizes"][:-1]
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "diffusion_pytorch_model.safetensors"
    last = f"layers.{len(config['hidden_sizes'])}."
    kept = {k: v for k, v in load_file(weights).items() if not k.startswith(last)}
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(BundleError, match="the adapter is for 3 cross-attentions"):
        load_bundle(tmp_path / "wrong")
    (folder / "config.json").unlink()
    weights.unlink()
    folder.rmdir()
    with pytest.raises(BundleError, match="lacks its image_adapter"):
        load_bundle(tmp_path / "wrong")
