"""Whether the answer flatters: sessions in which nothing can be read, and what is said of them.

`python -m benchmarks.flatter` exchanges the labels of rehearsed sessions within their runs, two
hundred times, and lets what `app.calibrate` says of a person be said of each; two are calibrated
in full. A session whose classes come in blocks must be answered with the warning.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from acquisition.epoch_spec import EpochSpec
from acquisition.stimuli import Composition
from app.bundle import read_epoch_spec
from app.calibrate import calibrate
from app.presentation import Trial
from app.rehearse_session import Sitting, plan_of, record, rehearse_session
from app.session_epochs import SessionEpochs, read_sessions
from app.verdict import accuracy, exchanged, p_value, verdict
from benchmarks.measured import write_section
from models.training.personal import Epochs, baselines, folds, hold_out

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "calibration.md"
TITLE = "Measured: shuffled labels"
TODAY = date(2026, 1, 1)
SUBJECTS = (20, 21, 22, 23)
MINUTES = 5.0
# Of every second session: with few classes chance is higher and the steps are coarser.
FEW = ("cat", "car", "piano", "pizza")
N_FULL = 2
# Runs of the session whose classes come in blocks.
N_RUNS = 4


@dataclass(frozen=True, slots=True)
class Flattered:
    """What was said of sessions in which nothing can be read.

    Attributes
    ----------
    verdicts : on cached epochs, how often each.
    full : of the sessions that were calibrated in full.
    warnings : of the session in blocks.
    """

    verdicts: dict[str, int]
    full: list[str]
    warnings: list[str]

    @property
    def n(self) -> int:
        """Sessions on cached epochs."""
        return sum(self.verdicts.values())

    def wrong(self, *said: str) -> tuple[int, float]:
        """Sessions of which one of these was said, and the 95 % upper bound of their share.

        Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
        """
        k = sum(self.verdicts.get(each, 0) for each in said)
        return k, float(beta.ppf(0.95, k + 1, self.n - k))

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        decodes, either = self.wrong("decodes"), self.wrong("decodes", "a little")
        return {**asdict(self), "n": self.n, "decodes": decodes, "decodes or a little": either}

    def markdown(self) -> str:
        """In words."""
        (n_decodes, of_decodes), (n_either, of_either) = (
            self.wrong("decodes"),
            self.wrong("decodes", "a little"),
        )
        block = self.warnings[0] if self.warnings else "no warning"
        return "\n\n".join(
            [
                f"Labels of {self.n} rehearsed sessions were exchanged within their runs, so that "
                "nothing can be read (`python -m benchmarks.flatter`; half of them with 40 classes "
                f"and half with {len(FEW)}, two runs each, one LDA on cached epochs). “Decodes” "
                f"was said of {n_decodes}: at most {of_decodes:.1%} (95 % upper bound, Clopper and "
                f"Pearson). That or “a little” was said of {n_either}: at most {of_either:.1%}. "
                f"Calibrated in full, {len(self.full)} more: {', '.join(self.full)}.",
                f"A session whose classes came in blocks was answered with: “{block}”",
            ]
        )


def say_of_shuffled(found: SessionEpochs, spec: EpochSpec, n: int, seed: int) -> Counter[str]:
    """What is said of a session when its labels are exchanged, `n` times."""
    onset = round(-spec.tmin * spec.sfreq)
    # The one with the fewest features: a choice among several is nested and gains nothing.
    method = min(
        baselines(spec.n_times, onset, spec.sfreq),
        key=lambda m: m.windows.end / m.windows.width if m.windows else np.inf,
    )
    rng = np.random.default_rng(seed)
    fold, n_classes, said = folds(found.run), len(found.classes), Counter[str]()
    for _ in range(n):
        label = exchanged(found.label, found.run, rng)
        epochs = Epochs(found.locked, label, found.run)
        named = hold_out(epochs, n_classes, [method], None, fold).said
        forward = hold_out(epochs, n_classes, [method], None, fold, is_forward=True).said
        p = p_value(forward, label, found.run, fold, seed=int(rng.integers(2**31)))
        chance = 1 / len(np.unique(label))
        said[verdict(accuracy(named == label, label), chance, p)] += 1
    return said


def shuffled_plan(
    plan: Sequence[Trial], stimuli: dict[str, Composition], seed: int
) -> tuple[list[Trial], dict[str, Composition]]:
    """A presentation that shows something else than it says: pictures exchanged within runs."""
    rng = np.random.default_rng(seed)
    run = np.array([trial.run for trial in plan])
    shown = exchanged(np.arange(len(plan)), run, rng)
    told, seen = [], {}
    for trial, place in zip(plan, shown, strict=True):
        name = f"{trial.picture.name}, trial {trial.number}"
        told.append(replace(trial, picture=replace(trial.picture, name=name), is_catch=False))
        seen[name] = stimuli[plan[place].picture.name]
    return told, seen


def blocked_plan(plan: Sequence[Trial]) -> list[Trial]:
    """The same trials with all of a class together."""
    ordered = sorted(plan, key=lambda trial: trial.picture.label)
    return [
        replace(trial, number=i + 1, run=1 + i * N_RUNS // len(plan), is_catch=False)
        for i, trial in enumerate(ordered)
    ]


def flatter(
    bundle: Path,
    n: int,
    folder: Path,
    say: Callable[[str], None],
    subjects: Sequence[int] = SUBJECTS,
    minutes: float = MINUTES,
    n_full: int = N_FULL,
) -> Flattered:
    """Measure.

    Parameters
    ----------
    bundle : that is calibrated from.
    n : shuffled sessions in all.
    folder : for recordings; empty.
    minutes : of each session.
    n_full : sessions that are calibrated in full.
    """
    spec, verdicts = read_epoch_spec(bundle), Counter[str]()
    for i, subject in enumerate(subjects):
        file = folder / f"{subject}.xdf"
        classes = FEW if i % 2 else ()
        rehearse_session(file, Sitting(subject), bundle, minutes, TODAY, classes)
        found = read_sessions([file], spec, ())
        share = n * (i + 1) // len(subjects) - n * i // len(subjects)
        verdicts += say_of_shuffled(found, spec, share, seed=subject)
        say(f"subject {subject}, {len(found.classes)} classes: {dict(verdicts)} so far")
    full = []
    for i in range(n_full):
        plan, stimuli = plan_of(bundle, minutes, i, FEW if i % 2 else ())
        told, seen = shuffled_plan(plan, stimuli, i)
        file = folder / f"shuffled-{i}" / "session.xdf"
        record(file, Sitting(subjects[0], seed=i), told, seen, spec, TODAY)
        full.append(str(calibrate([file], bundle, file.parent)["verdict"]))
        say(f"shuffled and calibrated in full: {full[-1]}")
    plan, stimuli = plan_of(bundle, minutes, 0, FEW)
    file = folder / "blocks" / "session.xdf"
    record(file, Sitting(subjects[0]), blocked_plan(plan), stimuli, spec, TODAY)
    warnings = calibrate([file], bundle, file.parent)["warnings"]
    return Flattered(dict(verdicts), full, warnings)


def main() -> None:
    """Measure, print, and write it into the page and as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flatter", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--bundle", type=Path, default=ROOT / "weights" / "scale-model")
    parser.add_argument("--shuffles", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "flatter.json")
    parser.add_argument("--page", type=Path, default=PAGE, help="that takes the answer")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = flatter(a.bundle, a.shuffles, Path(folder), partial(print, flush=True))
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
    print(found.markdown())
    write_section(a.page, TITLE, found.markdown())


if __name__ == "__main__":
    main()
