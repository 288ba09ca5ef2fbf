"""The commands `phosphene results` and `phosphene results-page`; nothing heavy is imported."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.errors import ExitCode, SettingsError
from app.settings import Settings
from app.settings_flags import takes_settings
from app.terminal import say


@takes_settings("seed", "threads", "device")
def results(
    settings: Settings,
    bundle: Annotated[str, typer.Argument(help="Folder of the bundle.")],
    out: Annotated[Path, typer.Argument(help="Folder of the parts and of results.md.")],
    training: Annotated[Path, typer.Option(help="Prepared set that other decoders learn from.")],
    validation: Annotated[Path, typer.Option(help="Prepared set that they are tuned on.")],
    test: Annotated[Path, typer.Option(help="Prepared set that is measured, with --images.")],
    classifier: Annotated[str, typer.Option(help="judge:FOLDER, who names the pictures.")],
    clip: Annotated[Path, typer.Option(help="Folder of the small CLIP.")],
    test_also: Annotated[
        list[str] | None,
        typer.Option(
            help="More sets for the other decoders, as 'other subjects=FOLDER'; may be repeated."
        ),
    ] = None,
    painter: Annotated[
        Path | None,
        typer.Option(help="Folder with unet, vae and scheduler to paint captions, if not BUNDLE."),
    ] = None,
    subject: Annotated[int, typer.Option(min=0, help="Simulated for live and electrodes.")] = 0,
    session: Annotated[
        list[int] | None, typer.Option(help="Of that subject; may be repeated. [default: 100]")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Pictures of each of these sessions.")] = 200,
    new_subject: Annotated[
        list[int] | None,
        typer.Option(help="Calibrated with; may be repeated. [default: 20 and 21]"),
    ] = None,
    difficulty: Annotated[str, typer.Option(help="demo or literature, of all EEG.")] = "demo",
    limit: Annotated[
        int, typer.Option(min=0, help="Trials to evaluate, drawn by the seed; 0 takes all.")
    ] = 0,
    eegnet_steps: Annotated[int, typer.Option(min=1, help="Of EEGNet's training.")] = 5000,
    parts: Annotated[
        str,
        typer.Option(
            help="Some of evaluation, steps, live, listening, peers, by-class, electrodes, "
            "calibration, zero-shot and ablation, with commas; else all."
        ),
    ] = "",
    zero_shot_bundle: Annotated[
        Path | None,
        typer.Option(help="Folder of a bundle that learnt no EEG of some concepts."),
    ] = None,
    zero_shot_test: Annotated[
        Path | None, typer.Option(help="Prepared set of these concepts alone, with --images.")
    ] = None,
    ablation: Annotated[
        Path | None, typer.Option(help="Folder that `phosphene ablate` wrote.")
    ] = None,
) -> None:
    """Measure a bundle of the scale model in every way, on one page.

    Started again with the same folder it goes on with the parts that are missing.
    """
    from acquisition.simulation_parameters import of_difficulty
    from app.quiet import silence_libraries
    from app.results.inputs import Wanted
    from app.results.page import make_page
    from app.results.stream import Sessions

    if not settings.debug:
        silence_libraries()
    wanted = Wanted(
        training=training,
        validation=validation,
        test=test,
        also=to_sets(test_also or []),
        classifier=classifier,
        clip=clip,
        painter=painter,
        sessions=Sessions(of_difficulty(difficulty), subject, session or [100], trials),
        new_subjects=new_subject or [20, 21],
        limit=limit,
        eegnet_steps=eegnet_steps,
        zero_shot=to_zero_shot(zero_shot_bundle, zero_shot_test),
        ablation=ablation,
    )
    command = shlex.join(["phosphene", *sys.argv[1:]])
    try:
        print(make_page(settings, bundle, out, wanted, parts, command, say))
    except KeyboardInterrupt:
        say(f"Stopped. The same command goes on with the parts that {out} lacks.")
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None


def to_sets(texts: list[str]) -> dict[str, Path]:
    """Sets by name, from texts as "other subjects=FOLDER".

    Raises
    ------
    SettingsError
        A text is none of these, or a name comes twice.
    """
    sets: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder or name in sets:
            raise SettingsError(
                f"--test-also expects NAME=FOLDER with a name of its own, not '{text}'."
            )
        sets[name] = Path(folder)
    return sets


def to_zero_shot(bundle: Path | None, test: Path | None) -> tuple[Path, Path] | None:
    """Both folders, or neither.

    Raises
    ------
    SettingsError
        One of them alone was given.
    """
    if bundle is not None and test is not None:
        return bundle, test
    if bundle is not None or test is not None:
        raise SettingsError(
            "--zero-shot-bundle and --zero-shot-test go together. Give both, or neither."
        )
    return None


def results_page(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `results` wrote.")],
    to: Annotated[Path, typer.Option(help="File that is written, as docs/results.md.")],
) -> None:
    """Put the pages of several folders, as of both difficulties, into one file."""
    from app.results.page import join_pages

    join_pages(folders, to)
    say(f"{to} holds {len(folders)} pages.")
