"""Ablations: every variant, scored alike, and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.conditioner import EEGConditioner
from models.errors import TrainingError
from models.training import ablate as module
from models.training.ablate import (
    VARIANTS,
    ablate,
    choose_variants,
    simulated_with,
    stage_configs,
)
from models.training.ablation_table import less, over_seeds, read_ablation
from models.training.config import AblateConfig
from models.training.prepared import PreparedSet
from models.training.scale_config import AlignConfig
from tests.models.training.made_sets import COLOURS, NAMES, make_base, make_clip, make_prepared_set


class ByColour:
    """Names the colour that a picture is nearest to."""

    name = "a colour chart"
    is_of_labels = False

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        mean = pictures.mean((2, 3))
        return (-torch.cdist(mean, COLOURS.float() / 255)).softmax(1)

    def classes_of(self, labels: Sequence[str]) -> np.ndarray:
        return np.array([NAMES.index(label) for label in labels])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablate")
    make_prepared_set(folder / "set")
    make_base(folder / "base")
    make_clip(folder / "clip")
    return folder


def config(folder: Path, variants: str = "") -> AblateConfig:
    return AblateConfig(
        2,
        8,
        base=str(folder / "base"),
        clip=str(folder / "clip"),
        preset="tiny",
        n_context=4,
        sampler_steps=1,
        variants=variants,
        n_seeds=2,
        pretrain_steps=2,
        pretrain_batch=8,
    )


def test_the_variants_that_are_asked_for_run_once_and_stand_beside_the_papers_numbers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(folder, "full; without MSM; without CLIP")
    lines: list[str] = []
    text = ablate(folder / "set", tmp_path, settings, ByColour(), say=lines.append)
    found = read_ablation(tmp_path)
    assert found["parameters"] == simulated_with(PreparedSet(folder / "set"))
    rows = found["rows"]
    full = rows[0]["scores"]["painted"]
    assert [(row["variant"], row["paper"], row["seeds"]) for row in rows] == [
        ("full", 45.8, 2),
        ("without MSM", 32.3, 2),
        ("without CLIP", 28.3, 2),
    ]
    for row in rows:
        assert row["chance"] == 0.25
        assert set(row["scores"]) == {"painted", "nearest concept"}
        for scores in row["scores"].values():
            assert set(scores) == {"EEG", "shuffled EEG", "noise EEG", "zero EEG"}
    for row in rows[1:]:
        mean, low, high = row["less_first"]["painted"]
        assert mean == pytest.approx(row["scores"]["painted"]["EEG"][0] - full["EEG"][0])
        assert low <= mean <= high
    lines = [line for line in text.splitlines() if line.startswith("| full |")]
    assert [line.split("|")[2].strip() for line in lines] == ["painted", "nearest concept"]
    # Of pictures, as the paper's.
    assert ["45.8 %" in line for line in lines] == [True, False]
    assert "simulated EEG" in text
    # "full" and "without CLIP" share an encoder for each seed.
    assert len(list(tmp_path.glob("msm-*"))) == 2
    monkeypatch.setattr(module, "finetune", lambda *_: pytest.fail("trained again"))
    assert ablate(folder / "set", tmp_path, settings, ByColour()) == text
    longer = replace(settings, steps=3)
    with pytest.raises(TrainingError, match="was scored with another steps, test"):
        ablate(folder / "set", tmp_path, longer, ByColour(), test=tmp_path)


def test_what_a_set_was_simulated_with_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "set", tmp_path / "set")
    path = tmp_path / "set" / "spec.json"
    spec = json.loads(path.read_text())
    for told, digests in ((["b", "a", "b"], ["a", "b"]), ([None], [])):
        sources = [{"parameters": digest} if digest else {} for digest in told]
        path.write_text(json.dumps(spec | {"sources": sources}))
        assert simulated_with(PreparedSet(tmp_path / "set")) == digests


def test_all_begin_with_an_encoder_that_is_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablate(folder / "set", tmp_path / "first", config(folder, "full"), ByColour())
    encoder = tmp_path / "first" / "full-seed0" / "bundle"
    monkeypatch.setattr(module, "pretrain", lambda *_: pytest.fail("pre-trained again"))
    begun = replace(config(folder), encoder=str(encoder), n_seeds=1)
    assert [v.title for v in choose_variants("", is_pretrained=True)] == [
        "full",
        "without CLIP",
        "encoder only",
        "attention only",
        "attention only, without CLIP",
        "h on the tokens, as the code",
        "with a contrast",
    ]
    with pytest.raises(TrainingError, match=r"'mask ratio 0\.25' is about pre-training"):
        ablate(folder / "set", tmp_path, replace(begun, variants="mask ratio 0.25"), ByColour())
    for name in ("full", "h on the tokens, as the code"):
        ablate(folder / "set", tmp_path / "next", replace(begun, variants=name), ByColour())
    # h alone begins anew where it is to read something else.
    was, same, other = (
        EEGConditioner.from_pretrained(bundle / "conditioner").state_dict()
        for bundle in (
            encoder,
            tmp_path / "next" / "full-seed0" / "bundle",
            tmp_path / "next" / "h-on-the-tokens-as-the-code-seed0" / "bundle",
        )
    )
    for name in ("dim_mapper.weight", "channel_mapper.0.weight"):
        # Two steps from where it began.
        for now in (same, other):
            assert 0 < (now[name] - was[name]).abs().max() < 1e-3
    assert was["mapping.fc.weight"].shape != other["mapping.fc.weight"].shape


def test_each_variant_changes_what_its_name_says(folder: Path) -> None:
    changed = {}
    full = stage_configs(config(folder), VARIANTS[0], 3, Path("e"))
    for variant in VARIANTS:
        pair = stage_configs(config(folder), variant, 3, Path("e"))
        assert pair[1].seed == 3
        changed[variant.title] = {
            name: getattr(of, name)
            for of, like in zip(pair, full, strict=True)
            for name in (of.__dataclass_fields__ if of else ())
            if getattr(of, name) != getattr(like, name)
        } | ({"pretrained": False} if pair[0] is None else {})
    no_clip = {"clip_weight": 0.0}
    from_scratch = {"pretrained": False, "encoder": ""}
    assert changed == {
        "full": {},
        "without MSM": from_scratch,
        "without CLIP": no_clip,
        "without both": from_scratch | no_clip,
        "mask ratio 0.25": {"mask_ratio": 0.25},
        "mask ratio 0.5": {"mask_ratio": 0.5},
        "mask ratio 0.85": {"mask_ratio": 0.85},
        "mask ratio 0.1, as the code": {"mask_ratio": 0.1},
        "encoder only": {"trained": "encoder"},
        "attention only": {"trained": "attention"},
        "attention only, without CLIP": {"trained": "attention"} | no_clip,
        "MLPs four times as wide": {"mlp_ratio": 4.0},
        "h on the tokens, as the code": {"clip_from": "tokens"},
        "with a contrast": {"contrast_weight": 0.5},
    }


def test_the_interval_is_wider_where_seeds_differ() -> None:
    alike = over_seeds([{"value": 0.5, "low": 0.4, "high": 0.6}] * 3)
    apart = over_seeds([{"value": v, "low": v - 0.1, "high": v + 0.1} for v in (0.2, 0.5, 0.8)])
    assert alike == pytest.approx((0.5, 0.4, 0.6))
    assert apart[0] == pytest.approx(0.5)
    # Student's 4.303 standard errors of three seeds, and half the width of the trials'.
    assert apart[2] == 1
    near = over_seeds([{"value": v, "low": v - 0.1, "high": v + 0.1} for v in (0.4, 0.5, 0.6)])
    assert near[2] - 0.5 == pytest.approx(np.hypot(0.1, 4.303 * 0.1 / np.sqrt(3)), rel=1e-4)


def test_differences_are_paired_by_seed() -> None:
    other = [{"value": v} for v in (0.2, 0.5, 0.8)]
    mean, low, high = less([{"value": v} for v in (0.3, 0.6, 1.0)], other) or (0, 0, 0)
    assert mean == pytest.approx(0.4 / 3)
    half = 4.303 * np.std([0.1, 0.1, 0.2], ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=1e-4)
    assert less(other[:1], other[:1]) is None


def test_an_unknown_variant_is_named() -> None:
    with pytest.raises(TrainingError, match=r"no variant 'without eeg'\. Choose from: full;"):
        choose_variants("full; without eeg")


def test_alignment_stands_between_where_it_is_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(config(folder, "full; without MSM; without CLIP"), align_steps=5, n_seeds=1)
    with pytest.raises(TrainingError, match="Give --test another"):
        ablate(folder / "set", tmp_path, settings, ByColour())
    told: dict[str, tuple[str, float, int]] = {}

    def aligned(
        prepared: Path, out: Path, how: AlignConfig, clip: Path, start: Path, say: object
    ) -> None:
        assert (prepared, clip, how.steps) == (folder / "set", folder / "clip", 5)
        told[out.name] = start.name, how.clip_weight, how.seed
        shutil.copytree(start / "eeg_encoder", out / "eeg_encoder")

    monkeypatch.setattr(module, "train_alignment", aligned)
    test = make_prepared_set(tmp_path / "test", 12, seed=5)
    ablate(folder / "set", tmp_path / "out", settings, ByColour(), test=test)
    assert told == {
        "aligned-mask0.75-mlp0-clip1-seed0": ("msm-mask0.75-mlp0-seed0", 1.0, 0),
        "aligned-maskNone-mlp0-clip1-seed0": ("random-seed0", 1.0, 0),
        "aligned-mask0.75-mlp0-clip0-seed0": ("msm-mask0.75-mlp0-seed0", 0.0, 0),
    }
    scores = json.loads((tmp_path / "out" / "full-seed0" / "scores.json").read_text())
    assert scores["painted"]["scores"]["EEG"]["n"] == 12
