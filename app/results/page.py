"""The results page: part after part, each kept when it is done; what `phosphene results` does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from app.errors import SettingsError, SummaryError
from app.evaluation import make_empty
from app.results import (
    ablation,
    by_class,
    calibration,
    electrodes,
    listening,
    live,
    peers,
    pictures,
    steps,
    zero_shot,
)
from app.results.inputs import Inputs, Say, Wanted
from app.results.part import Part
from app.settings import Settings
from models.training.stage import check_same_settings

IDENTITY = "identity.json"
PAGE = "results.md"
ZERO_SHOT = "zero-shot"
ABLATION = "ablation"


def _live(inputs: Inputs) -> Part:
    pipeline, sessions = inputs.painter.pipeline, inputs.wanted.sessions
    return live.measure(
        pipeline, inputs.spec, inputs.judge, sessions, inputs.options, inputs.say
    )  # fmt: skip


def _listening(inputs: Inputs) -> Part:
    pipeline, sessions = inputs.painter.pipeline, inputs.wanted.sessions
    return listening.measure(
        pipeline, inputs.spec, inputs.judge, sessions, inputs.options, inputs.say
    )  # fmt: skip


def _peers(inputs: Inputs) -> Part:
    return peers.measure(inputs.painter.pipeline, inputs.peers, inputs.tests)


def _by_class(inputs: Inputs) -> Part:
    painted = inputs.out / "by-class"
    # Of a run that was stopped.
    shutil.rmtree(painted, ignore_errors=True)
    return by_class.measure(
        inputs.painter.pipeline,
        inputs.judge,
        inputs.peers,
        inputs.training,
        inputs.test,
        pictures.comparison(inputs),
        painted,
    )


def _electrodes(inputs: Inputs) -> Part:
    return electrodes.measure(
        inputs.painter.pipeline,
        inputs.training,
        inputs.validation,
        inputs.test,
        inputs.wanted.sessions,
        inputs.say,
    )


def _calibration(inputs: Inputs) -> Part:
    wanted = inputs.wanted
    return calibration.measure(
        inputs.painter.pipeline,
        inputs.folder,
        inputs.judge,
        wanted.sessions,
        wanted.new_subjects,
        inputs.spec,
        inputs.options,
    )


# In the order of the page. The pictures of classes stand beside those of the evaluation.
PARTS: dict[str, Callable[[Inputs], Part]] = {
    "evaluation": pictures.measure,
    "steps": steps.measure,
    "live": _live,
    "listening": _listening,
    "peers": _peers,
    "by-class": _by_class,
    "electrodes": _electrodes,
    "calibration": _calibration,
    ZERO_SHOT: zero_shot.measure,
    ABLATION: ablation.measure,
}


def choose_parts(names: str, has_zero_shot: bool, has_ablation: bool) -> list[str]:
    """The parts that are named, separated by commas; all that can be measured if none is.

    Raises
    ------
    SettingsError
        There is no such part, or it lacks its bundle or its table.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in PARTS]:
        raise SettingsError(
            f"--parts expects {', '.join(PARTS)} or some of them, not '{unknown[0]}'."
        )
    if ZERO_SHOT in wanted and not has_zero_shot:
        raise SettingsError(
            f"The part {ZERO_SHOT} measures a second bundle. Give it with --zero-shot-bundle, and "
            "epochs of its left out concepts with --zero-shot-test."
        )
    if ABLATION in wanted and not has_ablation:
        raise SettingsError(
            f"The part {ABLATION} shows what `phosphene ablate` found. Give it with --ablation."
        )
    lacking = {ZERO_SHOT: not has_zero_shot, ABLATION: not has_ablation}
    return wanted or [name for name in PARTS if not lacking.get(name)]


def make_page(
    settings: Settings,
    bundle: str,
    out: Path,
    wanted: Wanted,
    parts: str,
    command: str,
    say: Say,
) -> str:
    """Measure what is missing in `out`, and write and return the page.

    Parameters
    ----------
    parts : names, separated by commas; all if none is named.
    command : the command line, for the page.

    Raises
    ------
    SettingsError, SummaryError, BundleError, PreparedSetError, ScorerError, TrainingError,
    EpochShapeError
    """
    chosen = choose_parts(parts, wanted.zero_shot is not None, wanted.ablation is not None)
    if "by-class" in chosen and "evaluation" not in (*chosen, *_done(out)):
        raise SettingsError(
            "The part by-class compares the pictures that the part evaluation paints. Give "
            "--parts both of them."
        )
    inputs = Inputs.open(settings.with_values(epochs="marker-locked"), bundle, out, wanted, say)
    _begin(out, inputs.identity)
    text = _write_page(out, command)
    for name, measure in PARTS.items():
        if name in chosen and name not in _done(out):
            say(f"Part {name}.")
            part = json.dumps(measure(inputs).to_dict(), indent=2, allow_nan=False)
            _write(out / f"{name}.json", part)
            text = _write_page(out, command)
    return text


def join_pages(folders: Iterable[Path], to: Path) -> None:
    """Write the pages of several folders, as of two difficulties, into one file.

    Raises
    ------
    SummaryError
        A folder has no page, or the file cannot be written.
    """
    texts = []
    for folder in folders:
        if not (folder / PAGE).is_file():
            raise SummaryError(
                f"{folder} holds no {PAGE}. Make it with `phosphene results` first."
            )  # fmt: skip
        texts.append((folder / PAGE).read_text(encoding="utf-8"))
    _write(to, "\n".join(texts))


def _done(out: Path) -> list[str]:
    return [name for name in PARTS if (out / f"{name}.json").is_file()]


def _begin(out: Path, identity: dict[str, str]) -> None:
    """Make the folder, or see that its parts are of the same bundle, sets and settings."""
    path = out / IDENTITY
    if path.is_file():
        check_same_settings(path, json.loads(path.read_text(encoding="utf-8")), identity)
        return
    make_empty(out)
    _write(path, json.dumps(identity, indent=2, ensure_ascii=False))


def _write_page(out: Path, command: str) -> str:
    """The page of what is there."""
    identity = json.loads((out / IDENTITY).read_text(encoding="utf-8"))
    done = {
        name: Part.from_dict(json.loads((out / f"{name}.json").read_text(encoding="utf-8")))
        for name in _done(out)
    }
    missing = [name for name in PARTS if name not in done]
    lines = [f"| {name} | {value} |" for name, value in identity.items()]
    text = "\n\n".join(
        [
            f"# Results, difficulty `{identity['difficulty']}`",
            "All EEG is simulated: these figures say how well the programs decode a simulated "
            "subject, and nothing of a person. Digests tell which bundle, sets and parameters "
            "they are of.",
            *(part.markdown() for part in done.values()),
            *([f"## Not measured\n\nThese parts: {', '.join(missing)}."] if missing else []),
            "## How it was made",
            f"```sh\n{command}\n```",
            "\n".join(["| what | which |", "| --- | --- |", *lines]) + "\n",
        ]
    )
    _write(out / PAGE, text)
    return text


def _write(path: Path, text: str) -> None:
    """Write a file, whole at once: its presence says that it is done."""
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise SummaryError(
            f"{path} cannot be written ({error.strerror}). Make room, or give another place."
        ) from error
