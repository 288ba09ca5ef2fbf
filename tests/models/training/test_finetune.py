"""Fine-tuning: what learns, what stays, and what comes out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import models.training.base
from models.concepts import ConceptTable
from models.errors import PreparedSetError, ScorerError, TrainingError
from models.losses import contrast_loss
from models.pipeline import load_bundle
from models.training.align import HEAD as HEAD_FILE
from models.training.base import load_base
from models.training.bundle import (
    electrodes_off,
    fit_prototypes,
    fit_seen,
    read_held_out,
    surrogates,
    unseen,
)
from models.training.config import FinetuneConfig
from models.training.finetune import (
    FinetuneTask,
    build_conditioner,
    encode_all,
    finetune,
    load_encoder,
    score,
)
from models.training.prepared import PreparedSet
from models.training.seen import SeenEpochs
from models.training.stage import build_optimizer, trained_parameters
from tests.models.training.made_sets import make_base, make_clip, make_prepared_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    make_prepared_set(folder / "set")
    make_base(folder / "base")
    make_clip(folder / "clip")
    return folder


def config(folder: Path, **values: object) -> FinetuneConfig:
    given = {
        "base": str(folder / "base"),
        "clip": str(folder / "clip"),
        "preset": "tiny",
        "n_context": 4,
        "steps": 12,
        "batch": 8,
        "lr": 3e-3,
        "save_every": 6,
        **values,
    }
    return FinetuneConfig(**given)  # type: ignore[arg-type]


def make_task(folder: Path, out: Path, settings: FinetuneConfig) -> FinetuneTask:
    data = PreparedSet(folder / "set")
    seen = SeenEpochs(data)
    base = load_base(settings.base)
    latents, image_embeds = encode_all(data, base, out, settings)
    torch.manual_seed(0)
    encoder = load_encoder(settings, seen, data.folder)
    conditioner = build_conditioner(encoder, base.unet, image_embeds.shape[1], settings)
    return FinetuneTask(
        encoder, conditioner, base.unet, base.scheduler, seen, latents, image_embeds, settings
    )


ENCODER = {
    "encoder.patch_embed.proj",
    "encoder.blocks.0.norm1",
    "encoder.blocks.0.attn.qkv",
    "encoder.blocks.0.attn.proj",
    "encoder.blocks.0.norm2",
    "encoder.blocks.0.mlp.fc1",
    "encoder.blocks.0.mlp.fc2",
    "encoder.norm",
}
PROJECTIONS = {
    "conditioner.channel_mapper.0",
    "conditioner.channel_mapper.1",
    "conditioner.dim_mapper",
    "conditioner.time_mapper.0",
    "conditioner.time_mapper.1",
    "conditioner.time_mapper.2",
}
HEAD = {"conditioner.mapping.maxpool", "conditioner.mapping.fc"}
ATTENTION = {
    f"unet.{block}.attentions.{i}.transformer_blocks.0.{part}"
    for block, n in (("down_blocks.0", 1), ("mid_block", 1), ("up_blocks.1", 2))
    for i in range(n)
    for part in ("norm2", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ENCODER | PROJECTIONS | HEAD | ATTENTION),
        ({"trained": "encoder"}, ENCODER | PROJECTIONS | HEAD),
        ({"trained": "attention"}, PROJECTIONS | HEAD | ATTENTION),
        ({"clip_weight": 0.0}, ENCODER | PROJECTIONS | ATTENTION),
    ],
)
def test_exactly_these_parameters_learn(
    folder: Path, tmp_path: Path, settings: dict[str, object], expected: set[str]
) -> None:
    task = make_task(folder, tmp_path, config(folder, **settings))
    found = {name.rsplit(".", 1)[0] for name in trained_parameters(task)}
    assert found == expected


def make_modules(folder: Path, out: Path) -> list[torch.nn.Module]:
    return list(make_task(folder, out, config(folder)).modules())


def test_a_step_changes_what_learns_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    settings = config(folder)
    # E_I is not even there: what it made of the pictures is constant from here on.
    assert not any("clip" in type(m).__name__.lower() for m in make_modules(folder, tmp_path))
    vae = load_base(settings.base).vae
    task = make_task(folder, tmp_path, settings)
    learnt = trained_parameters(task)
    frozen = {
        **{f"vae.{k}": v for k, v in vae.state_dict().items()},
        **{k: v for k, v in task.state_dict().items() if k not in learnt},
    }
    before = {name: value.clone() for name, value in (frozen | learnt).items()}
    optimizer = build_optimizer(learnt, settings)
    for step in range(2):
        rows = task.draw(torch.Generator().manual_seed(step), 8)
        task(task.load(rows))["loss"].backward()
        optimizer.step()
    assert [name for name in frozen if not torch.equal(frozen[name], before[name])] == []
    # Biases of queries and keys have no effect at first; all weights do.
    unchanged = [name for name in learnt if torch.equal(learnt[name], before[name])]
    assert [name for name in unchanged if name.endswith("weight")] == []
    unnamed = [p for name, p in task.named_parameters() if name not in learnt]
    assert all(p.grad is None and not p.requires_grad for p in unnamed)
    assert not any(p.requires_grad for p in vae.parameters())


def test_the_time_conditioning_begins_at_zero(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, tmp_path, config(folder))
    _, time_embedding, _ = task.condition(torch.randn(3, 4, 64))
    assert time_embedding.abs().max() == 0


def test_a_dropped_condition_is_an_empty_one(folder: Path, tmp_path: Path) -> None:
    task = make_task(folder, tmp_path, config(folder))
    rows = task.load(task.draw(torch.Generator().manual_seed(0), 6))
    rows["is_kept"] = torch.zeros(6, dtype=torch.bool)
    other = rows | {"eeg": torch.randn_like(rows["eeg"])}
    assert task(rows)["sd"].item() == task(other)["sd"].item()
    rows["is_kept"] = ~rows["is_kept"]
    assert task(rows)["sd"].item() != task(rows | {"eeg": other["eeg"]})["sd"].item()


def test_min_snr_changes_the_weights_of_clean_timesteps_alone(folder: Path, tmp_path: Path) -> None:
    plain = make_task(folder, tmp_path, config(folder))
    weighted = make_task(folder, tmp_path, config(folder, min_snr=5.0))
    rows = plain.load(plain.draw(torch.Generator().manual_seed(0), 6))
    rows["t"] = torch.full((6,), 900)
    assert plain(rows)["sd"].item() == pytest.approx(weighted(rows)["sd"].item())
    rows["t"] = torch.full((6,), 5)
    assert weighted(rows)["sd"].item() < 0.1 * plain(rows)["sd"].item()


def test_gradient_checkpointing_gives_the_same_gradients(folder: Path, tmp_path: Path) -> None:
    gradients = []
    for is_used in (False, True):
        task = make_task(folder, tmp_path, config(folder))
        task.encoder.blocks.is_checkpointed = is_used
        if is_used:
            task.unet.enable_gradient_checkpointing()
        task.train()
        task(task.load(task.draw(torch.Generator().manual_seed(0), 4)))["loss"].backward()
        gradients.append({n: p.grad for n, p in trained_parameters(task).items()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value)


def test_contrast_rewards_the_seen_picture_and_forgives_equal_ones() -> None:
    images = torch.eye(4)
    right, wrong = contrast_loss(images, images), contrast_loss(images, images.roll(1, 0))
    assert right < 0.01 < wrong
    twice = torch.eye(2).repeat(2, 1)
    assert contrast_loss(twice, twice).item() == pytest.approx(np.log(2), abs=1e-3)


def test_contrast_is_the_same_in_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    images, eeg = (torch.randn(8, 32, generator=generator) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        half = contrast_loss(images, eeg)
    assert half.item() == pytest.approx(contrast_loss(images, eeg).item(), rel=1e-6)


def other_set(folder: Path) -> Path:
    return make_prepared_set(folder / "other-set", seed=1)


def test_it_learns_writes_a_bundle_and_resumes(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    settings = config(
        folder, steps=150, lr=1e-2, decay="cosine", save_every=150, warmup=10, contrast_weight=0.5,
        ema_decay=0.9, augment=0.3,
    )  # fmt: skip
    finetune(folder / "set", tmp_path, settings, lines.append)
    scores = next(line for line in lines if " held-out " in line)
    retrieval = float(scores.split("retrieval=")[1].split()[0])
    chance = float(scores.split("retrieval_chance=")[1].split()[0])
    assert chance == pytest.approx(1 / 16, abs=1e-3)
    # Each picture is noise of its own, so the colour's four pictures are hard to tell apart.
    assert retrieval > 2 * chance
    pipeline = load_bundle(tmp_path / "bundle")
    data = PreparedSet(folder / "set").epochs()
    output = pipeline(data.rows("eeg", torch.arange(48, 64)), num_inference_steps=2)
    probabilities = output.concept_probabilities
    assert probabilities is not None
    right = (probabilities.argmax(1) == data["label"][48:]).float().mean()
    assert right > 0.8
    assert output.images[0].size == (32, 32)
    held_out = read_held_out(tmp_path / "bundle", PreparedSet(folder / "set"))
    assert held_out is not None
    # A run each for validation and test.
    assert [len(held_out[name]) for name in ("val", "test")] == [16, 16]
    assert read_held_out(tmp_path / "bundle", PreparedSet(other_set(tmp_path))) is None
    # Started again, it has nothing to do but write the bundle anew.
    again: list[str] = []
    finetune(folder / "set", tmp_path, settings, again.append)
    assert any("going on from step 150" in line for line in again)


def test_the_head_of_an_alignment_stays_beside_the_bundle(folder: Path, tmp_path: Path) -> None:
    encoder = load_encoder(config(folder), SeenEpochs(PreparedSet(folder / "set")), folder / "set")
    encoder.save_pretrained(tmp_path / "aligned" / "eeg_encoder")
    (tmp_path / "aligned" / HEAD_FILE).write_bytes(b"head")
    settings = config(folder, steps=2, encoder=str(tmp_path / "aligned"))
    finetune(folder / "set", tmp_path / "out", settings, lambda _: None)
    assert (tmp_path / "out" / "bundle" / HEAD_FILE).read_bytes() == b"head"


def test_concepts_without_eeg_can_be_answered_by_their_pictures(
    folder: Path, tmp_path: Path
) -> None:
    """Of three colours there are epochs, of all four there are pictures."""
    path = make_prepared_set(tmp_path / "some") / "epochs-00000.safetensors"
    epochs = load_file(path)
    rows = epochs["label"] != 3
    save_file({name: x[rows].contiguous() for name, x in epochs.items()}, path)
    settings = config(folder, steps=2, zero_shot=str(folder / "set"))
    finetune(tmp_path / "some", tmp_path / "out", settings, lambda _: None)
    table = load_bundle(tmp_path / "out" / "bundle").concepts
    embeds = torch.from_numpy(np.load(tmp_path / "out/cache/zero_shot.npy")).float()
    label = PreparedSet(folder / "set").pictures()["label"]
    means = F.normalize(torch.stack([embeds[label == k].mean(0) for k in range(4)]), dim=1)
    torch.testing.assert_close(table.prototypes.data, means, atol=1e-3, rtol=0)

    finetune(tmp_path / "some", tmp_path / "plain", config(folder, steps=2), lambda _: None)
    plain = load_bundle(tmp_path / "plain" / "bundle").concepts.prototypes
    assert (plain[3] == 0).all()
    assert not torch.allclose(plain[:3], means[:3], atol=1e-2)

    path = tmp_path / "some" / "pictures-00000.safetensors"
    pictures = load_file(path)
    pictures["label"][pictures["label"] == 3] = 0
    save_file(pictures, path)
    settings = config(folder, steps=2, zero_shot=str(tmp_path / "some"))
    with pytest.raises(TrainingError, match="does not show all concepts of the EEG"):
        finetune(folder / "set", tmp_path / "wrong", settings)


def test_scores_are_the_same_at_every_call_and_leave_the_task_alone(
    folder: Path, tmp_path: Path
) -> None:
    task = make_task(folder, tmp_path, config(folder))
    held_out = SeenEpochs(PreparedSet(folder / "set")).part(torch.arange(40, 64))
    first = score(task, held_out, 0)
    assert first == score(task, held_out, 0)
    assert first["retrieval_chance"] == pytest.approx(1 / 24)
    assert len(task._seen) == 64


def test_the_frozen_networks_are_asked_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(folder)
    data, base = PreparedSet(folder / "set"), load_base(settings.base)
    first = encode_all(data, base, tmp_path, settings)
    monkeypatch.setattr(
        models.training.base,
        "encode_latents",
        lambda *_: pytest.fail("encoded again"),
    )
    again = encode_all(data, base, tmp_path, settings)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    monkeypatch.undo()
    other = dataclasses.replace(settings, clip=str(make_clip(tmp_path / "clip", seed=1)))
    assert not np.array_equal(encode_all(data, base, tmp_path, other)[1], first[1])


def test_surrogates_keep_spectra_and_covariance_but_not_the_event() -> None:
    generator = torch.Generator().manual_seed(0)
    eeg = torch.randn(5, 3, 64, generator=generator)
    made = surrogates(eeg, generator)
    torch.testing.assert_close(torch.fft.rfft(made).abs(), torch.fft.rfft(eeg).abs())
    torch.testing.assert_close(made @ made.mT, eeg @ eeg.mT, rtol=1e-3, atol=1e-3)
    assert torch.corrcoef(torch.stack([made.flatten(), eeg.flatten()]))[0, 1].abs() < 0.3


def test_prototypes_are_turned_to_where_eeg_of_their_concepts_lies() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat(100)
    # Concept 1 has no epochs; EEG of the others differs along an axis that pictures do not use.
    label = label[label != 1]
    embeds = torch.randn(len(label), 8, generator=generator)
    embeds[:, 7] += torch.where(label == 0, 3.0, -3.0)
    embeds = F.normalize(embeds, dim=1)
    prototypes = torch.zeros(3, 8)
    prototypes[0, 0] = prototypes[2, 1] = 1.0

    def right() -> float:
        nearest = (embeds @ prototypes[[0, 2]].T).argmax(1)
        return float((2 * nearest == label).float().mean())

    before = right()
    fit_prototypes(prototypes, embeds, label)
    assert before < 0.7
    assert right() > 0.95
    assert torch.equal(prototypes[1], torch.zeros(8))
    assert torch.allclose(prototypes[[0, 2]].norm(dim=1), torch.ones(2))


def test_a_tenth_of_what_has_no_answer_is_answered_and_most_of_what_has_one() -> None:
    generator = torch.Generator().manual_seed(0)

    def embeds(n: int, of: float) -> torch.Tensor:
        made = torch.randn(n, 8, generator=generator)
        made[:, 3] += of
        return F.normalize(made, dim=1)

    table = ConceptTable(["cat"], 8)
    held_out = embeds(500, -2)
    fit_seen(table.seen, embeds(300, 2), embeds(300, -2), held_out)
    assert table.is_sure(held_out).float().mean() == pytest.approx(0.1, abs=0.003)
    assert table.is_sure(embeds(500, 2)).float().mean() > 0.95


def test_open_inputs_are_as_loud_as_the_eeg_and_the_last_are_silent() -> None:
    eeg = torch.randn(40, 3, 64) * torch.tensor([1.0, 5.0, 0.2])[:, None]
    off = electrodes_off(eeg, torch.Generator().manual_seed(0))
    torch.testing.assert_close(off[:-1].std((0, 2)), eeg.std((0, 2)), rtol=0.1, atol=0)
    assert not off[-1].any()


def test_without_blank_windows_those_seen_lose_their_events(folder: Path) -> None:
    seen = SeenEpochs(PreparedSet(folder / "set"))
    made = unseen(seen, torch.Generator().manual_seed(0), 10)
    assert made.shape == (10, 4, 64)
    spectra = torch.fft.rfft(seen.eeg(torch.arange(len(seen)))).abs()
    of_made = torch.fft.rfft(made).abs()
    assert (of_made[:, None] - spectra).abs().amax((2, 3)).min(1).values.max() < 1e-3


def test_each_missing_part_gets_its_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot be loaded from .*nowhere.*--base"):
        finetune(folder / "set", tmp_path, config(folder, base=str(tmp_path / "nowhere")))
    with pytest.raises(ScorerError, match=r"CLIP .* cannot be loaded"):
        finetune(folder / "set", tmp_path, config(folder, clip=str(tmp_path / "nowhere")))
    with pytest.raises(
        TrainingError, match=r"The EEG encoder cannot be loaded.*phosphene pretrain"
    ):
        finetune(folder / "set", tmp_path, config(folder, encoder=str(tmp_path)))
    with pytest.raises(PreparedSetError, match="not a prepared set"):
        finetune(tmp_path / "nowhere", tmp_path, config(folder))
