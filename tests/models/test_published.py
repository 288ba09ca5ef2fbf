"""Published checkpoints: read safely, every tensor accounted for, and back without loss."""

from __future__ import annotations

import builtins
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from safetensors.torch import save_file

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder, sincos_positions
from models.errors import CheckpointError
from models.masked_autoencoder import (
    MaskedAutoencoder,
    load_masked_autoencoder,
    save_masked_autoencoder,
)
from models.pipeline import EEGToImagePipeline
from models.published import (
    DROPPED,
    build_scheduler,
    masked_autoencoder_from_reference,
    pipeline_from_reference,
    with_cls_row,
)
from models.published_export import (
    conditioning_to_reference,
    masked_autoencoder_to_reference,
    pipeline_to_reference,
)
from models.published_file import Sizes, read_checkpoint
from tests.published_checkpoint import (
    CONFIG,
    finetuned_tensors,
    narrow_parts,
    narrow_unet,
    pretraining_tensors,
    save_finetuned,
    save_pretraining,
)
from tests.tiny_bundle import tiny_parts

SIZES = Sizes().changed_by(CONFIG)
UNET, VAE, MAE = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.mae."
TIME = UNET + "time_embed_condtion."
MAPS = Path("/proc/self/maps")

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return narrow_parts()


@pytest.fixture(scope="module")
def tensors(parts: dict[str, Any]) -> Tensors:
    return finetuned_tensors(parts)


@pytest.fixture(scope="module")
def imported(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> EEGToImagePipeline:
    path = save_finetuned(tmp_path_factory.mktemp("published") / "checkpoint.pth", tensors)
    checkpoint = read_checkpoint(path)
    assert checkpoint.kind == "fine-tuned"
    return pipeline_from_reference(checkpoint.tensors, checkpoint.sizes)


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    torch.testing.assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=0, atol=0)


def config_of(part: Any) -> dict[str, Any]:
    values = {name: value for name, value in part.config.items() if not name.startswith("_")}
    return dict(json.loads(json.dumps(values)))  # tuples are lists then


def count(tensors: Tensors) -> int:
    return sum(value.numel() for value in tensors.values())


# Whole checkpoints.


def test_a_fine_tuned_checkpoint_becomes_the_parts_it_was_made_of(
    imported: EEGToImagePipeline, parts: dict[str, Any]
) -> None:
    for name in ("unet", "vae", "eeg_encoder", "conditioner"):
        own = getattr(imported, name)
        assert_same(own, parts[name])
        assert config_of(own) == config_of(parts[name])
    assert "config" not in sys.modules


@torch.no_grad()
def test_the_unet_paints_as_the_source_does(imported: EEGToImagePipeline, tensors: Tensors) -> None:
    # The source's network from diffusers' own converter, which drops the time conditioning;
    # that is computed from the checkpoint's tensors and added where the reference adds it.
    source = narrow_unet()
    source.load_state_dict(convert_ldm_unet_checkpoint(dict(tensors), source.config))
    eeg = torch.randn(2, 128, 512, generator=torch.Generator().manual_seed(1))
    context, time_embedding, _ = imported.encode(eeg)[:3]
    w = [(tensors[f"{TIME}{i}.weight"], tensors[f"{TIME}{i}.bias"]) for i in range(3)]
    added = F.linear(F.conv1d(F.conv1d(context, *w[0]), *w[1]), *w[2]).squeeze(1)
    torch.testing.assert_close(time_embedding, added, rtol=0, atol=1e-5)
    source.time_embedding.register_forward_hook(lambda _module, _input, output: output + added)

    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([500, 20])
    found = imported.unet(x, t, context, class_labels=time_embedding).sample
    torch.testing.assert_close(found, source(x, t, context).sample, rtol=0, atol=1e-4)
    without = imported.unet(x, t, context, class_labels=torch.zeros_like(added)).sample
    assert not torch.allclose(found, without, atol=1e-2), "the time conditioning does nothing"


def test_diffusers_converters_name_every_tensor_alike(
    parts: dict[str, Any], tensors: Tensors
) -> None:
    for name, convert in (
        ("unet", convert_ldm_unet_checkpoint),
        ("vae", convert_ldm_vae_checkpoint),
    ):
        theirs = convert(dict(tensors), parts[name].config)
        torch.testing.assert_close(theirs, dict(parts[name].state_dict()), rtol=0, atol=0)


def test_a_checkpoint_of_pre_training_becomes_a_folder_that_loads(tmp_path: Path) -> None:
    tensors = pretraining_tensors()
    checkpoint = read_checkpoint(save_pretraining(tmp_path / "checkpoint.pth", tensors))
    assert checkpoint.kind == "pre-training"
    model = masked_autoencoder_from_reference(checkpoint.tensors, checkpoint.sizes)
    save_masked_autoencoder(model, tmp_path / "encoder")
    again = load_masked_autoencoder(tmp_path / "encoder")
    torch.testing.assert_close(masked_autoencoder_to_reference(again), tensors, rtol=0, atol=0)
    assert again.decoder_num_heads == CONFIG["decoder_num_heads"]
    assert_same(EEGEncoder.from_pretrained(tmp_path / "encoder" / "eeg_encoder"), model.encoder)


@torch.no_grad()
def test_back_and_forth_nothing_that_is_kept_changes(
    imported: EEGToImagePipeline, tensors: Tensors
) -> None:
    exported, sizes = pipeline_to_reference(imported)
    assert sizes.num_heads == CONFIG["num_heads"]
    assert sizes.img_size == CONFIG["img_size"]
    again = pipeline_from_reference(exported, sizes)
    for name in ("unet", "vae", "eeg_encoder", "conditioner"):
        assert_same(getattr(again, name), getattr(imported, name))
    dead = {MAE + "cls_token", MAE + "mask_token"}
    for name in exported.keys() - dead:
        torch.testing.assert_close(exported[name], tensors[name], rtol=0, atol=1e-6)
    lost = tensors.keys() - exported.keys()
    assert all(n.startswith("image_embedder.") or n in DROPPED or n == "betas" for n in lost)
    assert not any(exported[name].any() for name in dead)


@torch.no_grad()
def test_the_papers_clip_head_is_exported_as_the_same_function_of_the_tokens() -> None:
    torch.manual_seed(3)
    encoder = EEGEncoder(8, 64, 4, 32, 1, 4, 1.0)
    ours = EEGConditioner(16, 32, 10, 24, 96, 12, clip_from="context")
    exported = conditioning_to_reference(encoder, ours)
    theirs = EEGConditioner(16, 32, 10, 24, 96, 12, clip_from="tokens")
    prefix = "cond_stage_model.mapping."
    theirs.mapping.load_state_dict(
        {n[len(prefix) :]: v for n, v in exported.items() if n.startswith(prefix)}
    )
    tokens = torch.randn(5, 16, 32)
    expected = ours.clip_embedding(tokens, ours.context(tokens))
    found = theirs.clip_embedding(tokens, ours.context(tokens))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


# The reference's full size.


@pytest.fixture(scope="module")
def full_size() -> Tensors:
    """Names and shapes of the published checkpoint without CLIP and buffers, as no memory."""
    with torch.device("meta"):
        return pipeline_to_reference(
            EEGToImagePipeline(
                AutoencoderKL(
                    down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4,
                    block_out_channels=(128, 256, 512, 512),
                    layers_per_block=2,
                ),
                UNet2DConditionModel(
                    sample_size=64,
                    cross_attention_dim=768,
                    attention_head_dim=8,
                    class_embed_type="identity",
                ),
                build_scheduler(),
                EEGEncoder(),
                EEGConditioner(clip_from="tokens"),
            )
        )[0]


def test_counts_of_the_full_size_are_the_published_ones(full_size: Tensors) -> None:
    def under(*prefixes: str) -> Tensors:
        return {name: value for name, value in full_size.items() if name.startswith(prefixes)}

    time = under(TIME)
    # With 129 x 1024 fixed positions and two dead tokens of 1024, which are parameters there.
    assert count(under(MAE)) == 151_902_208
    assert len(under("cond_stage_model.")) == 305
    assert count(under("cond_stage_model.")) == 153_489_998
    assert count(under("cond_stage_model.mapping.")) == 787_329
    assert count(under("cond_stage_model.channel_mapper.")) == 13_261
    assert count(under("cond_stage_model.dim_mapper.")) == 787_200
    assert count(time) == 987_323
    assert count(under(UNET)) - count(time) == 859_520_964
    assert len(under(UNET)) - len(time) == 686
    assert count(under(VAE)) == 83_653_863
    assert len(under(VAE)) == 248
    # What is left to the published sum is CLIP's image tower.
    assert count(full_size) == 1_401_618_356 - 303_966_208
    with torch.device("meta"):
        autoencoder = masked_autoencoder_to_reference(
            MaskedAutoencoder(EEGEncoder(), has_cls_token=True)
        )
    assert count(autoencoder) == 165_380_096
    assert len(autoencoder) == 398


def test_known_names_of_sd_1_5_have_their_shapes(full_size: Tensors) -> None:
    for name, shape in {
        UNET + "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        UNET + "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        UNET + "input_blocks.7.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        UNET + "middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
        UNET + "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        UNET + "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        UNET + "output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        UNET + "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight": (2560, 320),
        VAE + "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        VAE + "encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        VAE + "decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        VAE + "decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        VAE + "post_quant_conv.weight": (4, 4, 1, 1),
        TIME + "2.weight": (1280, 768),
    }.items():
        assert tuple(full_size[name].shape) == shape, name


def test_sizes_of_the_full_size_are_read_from_its_tensors(full_size: Tensors) -> None:
    # Positions are compared, so they need values; everything else has a shape only.
    positions = {MAE + "pos_embed": with_cls_row(sincos_positions(128, 1024))}
    pipeline = pipeline_from_reference(full_size | positions, Sizes())
    unet, vae = pipeline.unet.config, pipeline.vae.config
    assert list(unet.block_out_channels) == [320, 640, 1280, 1280]
    assert list(unet.down_block_types) == ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    assert list(unet.up_block_types) == ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    assert (unet.layers_per_block, unet.cross_attention_dim, unet.sample_size) == (2, 768, 64)
    assert (list(vae.block_out_channels), vae.layers_per_block) == ([128, 256, 512, 512], 2)
    assert config_of(pipeline.eeg_encoder) == config_of(EEGEncoder(depth=0)) | {"depth": 24}


# What is wrong gets its sentence.


def refused(tensors: Tensors, sizes: Sizes = SIZES) -> str:
    with pytest.raises(CheckpointError) as raised:
        pipeline_from_reference(tensors, sizes)
    text = str(raised.value)
    assert "\n" not in text
    return text


ONE_OF_EACH_PART = [
    "cond_stage_model.mae.pos_embed",
    "cond_stage_model.mae.patch_embed.proj.weight",
    "cond_stage_model.mae.blocks.1.attn.qkv.bias",
    "cond_stage_model.mae.norm.weight",
    "cond_stage_model.channel_mapper.1.weight",
    "cond_stage_model.dim_mapper.bias",
    "cond_stage_model.mapping.maxpool.bias",
    "model.diffusion_model.time_embed_condtion.1.bias",
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.input_blocks.3.0.op.weight",
    "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_v.weight",
    "model.diffusion_model.middle_block.1.norm.weight",
    "model.diffusion_model.output_blocks.2.1.conv.bias",
    "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
    "model.diffusion_model.time_embed.2.weight",
    "model.diffusion_model.out.2.bias",
    "first_stage_model.encoder.down.0.downsample.conv.weight",
    "first_stage_model.encoder.mid.attn_1.k.weight",
    "first_stage_model.decoder.up.1.block.0.nin_shortcut.bias",
    "first_stage_model.quant_conv.weight",
]


@pytest.mark.parametrize("name", ONE_OF_EACH_PART)
def test_a_missing_tensor_is_named(tensors: Tensors, name: str) -> None:
    text = refused({n: v for n, v in tensors.items() if n != name})
    assert f"lacks {name}. It is incomplete" in text


@pytest.mark.parametrize("name", ONE_OF_EACH_PART[::3])
def test_a_tensor_of_another_shape_is_found(tensors: Tensors, name: str) -> None:
    value = tensors[name]
    text = refused(tensors | {name: torch.cat([value, value])})
    # A tensor that a size is read from makes another one look wrong.
    assert "it must be" in text or "do not divide" in text


def test_a_wrong_shape_is_named_with_the_right_one(tensors: Tensors) -> None:
    name = UNET + "middle_block.0.in_layers.2.weight"
    text = refused(tensors | {name: torch.zeros(96, 96, 3)})
    assert f"{name} is 96 x 96 x 3; beside its other tensors it must be 96 x 96 x 3 x 3" in text


@pytest.mark.parametrize(
    "name",
    [
        "model_ema.decay",
        "betas2",
        "cond_stage_model.mae.fc_norm.weight",
        "cond_stage_model.mae.decoder_pred.weight",
        "model.diffusion_model.label_emb.weight",
        "first_stage_model.loss.logvar",
        "model.diffusion_model.input_blocks.1.0.in_layers.0.running_mean",
        "image_embedder",
    ],
)
def test_a_tensor_without_a_place_is_named(tensors: Tensors, name: str) -> None:
    assert f"The checkpoint holds {name}, for which" in refused(tensors | {name: torch.ones(1)})


def test_a_block_too_many_is_refused(tensors: Tensors) -> None:
    text = refused(tensors | {UNET + "input_blocks.12.0.in_layers.0.bias": torch.ones(1)})
    assert "input_blocks.12" in text


def test_exactly_what_is_listed_is_dropped(tensors: Tensors, parts: dict[str, Any]) -> None:
    used, _ = pipeline_to_reference(EEGToImagePipeline(**parts))
    dead = {MAE + "cls_token", MAE + "mask_token"}
    extra = tensors.keys() - (used.keys() - dead)
    listed = {n for n in DROPPED if "*" not in n} - {"lvlb_weights", "logvar"} | {"betas"}
    assert {n for n in extra if not n.startswith("image_embedder.")} == listed
    # None of it is needed, and what old versions stored too may be there.
    bare = {n: v for n, v in tensors.items() if n not in extra}
    pipeline_from_reference(bare, SIZES)
    pipeline_from_reference(bare | dict.fromkeys(("lvlb_weights", "logvar"), torch.ones(9)), SIZES)


@pytest.mark.parametrize("name", [MAE + "pos_embed", "betas"])
def test_what_is_computed_must_be_the_same(tensors: Tensors, name: str) -> None:
    assert f"{name} is not the reference's" in refused(tensors | {name: tensors[name] + 1e-3})


def test_half_precision_is_read(tensors: Tensors) -> None:
    half = {name: value.half() for name, value in tensors.items()}
    assert pipeline_from_reference(half, SIZES).unet.dtype == torch.float16


def test_heads_that_cannot_be_are_refused(tensors: Tensors) -> None:
    assert "5 attention heads do not divide the width of the EEG encoder, 32" in refused(
        tensors, Sizes(num_heads=5)
    )


def test_pictures_of_half_a_latent_are_refused(tensors: Tensors) -> None:
    assert "Pictures of 100 pixels" in refused(tensors, replace(SIZES, img_size=100))


def test_pre_training_names_what_is_missing_and_left_over() -> None:
    tensors = pretraining_tensors()
    for name in (
        "cls_token",
        "decoder_pos_embed",
        "decoder_blocks.0.norm1.bias",
        "blocks.1.norm2.weight",
    ):
        with pytest.raises(CheckpointError, match=f"lacks {name}"):
            masked_autoencoder_from_reference(
                {n: v for n, v in tensors.items() if n != name}, SIZES
            )
    with pytest.raises(CheckpointError, match=r"holds nature_image_decoder.weight, for which"):
        masked_autoencoder_from_reference(
            tensors | {"nature_image_decoder.weight": torch.ones(1)}, SIZES
        )


def test_only_parts_of_sd_1_5_s_structure_are_exported() -> None:
    with pytest.raises(CheckpointError, match=r"UNet2DConditionModel has no counterpart"):
        pipeline_to_reference(EEGToImagePipeline(**tiny_parts()))
    parts = narrow_parts(8, 64, 1)
    with pytest.raises(CheckpointError, match=r"AutoencoderTiny has no counterpart"):
        pipeline_to_reference(EEGToImagePipeline(**parts | {"vae": tiny_parts()["vae"]}))
    parts["unet"] = narrow_unet(class_embed_type="timestep")
    with pytest.raises(CheckpointError, match=r"class_embedding.*has no place"):
        pipeline_to_reference(EEGToImagePipeline(**parts))


# Files.


class Program:
    """What a malicious pickle does when it is opened."""

    def __init__(self, function: Any, *arguments: str) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("function", "name"), [(os.mkdir, "mkdir"), (builtins.exec, "exec")])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, function: Any, name: str, zipped: bool
) -> None:
    mark = tmp_path / "was-run"
    argument = str(mark) if name == "mkdir" else f"import os; os.mkdir({str(mark)!r})"
    content = {"model_state_dict": {"a": torch.ones(2)}, "config": Program(function, argument)}
    path = tmp_path / "evil.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"wants \S*{name} to be run .*was not run"):
        read_checkpoint(path)
    assert not mark.exists()


def test_the_authors_classes_are_not_trusted_with_anything_but_values(tmp_path: Path) -> None:
    path = save_pretraining(tmp_path / "checkpoint.pth", pretraining_tensors())
    assert read_checkpoint(path).sizes == SIZES
    assert "config" not in sys.modules
    # Outside of the reader the classes are unknown as before.
    with pytest.raises(Exception, match=r"Config_MBM_EEG"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_gets_its_sentence(tmp_path: Path, kind: str, share: float) -> None:
    tensors = {"decoder_blocks.0.a": torch.randn(1000)}
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"model": tensors}, path, _use_new_zipfile_serialization=kind == "zip")
    assert read_checkpoint(path).tensors.keys() == tensors.keys()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"damaged or incomplete") as raised:
        read_checkpoint(path)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_checkpoints_get_their_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"There is no file"):
        read_checkpoint(tmp_path / "nothing.pth")
    page = tmp_path / "page.pth"
    page.write_text("<html>Quota exceeded</html>")
    with pytest.raises(CheckpointError, match=r"is no checkpoint"):
        read_checkpoint(page)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"holds a list, not named tensors"):
        read_checkpoint(tmp_path / "list.pth")
    torch.save({"model": {"a": 1}}, tmp_path / "number.pth")
    with pytest.raises(CheckpointError, match=r"holds a, which is no tensor"):
        read_checkpoint(tmp_path / "number.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"not one of DreamDiffusion's.*begins with a\."):
        _ = read_checkpoint(tmp_path / "other.pth").kind
    content = {"model": {"a": torch.ones(1)}, "config": {"num_heads": "many"}}
    torch.save(content, tmp_path / "words.pth")
    with pytest.raises(CheckpointError, match=r"num_heads must be a positive whole number"):
        read_checkpoint(tmp_path / "words.pth")


@pytest.mark.skipif(not MAPS.is_file(), reason="the system does not say what is mapped")
def test_tensors_stay_in_the_file_until_used(tmp_path: Path) -> None:
    path = tmp_path / "big.pth"
    torch.save({"model": {"a": torch.zeros(1_000_000)}}, path)
    checkpoint = read_checkpoint(path)
    assert str(path) in MAPS.read_text()
    assert not checkpoint.tensors["a"].any()
