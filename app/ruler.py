"""How hard the simulated subject is: the ideal observer beside the first decoders to try.

`python -m app.ruler --difficulty demo` prints the figures of docs/simulated-subject.md: rows
of its table, each below how it was found.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

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
# Session of the tests; training takes those from 0 upwards.
TEST = 100
# Trials per concept of one session: 40 minutes.
PER_SESSION = 20
OF_OTHERS = 10
SECONDS_PER_TRIAL = 3.0
N_BINS = 5
DRAWS = (64, 256, 1024, 4096)

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


@dataclass(frozen=True, slots=True)
class Ruler:
    """Measures one difficulty.

    Attributes
    ----------
    parameters : of the subjects.
    n_subjects : tested, from number 0 upwards.
    n_trials : of each.
    say : takes lines.
    """

    parameters: SimulationParameters
    n_subjects: int
    n_trials: int
    say: Say

    def observe(self, kind: EpochKind, n_electrodes: int) -> None:
        """The ideal observer's row; with all electrodes also how sure and how well found it is."""
        spec = replace(SPEC, ch_names=ELECTRODES[n_electrodes])
        clean = without_artefacts(self.parameters)
        silent = replace(clean, early_uv=0.0, late_uv=0.0, sustained_uv=0.0)
        is_whole = n_electrodes == len(CH_NAMES)
        answers, from_noise, posteriors = Answers(), Answers(), []
        for number in range(self.n_subjects):
            observer = IdealObserver(SimulatedSubject(number, TEST, parameters=clean), spec, kind)
            for parameters, kept in ((clean, answers), (silent, from_noise)):
                if parameters is silent and not is_whole:
                    continue
                subject = SimulatedSubject(number, TEST, parameters=parameters)
                epochs = epochs_of(subject, observer.spec, self.n_trials, kind)
                posterior = observer.posterior(epochs[0])
                kept.add(posterior.argmax(axis=1), epochs)
                if parameters is clean:
                    posteriors.append(posterior)
                    seen = epochs
            if is_whole and number == 0:
                converge(observer, seen, self.say)
        name = f"ideal observer, {kind}, {n_electrodes} electrodes"
        self.say(answers.row(name))
        if is_whole:
            self.say(from_noise.row(f"{name}, noise alone"))
            reliability(np.concatenate(posteriors), np.concatenate(answers.label), self.say)

    def observe_elsewhere(self, n_sessions: Sequence[int]) -> None:
        """Rows of observers that know other sessions of the subject, and take their mean.

        Electrodes and responses differ from session to session: without a word about the new one,
        a decoder can hardly do better, however much it has learnt from.
        """
        clean = without_artefacts(self.parameters)
        answers = {n: Answers() for n in n_sessions}
        for number in range(self.n_subjects):
            epochs, total = None, np.zeros(())
            for session in range(max(n_sessions)):
                known = SimulatedSubject(number, session, parameters=clean)
                observer = IdealObserver(known, SPEC)
                if epochs is None:
                    new = SimulatedSubject(number, TEST, parameters=clean)
                    epochs = epochs_of(new, observer.spec, self.n_trials)
                total = total + observer.log_likelihood(epochs[0])
                if session + 1 in answers:
                    answers[session + 1].add(total.argmax(axis=1), epochs)
        for n, kept in answers.items():
            self.say(kept.row(f"observers that know {n} other session{'s' * (n > 1)}"))

    def decode(self, per_concept: Sequence[int], others: Sequence[int]) -> None:
        """Rows of window means and shrinkage LDA: of the same subject, then of other subjects."""
        tests = [self._features(number, TEST, self.n_trials) for number in range(self.n_subjects)]
        for n in per_concept:
            answers = Answers()
            sessions = [min(PER_SESSION, n - at) for at in range(0, n, PER_SESSION)]
            for number, test in enumerate(tests):
                data = [
                    self._features(number, session, n_each * len(concepts()))
                    for session, n_each in enumerate(sessions)
                ]
                answers.add(_trained(data).predict(test[0]), test)
            self.say(answers.row(f"LDA, {n} epochs per concept of other sessions"))
        data = []
        for n in others:
            while len(data) < n:
                subject = self.n_subjects + len(data)
                data.append(self._features(subject, 0, OF_OTHERS * len(concepts())))
            model, answers = _trained(data), Answers()
            for test in tests:
                answers.add(model.predict(test[0]), test)
            self.say(answers.row(f"LDA of {n} other subjects, {OF_OTHERS} per concept of each"))

    def _features(self, number: int, session: int, n_trials: int) -> Epochs:
        subject = SimulatedSubject(number, session, parameters=self.parameters)
        data, label, picture = epochs_of(subject, SPEC, n_trials)
        return WINDOWS(data).astype(np.float32), label, picture


def _trained(data: list[Epochs]) -> LinearDiscriminantAnalysis:
    x, y = (np.concatenate([each[i] for each in data]) for i in (0, 1))
    return classifier().fit(x, y)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--difficulty", choices=list(DIFFICULTIES), default="demo")
    parser.add_argument("--subjects", type=int, default=5, help="Tested.")
    parser.add_argument("--trials", type=int, default=400, help="Tested with each subject.")
    parser.add_argument("--per-concept", type=int, nargs="*", default=[20], help="LDA's.")
    parser.add_argument("--elsewhere", type=int, nargs="*", default=[1, 8], help="Sessions.")
    parser.add_argument("--others", type=int, nargs="*", default=[10, 20], help="LDA's subjects.")
    a = parser.parse_args()
    parameters = DIFFICULTIES[a.difficulty]
    ruler = Ruler(parameters, a.subjects, a.trials, partial(print, flush=True))
    ruler.say(", ".join(f"{name} {value}" for name, value in parameters.to_dict().items()))
    ruler.decode(a.per_concept, a.others)
    ruler.observe_elsewhere(a.elsewhere)
    for n_electrodes in ELECTRODES:
        ruler.observe("marker-locked", n_electrodes)
    ruler.observe("sliding", len(CH_NAMES))


if __name__ == "__main__":
    main()
