"""Ablations: what each part of the method brings, as the paper's Table 2 asks.

Every variant is pre-trained, fine-tuned and scored by the same code with several seeds;
what is finished is not run again. The paper's own numbers (arXiv 2306.16934, Table 2: 50-way
top-1 of subject 4 of EEG-ImageNet, a block design) stand beside and are no target here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from models.errors import TrainingError
from models.pipeline import load_bundle
from models.training.ablation_table import SCORES, TABLE, less, markdown, over_seeds
from models.training.align import train as train_alignment
from models.training.bundle import read_held_out
from models.training.config import NEUTRAL, AblateConfig, FinetuneConfig, PretrainConfig
from models.training.evaluate import evaluate
from models.training.finetune import finetune
from models.training.prepared import PreparedSet
from models.training.presets import build_encoder
from models.training.pretrain import pretrain
from models.training.scale_config import AlignConfig
from models.training.scorers import Classifier, NotMeasured, Scorers
from models.training.trials import CONDITIONS, Options


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table.

    Attributes
    ----------
    title : what is different.
    mask_ratio : of pre-training; None without pre-training.
    mlp_ratio : see `PretrainConfig`.
    changes : of the fine-tuning's settings.
    paper : accuracy in the paper's Table 2, in per cent; None where it has no such row.
    """

    title: str
    mask_ratio: float | None = 0.75
    mlp_ratio: float = 0.0
    changes: tuple[tuple[str, Any], ...] = ()
    paper: float | None = None

    @property
    def slug(self) -> str:
        return self.title.replace(" ", "-").replace(",", "")


NO_CLIP = ("clip_weight", 0.0)
VARIANTS = (
    Variant("full", paper=45.8),
    Variant("without MSM", None, paper=32.3),
    Variant("without CLIP", changes=(NO_CLIP,), paper=28.3),
    Variant("without both", None, changes=(NO_CLIP,), paper=4.2),
    Variant("mask ratio 0.25", 0.25, paper=19.7),
    Variant("mask ratio 0.5", 0.5, paper=38.3),
    Variant("mask ratio 0.85", 0.85, paper=33.4),
    Variant("mask ratio 0.1, as the code", 0.1),
    Variant("encoder only", changes=(("trained", "encoder"),), paper=22.4),
    Variant("attention only", changes=(("trained", "attention"),)),
    Variant(
        "attention only, without CLIP", changes=(("trained", "attention"), NO_CLIP), paper=20.9
    ),
    Variant("MLPs four times as wide", mlp_ratio=4.0),
    Variant("h on the tokens, as the code", changes=(("clip_from", "tokens"),)),
    Variant("with a contrast", changes=(("contrast_weight", 0.5),)),
)


def choose_variants(names: str, is_pretrained: bool = False) -> list[Variant]:
    """The variants that are named, separated by semicolons; all if none is.

    Parameters
    ----------
    is_pretrained : whether all begin with one encoder that is there already; those that differ
        in how theirs is pre-trained are none then.

    Raises
    ------
    TrainingError
        There is no such variant.
    """
    wanted = [name.strip() for name in names.split(";") if name.strip()]
    known = {variant.title: variant for variant in VARIANTS}
    if unknown := [name for name in wanted if name not in known]:
        raise TrainingError(f"There is no variant '{unknown[0]}'. Choose from: {'; '.join(known)}.")
    variants = [known[name] for name in wanted] or list(VARIANTS)
    if not is_pretrained:
        return variants
    full = VARIANTS[0].mask_ratio, VARIANTS[0].mlp_ratio
    alike = [v for v in variants if (v.mask_ratio, v.mlp_ratio) == full]
    if wanted and (other := next((v for v in variants if v not in alike), None)):
        raise TrainingError(
            f"The variant '{other.title}' is about pre-training, and --encoder gives an encoder "
            "that is pre-trained. Leave one of them out."
        )
    return alike


def stage_configs(
    config: AblateConfig, variant: Variant, seed: int, encoder: Path
) -> tuple[PretrainConfig | None, FinetuneConfig]:
    """Settings of the two stages of a variant."""
    values = {f.name: getattr(config, f.name) for f in fields(FinetuneConfig)}
    tuned = replace(FinetuneConfig(**values), seed=seed, **dict(variant.changes))
    if variant.mask_ratio is None or config.encoder:
        return None, tuned
    trained = PretrainConfig(
        steps=config.pretrain_steps,
        batch=config.pretrain_batch,
        lr=config.pretrain_lr,
        warmup=config.warmup,
        precision=config.precision,
        preset=config.preset,
        mask_ratio=variant.mask_ratio,
        mlp_ratio=variant.mlp_ratio,
        seed=seed,
    )
    return trained, replace(tuned, encoder=str(encoder))


def run_variant(
    prepared: Path,
    unlabelled: Path,
    out: Path,
    config: AblateConfig,
    variant: Variant,
    seed: int,
    classifier: Classifier,
    test: Path | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train and score a variant with one seed, or read what was found before."""
    folder = out / f"{variant.slug}-seed{seed}"
    result = folder / "scores.json"
    asked = asked_for(prepared, unlabelled, config, test)
    if result.is_file():
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if others := [name for name in asked if found.get("asked", {}).get(name) != asked[name]]:
            raise TrainingError(
                f"{folder} was scored with another {', '.join(others)}. Give a new folder, or the "
                "same settings."
            )
        return found
    # Variants that pre-train alike share an encoder.
    encoder = out / f"msm-mask{variant.mask_ratio}-mlp{variant.mlp_ratio:g}-seed{seed}"
    trained, tuned = stage_configs(config, variant, seed, encoder)
    if trained:
        pretrain(unlabelled, encoder, trained, None, say)
    if config.align_steps:
        told = f"mask{variant.mask_ratio}-mlp{variant.mlp_ratio:g}-clip{tuned.clip_weight:g}"
        tuned = replace(tuned, encoder=str(out / f"aligned-{told}-seed{seed}"))
        start = encoder if trained or config.encoder else random_encoder(prepared, out, tuned)
        align(prepared, Path(tuned.encoder), config, tuned, start, say)
    finetune(prepared, folder, tuned, say, out / "cache")
    data = PreparedSet(test or prepared)
    bundle = folder / "bundle"
    options = Options(
        tuned.sampler_steps,
        tuned.guidance,
        epochs="sliding" if tuned.epochs == "sliding" else "marker-locked",
        limit=config.trials,
        seed=seed,
        held_out=None if test else read_held_out(bundle, data),
    )
    nothing = NotMeasured("not part of the ablation")
    scorers = Scorers(classifier, nothing, nothing)
    evaluation = evaluate(load_bundle(bundle), data, folder / "evaluation", options, scorers)
    found = {"asked": asked}
    for by, name in SCORES.items():
        metric = evaluation.metrics[name]
        if isinstance(metric, NotMeasured):
            if by == "painted":
                raise TrainingError(f"The pictures cannot be scored: {metric.reason}.")
            continue
        scores = {condition: asdict(metric.scores[condition]) for condition in CONDITIONS}
        found[by] = {"title": metric.title, "chance": metric.chance, "scores": scores}
    # Last, and whole at once: its presence says that the variant is done.
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=2), encoding="utf-8")
    partial.replace(result)
    return found


def asked_for(
    prepared: Path, unlabelled: Path, config: AblateConfig, test: Path | None
) -> dict[str, Any]:
    """What the scores of a variant and seed depend on, as JSON values."""
    own = {"variants", "n_seeds", "seed", *NEUTRAL}
    settings = {name: value for name, value in asdict(config).items() if name not in own}
    sets = {"prepared": prepared, "unlabelled": unlabelled, "test": test}
    return {**settings, **{name: str(folder) for name, folder in sets.items()}}


def random_encoder(prepared: Path, out: Path, tuned: FinetuneConfig) -> Path:
    """Folder of an encoder with random weights, which variants without pre-training share."""
    folder = out / f"random-seed{tuned.seed}"
    torch.manual_seed(tuned.seed)
    encoder = build_encoder(tuned.preset, *PreparedSet(prepared).epochs().shape("eeg"))
    encoder.save_pretrained(folder / "eeg_encoder")
    return folder


def align(
    prepared: Path,
    out: Path,
    config: AblateConfig,
    tuned: FinetuneConfig,
    start: Path,
    say: Callable[[str], None],
) -> None:
    """Align an encoder as a variant's fine-tuning goes on; those that align alike share it."""
    aligned = AlignConfig(
        steps=config.align_steps,
        batch=config.align_batch,
        lr=config.align_lr,
        warmup=config.warmup,
        precision=config.precision,
        clip_weight=tuned.clip_weight,
        seed=tuned.seed,
    )
    train_alignment(prepared, out, aligned, Path(config.clip), start, say=say)


def ablate(
    prepared: Path,
    out: Path,
    config: AblateConfig,
    classifier: Classifier,
    unlabelled: Path | None = None,
    test: Path | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Run the variants and write `ablation.json` and `ablation.md`; returns the table.

    The table is written anew after every variant, so an interrupted run leaves what it has.

    Parameters
    ----------
    prepared : set with pictures, on whose held-out trials all variants are scored.
    unlabelled : set for pre-training; by default the same, of which held-out trials are then
        seen there without their labels.
    classifier : names the pictures.
    test : set of other trials, on which all variants are scored instead.

    Raises
    ------
    TrainingError, PreparedSetError, ScorerError
    """
    if config.align_steps and not test:
        raise TrainingError(
            "Alignment reads all of a set, also what fine-tuning then holds out. Give --test "
            "another prepared set to score, or --align-steps 0."
        )
    variants = choose_variants(config.variants, bool(config.encoder))
    data = PreparedSet(prepared)
    rows: list[dict[str, Any]] = []
    first: dict[str, list[dict[str, float]]] = {}
    text = ""
    for variant in variants:
        found = [
            run_variant(
                prepared, unlabelled or prepared, out, config, variant, seed, classifier, test, say
            )
            for seed in range(config.seed, config.seed + config.n_seeds)
        ]
        scores = {
            by: {name: over_seeds([f[by]["scores"][name] for f in found]) for name in CONDITIONS}
            for by in SCORES
            if by in found[0]
        }
        of_eeg = {by: [f[by]["scores"]["EEG"] for f in found] for by in scores}
        rows.append(
            {
                "variant": variant.title,
                "scores": scores,
                "less_first": {by: less(of_eeg[by], first[by]) for by in first if by in of_eeg},
                "chance": found[0]["painted"]["chance"],
                "seeds": len(found),
                "paper": variant.paper,
            }
        )
        first = first or of_eeg
        heading = (
            f"{data.spec.get('honesty', 'unlabelled')} EEG; painted: "
            f"{found[0]['painted']['title']} by {classifier.name}; nearest concept: to the EEG's "
            f"embedding, without a picture; {found[0]['painted']['scores']['EEG']['n']} held-out "
            "trials of each seed; mean over seeds with its 95 % interval; differences are paired "
            "by seed. The last column is the paper's Table 2 (50-way, real EEG in a block design): "
            "another task, so only the order can be compared."
        )
        text = markdown(rows, heading)
        result = {
            "heading": heading,
            "parameters": simulated_with(PreparedSet(test or prepared)),
            "config": asdict(config),
            "rows": rows,
        }
        (out / TABLE).write_text(json.dumps(result, indent=2), encoding="utf-8")
        (out / "ablation.md").write_text(text, encoding="utf-8")
    return text


def simulated_with(data: PreparedSet) -> list[str]:
    """Digests of the parameters of the simulated subject that a set's sources were made with."""
    found = {row.get("parameters") for row in data.spec.get("sources", [])}
    return sorted(digest for digest in found if digest)
