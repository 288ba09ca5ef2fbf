"""The commands about recorded sessions, and what people are calibrated with: `import-session`,
`rehearse-session`, `make-painter`, `calibrate` and `render` of `phosphene`; nothing heavy is
imported before one of them runs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from app.settings import Settings
from app.settings_flags import takes_settings
from app.terminal import say, time_left


@takes_settings("ch_names", "unit", "recordings")
def import_session(
    settings: Settings,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Recordings in their order: XDF, CSV, text, FIF, EDF, BDF, GDF ...; or the folder "
            "of a public set, as faces:FOLDER."
        ),
    ],
    subject: Annotated[str, typer.Option(help="Pseudonym of the person, as P01.")],
    labels: Annotated[
        str, typer.Option(help="Markers that count and their classes, as 1=left,2=right,3=offset.")
    ] = "",
    stimuli: Annotated[
        Path | None,
        typer.Option(help="Folder of the images that markers name; sub-folders are classes."),
    ] = None,
    run_gap: Annotated[
        float,
        typer.Option(min=0, help="Seconds without a trial that end a run; 0: a file is a run."),
    ] = 0.0,
    keep_days: Annotated[int, typer.Option(help="Days until it is to be deleted.")] = 90,
    consented: Annotated[
        bool, typer.Option("--consented", help="The person agreed to be recorded.")
    ] = False,
    licence: Annotated[
        str, typer.Option(help="Of published data and where they are from, in consent's place.")
    ] = "",
) -> None:
    """Make a session to calibrate with of recordings by other programs, or of public ones."""
    from datetime import datetime

    from acquisition.source import SourceOptions
    from app.import_session import Wanted, import_session
    from app.session_trials import to_classes

    options = SourceOptions(settings.ch_names, settings.unit)
    wanted = Wanted(to_classes(labels), stimuli, run_gap, licence, options)
    now = datetime.now().astimezone()
    folder = Path(settings.recordings)
    import_session(sources, folder, subject, keep_days, consented, wanted, now, say)


@takes_settings("bundle")
def rehearse_session(
    settings: Settings,
    out: Annotated[Path, typer.Argument(help="XDF file that is written; it must not exist.")],
    subject: Annotated[
        int, typer.Option(min=0, help="Number of the simulated person; nobody trained with 20.")
    ] = 20,
    minutes: Annotated[float, typer.Option(help="Of pictures and gaps; breaks are extra.")] = 15.0,
    electrodes: Annotated[
        str, typer.Option(help="Of the headset, as O1,O2,Oz,Pz; none: all 32.")
    ] = "",
    seed: Annotated[
        int, typer.Option(min=0, help="Another presents pictures anew to the same person.")
    ] = 0,
) -> None:
    """Write the recording of a presentation to a simulated person, without waiting for it."""
    from datetime import datetime

    from app.bundle import find_bundle
    from app.rehearse_session import Sitting, rehearse_session, to_electrodes

    sitting = Sitting(subject, seed=seed, ch_names=to_electrodes(electrodes))
    today = datetime.now().astimezone().date()
    rehearse_session(out, sitting, find_bundle(settings.bundle), minutes, today)
    say(
        f"{out} holds {minutes:g} minutes of pictures shown to simulated person {subject}, "
        f"{len(sitting.ch_names)} electrodes."
    )


@takes_settings()
def make_painter(
    _settings: Settings,
    pictures: Annotated[
        Path, typer.Argument(help="Folder with a folder of JPEG or PNG files for each class.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the new bundle; it must not exist.")],
    base: Annotated[
        str, typer.Option(help="Text-to-image model: a folder, or a name on the Hub.")
    ] = "stable-diffusion-v1-5/stable-diffusion-v1-5",
    adapter: Annotated[
        str, typer.Option(help="IP-Adapter for it: a folder, or a name on the Hub.")
    ] = "h94/IP-Adapter",
    clip: Annotated[
        str, typer.Option(help="CLIP that the adapter reads: a folder, or a name on the Hub.")
    ] = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    encoder: Annotated[
        str, typer.Option(help="Bundle whose encoder and epochs it takes over.")
    ] = "weights/scale-model",
    steps: Annotated[int, typer.Option(min=1, help="Of the sampler, noted in the bundle.")] = 20,
    guidance: Annotated[float, typer.Option(min=1, help="Likewise; 1: none.")] = 5.0,
) -> None:
    """Make a bundle that paints your pictures, with nobody's EEG yet: to calibrate people with."""
    from app.make_painter import make_painter
    from app.quiet import silence_libraries
    from models.training.config import FinetuneConfig

    silence_libraries()

    def config(eeg: str) -> FinetuneConfig:
        return FinetuneConfig(
            base=base, adapter=adapter, clip=clip, route="image", encoder=eeg,
            sampler_steps=steps, guidance=guidance,
        )  # fmt: skip

    make_painter(pictures, out, encoder, config, say)


def calibrate(
    sessions: Annotated[
        list[Path], typer.Argument(help="XDF sessions of one person, in the order of their time.")
    ],
    bundle: Annotated[
        str, typer.Option(help="Folder of the bundle that paints.")
    ] = "weights/scale-model",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the person's bundle and report; by default the session's."),
    ] = None,
) -> None:
    """Make a person's own bundle of their sessions, and say whether it works for them."""
    from app.bundle import find_bundle
    from app.calibrate import Progress, calibrate
    from app.personal import REPORT
    from app.quiet import silence_libraries
    from app.verdict import in_words

    silence_libraries()

    folder = out or sessions[0].parent
    begun = time.monotonic()

    def tell(progress: Progress) -> None:
        left = time_left(progress.done, time.monotonic() - begun)
        say(f"{progress.done:4.0%}{left} {progress.what}")

    report = calibrate(sessions, find_bundle(bundle), folder, tell)
    say(in_words(report))
    say(f"The report is {folder / REPORT}.")


@takes_settings("bundle")
def render(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="Recording of a session that was painted.")],
    out: Annotated[Path, typer.Argument(help="Folder of the film and its frames.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda, if not as before.")] = "",
) -> None:
    """Paint a recorded session again: a film, a contact sheet, frames, beside what was seen."""
    from app.render import render

    render(file, out, settings.bundle, device, say)
