"""What the results page is measured with, opened and checked before anything is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from acquisition.epoch_spec import EpochSpec
from acquisition.simulation_parameters import SimulationParameters
from acquisition.stimuli import concepts
from app.bundle import find_bundle, read_epoch_spec
from app.errors import SettingsError
from app.evaluation import Wanted as Scored
from app.evaluation import named_classifier, open_painter, options_of
from app.results.peers import our_decoder, train_peers
from app.results.stream import Sessions
from app.ruler import SECONDS_PER_TRIAL
from app.settings import Settings
from models.bundle_files import folder_digest
from models.errors import PreparedSetError, TrainingError
from models.keyframes import KeyframePainter
from models.training.ablation_table import TABLE, read_ablation
from models.training.caption_painter import GUIDANCE, STEPS
from models.training.eegnet import EEGNetConfig
from models.training.peers import Predictor
from models.training.prepared import PreparedSet
from models.training.report import provenance
from models.training.scorers import JudgeClassifier
from models.training.trials import Options

NEW_SESSIONS = "new sessions"
# Digits of a hash that tell files apart.
DIGITS = 16

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for, beside the settings.

    Attributes
    ----------
    training, validation : sets that the other decoders learn from and are tuned on.
    test : set that is painted and named; it must say what its pictures look like.
    also : more sets for the other decoders, by name, as "other subjects".
    classifier : judge:FOLDER.
    clip : folder of the small CLIP.
    painter : folder of a U-Net, VAE and scheduler that paint captions; None takes the bundle's.
    sessions : simulated anew for the parts that need a stream.
    new_subjects : that are calibrated with.
    limit : trials that are painted, drawn by the seed; 0 takes all.
    eegnet_steps : of EEGNet's training.
    zero_shot : a bundle that learnt no EEG of some concepts, and a set of these alone; or neither.
    ablation : folder that `phosphene ablate` wrote, or None.
    """

    training: Path
    validation: Path
    test: Path
    also: Mapping[str, Path]
    classifier: str
    clip: Path
    painter: Path | None
    sessions: Sessions
    new_subjects: Sequence[int]
    limit: int
    eegnet_steps: int
    zero_shot: tuple[Path, Path] | None = None
    ablation: Path | None = None


@dataclass(frozen=True)
class Inputs:
    """All of it, opened.

    Attributes
    ----------
    settings : with the seed and the device.
    out : folder of the results.
    wanted : what was asked for.
    folder, painter : the bundle.
    spec : of its epochs.
    judge : reads pictures.
    training, validation, test, also : prepared sets, as `Wanted` says.
    say : takes lines.
    """

    settings: Settings
    out: Path
    wanted: Wanted
    folder: Path
    painter: KeyframePainter
    spec: EpochSpec
    judge: JudgeClassifier
    training: PreparedSet
    validation: PreparedSet
    test: PreparedSet
    also: Mapping[str, PreparedSet]
    say: Say

    @classmethod
    def open(cls, settings: Settings, bundle: str, out: Path, wanted: Wanted, say: Say) -> Self:
        """Open everything, and see that it goes together.

        Raises
        ------
        SettingsError, BundleError, PreparedSetError, ScorerError
            In one sentence, before anything is written.
        """
        if not wanted.classifier.startswith("judge:"):
            raise SettingsError(
                "The results page needs the scale model's judge, which reads colours and places, "
                f"too: --classifier expects judge:FOLDER, not '{wanted.classifier}'."
            )
        if not wanted.clip.is_dir():
            raise SettingsError(
                f"There is no CLIP at {wanted.clip}. Give --clip the folder `clip` that "
                "`phosphene scale-model clip` wrote."
            )
        if NEW_SESSIONS in wanted.also:
            raise SettingsError(
                f"'{NEW_SESSIONS}' is what --test is called. Give --test-also another name."
            )
        sets = (wanted.training, wanted.validation, wanted.test)
        training, validation, test = (PreparedSet(folder) for folder in sets)
        also = {name: PreparedSet(folder) for name, folder in wanted.also.items()}
        every = (training, validation, test, *also.values())
        left_out = [PreparedSet(wanted.zero_shot[1])] if wanted.zero_shot else []
        for data in (*every, *left_out):
            check_difficulty(data, wanted.sessions.parameters)
        check_unseen([training, validation], [test, *also.values(), *left_out], wanted.sessions)
        check_new([training, validation], wanted.new_subjects)
        folder = find_bundle(bundle)
        if wanted.zero_shot:
            second, some = wanted.zero_shot
            wanted = replace(wanted, zero_shot=(find_bundle(str(second)), some))
            check_left_out(left_out[0])
        if wanted.ablation:
            check_ablation(wanted.ablation, wanted.sessions.parameters)
        painter = open_painter(settings, folder)
        judge = named_classifier(wanted.classifier, painter.pipeline.device)
        assert isinstance(judge, JudgeClassifier)
        judge.classes_of([c.name for c in concepts()])
        for data in every:
            our_decoder(painter.pipeline, data)
        return cls(
            settings=settings,
            out=out,
            wanted=wanted,
            folder=folder,
            painter=painter,
            spec=read_epoch_spec(folder),
            judge=judge,
            training=training,
            validation=validation,
            test=test,
            also=also,
            say=say,
        )

    @property
    def scored(self) -> Scored:
        """How the bundle's pictures are evaluated."""
        w = self.wanted
        return Scored(classifier=w.classifier, clip=str(w.clip), limit=w.limit)

    @property
    def options(self) -> Options:
        """How the bundle paints."""
        return options_of(self.settings, self.folder, self.painter, self.test, self.scored)

    @property
    def captions_by(self) -> Path:
        """The folder whose U-Net paints captions."""
        return self.wanted.painter or self.folder

    @property
    def caption_options(self) -> Options:
        """How captions are painted: by a bundle as it paints EEG."""
        if self.wanted.painter is None:
            return self.options
        return replace(self.options, steps=STEPS, guidance=GUIDANCE)

    @property
    def tests(self) -> dict[str, PreparedSet]:
        """All sets that are tested on, by name."""
        return {NEW_SESSIONS: self.test, **self.also}

    @cached_property
    def peers(self) -> dict[str, Predictor]:
        """The other decoders, trained once for all parts."""
        config = EEGNetConfig(steps=self.wanted.eegnet_steps)
        folder = self.out / "eegnet"
        return train_peers(self.training, self.validation, folder, config, self.say)

    @cached_property
    def identity(self) -> dict[str, str]:
        """What all parts of a folder have in common."""
        w, p, made = self.wanted, self.wanted.sessions.parameters, provenance(self.folder)
        judge = Path(w.classifier.removeprefix("judge:"))
        return {
            "bundle": _named(self.folder, made["bundle_sha256"]),
            "painter of captions": _named(self.captions_by, folder_digest(self.captions_by)),
            "judge": _named(judge, folder_digest(judge)),
            "CLIP": _named(w.clip, folder_digest(w.clip)),
            "training set": _named(w.training, self.training.digest()),
            "validation set": _named(w.validation, self.validation.digest()),
            **{
                f"test set, {name}": _named(data.folder, data.digest())
                for name, data in self.tests.items()
            },
            "difficulty": p.difficulty,
            "subject parameters": f"version {p.version}, digest {p.digest()}",
            "simulated anew": f"subject {w.sessions.subject}, sessions "
            f"{', '.join(map(str, w.sessions.numbers))}, {w.sessions.n_trials} pictures each",
            "new subjects": ", ".join(map(str, w.new_subjects)),
            "painted trials": str(w.limit or "all"),
            "steps of EEGNet": str(w.eegnet_steps),
            **self._zero_shot_identity(),
            **self._ablation_identity(),
            "seed": str(self.settings.seed),
            "device": str(self.painter.pipeline.device),
            "versions": ", ".join(f"{name} {number}" for name, number in made["versions"].items()),
        }

    def _zero_shot_identity(self) -> dict[str, str]:
        if self.wanted.zero_shot is None:
            return {}
        bundle, data = self.wanted.zero_shot
        return {
            "bundle without some concepts": _named(bundle, provenance(bundle)["bundle_sha256"]),
            "test set of these": _named(data, PreparedSet(data).digest()),
        }

    def _ablation_identity(self) -> dict[str, str]:
        if self.wanted.ablation is None:
            return {}
        digest = hashlib.sha256((self.wanted.ablation / TABLE).read_bytes()).hexdigest()
        return {"ablations": _named(self.wanted.ablation, digest)}


def check_difficulty(data: PreparedSet, parameters: SimulationParameters) -> None:
    """See that a set was simulated with these parameters alone.

    Raises
    ------
    PreparedSetError
    """
    found = {row.get("parameters") for row in data.spec.get("sources", [])}
    if found != {parameters.digest()}:
        raise PreparedSetError(
            f"{data.folder} was not simulated at difficulty '{parameters.difficulty}' (version "
            f"{parameters.version} of the parameters) alone. Prepare it anew, or give its own "
            "with --difficulty."
        )


def check_unseen(
    learnt: Iterable[PreparedSet], tests: Iterable[PreparedSet], sessions: Sessions
) -> None:
    """See that no session is both learnt from and measured.

    Raises
    ------
    PreparedSetError
    """
    measured = {(sessions.subject, number) for number in sessions.numbers}
    measured.update(*(_sessions_of(data) for data in tests))
    for data in learnt:
        if common := sorted(measured & _sessions_of(data)):
            subject, session = common[0]
            raise PreparedSetError(
                f"Session {session} of subject {subject} is in {data.folder}, which the other "
                "decoders learn from, and would be measured, too. Measure others."
            )


def check_left_out(data: PreparedSet) -> None:
    """See that a set shows some of the concepts and not all.

    Raises
    ------
    PreparedSetError
    """
    label = data.epochs()["label"]
    if label[label >= 0].unique().numel() == len(concepts()):
        raise PreparedSetError(
            f"{data.folder} shows all {len(concepts())} concepts, so none is left out. Prepare it "
            "with --concepts."
        )


def check_ablation(folder: Path, parameters: SimulationParameters) -> None:
    """See that a table of ablations is there, of EEG simulated with these parameters alone.

    Raises
    ------
    TrainingError
    """
    if read_ablation(folder)["parameters"] != [parameters.digest()]:
        raise TrainingError(
            f"{folder} was not measured on EEG of difficulty '{parameters.difficulty}' (version "
            f"{parameters.version} of the parameters) alone. Run `phosphene ablate` on a set that "
            "is."
        )


def check_new(learnt: Iterable[PreparedSet], subjects: Iterable[int]) -> None:
    """See that no subject who is calibrated with was learnt from before.

    Raises
    ------
    PreparedSetError
    """
    for data in learnt:
        if common := sorted(set(subjects) & {subject for subject, _ in _sessions_of(data)}):
            raise PreparedSetError(
                f"Subject {common[0]} is in {data.folder}, which is learnt from, and so is nobody "
                "new. Give --new-subject others."
            )


def tested_sessions(data: PreparedSet, parameters: SimulationParameters) -> list[Sessions]:
    """The sessions that a set was cut from, each as long as there."""
    return [
        Sessions(
            parameters,
            row["subject"],
            [row["session"]],
            round(row["seconds"] / SECONDS_PER_TRIAL),
        )
        for row in data.spec["sources"]
    ]


def _sessions_of(data: PreparedSet) -> set[tuple[int, int]]:
    return {(row["subject"], row["session"]) for row in data.spec["sources"]}


def _named(folder: Path, digest: str) -> str:
    return f"`{folder.resolve().name}`, {digest[:DIGITS]}"
