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
import torch
from diffusers import ModelMixin
from safetensors import SafetensorError

from app.bundle import read_epoch_spec
from app.errors import SummaryError
from app.held_out import HeldOutFiles, digest_of
from app.personal import REPORT
from app.session_epochs import NOTHING, SessionEpochs, read_sessions
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
from models.drift import Drift
from models.pipeline import EEGToImagePipeline, load_bundle
from models.template_reader import TemplateReader
from models.training import personal
from models.training.personal import (
    Epochs,
    HeldOut,
    Method,
    baselines,
    choose,
    fit,
    folds,
    hold_out,
    methods,
    scaled,
)
from models.training.personal_reader import NEVER, held_out_readers, make_reader
from models.training.population import Population
from models.training.report import folder_digest
from models.training.templates import (
    Weighed,
    fit_stream,
    set_farthest,
    set_stream,
    set_weights,
    stream_losses,
)

POPULATION = "population.safetensors"
CURVE = (0.25, 0.5, 0.75)
# Folder of what a calibration that goes on has found.
KEPT = ".calibrating"
PART = 64


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
    person = _Person(found, pipeline, bundle, round(-spec.tmin * spec.sfreq), spec.sfreq, files)

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


class _Person:
    """A person's epochs, and what of the bundle can be used for them."""

    def __init__(
        self,
        found: SessionEpochs,
        pipeline: EEGToImagePipeline,
        bundle: Path,
        onset: int,
        sfreq: float,
        files: HeldOutFiles,
    ) -> None:
        self._found, self._pipeline, self._files = found, pipeline, files
        self.epochs = Epochs(found.locked, found.label, found.run)
        self.n_classes = len(found.classes)
        self.fold = folds(found.run)
        table = pipeline.concepts
        self._is_known = table is not None and found.classes == list(table.config.names)
        self._population = None
        if self._is_known and (bundle / POPULATION).is_file():
            population = Population.load(bundle / POPULATION)
            self._population = scaled(population, found.matrix, found.deviation)
        n_times = found.locked.shape[2]
        self.candidates = methods(n_times, onset, sfreq, self._population)
        self.baselines = baselines(n_times, onset, sfreq)

    @property
    def cannot_be_painted(self) -> str:
        """Why there will be no bundle, or ""."""
        if not self._is_known:
            return (
                "The painter has no pictures of these classes, so there is a report and no bundle. "
                "Present the bundle's own pictures to get one, or make a painter of yours: "
                "`phosphene make-painter`."
            )
        if self._pipeline.reader is None:
            return (
                "This bundle has no reader that says how concepts are painted, so there is a "
                "report and no bundle. Calibrate with weights/scale-model."
            )
        return ""

    def hold_out(
        self,
        candidates: list[Method] | None = None,
        share: float = 1.0,
        is_forward: bool = False,
        tell: Callable[[float], None] = lambda _: None,
    ) -> HeldOut:
        """Every fold, read by what the others teach."""
        tell(0.0)
        tried = self.candidates if candidates is None else candidates
        known = self.n_classes, tried, self._population
        return self._files.get(
            tried,
            (share, is_forward),
            lambda: hold_out(self.epochs, *known, self.fold, share, is_forward, tell),
        )

    def curve(
        self, held_out: HeldOut, seed: int, tell: Callable[[float], None]
    ) -> list[dict[str, Any]]:
        """Accuracy by minutes, with the method that was chosen most often."""
        usual = max(set(held_out.chosen), key=held_out.chosen.count)
        label, minutes, n = self.epochs.label, self._found.minutes, len(self.epochs)
        points = []
        for k, share in enumerate(CURVE):
            tell(k / len(CURVE))
            # With fewer epochs than LDA needs there is no point.
            if usual.share is None and share * n < 3 * len(np.unique(label)):
                continue
            said = self.hold_out([usual], share).said
            points.append((share, said))
        points.append((1.0, held_out.said))
        return [
            {
                "minutes": round(share * minutes, 2),
                "n_trials": round(share * n),
                "accuracy": accuracy(said == label, label, seed).to_dict(),
            }
            for share, said in points
        ]

    def reader(self, held_out: HeldOut) -> TemplateReader:
        """What learnt from all runs, weighed with the encoder by what was held out."""
        method = choose(self.epochs, self.n_classes, self.candidates, self._population, self.fold)
        model = fit(method, self.epochs, self.n_classes, self._population)
        base, shown = self._pipeline.reader, np.unique(self.epochs.label)
        reader = make_reader(model, self.epochs, base, shown)
        windows = self._found.windows
        set_farthest(reader, torch.from_numpy(np.concatenate([self.epochs.eeg, windows.eeg])))
        is_nothing = windows.trial == NOTHING
        of_blank = torch.from_numpy(windows.eeg[is_nothing])
        unseen = self._encode(windows.eeg[is_nothing], False)[1]
        said, odds = self._encode(self.epochs.eeg, True)
        label = torch.from_numpy(self.epochs.label)
        scores = torch.from_numpy(held_out.scores).float().clamp_min(NEVER)
        of_nothing = reader.scores(of_blank, True)
        set_weights(reader, 0, Weighed(scores, said, label, odds, of_nothing, unseen))
        scores, of_window, losses = self._hold_out_windows(method)
        if (known := of_window >= 0).any():
            said, odds = self._encode(windows.eeg[known], False)
            label = torch.from_numpy(of_window[known])
            of_nothing = reader.scores(of_blank, False)
            set_weights(reader, 1, Weighed(scores[known], said, label, odds, of_nothing, unseen))
            fit_stream(reader, losses)
        else:
            reader.weights.data[1], reader.seen.data[1] = reader.weights[0], reader.seen[0]
        set_stream(reader, torch.from_numpy(windows.eeg), windows.first, is_nothing)
        return reader

    def _hold_out_windows(self, method: Method) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """Sliding windows, read by what other parts teach.

        Returns
        -------
        scores (n, n_classes); label (n,), -1 where it is not known; and `stream_losses`.
        """
        windows = self._found.windows
        of_trial = {int(trial): i for i, trial in enumerate(self._found.trial)}
        place = np.array([of_trial.get(int(trial), -1) for trial in windows.trial], int)
        label = np.where(place >= 0, self.epochs.label[place], -1)
        # A part has the windows behind its trials, also those that answer to none.
        last = np.searchsorted(self._found.trial, windows.after, "right") - 1
        fold = self.fold[np.maximum(last, 0)]
        scores = torch.zeros(len(windows), self.n_classes)
        losses = np.zeros(())
        known = self.epochs, self._pipeline.reader, self._population, self.fold
        for number, other in held_out_readers(method, *known) if (label >= 0).any() else ():
            own = fold == number
            eeg = torch.from_numpy(windows.eeg[own])
            scores[own] = other.scores(eeg, False)
            losses = losses + stream_losses(other, eeg, windows.first[own], label[own])
        return scores, label, losses

    def drift(self, hop: int) -> Drift:
        """What live epochs are compared with."""
        drift: Drift = Drift.of(self.epochs.eeg, hop)
        return drift

    def _encode(self, eeg: np.ndarray, is_locked: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the encoder alone: probabilities, and log odds that anything was seen."""
        table, reader = self._pipeline.concepts, self._pipeline.reader
        self._pipeline.reader = None
        try:
            embeds = [
                self._pipeline.encode(part, is_locked).clip_embeds.float()
                for part in torch.from_numpy(eeg).split(PART)
                # Of no epochs there is one part, an empty one.
                if len(part)
            ]
        finally:
            self._pipeline.reader = reader
        found = torch.cat(embeds) if embeds else torch.zeros(0, table.prototypes.shape[1])
        return table(found), table.log_odds(found)


def _report(
    found: SessionEpochs,
    person: _Person,
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
