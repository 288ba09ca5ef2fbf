"""The image route: the scale model's adapter, published ones, and an encoder alone that learns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from models.errors import TrainingError
from models.ip_adapter import ImageAdapter
from models.pipeline import load_bundle
from models.training.base import load_base
from models.training.config import DistillConfig, FinetuneConfig
from models.training.distill import distill
from models.training.finetune import FinetuneTask, build_conditioner, encode_all, finetune
from models.training.image_route import open_adapter
from models.training.ip_adapter import IpAdapterTask, build_adapter, train
from models.training.prepared import PreparedSet
from models.training.presets import build_encoder
from models.training.published_adapter import load_adapter
from models.training.scale_config import IpAdapterConfig
from models.training.scorers import open_encoder
from models.training.seen import SeenEpochs, unit_pictures
from models.training.stage import trained_parameters
from tests.models.test_ip_adapter import published_form
from tests.models.training.made_sets import make_base, make_clip, make_prepared_set
from tests.models.training.test_finetune import ENCODER, HEAD, PROJECTIONS

WEIGHTS = "diffusion_pytorch_model.safetensors"
ADAPTER = IpAdapterConfig(
    steps=8, batch=8, warmup=1, save_every=4, precision="fp32", n_tokens=2, ema_decay=0.0
)


def silent(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    f = tmp_path_factory.mktemp("image-route")
    make_prepared_set(f / "set")
    make_base(f / "base")
    make_clip(f / "clip")
    train(f / "set", f / "adapter", ADAPTER, f / "base", f / "clip", silent)
    return f


def config(folder: Path, **values: object) -> FinetuneConfig:
    given = {
        "base": str(folder / "base"),
        "clip": str(folder / "clip"),
        "adapter": str(folder / "adapter" / "image_adapter"),
        "route": "image",
        "preset": "tiny",
        "n_context": 4,
        "steps": 4,
        "batch": 8,
        "lr": 1e-2,
        "warmup": 1,
        "decay": "cosine",
        "save_every": 100,
        **values,
    }
    return FinetuneConfig(**given)  # type: ignore[arg-type]


def unet_of(base: Path) -> UNet2DConditionModel:
    return load_base(str(base)).unet


# The scale model's adapter


def test_the_adapter_alone_learns_from_where_text_is_read(folder: Path) -> None:
    unet = unet_of(folder / "base")
    begun = build_adapter(unet, 8, 2)
    to_v = unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_v.weight
    assert any(torch.equal(layer.to_v_ip[0].weight, to_v) for layer in begun.layers)
    learnt = ImageAdapter.from_pretrained(folder / "adapter" / "image_adapter")
    assert not learnt.empty_prompt.any()
    unchanged = [
        name
        for name, value in begun.state_dict().items()
        if torch.equal(value, learnt.state_dict()[name])
    ]
    assert unchanged == ["empty_prompt"]
    assert (folder / "adapter" / "samples.png").is_file()


def test_a_step_leaves_the_unet_as_it_is(folder: Path) -> None:
    base = load_base(str(folder / "base"))
    data = PreparedSet(folder / "set")
    label = data.pictures()["label"]
    adapter = build_adapter(base.unet, 8, 2)
    latents = torch.randn(64, 4, 4, 4).numpy()
    embeds = torch.nn.functional.normalize(torch.randn(64, 8), dim=1).numpy()
    task = IpAdapterTask(adapter, base.unet, base.scheduler, latents, embeds, label, 0.5)
    names = trained_parameters(task)
    assert {name.split(".")[0] for name in names} == {"adapter"}
    rows = task.load(task.draw(torch.Generator().manual_seed(0), 6))
    task(rows)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in names.values())
    # A dropped embedding says nothing.
    drawn = task.draw(torch.Generator().manual_seed(0), 6)
    drawn["is_kept"] = torch.zeros(6, dtype=torch.bool)
    assert not task.load(drawn)["embeds"].any()


# Fine-tuning


def make_task(folder: Path, out: Path, settings: FinetuneConfig) -> FinetuneTask:
    data = PreparedSet(folder / "set")
    seen, base = SeenEpochs(data), load_base(settings.base)
    latents, embeds = encode_all(data, base, out, settings)
    encoder = build_encoder(settings.preset, *seen.epochs.shape("eeg"))
    conditioner = build_conditioner(encoder, base.unet, embeds.shape[1], settings)
    width = embeds.shape[1]
    adapter = open_adapter(settings, base, width, lambda: torch.from_numpy(embeds))
    parts = encoder, conditioner, base.unet, base.scheduler, seen, latents, embeds
    return FinetuneTask(*parts, settings, adapter)


TIME = {name for name in PROJECTIONS if "time_mapper" in name}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ENCODER | HEAD | (PROJECTIONS - TIME)),
        ({"clip_from": "tokens"}, ENCODER | HEAD),
        ({"painter_weight": 1.0}, ENCODER | HEAD | (PROJECTIONS - TIME)),
    ],
)
def test_the_encoder_and_its_way_to_clip_learn_and_no_painter(
    folder: Path, tmp_path: Path, settings: dict[str, object], expected: set[str]
) -> None:
    task = make_task(folder, tmp_path, config(folder, **settings))
    learnt = trained_parameters(task)
    assert {name.rsplit(".", 1)[0] for name in learnt} == expected
    losses = task(task.load(task.draw(torch.Generator().manual_seed(0), 6)))
    assert ("sd" in losses) == ("painter_weight" in settings)
    losses["loss"].backward()
    assert all(p.grad is not None for p in learnt.values())


def test_through_the_frozen_painter_l_sd_reaches_the_encoder(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, tmp_path, config(folder, painter_weight=1.0))
    rows = task.load(task.draw(torch.Generator().manual_seed(0), 6))
    rows["is_kept"] = torch.ones(6, dtype=torch.bool)
    task(rows)["sd"].backward()
    assert task.conditioner.mapping.fc.weight.grad.any()
    rows["is_kept"] = torch.zeros(6, dtype=torch.bool)
    with torch.no_grad():
        other = rows | {"eeg": torch.randn_like(rows["eeg"])}
        assert task(rows)["sd"].item() == task(other)["sd"].item()


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Path:
    settings = config(folder, steps=150, warmup=10, contrast_weight=0.5, sampler_steps=2)
    finetune(folder / "set", folder / "tuned", settings, silent)
    return folder / "tuned" / "bundle"


def test_it_learns_and_the_painter_is_the_bases_to_the_bit(folder: Path, tuned: Path) -> None:
    assert not (folder / "tuned" / "cache" / "latents.npy").exists(), "nothing was painted"
    pipeline = load_bundle(tuned)
    assert pipeline.route == "image"
    data = PreparedSet(folder / "set").epochs()
    output = pipeline(data.rows("eeg", torch.arange(48, 64)), num_inference_steps=2)
    assert output.concept_probabilities is not None
    right = (output.concept_probabilities.argmax(1) == data["label"][48:]).float().mean()
    assert right > 0.8
    for name in ("unet", "vae"):
        before, after = (
            load_file(folder / "base" / name / WEIGHTS),
            load_file(tuned / name / WEIGHTS),
        )
        assert before.keys() == after.keys()
        assert all(torch.equal(value.half(), after[key]) for key, value in before.items())


def test_distilled_once_it_is_everybodys_painter(folder: Path, tuned: Path, tmp_path: Path) -> None:
    settings = DistillConfig(
        steps=3, batch=4, solver_steps=4, sampler_steps=2, save_every=3, guidance=2.0
    )
    distill(tuned, folder / "set", tmp_path / "few", settings, silent)
    few = tmp_path / "few" / "bundle"
    before, after = (load_file(b / "image_adapter" / WEIGHTS) for b in (tuned, few))
    changed = {k.split(".")[0] for k, v in before.items() if not torch.equal(v, after[k])}
    assert changed == {"layers"}, "keys and values learn with the U-Net"
    given = {"base": str(few), "adapter": str(few / "image_adapter")}
    finetune(folder / "set", tmp_path / "mine", config(folder, **given), silent)
    mine = load_bundle(tmp_path / "mine" / "bundle")
    assert isinstance(mine.scheduler, LCMScheduler)
    painter = json.loads((tmp_path / "mine" / "bundle" / "painter.json").read_text())
    assert painter == {"num_inference_steps": 2, "guidance_scale": 1.0}
    for name in ("unet", "vae", "image_adapter"):
        theirs, own = (load_file(b / name / WEIGHTS) for b in (few, tmp_path / "mine" / "bundle"))
        assert all(torch.equal(value, own[key]) for key, value in theirs.items())
    again = config(folder, **given, painter_weight=1.0)
    with pytest.raises(TrainingError, match="--painter-weight"):
        finetune(folder / "set", tmp_path / "no", again, silent)


def test_an_encoder_of_another_painter_begins_with_its_own_context(
    folder: Path, tuned: Path
) -> None:
    wide = UNet2DConditionModel(
        block_out_channels=(32, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    encoder = build_encoder("tiny", 4, 64)
    found = build_conditioner(encoder, wide, 12, config(folder, encoder=str(tuned)))
    started = load_bundle(tuned).conditioner
    assert torch.equal(found.dim_mapper.weight, started.dim_mapper.weight)
    assert (found.config.clip_dim, found.config.time_embed_dim) == (12, 128)


# Published adapters


def make_published(folder: Path, base: Path, **changes: torch.Tensor) -> Path:
    """A folder as h94/IP-Adapter for a base, which gets a text encoder of its width."""
    (folder / "models").mkdir(parents=True)
    tensors = published_form(unet_of(base), 8) | changes
    save_file({k: v for k, v in tensors.items() if v.numel()}, folder / "models" / FILE)
    return folder


FILE = "ip-adapter_sd15.safetensors"


def add_text_encoder(base: Path) -> None:
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=6,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=7,
        bos_token_id=4,
        eos_token_id=5,
    )
    CLIPTextModel(text).save_pretrained(base / "text_encoder")
    tokenizer = base / "tokenizer"
    tokenizer.mkdir()
    words = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5}
    (tokenizer / "vocab.json").write_text(json.dumps(words))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": 7, "tokenizer_class": "CLIPTokenizer"})
    )


@pytest.fixture(scope="module")
def sd(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with a text encoder, and an adapter in the published form beside it."""
    sd = tmp_path_factory.mktemp("sd")
    shutil.copytree(folder / "base", sd / "base")
    add_text_encoder(sd / "base")
    make_published(sd / "ip", sd / "base")
    return sd


def test_a_published_adapter_brings_a_bundle_with_the_empty_prompts_tokens(
    folder: Path, sd: Path, tmp_path: Path
) -> None:
    settings = config(folder, base=str(sd / "base"), adapter=str(sd / "ip"))
    finetune(folder / "set", tmp_path, settings, silent)
    adapter = load_bundle(tmp_path / "bundle").image_adapter
    encoder = CLIPTextModel.from_pretrained(sd / "base" / "text_encoder")
    # Start, end, and ends up to the full length, as Stable Diffusion pads.
    with torch.no_grad():
        wanted = encoder(torch.tensor([[4, 5, 5, 5, 5, 5, 5]])).last_hidden_state
    torch.testing.assert_close(adapter.empty_prompt, wanted, atol=2e-3, rtol=2e-3)
    pictures = PreparedSet(folder / "set").pictures()
    clip = open_encoder(str(folder / "clip"), torch.device("cpu"))
    with torch.no_grad():
        norms = clip(unit_pictures(pictures, torch.arange(64))).norm(dim=1)
    assert adapter.config.embed_norm == pytest.approx(float(norms.mean()), rel=1e-5)


def test_what_does_not_fit_is_refused_in_a_sentence(folder: Path, sd: Path, tmp_path: Path) -> None:
    unet = unet_of(sd / "base")
    base = str(sd / "base")
    none = torch.empty(0)
    plus = make_published(tmp_path / "plus", sd / "base", **{"image_proj.proj.weight": none})
    more = {f"ip_adapter.99.{name}.weight": torch.zeros(16, 16) for name in ("to_k_ip", "to_v_ip")}
    other = make_published(tmp_path / "other", sd / "base", **more)
    (tmp_path / "cut" / "models").mkdir(parents=True)
    (tmp_path / "cut" / "models" / FILE).write_bytes(b"nothing that can be read")
    for name in (tmp_path / "none", plus, tmp_path / "cut"):
        with pytest.raises(TrainingError, match=r"adapter cannot be loaded .* Give --adapter"):
            load_adapter(str(name), base, unet)
    with pytest.raises(TrainingError, match="does not fit --base"):
        load_adapter(str(other), base, unet)
    with pytest.raises(TrainingError, match=r"text encoder cannot be loaded .* whole Stable"):
        load_adapter(str(sd / "ip"), str(folder / "base"), unet)
    settings = config(folder, base=base, adapter=str(sd / "ip"))
    with pytest.raises(TrainingError, match=r"reads embeddings of 8 values, .* gives 12"):
        open_adapter(settings, load_base(base), 12, lambda: torch.zeros(1, 12))
    for wrong in ({"trained": "attention"}, {"clip_weight": 0.0}):
        with pytest.raises(TrainingError, match="--route image"):
            config(folder, **wrong)
