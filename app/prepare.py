"""Make prepared sets (see `models.training.prepared`).

From pictures; from recordings, MOABB's data sets and the simulated subject, through the
same acquisition code as live use: `EpochStream` cuts the same epochs from the same samples;
and from data sets of trials that others have cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from safetensors import safe_open

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import EpochKind, EpochStream
from acquisition.montage import Montage
from acquisition.source import SourceOptions, parse_source
from acquisition.stimuli import Composition, concepts, random_composition
from app.continuous import (
    Labels,
    open_moabb,
    open_recording,
    open_simulated,
    prepare_epochs,
)
from app.epoch_shards import EpochShards, writing
from app.errors import SettingsError
from app.picture_shards import PictureShards
from app.pictures import render
from app.skipped import Skipped
from app.stimulus_images import StimulusFolder, StimulusImages
from app.trials import Facts, TrialSet, units
from models.training.confounding import confounding

PIXELS = 128
CONTINUOUS = ("xdf", "file", "moabb")
TRIALS = ("eeg-imagenet", "things-eeg2")


def to_kinds(text: str) -> tuple[EpochKind, ...]:
    """Read `--epochs`.

    >>> to_kinds("sliding,marker-locked")
    ('sliding', 'marker-locked')
    """
    kinds = [kind for kind in get_args(EpochKind) if kind in text.split(",")]
    if len(kinds) != len(text.split(",")):
        raise SettingsError(
            f"--epochs expects sliding, marker-locked, or both with a comma, not '{text}'."
        )
    return tuple(kinds)


def to_concepts(text: str) -> frozenset[int]:
    """Read `--concepts`.

    >>> sorted(to_concepts("fish,cat"))
    [1, 7]
    """
    names = {c.name: label for label, c in enumerate(concepts())}
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in names]:
        raise SettingsError(
            f"--concepts: the simulated subject sees no '{unknown[0]}'. It sees: "
            f"{', '.join(names)}."
        )
    return frozenset(names[name] for name in wanted)


def to_labels(text: str) -> dict[str, int]:
    """Read `--labels`.

    >>> to_labels("1=0,onset/cat=1")
    {'1': 0, 'onset/cat': 1}
    """
    pairs = [part.rpartition("=") for part in text.split(",") if part]
    if not all(name and number.isdecimal() for name, _, number in pairs):
        raise SettingsError(
            f"--labels expects markers and their numbers, as 1=0,2=1, not '{text}'."
        )
    return {name: int(number) for name, _, number in pairs}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a prepared set shall hold.

    Attributes
    ----------
    spec : of the epochs.
    kinds : of the epochs.
    seconds : of each simulated source.
    labels : see `Labels`.
    options : what the operator says about recordings.
    stimuli : folder of the images that recordings' markers name; see `StimulusFolder`.
    with_images : whether to draw what the simulated subject saw.
    concepts : labels of the concepts whose epochs are kept of what the simulated subject saw;
        empty: all.
    pixels : side of the pictures.
    """

    spec: EpochSpec
    kinds: tuple[EpochKind, ...] = ("marker-locked",)
    seconds: float = 600.0
    labels: Mapping[str, int] = field(default_factory=dict)
    options: SourceOptions = field(default_factory=SourceOptions)
    stimuli: Path | None = None
    with_images: bool = False
    concepts: frozenset[int] = frozenset()
    pixels: int = PIXELS


def write_compositions(out: Path, compositions: list[Composition]) -> None:
    """Write what pictures show and how, which their captions say in words."""
    with writing(out):
        text = json.dumps([c.to_dict() for c in compositions])
        (out / "compositions.json").write_text(text, encoding="utf-8")


def write_pictures(out: Path, compositions: list[Composition], pixels: int) -> None:
    """Render compositions into the pictures of a prepared set, with captions."""
    shards = PictureShards(out, pixels)
    for c in compositions:
        shards.append(render(c, pixels), c.label, c.caption)
    shards.flush()


def prepare_pictures(out: Path, n: int, seed: int, pixels: int = PIXELS) -> None:
    """Draw `n` random compositions, every concept equally often."""
    rng = np.random.default_rng(seed)
    n_concepts = len(concepts())
    drawn = [random_composition(rng, i % n_concepts) for i in range(n)]
    write_pictures(out, drawn, pixels)
    write_compositions(out, drawn)
    spec = {
        "kind": "pictures of the 40 concepts, drawn from Noto Color Emoji (OFL)",
        "concepts": [c.name for c in concepts()],
        "pixels": pixels,
        "seed": seed,
    }
    with writing(out):
        (out / "spec.json").write_text(json.dumps(spec, indent=2), encoding="utf-8")


def prepare_sources(
    out: Path,
    sources: Sequence[str],
    wanted: Wanted,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Write the epochs of sources into a prepared set, and say how in `spec.json`.

    Parameters
    ----------
    out : folder of the set; must not hold epochs yet.
    sources : all of one family: `simulated:?subject=0&session=1&seed=1`; `xdf:FILE` and
        `file:FILE` (which may say `subject=`, `session=` and `run=`, else 0, 0 and its
        place) and `moabb:NAME`; `eeg-imagenet:FILE`; `things-eeg2:FOLDER`.
    say : told what was left out, and what whoever uses the set should know.

    Returns
    -------
    number of epochs.

    Raises
    ------
    SettingsError, SourceError, StreamInfoError, MontageError, SummaryError
    """
    named = [(source, *parse_source(source)) for source in sources]
    family = _family({kind for _, kind, _, _ in named}, sources, wanted)
    writer = _Writer(out, wanted)
    write = writer.write_trials if family in TRIALS else writer.write_continuous
    rows, facts = write(named)
    writer.flush()
    measured = confounding(_small_columns(out), facts.is_block_design)
    spec: dict[str, Any] = {
        "kind": f"epochs ({', '.join(wanted.kinds)})",
        "honesty": "simulated" if family == "simulated" else "replay",
        "epoch_spec": wanted.spec.to_dict(),
        "sources": rows,
        **facts.to_dict(),
        "skipped": writer.skipped.to_dict(),
        "confounding": measured.to_dict(),
    }
    if family == "simulated":
        spec["concepts"] = list(facts.labels)
    # Last: a folder without it is no prepared set, should this be interrupted.
    with writing(out):
        (out / "spec.json").write_text(json.dumps(spec, indent=2), encoding="utf-8")
    for sentence in (*writer.skipped.sentences(), *facts.notes, measured.warning):
        if sentence:
            say(sentence)
    return writer.shards.n_epochs


def _family(kinds: set[str], sources: Sequence[str], wanted: Wanted) -> str:
    """What the sources have in common, or a sentence about what is wrong with them."""
    if not kinds or not (
        kinds <= set(CONTINUOUS) or (len(kinds) == 1 and kinds <= {"simulated", *TRIALS})
    ):
        raise SettingsError(
            "A prepared set is made from recordings (xdf:, file:, moabb:), or from simulated: "
            "sources, or from one of eeg-imagenet: and things-eeg2:, never from several of these "
            f"nor from others; found {', '.join(sources) or 'none'}."
        )
    if "moabb" in kinds and wanted.kinds != ("sliding",):
        raise SettingsError(
            "MOABB's data show no pictures, so only sliding epochs are made of them: "
            "add --epochs sliding."
        )
    if wanted.concepts and (kinds != {"simulated"} or wanted.kinds != ("marker-locked",)):
        # A sliding epoch in which another concept was seen would count as one of nothing.
        raise SettingsError(
            "--concepts chooses among marker-locked epochs of simulated: sources only; leave it "
            "out, or leave --epochs marker-locked."
        )
    if kinds & set(TRIALS) and wanted.kinds != ("marker-locked",):
        raise SettingsError(
            f"{kinds.pop()}: holds trials that are cut already; leave --epochs marker-locked."
        )
    return "recordings" if kinds <= set(CONTINUOUS) else kinds.pop()


def _small_columns(folder: Path) -> dict[str, np.ndarray]:
    """The columns of a set's epochs, all but the EEG."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in EpochShards.NUMBERS}
    for path in sorted(folder.glob("epochs-*.safetensors")):
        with safe_open(path, framework="numpy") as shard:
            for name, parts in columns.items():
                parts.append(shard.get_tensor(name))
    return {name: np.concatenate([np.empty(0), *parts]) for name, parts in columns.items()}


# A source's whole name, its kind, target and parameters.
_Named = tuple[str, str, str, dict[str, str]]


class _Writer:
    """Writes sources into a set; holds a shard of epochs and one of pictures."""

    def __init__(self, out: Path, wanted: Wanted) -> None:
        self._out, self._wanted = out, wanted
        self.shards = EpochShards(out)
        self.skipped = Skipped()
        self._pictures = PictureShards(out, wanted.pixels)
        self._images = StimulusImages(self._pictures, self.skipped)

    def flush(self) -> None:
        """Write what is held."""
        self.shards.flush()
        if len(self._pictures):
            self._pictures.flush()

    def write_trials(self, named: Sequence[_Named]) -> tuple[list[dict[str, Any]], Facts]:
        """Data sets of trials; what is said of each source, and of the set."""
        rows, facts = [], Facts()
        for source, kind, target, parameters in named:
            trials = self._open_trials(kind, target, parameters)
            n_before = self.shards.n_epochs
            for epoch, numbers in trials.epochs:
                self.shards.append(epoch, **numbers)
            rows.append(
                {
                    "source": source,
                    "treatment": trials.treatment,
                    "n_epochs": self.shards.n_epochs - n_before,
                    "fidelity": trials.fidelity,
                }
            )
            facts = trials.facts
        return rows, facts

    def _open_trials(self, kind: str, target: str, parameters: dict[str, str]) -> TrialSet:
        images = self._images if "images" in parameters else None
        spec, options = self._wanted.spec, self._wanted.options
        if kind == "eeg-imagenet":
            from app.eeg_imagenet import open_eeg_imagenet

            return open_eeg_imagenet(target, parameters, spec, options, images, self.skipped)
        from app.things_eeg2 import open_things_eeg2

        return open_things_eeg2(target, parameters, spec, images, self.skipped)

    def write_continuous(self, named: Sequence[_Named]) -> tuple[list[dict[str, Any]], Facts]:
        """Recordings or simulated sessions; what is said of each source, and of the set."""
        wanted = self._wanted
        rows: list[dict[str, Any]] = []
        seen: list[Composition] = []
        what_of = (
            StimulusFolder(wanted.stimuli, self._images, self.skipped, dict(wanted.labels))
            if wanted.stimuli
            else Labels(wanted.labels)
        )
        for place, (source, kind, target, parameters) in enumerate(named):
            if kind == "simulated":
                found = open_simulated(parameters, wanted.seconds, seen, wanted.concepts)
            elif kind == "moabb":
                found = open_moabb(target, parameters, wanted.options)
            else:
                found = open_recording(target, parameters, place, wanted.options, what_of)
            for opened in found:
                montage = Montage.from_channels(opened.info.ch_names, wanted.spec)
                stream = EpochStream(opened.info, wanted.spec, montage, wanted.kinds)
                n_before = self.shards.n_epochs
                for epoch in prepare_epochs(opened.steps, stream, opened.what_of):
                    self.shards.append(epoch, **opened.numbers)
                rows.append(
                    {
                        "source": source,
                        **opened.numbers,
                        **opened.notes,
                        "n_epochs": self.shards.n_epochs - n_before,
                        "n_markers_missed": stream.n_markers_missed,
                        "fidelity": montage.fidelity,
                    }
                )
        is_simulated = named[0][1] == "simulated"
        if is_simulated:
            write_compositions(self._out, seen)
        if wanted.with_images and seen:
            write_pictures(self._out, seen, wanted.pixels)
        spec = wanted.spec
        numbers = {c.name: n for n, c in enumerate(concepts())} if is_simulated else what_of.labels
        return rows, Facts(
            labels=numbers,
            units=units(spec, "uV"),
            band=(spec.l_freq, spec.h_freq),
            is_block_design=False if is_simulated else None,
        )
