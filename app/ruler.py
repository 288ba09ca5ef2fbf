"""How hard the simulated subject is: the ideal observer beside the first decoders to try.

`python -m app.ruler --difficulty demo` prints the figures of docs/simulated-subject.md: rows
of its table, each below how it was found.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochKind, EpochStream
from acquisition.ideal_observer import ELECTRODES, IdealObserver
from acquisition.montage import Montage
from acquisition.simulated import simulated_info
from acquisition.simulated_subject import CH_NAMES, SimulatedSubject
from acquisition.simulation_parameters import (
    DIFFICULTIES,
    SimulationParameters,
    without_artefacts,
)
from acquisition.stimuli import Composition, concepts
from app.continuous import simulated_steps
from models.training.lda import Windows, classifier
from models.training.metrics import Score

SPEC = EpochSpec(CH_NAMES)
WINDOWS = Windows(start=0, end=SPEC.n_times, width=16)
# Of training and of tests; the shipped bundle's stages have seen neither of the latter.
TRAINING, TEST = 0, 100
SUBJECTS = range(5)
SECONDS_PER_TRIAL = 3.0
N_BINS = 5
DRAWS = (64, 256, 1024, 4096, 16384)

Say = Callable[[str], None]
Epochs = tuple[np.ndarray, np.ndarray, np.ndarray]


def epochs_of(
    subject: SimulatedSubject, spec: EpochSpec, n_trials: int, kind: EpochKind = "marker-locked"
) -> Epochs:
    """Epochs of a session as live use cuts them; sliding ones if fully inside a viewing.

    Returns
    -------
    data (n, n_channels, n_times); label (n,); number of the picture (n,).
    """
    info = simulated_info(subject)
    stream = EpochStream(info, spec, Montage.from_channels(info.ch_names, spec), [kind])
    seen: list[Composition] = []
    onsets: list[float] = []
    data, picture = [], []
    for chunk, markers in simulated_steps(subject, n_trials * SECONDS_PER_TRIAL, seen):
        onsets += [m.timestamp for m in markers if m.details]
        for epoch in stream.push(chunk, markers):
            if epoch.marker is not None:
                number = epoch.marker.details["image_id"]
            else:
                number = int(np.searchsorted(onsets, epoch.t_first, side="right")) - 1
                end = epoch.t_first + spec.duration
                if number < 0 or end > onsets[number] + subject.parameters.viewing:
                    continue
            data.append(epoch.data)
            picture.append(number)
    label = np.array([c.label for c in seen])
    return np.stack(data), label[picture], np.array(picture)


@dataclass(slots=True)
class Answers:
    """What a decoder named, subject by subject.

    Attributes
    ----------
    said, label, picture : for each subject, arrays (n,).
    """

    said: list[np.ndarray] = field(default_factory=list)
    label: list[np.ndarray] = field(default_factory=list)
    picture: list[np.ndarray] = field(default_factory=list)

    def add(self, said: np.ndarray, epochs: Epochs) -> None:
        self.said.append(said)
        self.label.append(epochs[1])
        self.picture.append(epochs[2])

    def row(self, name: str) -> str:
        """A line of the table: all together, by subject, and against shuffled labels."""
        each = [(s == y).mean() for s, y in zip(self.said, self.label, strict=True)]
        said, label = np.concatenate(self.said), np.concatenate(self.label)
        # Numbers of pictures begin again with each subject.
        picture = np.concatenate([p + 100_000 * i for i, p in enumerate(self.picture)])
        shuffled = np.random.default_rng(0).permutation(label)
        return (
            f"| {name} | {_share(said == label, picture)} | "
            f"{' '.join(f'{100 * value:.0f}' for value in each)} | "
            f"{_share(said == shuffled, picture)} | {len(label):,} |"
        )


def _share(right: np.ndarray, picture: np.ndarray) -> str:
    score = Score.of(right.astype(float), picture)
    return f"{score.value:.1%} ({score.low:.1%} to {score.high:.1%})"


def observe(
    parameters: SimulationParameters, kind: EpochKind, n_electrodes: int, n_trials: int, say: Say
) -> None:
    """The ideal observer's row, with all electrodes also how it converges and is calibrated."""
    spec = replace(SPEC, ch_names=ELECTRODES[n_electrodes])
    clean = without_artefacts(parameters)
    answers, posteriors = Answers(), []
    for number in SUBJECTS:
        observer = IdealObserver(SimulatedSubject(number, TEST, parameters=clean), spec, kind)
        subject = SimulatedSubject(number, TEST, parameters=clean)
        epochs = epochs_of(subject, observer.spec, n_trials, kind)
        posteriors.append(observer.posterior(epochs[0]))
        answers.add(posteriors[-1].argmax(axis=1), epochs)
        if n_electrodes == len(CH_NAMES) and number == SUBJECTS[0]:
            converge(observer, epochs, say)
    say(answers.row(f"ideal observer, {kind}, {n_electrodes} electrodes"))
    if n_electrodes == len(CH_NAMES):
        reliability(np.concatenate(posteriors), np.concatenate(answers.label), say)


def observe_noise(parameters: SimulationParameters, n_trials: int, say: Say) -> None:
    """The observer's row where nothing answers to pictures."""
    clean = without_artefacts(parameters)
    silent = replace(clean, early_uv=0.0, late_uv=0.0, sustained_uv=0.0)
    answers = Answers()
    for number in SUBJECTS:
        observer = IdealObserver(SimulatedSubject(number, TEST, parameters=clean), SPEC)
        subject = SimulatedSubject(number, TEST, parameters=silent)
        epochs = epochs_of(subject, observer.spec, n_trials)
        answers.add(observer.posterior(epochs[0]).argmax(axis=1), epochs)
    say(answers.row("ideal observer, marker-locked, 32 electrodes, noise alone"))


def converge(observer: IdealObserver, epochs: Epochs, say: Say) -> None:
    """What more draws change."""
    data, label, _ = epochs
    for n_draws in DRAWS:
        observer.draw(n_draws, seed=1)
        posterior = observer.posterior(data)
        loss = -np.log(posterior[np.arange(len(label)), label]).mean()
        right = (posterior.argmax(axis=1) == label).mean()
        say(f"{n_draws:,} draws per concept: accuracy {right:.1%}, mean log loss {loss:.4f}")


def reliability(posterior: np.ndarray, label: np.ndarray, say: Say) -> None:
    """How often the named concept is right, by how probable it was called."""
    top, right = posterior.max(axis=1), posterior.argmax(axis=1) == label
    place = np.minimum((top * N_BINS).astype(int), N_BINS - 1)
    error = 0.0
    for number in np.unique(place):
        inside = place == number
        error += inside.mean() * abs(top[inside].mean() - right[inside].mean())
        share = _share(right[inside], np.arange(inside.sum()))
        say(f"called {top[inside].mean():.1%} probable: right {share}, {inside.sum()} epochs")
    say(f"expected calibration error {error:.3f}")


def decode(
    parameters: SimulationParameters, n_trials: int, others: Sequence[int], say: Say
) -> None:
    """Rows of window means and shrinkage LDA: of the same subject, then of other subjects."""

    def features(number: int, session: int, n: int) -> Epochs:
        subject = SimulatedSubject(number, session, parameters=parameters)
        data, label, picture = epochs_of(subject, SPEC, n)
        return WINDOWS(data), label, picture

    tests = [features(number, TEST, n_trials) for number in SUBJECTS]
    answers = Answers()
    for number, test in zip(SUBJECTS, tests, strict=True):
        x, y, _ = features(number, TRAINING, 20 * len(concepts()))
        answers.add(classifier().fit(x, y).predict(test[0]), test)
    say(answers.row("LDA, 20 epochs per concept of another session"))
    known: list[Epochs] = []
    for n in others:
        while len(known) < n:
            known.append(features(len(SUBJECTS) + len(known), TRAINING, 10 * len(concepts())))
        model = classifier().fit(*(np.concatenate([each[i] for each in known]) for i in (0, 1)))
        answers = Answers()
        for test in tests:
            answers.add(model.predict(test[0]), test)
        say(answers.row(f"LDA of {n} other subjects, 10 epochs per concept of each"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--difficulty", choices=list(DIFFICULTIES), default="demo")
    parser.add_argument("--trials", type=int, default=400, help="Tested with each subject.")
    parser.add_argument("--others", type=int, nargs="*", default=[10, 20])
    a = parser.parse_args()

    def say(line: str) -> None:
        print(line, flush=True)

    parameters = DIFFICULTIES[a.difficulty]
    say(", ".join(f"{name} {value}" for name, value in parameters.to_dict().items()))
    for n_electrodes in ELECTRODES:
        observe(parameters, "marker-locked", n_electrodes, a.trials, say)
    observe(parameters, "sliding", len(CH_NAMES), a.trials, say)
    observe_noise(parameters, a.trials, say)
    decode(parameters, a.trials, a.others, say)


if __name__ == "__main__":
    main()
