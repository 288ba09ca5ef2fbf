"""Few-step distillation as a stage: from a bundle to a bundle."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler
from safetensors.torch import load_file, save_file

from models.errors import PreparedSetError, TrainingError
from models.keyframes import KeyframePainter
from models.pipeline import EEGToImagePipeline, load_bundle
from models.training import text_to_image
from models.training.base import encode_set
from models.training.clip import Words, build_clip, load_clip, save_clip
from models.training.config import DistillConfig
from models.training.consistency import DistillTask
from models.training.denoising import Denoising
from models.training.distill import Likeness, build_scheduler, distill, split_epochs
from models.training.prepared import PreparedSet
from models.training.seen import SeenEpochs
from tests.models.training.made_sets import N_CHANNELS, N_TIMES, NAMES, make_prepared_set
from tests.tiny_bundle import TinySizes, make_tiny_bundle

CONFIG = DistillConfig(
    40, 8, 2e-3, warmup=2, save_every=20, guidance=2.0, solver_steps=5, ema_decay=0.8
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    data = PreparedSet(make_prepared_set(folder / "set"))
    bundle = make_tiny_bundle(folder / "teacher", TinySizes(N_CHANNELS, N_TIMES))
    teach(bundle, data)
    held_out = {"val": torch.arange(48, 56), "test": torch.arange(56, 64)}
    save_file(held_out, bundle / "held_out.safetensors", {"prepared": data.digest()})
    (bundle / "stimuli").mkdir()
    (bundle / "stimuli" / "0.txt").write_text("seen")
    (bundle / "README.md").write_text("How these weights were made.")
    return folder


def teach(bundle: Path, data: PreparedSet) -> None:
    """Let the bundle's U-Net paint colours a little, from pure noise."""
    pipeline, seen = load_bundle(bundle), SeenEpochs(data)
    latents = torch.from_numpy(
        np.array(encode_set(data.folder / "latents.npy", data, pipeline.vae, "teacher"))
    ).float()
    unet, denoising = pipeline.unet, Denoising(text_to_image.build_scheduler(), 5.0)
    optimizer = torch.optim.AdamW(unet.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    context, time_embedding, _ = pipeline.encode(seen.eeg(torch.arange(64)))[:3]
    for _ in range(100):
        chosen = torch.randint(64, (16,), generator=generator)
        is_kept = (torch.rand(16, 1, generator=generator) > 0.1).float()
        loss = denoising(
            unet,
            latents[seen.image_id[chosen]],
            torch.randn(16, *latents.shape[1:], generator=generator),
            torch.randint(1000, (16,), generator=generator),
            context[chosen] * is_kept[:, :, None],
            time_embedding[chosen] * is_kept,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pipeline.register_modules(scheduler=text_to_image.build_scheduler())
    pipeline.save_pretrained(bundle)


def silent(_line: str) -> None:
    pass


def unet_of(bundle: Path) -> dict[str, torch.Tensor]:
    return load_file(bundle / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def distilled(folder: Path) -> tuple[Path, list[str]]:
    lines: list[str] = []
    distill(folder / "teacher", folder / "set", folder / "out", CONFIG, lines.append)
    return folder / "out", lines


def test_one_step_comes_nearer_to_the_teachers_many(
    folder: Path, distilled: tuple[Path, list[str]]
) -> None:
    out, lines = distilled
    assert lines[0] == "Learning from 48 epochs, with guidance 2; 8 are for validation."
    held_out = [line for line in lines if "held-out" in line]
    errors = [float(line.split("error_1_steps=")[1].split()[0]) for line in held_out]
    pipeline = load_bundle(folder / "teacher")
    scheduler = build_scheduler(folder / "teacher", pipeline, CONFIG.solver_steps)
    eeg = PreparedSet(folder / "set").epochs().rows("eeg", torch.arange(48, 56))
    undistilled = Likeness(pipeline, pipeline.unet, scheduler, eeg, 2.0, CONFIG.seed)()
    assert len(errors) == 2
    assert errors[1] < errors[0] < undistilled["error_1_steps"]
    assert (out / "tensorboard").is_dir()


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_bundle_paints_in_few_steps_and_the_same_twice(
    distilled: tuple[Path, list[str]], steps: int
) -> None:
    bundle = distilled[0] / "bundle"
    painter = KeyframePainter.from_bundle(bundle, seed=3)
    assert (painter.num_inference_steps, painter.guidance_scale) == (4, 1.0)
    painter.num_inference_steps = steps
    eeg = np.random.default_rng(0).normal(size=(N_CHANNELS, N_TIMES)).astype(np.float32)
    first = painter.paint(eeg)[1].rgb
    torch.randn(7)  # whoever else draws
    np.testing.assert_array_equal(painter.paint(eeg)[1].rgb, first)
    other = KeyframePainter(painter.pipeline, 4, steps).paint(eeg)[1].rgb
    assert not np.array_equal(other, first)


def test_the_bundle_keeps_all_else_but_the_card(
    folder: Path, distilled: tuple[Path, list[str]]
) -> None:
    bundle, teacher = distilled[0] / "bundle", folder / "teacher"
    pipeline = load_bundle(bundle)
    assert isinstance(pipeline.scheduler, LCMScheduler)
    assert pipeline.scheduler.config.original_inference_steps == 5
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.rescale_betas_zero_snr
    for name in ("epoch_spec.json", "held_out.safetensors", "stimuli/0.txt"):
        there, here = teacher / name, bundle / name
        if name.endswith(".json"):
            assert json.loads(here.read_text()) == json.loads(there.read_text())
        else:
            assert here.read_bytes() == there.read_bytes()
    assert not (bundle / "README.md").exists()
    for path in bundle.glob("*/config.json"):
        assert str(folder) not in path.read_text(), "nobody's folders are told"
    before, after = unet_of(teacher), unet_of(bundle)
    changed = [n for n in before if not torch.equal(before[n].half(), after[n])]
    assert len(changed) > 0.9 * len(before), "all of the U-Net learns"
    was = load_bundle(teacher)
    for name in ("eeg_encoder", "conditioner", "vae", "concepts"):
        old, new = getattr(was, name).state_dict(), getattr(pipeline, name).state_dict()
        assert all(torch.equal(old[n].half(), new[n].half()) for n in old), name


def test_it_goes_on_from_what_was_distilled_before(
    folder: Path, distilled: tuple[Path, list[str]], tmp_path: Path
) -> None:
    start = distilled[0] / "bundle" / "unet"
    config = replace(CONFIG, steps=2, lr=1e-4, save_every=2, start=str(start))
    distill(folder / "teacher", folder / "set", tmp_path, config, silent)
    begun, teacher = (
        load_bundle(path).unet.conv_in.weight
        for path in (distilled[0] / "bundle", folder / "teacher")
    )
    learnt = load_bundle(tmp_path / "bundle").unet.conv_in.weight
    assert 0 < (learnt - begun).abs().max() < 0.1 * (teacher - begun).abs().max()
    for wrong, said in ((tmp_path / "nowhere", "Give --start"), (other_unet(tmp_path), "build")):
        with pytest.raises(TrainingError, match=said):
            distill(folder / "teacher", folder / "set", tmp_path / "x",
                    replace(config, start=str(wrong)), silent)  # fmt: skip


def other_unet(folder: Path) -> Path:
    bundle = make_tiny_bundle(folder / "other", TinySizes(N_CHANNELS, N_TIMES, cross=32))
    return bundle / "unet"


def test_interrupted_and_resumed_equals_uninterrupted(
    folder: Path,
    distilled: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward = DistillTask.forward
    n_calls = 0

    def interrupted(self: DistillTask, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, rows)

    monkeypatch.setattr(DistillTask, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distill(folder / "teacher", folder / "set", tmp_path, CONFIG, silent)
    monkeypatch.undo()
    assert not (tmp_path / "bundle").exists()
    distill(folder / "teacher", folder / "set", tmp_path, CONFIG, silent)
    whole, resumed = unet_of(distilled[0] / "bundle"), unet_of(tmp_path / "bundle")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def small_clip(folder: Path) -> Path:
    words = Words(list(NAMES))
    torch.manual_seed(0)
    save_clip(build_clip(words, pixels=32), words, folder)
    return folder


def test_some_rows_are_told_captions(folder: Path, tmp_path: Path) -> None:
    """With captions alone and no mixtures each picture is told its own, as CLIP reads it."""
    bundle = make_tiny_bundle(
        tmp_path / "teacher", TinySizes(N_CHANNELS, N_TIMES, context=16, cross=128)
    )
    pipeline = load_bundle(bundle)
    pipeline.register_modules(scheduler=text_to_image.build_scheduler())
    pipeline.save_pretrained(bundle)
    clip = small_clip(tmp_path / "clip")
    text, words = load_clip(clip)
    data = PreparedSet(folder / "set")
    contexts = text_to_image.encode_captions(text, words(data.captions()))
    seen: list[dict[str, torch.Tensor]] = []
    given: list[tuple[torch.Tensor, torch.Tensor]] = []
    load, answer = DistillTask.load, DistillTask.answer

    def loaded(self: DistillTask, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        out = load(self, rows)
        seen.append(rows | out)
        return out

    def answered(self: DistillTask, unet: Any, noisy: Any, t: Any, told: Any) -> torch.Tensor:
        given.append(told)
        return answer(self, unet, noisy, t, told)

    config = replace(CONFIG, steps=2, batch=16, save_every=2, captions=0.5, mixed=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillTask, "load", loaded)
        patch.setattr(DistillTask, "answer", answered)
        distill(bundle, folder / "set", tmp_path / "out", config, silent, folder / "set", clip)
    rows, (context, time_embedding) = seen[0], given[0]
    is_caption = rows["is_caption"]
    assert 2 < is_caption.sum() < 14
    wanted = contexts[rows["picture"]][is_caption]
    torch.testing.assert_close(context[is_caption], wanted, atol=2e-3, rtol=0)
    of_eeg = pipeline.encode(rows["eeg"])
    torch.testing.assert_close(context[~is_caption], of_eeg.context[~is_caption])
    torch.testing.assert_close(time_embedding, pipeline.conditioner.time_embedding(context))
    latents = encode_set(tmp_path / "latents.npy", data, pipeline.vae, "teacher")
    shown = torch.where(is_caption, rows["picture"], SeenEpochs(data).image_id[rows["chosen"]])
    torch.testing.assert_close(rows["latents"], torch.from_numpy(latents[shown]).float())


def test_captions_that_cannot_be_told_get_their_sentence(folder: Path, tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "clip")
    teacher, pictures = folder / "teacher", folder / "set"
    with pytest.raises(TrainingError, match=r"need --pictures and --clip\. Give both"):
        distill(teacher, pictures, tmp_path / "out", CONFIG, silent, pictures)
    with pytest.raises(TrainingError, match=r"contexts of 16 x 128, .* is told 8 x 16\. Give"):
        distill(teacher, pictures, tmp_path / "out", CONFIG, silent, pictures, clip)
    other = make_prepared_set(tmp_path / "other")
    shard = load_file(other / "pictures-00000.safetensors")
    shard["images"] = shard["images"][:, ::2, ::2].contiguous()
    save_file(shard, other / "pictures-00000.safetensors")
    with pytest.raises(TrainingError, match=r"latents of \d x \d, and those .* of one size\."):
        distill(teacher, pictures, tmp_path / "small", CONFIG, silent, other, clip)


def test_what_was_held_out_stays_out(folder: Path) -> None:
    every = SeenEpochs(PreparedSet(folder / "set"))
    held_out = {"val": torch.arange(48, 56), "test": torch.arange(50, 64)}
    learnt, validation = split_epochs(every, held_out)
    assert learnt.index.tolist() == list(range(48))
    # What is for both is for the test.
    assert validation.index.tolist() == [48, 49]
    told = every.epochs.columns["split"][0]
    told[:4], told[4:8] = 1, 2
    learnt, validation = split_epochs(every, {})
    assert learnt.index.tolist() == list(range(8, 64))
    assert validation.index.tolist() == [0, 1, 2, 3]


def test_what_cannot_be_distilled_gets_its_sentence(
    folder: Path, distilled: tuple[Path, list[str]], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"bundle was distilled already\. Give the bundle"):
        distill(distilled[0] / "bundle", folder / "set", tmp_path, CONFIG, silent)
    uneven = DistillConfig(solver_steps=7)
    with pytest.raises(TrainingError, match="--solver-steps expects a divisor of the 1000"):
        distill(folder / "teacher", folder / "set", tmp_path, uneven, silent)
    other = make_tiny_bundle(tmp_path / "other")
    with pytest.raises(TrainingError, match="takes epochs of 32 channels x 256 samples"):
        distill(other, folder / "set", tmp_path, CONFIG, silent)
    sample = load_bundle(folder / "teacher")
    sample.scheduler.register_to_config(prediction_type="sample")
    EEGToImagePipeline(**sample.components).save_pretrained(tmp_path / "sample")
    (tmp_path / "sample" / "epoch_spec.json").write_text("{}")
    with pytest.raises(TrainingError, match="predicts sample, which training is not made for"):
        distill(tmp_path / "sample", folder / "set", tmp_path, CONFIG, silent)
    tested = make_prepared_set(tmp_path / "tested")
    columns = load_file(tested / "epochs-00000.safetensors")
    columns["split"][:] = 2
    save_file(columns, tested / "epochs-00000.safetensors")
    with pytest.raises(PreparedSetError, match="holds no epochs but those for validation"):
        distill(folder / "teacher", tested, tmp_path, CONFIG, silent)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"--captions expects a number from 0 to 1, not 1\.5"):
        DistillConfig(captions=1.5)
    with pytest.raises(TrainingError, match=r"--guidance expects 0, or from 1 upwards, not 0\.5"):
        DistillConfig(guidance=0.5)
    with pytest.raises(TrainingError, match="--sampler-steps expects a number from 1 to --solver"):
        DistillConfig(solver_steps=2)
