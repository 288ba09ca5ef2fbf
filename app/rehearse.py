"""All stages of training on a small simulated set: what `phosphene rehearse` does.

It shows in minutes that everything works together, from simulated EEG to an evaluation
report; what it paints is far from what the same commands reach with time and data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.bundle import find_bundle, read_epoch_spec
from app.evaluation import Wanted as WantedScores
from app.evaluation import evaluate_bundle
from app.prepare import Wanted, prepare_pictures, prepare_sources
from app.settings import Settings
from models.training import clip, judge
from models.training.config import FinetuneConfig, PretrainConfig, Schedule
from models.training.finetune import finetune
from models.training.pretrain import pretrain
from models.training.stage import has_vectors_of_bf16

BASE = "weights/scale-model"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How much of everything.

    Attributes
    ----------
    sessions, seconds : simulated sessions of one subject, and the length of each.
    pictures : drawn for CLIP and judge.
    clip_steps, judge_steps, pretrain_steps, finetune_steps : of the stages.
    trials : held-out trials that are painted and scored.
    """

    sessions: int = 5
    seconds: float = 400.0
    pictures: int = 2000
    clip_steps: int = 50
    judge_steps: int = 60
    pretrain_steps: int = 40
    finetune_steps: int = 60
    trials: int = 20


QUICK = Rehearsal(4, 130.0, 80, 2, 2, 2, 2, 4)


def rehearse(settings: Settings, out: Path, amount: Rehearsal, say: Callable[[str], None]) -> str:
    """Prepare, pre-train, fine-tune and evaluate in `out`; returns the report.

    The shipped scale model stands for Stable Diffusion, a small CLIP for ViT-L/14. Started
    again, it goes on from where it was.
    """
    sets = {name: out / name for name in ("pictures", "pictures-test", "eeg")}
    for seed, (name, n) in enumerate(
        {"pictures": amount.pictures, "pictures-test": amount.pictures // 10}.items(), start=1
    ):
        if not (sets[name] / "spec.json").is_file():
            say(f"Drawing {n} pictures.")
            prepare_pictures(sets[name], n, seed)
    if not (sets["eeg"] / "spec.json").is_file():
        say(f"Simulating {amount.sessions} sessions of {amount.seconds:g} s.")
        names = [f"simulated:?subject=0&session={i}" for i in range(amount.sessions)]
        spec = read_epoch_spec(find_bundle(BASE))
        wanted = Wanted(spec, seconds=amount.seconds, with_images=True)
        prepare_sources(sets["eeg"], names, wanted, say)
    precision = "bf16" if has_vectors_of_bf16() else "fp32"
    fast: dict[str, Any] = {"precision": precision, "warmup": 20, "save_every": 50}
    clip.train(sets["pictures"], out / "clip", Schedule(amount.clip_steps, 64, 1e-3, **fast), say)
    judge.train(
        sets["pictures"],
        out / "judge",
        Schedule(amount.judge_steps, 64, 2e-3, **fast),
        sets["pictures-test"],
        say,
    )
    pretrain(
        sets["eeg"],
        out / "msm",
        PretrainConfig(amount.pretrain_steps, 64, 1e-3, preset="scale", **fast),
        say=say,
    )
    tuning = FinetuneConfig(
        amount.finetune_steps,
        32,
        5e-4,
        base=str(find_bundle(BASE)),
        clip=str(out / "clip" / "clip"),
        encoder=str(out / "msm"),
        n_context=16,
        contrast_weight=0.3,
        min_snr=5.0,
        augment=1.0,
        sampler_steps=8,
        guidance=2.0,
        **fast,
    )
    finetune(sets["eeg"], out / "finetune", tuning, say)
    report = out / "report"
    text = report / "report.md"
    if text.is_file():
        return text.read_text(encoding="utf-8")
    return evaluate_bundle(
        settings,
        str(out / "finetune" / "bundle"),
        sets["eeg"],
        report,
        WantedScores(
            classifier=f"judge:{out / 'judge' / 'judge'}",
            clip=tuning.clip,
            limit=amount.trials,
        ),
        say,
    )
