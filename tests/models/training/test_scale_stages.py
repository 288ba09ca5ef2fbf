"""The stages that only the scale model has: what they learn, write and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import nn

from models.errors import PreparedSetError, TrainingError
from models.training import align, clip, decoder, judge, text_to_image, vae
from models.training.base import load_base
from models.training.clip import Words, load_clip
from models.training.config import Schedule
from models.training.decoder import PerceptualLoss, replace_decoder
from models.training.judge import Judge
from models.training.mixtures import LEAST_SHARE
from models.training.prepared import PreparedSet, images_to_tensor
from models.training.presets import build_encoder
from models.training.pretrained import read_conditioner, read_encoder
from models.training.scale_config import (
    AlignConfig,
    ClipConfig,
    DecoderConfig,
    JudgeConfig,
    TextToImageConfig,
    VaeConfig,
)
from models.training.scorers import open_encoder
from models.training.stage import Rows
from models.training.viewed import ViewedSet
from tests.models.training.made_sets import NAMES, make_prepared_set
from tests.models.training.test_pretrain import CONFIG as PRETRAIN
from tests.models.training.test_pretrain import pretrain

SHORT: dict[str, Any] = {"steps": 4, "batch": 8, "warmup": 1, "save_every": 4, "precision": "fp32"}


def silent(_line: str) -> None:
    pass


def tiny_vae() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, one after the other, each from what those before it wrote."""
    f = tmp_path_factory.mktemp("scale-model")
    make_prepared_set(f / "set")
    make_prepared_set(f / "other", seed=1)
    vae.train(f / "set", f / "vae", VaeConfig(**SHORT), silent, tiny_vae)
    clip.train(f / "set", f / "clip", ClipConfig(**SHORT | {"steps": 30, "batch": 16}), silent)
    text_to_image.train(
        f / "set",
        f / "unet",
        TextToImageConfig(**SHORT),
        f / "vae" / "vae",
        f / "clip" / "clip",
        silent,
        channels=(32, 32, 32),
    )
    pretrain(f / "set", f / "msm", PRETRAIN, say=silent)
    return f


def test_the_defaults_are_the_recipe_of_the_page() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "scale-model.md").read_text()
    for config in (VaeConfig(), ClipConfig(), TextToImageConfig(), AlignConfig(), JudgeConfig()):
        assert config.precision == "bf16"
        assert f"{config.steps:,} steps" in page


def test_the_vae_has_latents_of_unit_variance(folder: Path) -> None:
    trained = AutoencoderTiny.from_pretrained(folder / "vae" / "vae")
    assert trained.config.scaling_factor != 1.0
    pixels = images_to_tensor(PreparedSet(folder / "set").pictures()["images"][:])
    with torch.no_grad():
        spread = float(trained.encode(pixels).latents.std())
    assert spread * trained.config.scaling_factor == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("width", "blocks"), [(8, "1,2,0,1"), (4, "2,1,1,0")])
def test_another_decoder_learns_the_same_latents(
    folder: Path, tmp_path: Path, width: int, blocks: str
) -> None:
    first = AutoencoderTiny.from_pretrained(folder / "vae" / "vae")
    config = DecoderConfig(**SHORT, width=width, blocks=blocks)
    stages = folder / "vae" / "vae", folder / "clip" / "clip"
    decoder.train(folder / "set", tmp_path, config, *stages, silent)
    second = AutoencoderTiny.from_pretrained(tmp_path / "vae")
    assert second.config.scaling_factor == first.config.scaling_factor
    kept = second.encoder.state_dict()
    assert all(torch.equal(value, kept[n]) for n, value in first.encoder.state_dict().items())
    assert second.decoder.layers[-1].weight.shape == (3, width, 3, 3)
    assert list(second.config.num_decoder_blocks) == [int(n) for n in blocks.split(",")]
    assert (tmp_path / "samples.png").is_file()
    wrong = DecoderConfig(**SHORT, blocks="2,two")
    with pytest.raises(TrainingError, match=r"--blocks expects four numbers, as 3,3,3,0, not"):
        decoder.train(folder / "set", tmp_path / "new", wrong, *stages, silent)
    with pytest.raises(TrainingError, match=r"--width expects a number from 1 upwards, not 0"):
        DecoderConfig(width=0)
    with pytest.raises(TrainingError, match=r"--perceptual expects a number from 0 upwards"):
        DecoderConfig(perceptual=-1)


def test_a_clip_of_other_pictures_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "clip" / "clip", tmp_path / "clip")
    small, _ = load_clip(folder / "clip" / "clip")
    other = clip.build_clip(
        Words.load(tmp_path / "clip"), 2 * small.config.vision_config.image_size
    )
    clip.save_clip(other, Words.load(tmp_path / "clip"), tmp_path / "clip")
    stages = folder / "vae" / "vae", tmp_path / "clip"
    with pytest.raises(TrainingError, match=r"CLIP sees pictures of 64 pixels, and .* has 32\."):
        decoder.train(folder / "set", tmp_path / "new", DecoderConfig(**SHORT), *stages, silent)


def test_a_deeper_decoder_begins_with_what_the_old_one_knows(folder: Path) -> None:
    known = AutoencoderTiny.from_pretrained(folder / "vae" / "vae")
    deeper = replace_decoder(known, 8, (3, 2, 1, 2))
    latents = torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(deeper.decoder(latents), known.decoder(latents))


def test_clip_sees_a_blurred_picture_as_another_and_teaches_the_decoder_alone(
    folder: Path,
) -> None:
    loss = PerceptualLoss(load_clip(folder / "clip" / "clip")[0])
    x = images_to_tensor(PreparedSet(folder / "set").pictures()["images"][:4])
    blurred = torch.nn.functional.avg_pool2d(x, 5, 1, 2).requires_grad_()
    assert float(loss(x, x)) == 0
    seen = loss(x, blurred)
    seen.backward()
    assert float(seen.detach()) > 0
    assert blurred.grad is not None
    assert blurred.grad.abs().sum() > 0
    assert all(p.grad is None for p in loss.parameters())


def test_clip_tells_colours_apart_and_is_read_as_any_clip(folder: Path) -> None:
    path = folder / "clip" / "clip"
    found, words = load_clip(path)
    assert words.words == sorted(NAMES)
    encode = open_encoder(str(path), torch.device("cpu"))
    assert encode(torch.zeros(1, 3, 32, 32)).shape == (1, found.config.projection_dim)


def test_the_base_is_what_fine_tuning_starts_from_and_its_unet_learns_on(
    folder: Path, tmp_path: Path
) -> None:
    base = load_base(str(folder / "unet" / "base"))
    assert base.scheduler.config.prediction_type == "v_prediction"
    assert (folder / "unet" / "samples.png").is_file()
    start = str(folder / "unet" / "base" / "unet")
    config = TextToImageConfig(**SHORT | {"start": start, "gradient_checkpointing": True})
    stages = folder / "vae" / "vae", folder / "clip" / "clip"
    text_to_image.train(folder / "set", tmp_path, config, *stages, silent)
    again = load_base(str(tmp_path / "base"))
    assert again.unet.config.block_out_channels == [32, 32, 32]
    assert not torch.equal(again.unet.conv_in.weight, base.unet.conv_in.weight)
    # It began where the first one ended: a few steps lie between, not two beginnings.
    moved = (again.unet.conv_in.weight - base.unet.conv_in.weight).abs().max()
    assert moved.item() < 0.01


def test_classification_alone_asks_no_clip_and_anything_else_wants_one(
    folder: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    weights = {"clip_weight": 0.0, "context_weight": 0.0}
    config = AlignConfig(**SHORT | weights | {"steps": 40, "lr": 3e-3, "save_every": 40})
    align.train(
        folder / "set", tmp_path / "a", config, None, folder / "msm", folder / "other",
        lines.append,
    )  # fmt: skip
    scores = next(line for line in lines if "held-out" in line)
    named = float(scores.split("locked_named=")[1].split()[0])
    assert named > 1.5 / len(set(PreparedSet(folder / "other").epochs()["label"].tolist()))
    assert "distance" not in scores
    assert read_conditioner(tmp_path / "a") is not None
    with pytest.raises(TrainingError, match=r"Give --clip .* or 0 as --clip-weight"):
        align.train(folder / "set", tmp_path / "b", AlignConfig(**SHORT), None, folder / "msm")


def test_in_a_mixture_of_captions_ones_own_weighs_most() -> None:
    label = torch.tensor([2, 0, 1, 0, 2, 1, 0, 2])
    n, batch = len(label), 2000
    latents, tokens = np.zeros((n, 4, 2, 2), np.float16), torch.arange(n)[:, None]
    nothing = nn.Identity()

    def drawn(mixed: float) -> Rows:
        task = text_to_image.TextToImageTask(
            nothing, text_to_image.build_scheduler(), nothing, latents, tokens, label, mixed
        )  # fmt: skip
        return task.load(task.draw(torch.Generator().manual_seed(0), batch))

    shares = drawn(0.5)["shares"]
    assert torch.allclose(shares.sum(1), torch.ones(batch))
    assert (shares[:, :1] > shares[:, 1:]).all()
    is_pure = shares[:, 0] == 1
    assert is_pure.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert shares[~is_pure, 0].min().item() == pytest.approx(LEAST_SHARE, abs=0.05)
    assert (drawn(0.0)["shares"][:, 0] == 1).all()
    # Half of the mixtures are of one concept, the others of whatever comes.
    found = label[drawn(0.5)["tokens"][:, :, 0]]
    is_same = (found[:, 1:] == found[:, :1]).all(1)
    assert 0.5 < is_same.float().mean().item() < 0.6


def test_alignment_learns_goes_on_from_itself_and_scores_what_is_held_out(
    folder: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    config = AlignConfig(**SHORT | {"steps": 30, "lr": 3e-3, "save_every": 15})
    small = folder / "clip" / "clip"
    align.train(
        folder / "set", tmp_path / "a", config, small, folder / "msm", folder / "other",
        lines.append,
    )  # fmt: skip
    distances = [float(x.split("distance=")[1].split()[0]) for x in lines if "held-out" in x]
    assert distances[-1] < distances[0]
    align.train(folder / "set", tmp_path / "b", AlignConfig(**SHORT), small, tmp_path / "a")
    first, second = (read_conditioner(tmp_path / name) for name in "ab")
    assert first is not None
    assert second is not None
    apart = (second.dim_mapper.weight - first.dim_mapper.weight).abs().max()
    assert 0 < apart.item() < 0.02
    heads = [load_file(tmp_path / name / align.HEAD)["1.weight"] for name in "ab"]
    assert 0 < (heads[1] - heads[0]).abs().max().item() < 0.02
    save_file({"1.weight": torch.zeros(2, 2)}, tmp_path / "a" / align.HEAD)
    with pytest.raises(TrainingError, match="reads other concepts"):
        align.train(folder / "set", tmp_path / "c", AlignConfig(**SHORT), small, tmp_path / "a")
    epochs = PreparedSet(folder / "set").epochs()
    assert read_encoder(tmp_path / "b", epochs, folder / "set").config.n_times == 64


def test_the_context_is_asked_to_name_the_concept_that_is_read(folder: Path) -> None:
    data = ViewedSet(folder / "set", folder / "clip" / "clip")
    encoder = build_encoder("scale", 4, 64)
    conditioner = align.build_conditioner(encoder)
    task = align.AlignTask(encoder, conditioner, data, len(NAMES))
    rows = task.load(task.draw(torch.Generator().manual_seed(0), 16))
    right, wrong = 1, 0
    is_one = rows["label"] == right
    rows = {name: value[is_one] for name, value in rows.items()}
    assert len(rows["label"]) > 1

    def distance(named: int) -> torch.Tensor:
        torch.nn.init.zeros_(task.concept_head[1].weight)
        task.concept_head[1].bias.data = 9.0 * torch.eye(len(NAMES))[named]
        return task(rows)["distance"]

    context, _, _ = conditioner(encoder(rows["eeg"]))
    expected = (context - rows["context"]).square().mean()
    torch.testing.assert_close(distance(right), expected)
    apart = task.context_prototypes[wrong] - task.context_prototypes[right]
    expected = (context - rows["context"] - apart).square().mean()
    torch.testing.assert_close(distance(wrong), expected)
    assert not torch.allclose(distance(wrong), distance(right))


def test_the_concept_is_read_before_the_last_block(folder: Path) -> None:
    data = ViewedSet(folder / "set", None)
    encoder = build_encoder("scale", 4, 64)
    task = align.AlignTask(
        encoder, align.build_conditioner(encoder), data, len(NAMES), clip_weight=0, context_weight=0
    )
    task(task.load(task.draw(torch.Generator().manual_seed(0), 8)))["loss"].backward()
    gradients = [block.mlp.fc2.weight.grad for block in encoder.blocks]
    assert all(g is not None and g.abs().sum() > 0 for g in gradients[:-1])
    assert gradients[-1] is None
    assert all((p.grad is not None) == p.requires_grad for p in task.parameters())


def test_what_is_decided_may_teach_what_reads_or_leave_it_as_it_is(folder: Path) -> None:
    data = ViewedSet(folder / "set", folder / "clip" / "clip")
    encoder = build_encoder("scale", 4, 64)
    conditioner = align.build_conditioner(encoder)

    def gradients(concept_weight: float, clip_weight: float, is_shared: bool = False) -> list[bool]:
        torch.manual_seed(0)
        encoder.requires_grad_(True).zero_grad()
        task = align.AlignTask(
            encoder, conditioner, data, len(NAMES), 0.0, clip_weight, 5.0, concept_weight, is_shared
        )
        task(task.load(task.draw(torch.Generator().manual_seed(0), 8)))["loss"].backward()
        assert all((p.grad is not None) == p.requires_grad for p in task.parameters())
        return [block.mlp.fc2.weight.grad is not None for block in encoder.blocks]

    n = len(encoder.blocks)
    assert gradients(1.0, 1.0) == [True] * n
    assert gradients(0.0, 1.0) == [False] * (n - 1) + [True]
    assert gradients(0.0, 1.0, is_shared=True) == [False] * (n - 1) + [True]
    # The concept alone is what the others learn from, however much is decided.
    first = [block.mlp.fc2.weight for block in encoder.blocks[:-1]]
    gradients(1.0, 1.0)
    before = [w.grad.clone() for w in first if w.grad is not None]
    gradients(1.0, 50.0)
    assert all(torch.equal(a, w.grad) for a, w in zip(before, first, strict=True))
    gradients(1.0, 50.0, is_shared=True)
    assert not all(torch.equal(a, w.grad) for a, w in zip(before, first, strict=True))
    with pytest.raises(TrainingError, match="concept-weight"):
        AlignConfig(concept_weight=0, clip_weight=0, context_weight=0)


def test_the_judge_learns_the_colours_and_says_how_well(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    config = JudgeConfig(**SHORT | {"steps": 100, "batch": 16, "lr": 5e-3, "save_every": 100})
    judge.train(folder / "set", tmp_path, config, folder / "other", lines.append)
    top1 = next(float(x.split("top1=")[1].split()[0]) for x in lines if "held-out" in x)
    assert top1 > 0.6
    hue = next(float(x.split("hue_x=")[1].split()[0]) for x in lines if "held-out" in x)
    assert hue > 0.6
    assert Judge.from_pretrained(tmp_path / "judge").config.n_concepts == len(NAMES)


def test_a_judge_needs_to_know_what_pictures_look_like(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "set", tmp_path / "set")
    (tmp_path / "set" / "compositions.json").unlink()
    with pytest.raises(PreparedSetError, match=r"no compositions.json, .* Prepare the set"):
        judge.train(tmp_path / "set", tmp_path, JudgeConfig(**SHORT), folder / "other", silent)


def test_another_set_or_another_start_is_refused(folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"was begun with pictures=.*/set' \(now .*/other'\)"):
        vae.train(folder / "other", folder / "vae", VaeConfig(**SHORT), silent, tiny_vae)
    stages = folder / "vae" / "vae", folder / "clip" / "clip"
    start = TextToImageConfig(**SHORT | {"start": str(folder / "unet" / "base" / "unet")})
    with pytest.raises(TrainingError, match=r"was begun with start=''"):
        text_to_image.train(folder / "set", folder / "unet", start, *stages, silent)


def test_what_an_earlier_stage_should_have_written_is_named(folder: Path, tmp_path: Path) -> None:
    data, nowhere, small = folder / "set", tmp_path / "nowhere", folder / "clip" / "clip"
    with pytest.raises(TrainingError, match=r"The VAE cannot be loaded.*--vae.*model vae"):
        decoder.train(data, tmp_path, DecoderConfig(**SHORT), nowhere, small)
    config = TextToImageConfig(**SHORT)
    with pytest.raises(TrainingError, match=r"The VAE cannot be loaded.*--vae.*model vae"):
        text_to_image.train(data, tmp_path, config, nowhere, small)
    trained = folder / "vae" / "vae"
    with pytest.raises(TrainingError, match=r"CLIP cannot be loaded from .*--clip.*model clip"):
        text_to_image.train(data, tmp_path, config, trained, nowhere)
    start = TextToImageConfig(**SHORT | {"start": str(nowhere)})
    with pytest.raises(TrainingError, match=r"The U-Net cannot be loaded from .*--start"):
        text_to_image.train(data, tmp_path, start, trained, small)
    with pytest.raises(TrainingError, match=r"The EEG encoder cannot be loaded.*pretrain"):
        align.train(data, tmp_path, AlignConfig(**SHORT), small, nowhere)


def test_captions_that_clip_does_not_know_are_refused(folder: Path, tmp_path: Path) -> None:
    _, words = load_clip(folder / "clip" / "clip")
    with pytest.raises(PreparedSetError, match=r"The caption 'pink'.*Train CLIP on the pictures"):
        words(["red", "pink"])
    with pytest.raises(PreparedSetError, match="longer than 15 words"):
        Words(["red"])(["red " * 16])
    data = make_prepared_set(tmp_path / "set")
    (data / "pictures.json").unlink()
    with pytest.raises(PreparedSetError, match="holds no captions"):
        clip.train(data, tmp_path, Schedule(**SHORT))


def test_sliding_epochs_need_some_without_a_picture(folder: Path, tmp_path: Path) -> None:
    data = make_prepared_set(tmp_path / "set")
    path = data / "epochs-00000.safetensors"
    columns = load_file(path)
    columns["is_locked"][:8] = 0
    save_file(columns, path)
    with pytest.raises(PreparedSetError, match="lacks epochs to align"):
        ViewedSet(data, folder / "clip" / "clip")


def test_a_concept_without_pictures_is_near_to_nothing(folder: Path) -> None:
    prototypes = ViewedSet(folder / "set", folder / "clip" / "clip").prototypes(6)
    assert prototypes.norm(dim=1).tolist() == pytest.approx([1, 1, 1, 1, 0, 0])


def test_a_stages_settings_are_kept_beside_it(folder: Path) -> None:
    kept = json.loads((folder / "unet" / "config.json").read_text())
    assert kept["vae"] == str(folder / "vae" / "vae")
    assert kept["steps"] == 4
