"""Evaluate a bundle on a prepared set: what `phosphene evaluate` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acquisition.stimuli import concepts
from app.bundle import find_bundle
from app.cores import worker_threads
from app.errors import SettingsError, SummaryError
from app.quiet import silence_libraries
from app.settings import Settings
from models.keyframes import KeyframePainter
from models.training import report
from models.training.bundle import read_held_out
from models.training.evaluate import Evaluation, evaluate
from models.training.prepared import PreparedSet
from models.training.scorers import (
    Classifier,
    NotMeasured,
    Scorers,
    open_classifier,
    open_encoder,
    open_inception,
)
from models.training.trials import SPLITS, Options


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for, beside the settings.

    Attributes
    ----------
    classifier : judge:FOLDER, vit:NAME_OR_FOLDER, or nothing.
    clip : name or folder of CLIP's image encoder, or nothing.
    inception : file of Inception's weights; None lets torch-fidelity find them.
    steps, guidance : of the sampler; None takes what the bundle's painter.json says.
    split, limit, samples, n_way, batch : see `models.training.trials.Options`.
    """

    classifier: str = ""
    clip: str = ""
    inception: Path | None = None
    steps: int | None = None
    guidance: float | None = None
    split: str = "test"
    limit: int = 0
    samples: int = 1
    n_way: int = 50
    batch: int = 16


def evaluate_bundle(
    settings: Settings,
    bundle: str,
    prepared: Path,
    out: Path,
    wanted: Wanted,
    say: Callable[[str], None],
) -> str:
    """Write the report of a bundle on a prepared set to `out`, and return its text.

    Raises
    ------
    SettingsError, SummaryError, BundleError, PreparedSetError, ScorerError, EpochShapeError
    """
    if wanted.split not in (*SPLITS, "all"):
        expected = ", ".join(SPLITS)
        raise SettingsError(f"--split expects {expected} or all, not '{wanted.split}'.")
    if not settings.debug:
        silence_libraries()
    data = PreparedSet(prepared)
    folder = find_bundle(bundle)
    evaluate_painter(settings, folder, open_painter(settings, folder), data, out, wanted)
    say(f"{out} holds the report.")
    return (out / report.TEXT).read_text(encoding="utf-8")


def open_painter(settings: Settings, folder: Path) -> KeyframePainter:
    """A bundle as the settings say; `KeyframePainter.from_bundle` for the errors."""
    threads = worker_threads(settings.threads)
    return KeyframePainter.from_bundle(folder, settings.seed, threads, settings.device)


def options_of(
    settings: Settings, folder: Path, painter: KeyframePainter, data: PreparedSet, wanted: Wanted
) -> Options:
    """How a bundle in `folder` is evaluated on a set.

    Raises
    ------
    SettingsError
        Epochs of two kinds would be mixed.
    """
    if settings.epochs == "auto":
        raise SettingsError(
            "Figures are of epochs of one kind: here --epochs expects sliding or marker-locked, "
            "not 'auto'."
        )
    return Options(
        steps=painter.num_inference_steps if wanted.steps is None else wanted.steps,
        guidance=painter.guidance_scale if wanted.guidance is None else wanted.guidance,
        epochs=settings.epochs,
        split=wanted.split,
        limit=wanted.limit,
        samples=wanted.samples,
        n_way=wanted.n_way,
        batch=wanted.batch,
        seed=settings.seed,
        held_out=read_held_out(folder, data),
    )


def evaluate_painter(
    settings: Settings,
    folder: Path,
    painter: KeyframePainter,
    data: PreparedSet,
    out: Path,
    wanted: Wanted,
) -> Evaluation:
    """Write the report of an opened bundle, and return what it tells.

    Parameters
    ----------
    folder : of the bundle.

    Raises
    ------
    SummaryError, PreparedSetError, ScorerError, EpochShapeError
    """
    device = painter.pipeline.device
    scorers = Scorers(
        named_classifier(wanted.classifier, device)
        if wanted.classifier
        else NotMeasured("no classifier was given (--classifier)"),
        open_encoder(wanted.clip, device)
        if wanted.clip
        else NotMeasured("no CLIP was given (--clip)"),
        open_inception(wanted.inception),
    )
    options = options_of(settings, folder, painter, data, wanted)
    make_empty(out)
    made_with: dict[str, Any] = {
        **report.provenance(folder),
        "prepared_set": {"name": data.folder.resolve().name, "spec": data.spec},
        "classifier": wanted.classifier,
        "clip": wanted.clip,
        "device": str(device),
    }
    found = evaluate(painter.pipeline, data, out, options, scorers)
    found.warnings.extend(_differences(folder, data.spec))
    report.write(found, made_with, out)
    return found


def named_classifier(name: str, device: torch.device | None = None) -> Classifier:
    """A classifier by its name; ImageNet's knows the classes of EEG-ImageNet.

    Parameters
    ----------
    device : where it computes; by default CUDA where there is one.

    Raises
    ------
    ScorerError
    """
    # Not by `c.name`: our picture of a "dog" need not show ImageNet's German shepherd.
    indices = {name: c.imagenet_index for c in concepts() for name in (c.imagenet_class, c.wnid)}
    default = "cuda" if torch.cuda.is_available() else "cpu"
    return open_classifier(name, indices, device or torch.device(default))


def make_empty(out: Path) -> None:
    """Make a folder for a report.

    Raises
    ------
    SummaryError
        It cannot be made, or holds something.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        is_empty = not any(out.iterdir())
    except OSError as error:
        raise SummaryError(
            f"The report cannot be written to {out} ({error.strerror}). Give a folder that can be "
            "made."
        ) from error
    if not is_empty:
        raise SummaryError(
            f"{out} holds something already, perhaps another report. Give another folder, or "
            "delete it."
        )


def _differences(bundle: Path, spec: dict[str, Any]) -> list[str]:
    """How the set's epochs were cut otherwise than the bundle expects, as a warning."""
    expected = json.loads((bundle / "epoch_spec.json").read_text(encoding="utf-8"))
    found = spec.get("epoch_spec", {})
    # The hop says how often a window is painted, not what is in it.
    other = [k for k in expected if k != "hop" and k in found and found[k] != expected[k]]
    if not other:
        return []
    return [
        f"The set's epochs were cut with another {', '.join(other)} than the bundle's "
        "epoch_spec.json says: prepare them with --bundle for a fair score."
    ]
