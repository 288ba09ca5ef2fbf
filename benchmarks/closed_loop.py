"""Strangers at the headset: shown pictures, calibrated, and read when shown pictures anew.

`python -m benchmarks.closed_loop` does with simulated subjects whom nothing was trained with what
a person does with the page, without waiting: a presentation is recorded, `app.calibrate` makes a
bundle of it, and the bundle reads the epochs of another presentation of the same sitting as the
live stream gives them. Beside it: LDA that learnt from the same trials, and the ideal observer.

Stopped and started again it goes on; delete the JSON to begin anew.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acquisition.epoch_spec import EpochSpec
from acquisition.ideal_observer import ELECTRODES, IdealObserver
from acquisition.simulated_subject import LIVE_SESSION, SimulatedSubject
from acquisition.simulation_parameters import DIFFICULTIES, without_artefacts
from acquisition.stimuli import concepts
from app.bundle import read_epoch_spec
from app.calibrate import calibrate
from app.messages import Message
from app.presentation import DURATION, MAX_GAP, MIN_GAP
from app.rehearse_session import Clock, Sitting, plan_of, present, rehearse_session
from app.results.answers import ENCODED, paint
from app.results.part import Table, written
from app.results.reliability import calibration_error, error_of_chance
from app.session_epochs import NOTHING, SessionEpochs, read_sessions
from benchmarks.measured import write_section
from models.keyframes import KeyframePainter
from models.pipeline import EEGToImagePipeline
from models.template_reader import TemplateReader
from models.training.metrics import Score
from models.training.personal import Epochs, baselines, choose, fit, folds
from models.training.scorers import Classifier, JudgeClassifier
from models.training.templates import heard
from models.training.trials import Options

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "calibration.md"
TITLE = "Measured: the closed loop"
# Of the order of pictures, of noise and of single responses.
CALIBRATION, TEST = 0, 1
# Of the pictures that are shown anew: 302, repeats apart.
TEST_MINUTES = 8.5
# As many as there are pictures of one subject, at most.
MANY = 1000
# On another day electrodes sit otherwise, and responses have changed somewhat.
ANOTHER_DAY = LIVE_SESSION + 1
WINDOWS = "Sliding windows, read with those before"
WINDOWS_HEADER = (
    "electrodes", "minutes", "concept named", "each alone", "shuffled",
    "calibration error of the confidence (of a perfect one)", "not sure, of what was shown",
    "not sure, of nothing",
)  # fmt: skip
HEADER = (
    "electrodes", "minutes", "pictures, by the judge", "concept named", "shuffled", "LDA",
    "pictures less LDA", "ideal observer", "pictures, of the observer's", "named on another day",
    "calibration error of the confidence (of a perfect one)",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """What the live stream gave of a presentation, repeats apart.

    Attributes
    ----------
    eeg : (n, n_channels, n_times), marker-locked epochs.
    label, run, picture : (n,), of what was shown; pictures are numbered.
    """

    eeg: np.ndarray
    label: np.ndarray
    run: np.ndarray
    picture: np.ndarray


@dataclass(frozen=True, slots=True)
class Listened:
    """What was said of the test's sliding windows that answer to a picture, or to nothing.

    Attributes
    ----------
    label, trial : (n,), of the picture.
    named, alone : (n,), with the windows before it, and without.
    confidence, is_sure : (n,), with them.
    of_nothing : (m,) bool, whether anything was said.
    """

    label: list[int]
    trial: list[int]
    named: list[int]
    alone: list[int]
    confidence: list[float]
    is_sure: list[bool]
    of_nothing: list[bool]


@dataclass(frozen=True, slots=True)
class Cell:
    """What was said of the test's epochs, after some minutes with some electrodes.

    Attributes
    ----------
    subject, electrodes, minutes : what was measured.
    verdict, took_s : of the calibration's report.
    has_bundle : whether there is a bundle of the person's own; if not, the shipped one is read by.
    label, picture : of each epoch.
    painted, named, lda, observer : what was seen in the picture, and said by the others.
    confidence : with which it was named.
    another_day, another_label : what was named in another session, and what was shown there.
    listened : to sliding windows.
    """

    subject: int
    electrodes: int
    minutes: float
    verdict: str
    took_s: float
    has_bundle: bool
    label: list[int]
    picture: list[int]
    painted: list[int]
    named: list[int]
    confidence: list[float]
    lda: list[int]
    observer: list[int]
    another_day: list[int]
    another_label: list[int]
    listened: Listened

    @property
    def key(self) -> tuple[int, int, float]:
        return self.subject, self.electrodes, self.minutes


def watch(sitting: Sitting, minutes: float, bundle: Path, spec: EpochSpec) -> Watched:
    """Present a bundle's stimuli and keep the epochs that acquisition publishes.

    Parameters
    ----------
    spec : of the epochs.
    """
    plan, stimuli = plan_of(bundle, minutes, sitting.seed)
    place = {name: number for number, name in enumerate(stimuli)}
    trials = {trial.number: trial for trial in plan}
    onsets: list[tuple[float, int]] = []
    epochs: list[tuple[float, np.ndarray]] = []

    def take(message: Message) -> None:
        header = message.header
        if message.type == "epoch":
            data = np.frombuffer(message.payload, np.float32)
            shape = header["n_channels"], header["n_times"]
            epochs.append((header["t_first"] - spec.tmin, data.reshape(shape).copy()))
        elif message.type == "stimulus" and header["event"] == "shown":
            onsets.append((header["t"], header["trial"]))

    present(sitting, plan, stimuli, spec, take, Clock())
    times = np.array([t for t, _ in onsets])
    found = [
        (data, trials[onsets[int(np.abs(times - t).argmin())][1]]) for t, data in epochs
    ]  # the epoch says nothing of its marker
    kept = [(data, trial) for data, trial in found if not trial.is_catch]
    return Watched(
        np.array([data for data, _ in kept]),
        np.array([trial.picture.label for _, trial in kept]),
        np.array([trial.run for _, trial in kept]),
        np.array([place[trial.picture.name] for _, trial in kept]),
    )


def observe(subject: int, n_electrodes: int, bundle: Path, spec: EpochSpec) -> np.ndarray:
    """What the ideal observer names in the test's epochs without artefacts, (n,)."""
    parameters = replace(
        without_artefacts(DIFFICULTIES["demo"]),
        viewing=DURATION, gap_min=MIN_GAP, gap_max=MAX_GAP,
    )  # fmt: skip
    names = ELECTRODES[n_electrodes]
    known = SimulatedSubject(subject, LIVE_SESSION, parameters=parameters)
    observer = IdealObserver(known, replace(spec, ch_names=names))
    sitting = Sitting(subject, LIVE_SESSION, TEST, names, parameters)
    test = watch(sitting, TEST_MINUTES, bundle, observer.spec)
    return np.asarray(observer.posterior(test.eeg).argmax(axis=1))


def learn_lda(trained: Watched, test: Watched, spec: EpochSpec, n_classes: int) -> np.ndarray:
    """What LDA of window means names in the test, (n,); its windows are chosen across runs."""
    epochs = Epochs(trained.eeg, trained.label, trained.run)
    onset = round(-spec.tmin * spec.sfreq)
    candidates = baselines(spec.n_times, onset, spec.sfreq)
    method = choose(epochs, n_classes, candidates, None, folds(trained.run))
    scores = fit(method, epochs, n_classes, None).scores(test.eeg)
    return np.asarray(scores.argmax(axis=1))


@torch.inference_mode()
def named(pipeline: EEGToImagePipeline, eeg: np.ndarray) -> np.ndarray:
    """The concept that is shown beside the picture, (n,)."""
    parts = [pipeline.encode(part).probabilities for part in torch.from_numpy(eeg).split(ENCODED)]
    return np.asarray(torch.cat([torch.as_tensor(p) for p in parts]).argmax(1).cpu())


@torch.inference_mode()
def listen(reader: TemplateReader, found: SessionEpochs) -> Listened:
    """Sliding windows of a session as the live stream reads them, one after the other."""
    windows, label_of = found.windows, dict(zip(found.trial, found.label, strict=True))
    eeg = torch.from_numpy(windows.eeg)
    said, _, is_sure = heard(reader, eeg, windows.first)
    alone = torch.cat([reader.scores(part, False) for part in eeg.split(ENCODED)])
    own = np.isin(windows.trial, found.trial)
    return Listened(
        [int(label_of[trial]) for trial in windows.trial[own]],
        windows.trial[own].tolist(),
        said[own].argmax(axis=1).tolist(),
        alone.argmax(1).numpy()[own].tolist(),
        said[own].max(axis=1).tolist(),
        is_sure[own].tolist(),
        is_sure[windows.trial == NOTHING].tolist(),
    )


@dataclass(frozen=True, slots=True)
class Loop:
    """Measures strangers.

    Attributes
    ----------
    bundle : that is calibrated from.
    judge : names the pictures.
    say : takes lines.
    """

    bundle: Path
    judge: Classifier
    say: Callable[[str], None]

    def measure(self, subject: int, n_electrodes: int, minutes: Sequence[float]) -> list[Cell]:
        """One subject with some electrodes, after each of so many minutes."""
        spec = read_epoch_spec(self.bundle)
        own = replace(spec, ch_names=ELECTRODES[n_electrodes])
        first = Sitting(subject, LIVE_SESSION, CALIBRATION, ELECTRODES[n_electrodes])
        again = replace(first, seed=TEST)
        test = watch(again, TEST_MINUTES, self.bundle, spec)
        other = watch(replace(again, session=ANOTHER_DAY), TEST_MINUTES, self.bundle, spec)
        plain = watch(again, TEST_MINUTES, self.bundle, own)
        ideal = observe(subject, n_electrodes, self.bundle, spec)
        found = self._record(again, spec)
        cells = []
        for length in minutes:
            trained = watch(first, length, self.bundle, own)
            n_classes = 1 + max(int(test.label.max()), int(trained.label.max()))
            lda = learn_lda(trained, plain, own, n_classes)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"simulated-{subject}" / "session.xdf"
                rehearse_session(file, first, self.bundle, length, date(2026, 1, 1))
                report = calibrate([file], self.bundle, file.parent)
                painter = KeyframePainter.from_bundle(report["bundle"] or self.bundle)
                options = Options(painter.num_inference_steps, painter.guidance_scale)
                answers = paint(painter.pipeline, self.judge, test.eeg, options, str(subject))
                another_day = named(painter.pipeline, other.eeg)
                listened = listen(painter.pipeline.reader.float(), found)
            cell = Cell(
                subject, n_electrodes, length, report["verdict"], report["took_s"],
                bool(report["bundle"]), test.label.tolist(), test.picture.tolist(),
                answers.painted.tolist(), answers.concept.tolist(),
                answers.confidence.tolist(), lda.tolist(), ideal.tolist(),
                another_day.tolist(), other.label.tolist(), listened,
            )  # fmt: skip
            self.say(_line(cell))
            cells.append(cell)
        return cells

    def _record(self, sitting: Sitting, spec: EpochSpec) -> SessionEpochs:
        names = [concept.name for concept in concepts()]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "session.xdf"
            rehearse_session(file, sitting, self.bundle, TEST_MINUTES, date(2026, 1, 1))
            return read_sessions([file], spec, names)


def _line(cell: Cell) -> str:
    label = np.array(cell.label)
    shares = [
        f"{name} {np.mean(np.array(getattr(cell, name)) == label):.1%}"
        for name in ("painted", "named", "lda", "observer")
    ]
    return (
        f"subject {cell.subject}, {cell.electrodes} electrodes, {cell.minutes:g} minutes: "
        f"{', '.join(shares)}; {cell.verdict}, calibrated in {cell.took_s:.0f} s"
    )


def _row(cells: Sequence[Cell]) -> list[str]:
    """Some subjects together."""
    label = np.concatenate([cell.label for cell in cells])
    # Pictures of each subject are told apart: noise and responses are others.
    picture = np.concatenate([np.array(c.picture) + MANY * c.subject for c in cells])
    said = {
        name: np.concatenate([getattr(cell, name) for cell in cells])
        for name in ("painted", "named", "lda", "observer", "another_day")
    }
    right = {name: (values == label).astype(float) for name, values in said.items()}
    another = np.concatenate([cell.another_label for cell in cells])
    right["another_day"] = (said["another_day"] == another).astype(float)
    confidence = np.concatenate([cell.confidence for cell in cells])
    is_named = said["named"] == label
    shuffled = np.random.default_rng(0).permutation(label)
    of_shuffled = (said["painted"] == shuffled).astype(float)
    less = Score.of(right["painted"] - right["lda"], picture)
    ideal = right["observer"].mean()
    day = Score.of(right["another_day"], another + MANY)
    return [
        str(cells[0].electrodes),
        f"{cells[0].minutes:g}",
        written(Score.of(right["painted"], picture)),
        written(Score.of(right["named"], picture)),
        written(Score.of(of_shuffled, picture)),
        written(Score.of(right["lda"], picture)),
        written(less, "+.1%"),
        written(Score.of(right["observer"], picture)),
        f"{right['painted'].mean() / ideal:.2f}" if ideal else "–",
        written(day),
        f"{calibration_error(confidence, is_named):.3f} ({error_of_chance(confidence):.3f})",
    ]


def _row_of_windows(cells: Sequence[Cell]) -> list[str]:
    """Some subjects together; windows of a picture are not independent."""
    each = [cell.listened for cell in cells]
    label, named, alone, confidence, is_sure = (
        np.concatenate([getattr(found, name) for found in each])
        for name in ("label", "named", "alone", "confidence", "is_sure")
    )
    picture = np.concatenate([np.array(c.listened.trial) + MANY * c.subject for c in cells])
    rng = np.random.default_rng(0)
    shuffled = np.concatenate([rng.permutation(found.label) for found in each])
    # The longest pause lasts for many windows, which are one after the other.
    of_nothing = np.concatenate([found.of_nothing for found in each])
    error = calibration_error(confidence, named == label), error_of_chance(confidence)
    return [
        str(cells[0].electrodes),
        f"{cells[0].minutes:g}",
        written(Score.of((named == label).astype(float), picture)),
        written(Score.of((alone == label).astype(float), picture)),
        written(Score.of((named == shuffled).astype(float), picture)),
        f"{error[0]:.3f} ({error[1]:.3f})",
        written(Score.of(1.0 - is_sure, picture)),
        f"{1 - of_nothing.mean():.1%} of {len(of_nothing)}",
    ]


def tables(cells: Sequence[Cell]) -> list[Table]:
    """All that was measured, subjects together: of marker-locked epochs, and of sliding windows."""
    groups: dict[tuple[int, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((-cell.electrodes, cell.minutes), []).append(cell)
    ordered = [groups[key] for key in sorted(groups)]
    subjects = sorted({cell.subject for cell in cells})
    n_without = sum(not cell.has_bundle for cell in cells)
    took = max(cell.took_s for cell in cells)
    decodes = sum(cell.verdict == "decodes" for cell in cells)
    bundles = f" {n_without} gave no bundle, and the shipped one was read by." if n_without else ""
    notes = [
        f"Simulated subjects {', '.join(map(str, subjects))}, whom nothing was trained with; "
        f"chance {1 / 40:.1%}. Each is shown {len(cells[0].label)} pictures anew in the same "
        "sitting, repeats apart; intervals of 95 % over pictures. LDA learnt from the same trials, "
        "of the electrodes alone. The ideal observer knows the simulator, subject and session, and "
        "sees epochs without artefacts. On another day electrodes sit otherwise and responses have "
        "changed.",
        f'Of {len(cells)} calibrations {decodes} were answered with "decodes"; the longest took '
        f"{took:.0f} s.{bundles}",
    ]
    of_windows = [
        "The same pictures without their markers: windows of a second, four a second. What was "
        f"shown last ({DURATION:g} s, the next {MIN_GAP:g} to {MAX_GAP:g} s later) appeared at "
        "least 0.3 s before a window's end and at most half a second before its beginning. Chance "
        "is the same. Of nothing: windows in breaks that begin two seconds after the last "
        "picture did, or later; of nine in ten it should be said.",
    ]
    return [
        Table("Closed loop", HEADER, [_row(group) for group in ordered], notes),
        Table(WINDOWS, WINDOWS_HEADER, [_row_of_windows(g) for g in ordered], of_windows),
    ]


def read(path: Path) -> list[Cell]:
    """Cells that were measured before."""
    if not path.is_file():
        return []
    told = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [Cell(**cell | {"listened": Listened(**cell["listened"])}) for cell in told]


def write(path: Path, cells: Sequence[Cell]) -> None:
    """Keep cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"honesty": "simulated", "cells": [asdict(cell) for cell in cells]}
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print the table, and write it into the page and as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.closed_loop", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--bundle", type=Path, default=ROOT / "weights" / "scale-model")
    parser.add_argument("--judge", type=Path, default=ROOT / "weights" / "training" / "judge")
    parser.add_argument("--subjects", default="20,21,22,23")
    parser.add_argument("--minutes", default="2,5,15")
    parser.add_argument("--electrodes", default="32,8", help="numbers, of 32, 16, 8 and 4")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "closed-loop.json")
    parser.add_argument("--page", type=Path, default=PAGE, help="that takes the table")
    a = parser.parse_args()
    say = partial(print, flush=True)
    loop = Loop(a.bundle, JudgeClassifier(str(a.judge), torch.device("cpu")), say)
    cells = read(a.out)
    for subject in map(int, a.subjects.split(",")):
        for n_electrodes in map(int, a.electrodes.split(",")):
            known = {cell.key for cell in cells}
            lengths = [float(text) for text in a.minutes.split(",")]
            left = [m for m in lengths if (subject, n_electrodes, m) not in known]
            if left:
                cells += loop.measure(subject, n_electrodes, left)
                write(a.out, cells)
    locked, of_windows = (each.markdown() for each in tables(cells))
    say(f"{locked}\n\n{of_windows}")
    # The heading of the section is enough for the first.
    write_section(a.page, TITLE, locked.partition("\n\n")[2] + f"\n\n{of_windows}")


if __name__ == "__main__":
    main()
