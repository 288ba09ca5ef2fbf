"""A person's own bundle from minutes of their EEG, and an honest answer to whether it works.

The painter and the encoder stay as they are. What is made is the person's reader: it finds the
concept in their EEG. It is tested on runs that it never saw; the one that is kept then learns from
all.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import ModelMixin
from safetensors import SafetensorError

from app.bundle import read_epoch_spec
from app.errors import SummaryError
from app.held_out import HeldOutFiles, digest_of
from app.person import Person
from app.personal import REPORT
from app.session_epochs import SessionEpochs, read_sessions
from app.verdict import (
    accuracy,
    beside_baseline,
    difference,
    growth,
    p_value,
    sentence,
    shuffled,
    verdict,
)
from models.bundle_files import folder_digest
from models.pipeline import load_bundle
from models.training import personal
from models.training.personal import HeldOut

# Folder of what a calibration that goes on has found.
KEPT = ".calibrating"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is.

    Attributes
    ----------
    done : 0 to 1.
    what : is being done, a short sentence.
    """

    done: float
    what: str


def calibrate(
    sessions: Sequence[Path],
    bundle: Path,
    out: Path,
    tell: Callable[[Progress], None] = lambda _: None,
    seed: int = 0,
) -> dict[str, Any]:
    """Make a person's bundle of their sessions, and report what it is worth.

    One that was stopped goes on from the parts that were done.

    Parameters
    ----------
    sessions : XDF files of one person and one headset, in the order of their time.
    bundle : folder of the painter.
    out : folder for `bundle` and `report.json`; an older bundle there is replaced.
    tell : told how far it is.
    seed : of intervals and permutations.

    Returns
    -------
    the report, as it stands in the file.

    Raises
    ------
    SettingsError, SourceError, StreamInfoError, MontageError, BundleError, TrainingError
        Nothing can be learnt from the sessions, or a file cannot be read; says why.
    SummaryError
        The results cannot be written.
    """
    begun = time.monotonic()
    tell(Progress(0.0, "Reading the sessions."))
    spec = read_epoch_spec(bundle)
    pipeline = load_bundle(bundle)
    known = list(pipeline.concepts.config.names) if pipeline.concepts is not None else []
    found = read_sessions(sessions, spec, known)
    # The code, too: another version may find something else.
    inputs = [*map(digest_of, (*sessions, Path(personal.__file__))), folder_digest(bundle)]
    files = HeldOutFiles(out / KEPT, inputs)
    person = Person(found, pipeline, bundle, round(-spec.tmin * spec.sfreq), spec.sfreq, files)

    part = partial(_part, tell)
    held_out = person.hold_out(tell=part(0.05, 0.35, "Testing on runs that were held out."))
    telling = part(0.35, 0.45, "Comparing with a classical decoder.")
    baseline = person.hold_out(person.baselines, tell=telling)
    telling = part(0.45, 0.68, "Finding how much more calibration would help.")
    curve = person.curve(held_out, seed, telling)
    telling = part(0.68, 0.78, "Finding what chance alone would do.")
    forward = person.hold_out(is_forward=True, tell=telling)
    report = _report(found, person, held_out, baseline, forward, curve, seed)
    tell(Progress(0.78, "Making the bundle."))
    why_not = person.cannot_be_painted
    reader = None if why_not else person.reader(held_out)
    report |= {
        "bundle": str(out / "bundle") if reader else "",
        "no_bundle": why_not,
        "took_s": round(time.monotonic() - begun, 1),
    }
    if reader:
        own = {"reader": reader.half(), "drift": person.drift(spec.hop)}
        _save(out / "bundle", bundle, own, report)
    _write(out / REPORT, report)
    files.clear()
    tell(Progress(1.0, report["sentence"]))
    return report


def _part(
    tell: Callable[[Progress], None], begin: float, end: float, what: str
) -> Callable[[float], None]:
    """Tells of a part of the whole, of which it is told a share."""

    def told(share: float) -> None:
        tell(Progress(begin + share * (end - begin), what))

    return told


def _report(
    found: SessionEpochs,
    person: Person,
    held_out: HeldOut,
    baseline: HeldOut,
    forward: HeldOut,
    curve: list[dict[str, Any]],
    seed: int,
) -> dict[str, Any]:
    label, run, said = person.epochs.label, person.epochs.run, held_out.said
    shown = np.unique(label)
    chance = 1 / len(shown)
    ours = accuracy(said == label, label, seed)
    p = p_value(forward.said, label, run, person.fold, seed=seed)
    answer = verdict(ours, chance, p)
    less = difference(said == label, baseline.said == label, label, seed)
    confused = []
    for k in shown:
        others = said[(label == k) & (said != k)]
        confused.append(
            {
                "name": found.classes[k],
                "right": float((said[label == k] == k).mean()),
                "n": int((label == k).sum()),
                "confused_with": found.classes[np.bincount(others).argmax()] if len(others) else "",
            }
        )
    return {
        "honesty": found.honesty,
        "sentence": sentence(answer, ours, chance, len(shown)),
        "verdict": answer,
        "warnings": found.warnings,
        "electrodes": found.electrodes,
        "minutes": round(found.minutes, 2),
        "n_trials": len(label),
        "n_dropped": found.n_trials - len(label),
        "dropped": found.dropped,
        "n_runs": len(np.unique(run)),
        "classes": [found.classes[k] for k in shown],
        "chance": chance,
        "accuracy": ours.to_dict(),
        "shuffled": shuffled(said, label, run, seed).to_dict(),
        "baseline": accuracy(baseline.said == label, label, seed).to_dict(),
        "less_baseline": less.to_dict(),
        "beside_baseline": beside_baseline(less),
        "p_value": p,
        "methods": [str(method) for method in held_out.chosen],
        "learning_curve": curve,
        "more": growth(curve, chance),
        "per_class": sorted(confused, key=lambda row: -float(str(row["right"]))),
    }


def _save(out: Path, bundle: Path, own: dict[str, ModelMixin], report: dict[str, Any]) -> None:
    """A bundle some of whose parts are the person's own, and everything else the painter's."""
    try:
        # Beside the older one, which stays whole until this one is.
        unfinished = out.with_name(f".{out.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700, parents=True)
        index = json.loads((bundle / "model_index.json").read_text(encoding="utf-8"))
        for name, part in own.items():
            part.save_pretrained(unfinished / name)
            index[name] = [type(part).__module__, type(part).__name__]
        (unfinished / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
        for path in sorted(bundle.iterdir()):
            if not (unfinished / path.name).exists() and path.suffix != ".md":
                _share(path, unfinished / path.name)
        _write(unfinished / REPORT, report)
        shutil.rmtree(out, ignore_errors=True)
        unfinished.rename(out)
    # safetensors tells of a full disk in an error of its own.
    except (OSError, SafetensorError) as error:
        raise SummaryError(
            f"The bundle {out} cannot be written ({error}). Make room, or name another "
            "folder with --out."
        ) from error


def _share(path: Path, to: Path) -> None:
    """Ten people have one painter; where links are not allowed, each has a copy."""
    try:
        os.symlink(path.resolve(), to, target_is_directory=path.is_dir())
    except OSError:
        shutil.copytree(path, to) if path.is_dir() else shutil.copy(path, to)


def _write(path: Path, report: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SummaryError(
            f"The report {path} cannot be written ({error.strerror}). Make room, or name another "
            "folder with --out."
        ) from error
