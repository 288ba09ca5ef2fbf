"""The command line: `phosphene`.

Whatever is slow to import (torch, mne, drivers) is imported inside the command that
needs it: `phosphene --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from app import scale_model, subjects_command
from app.errors import EXIT_CODE_TEXTS, exit_code, sentence
from app.results.command import results, results_page
from app.session_commands import (
    calibrate,
    import_session,
    make_painter,
    rehearse_session,
    render,
)
from app.settings import Settings
from app.settings_flags import takes_settings
from app.stage_flags import PREPARED_TEXT, STAGE_TEXT, takes_config
from app.terminal import say
from models.training.config import AblateConfig, DistillConfig, FinetuneConfig, PretrainConfig

EPILOGUE = "Exit codes: " + "; ".join(f"{c.value} {text}" for c, text in EXIT_CODE_TEXTS.items())

app = typer.Typer(
    name="phosphene",
    help="A person's EEG as a live stream of images of what they see.",
    epilog=EPILOGUE + ".",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

PAGE = ("bundle", "host", "port", "epochs", "seed", "threads", "device", "open_browser",
        "duration", "summary", "recordings", "pictures", "marker_outlet", "tls_cert", "tls_key",
        "allow_remote", "in_container", "log_level")  # fmt: skip
SOURCE = ("ch_names", "unit", "known_peers")


@app.command()
@takes_settings(*PAGE)
def demo(settings: Settings) -> None:
    """Show the simulated subject's EEG as pictures, in the browser.

    The decoder is told when a picture appears, never which. With --epochs sliding it is
    not told that either, and is right less often.
    """
    from app.serve import serve

    serve(settings.with_values(source="simulated:"), say, may_take_another_port=True)


@app.command()
@takes_settings("source", "also", *SOURCE, *PAGE)
def serve(settings: Settings) -> None:
    """Turn the EEG of a source into pictures on a page, until stopped."""
    from app.serve import serve

    serve(settings, say)


@app.command()
@takes_settings(*SOURCE, *PAGE)
def replay(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="Recording: XDF, CSV, text, FIF, EDF, BDF, GDF ...")],
    lsl: Annotated[
        bool, typer.Option("--lsl", help="Put the streams on LSL instead of painting them.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="With --lsl: begin at once, also if nobody listens.")
    ] = False,
    speed: Annotated[float, typer.Option(help="1 is the speed it was recorded at.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
) -> None:
    """Paint a recording as if it were live, or send it to LSL with --lsl."""
    if lsl:
        from acquisition.source import SourceOptions
        from app.lsl_outlets import send_to_lsl

        options = SourceOptions(settings.ch_names, settings.unit, settings.known_peers)
        send_to_lsl(file, options, say, speed=speed, is_looped=loop, waits=not now)
        return
    from app.serve import recording_source, serve

    serve(settings.with_values(source=recording_source(file, speed, loop)), say)


@app.command()
@takes_settings("source", *SOURCE, "bundle", "duration", "summary", "recordings", "log_level")
def record(
    settings: Settings,
    subject: Annotated[str, typer.Option(help="Pseudonym of the person, as P01.")],
    keep_days: Annotated[int, typer.Option(help="Days until it is to be deleted.")] = 90,
    consented: Annotated[
        bool, typer.Option("--consented", help="The person agreed to be recorded.")
    ] = False,
) -> None:
    """Write the raw EEG and the markers of a source to an XDF file, until stopped."""
    from app.serve import record

    record(settings, subject, keep_days, consented, say)


app.command("import-session")(import_session)
app.command("rehearse-session")(rehearse_session)


@app.command()
@takes_settings("known_peers")
def sources(
    settings: Settings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the LSL streams found and the boards that can be named."""
    from app.sources import find_sources, sources_text

    found = find_sources(settings.known_peers)
    print(json.dumps(found.to_dict(), indent=2) if as_json else sources_text(found))


@app.command()
@takes_settings("bundle", *SOURCE, "seed")
def prepare(
    settings: Settings,
    out: Annotated[Path, typer.Argument(help="Folder of the prepared set.")],
    files: Annotated[list[Path] | None, typer.Argument(help="Recordings to read.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Source, as simulated:?subject=0&session=1, moabb:NAME, eeg-imagenet:FILE or "
            "things-eeg2:FOLDER; may be repeated."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="EEG of each simulated source.")] = 600.0,
    spec: Annotated[
        Path | None, typer.Option(help="epoch_spec.json to prepare for, instead of a bundle's.")
    ] = None,
    epochs: Annotated[
        str, typer.Option(help="sliding or marker-locked, or both with a comma.")
    ] = "marker-locked",
    labels: Annotated[
        str, typer.Option(help="Markers of recordings that count and their labels, as 1=0,2=1.")
    ] = "",
    stimuli: Annotated[
        Path | None,
        typer.Option(help="Folder of the images that markers name; sub-folders are classes."),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Draw what the simulated subject saw, too.")
    ] = False,
    concepts: Annotated[
        str,
        typer.Option(
            help="Concepts of the simulated subject whose epochs are kept, as fish,cat; none: all."
        ),
    ] = "",
    pixels: Annotated[int, typer.Option(min=8, max=2048, help="Side of the pictures.")] = 128,
    pictures: Annotated[
        int, typer.Option(help="Draw this many random pictures instead of reading EEG.")
    ] = 0,
) -> None:
    """Write training data: EEG cut into epochs exactly as in live use, or pictures."""
    from acquisition.source import SourceOptions
    from app.bundle import find_bundle, read_epoch_spec, read_epoch_spec_file
    from app.prepare import (
        Wanted,
        prepare_pictures,
        prepare_sources,
        to_concepts,
        to_kinds,
        to_labels,
    )
    from app.serve import recording_source

    if pictures:
        prepare_pictures(out, pictures, settings.seed, pixels)
        return
    wanted = Wanted(
        spec=read_epoch_spec_file(spec) if spec else read_epoch_spec(find_bundle(settings.bundle)),
        kinds=to_kinds(epochs),
        seconds=seconds,
        labels=to_labels(labels),
        options=SourceOptions(settings.ch_names, settings.unit, settings.known_peers),
        stimuli=stimuli,
        with_images=images,
        concepts=to_concepts(concepts),
        pixels=pixels,
    )
    names = [*(source or []), *map(recording_source, files or [])]
    n_epochs = prepare_sources(out, names, wanted, say)
    say(f"{out} holds {n_epochs} epochs.")


CLASSIFIER_TEXT = "Who names the pictures: judge:FOLDER, or vit:NAME_OR_FOLDER (ImageNet)."


@app.command()
@takes_config(PretrainConfig)
def pretrain(
    config: PretrainConfig,
    prepared: Annotated[Path, typer.Argument(help=PREPARED_TEXT)],
    out: Annotated[Path, typer.Argument(help=STAGE_TEXT)],
    held_out: Annotated[
        Path | None, typer.Option(help="Prepared set that is scored and never trained on.")
    ] = None,
) -> None:
    """Teach an encoder to read EEG without labels: temporal masked signal modelling.

    Started again with the same folder it goes on from its checkpoint.
    """
    from models.training.pretrain import pretrain

    pretrain(prepared, out, config, held_out, say)


@app.command()
@takes_config(FinetuneConfig)
def finetune(
    config: FinetuneConfig,
    prepared: Annotated[Path, typer.Argument(help=PREPARED_TEXT)],
    out: Annotated[Path, typer.Argument(help=STAGE_TEXT)],
) -> None:
    """Teach encoder and cross-attention to paint what was seen, and write a bundle.

    Started again with the same folder it goes on from its checkpoint.
    """
    from models.training.finetune import finetune

    finetune(prepared, out, config, say)


@app.command()
@takes_config(DistillConfig)
def distill(
    config: DistillConfig,
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle that is learnt from.")],
    prepared: Annotated[Path, typer.Argument(help=PREPARED_TEXT)],
    out: Annotated[Path, typer.Argument(help=STAGE_TEXT)],
    pictures: Annotated[
        Path | None,
        typer.Option(help="Pictures with captions, that some rows are told in place of EEG."),
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="With --pictures: the small CLIP that reads captions.")
    ] = None,
) -> None:
    """Teach a bundle to paint in 1, 2 or 4 steps what it paints in many, and write a bundle.

    Started again with the same folder it goes on from its checkpoint.
    """
    from app.bundle import find_bundle
    from models.training.distill import distill

    distill(find_bundle(str(bundle)), prepared, out, config, say, pictures, clip)


@app.command("few-steps")
@takes_settings()
def few_steps(
    _settings: Settings,
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle of Stable Diffusion 1.5.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new bundle; it must not exist.")],
    lora: Annotated[
        str,
        typer.Option(
            help="LCM-LoRA for the U-Net, a folder or a name on the Hub as "
            "latent-consistency/lcm-lora-sdv1-5; none: the U-Net stays as it is."
        ),
    ] = "",
    vae: Annotated[
        str,
        typer.Option(
            help="Small autoencoder in the VAE's place, a folder or a name on the Hub as "
            "madebyollin/taesd; none: the VAE stays."
        ),
    ] = "",
    steps: Annotated[int, typer.Option(min=1, max=8, help="Of the sampler with --lora.")] = 2,
) -> None:
    """Make a bundle paint in few steps with what others have distilled."""
    from app.few_steps import make_few_steps

    make_few_steps(bundle, out, lora, vae, steps, say)


app.add_typer(scale_model.app, name="scale-model")


app.command("make-painter")(make_painter)
app.command()(calibrate)
app.add_typer(subjects_command.app, name="subjects")


@app.command()
@takes_config(AblateConfig)
def ablate(
    config: AblateConfig,
    prepared: Annotated[Path, typer.Argument(help=PREPARED_TEXT)],
    out: Annotated[Path, typer.Argument(help="Folder of all variants and of the table.")],
    classifier: Annotated[str, typer.Option(help=CLASSIFIER_TEXT)],
    unlabelled: Annotated[
        Path | None, typer.Option(help="Prepared set for pre-training, if not the same.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Prepared set that is scored, in place of held-out trials.")
    ] = None,
) -> None:
    """Train and score the variants of the paper's Table 2, several seeds each.

    Started again with the same folder it runs only what is not finished.
    """
    from app.evaluation import named_classifier
    from models.training.ablate import ablate

    named = named_classifier(classifier)
    print(ablate(prepared, out, config, named, unlabelled, test, say))


@app.command()
@takes_settings("seed", "threads", "device", epochs="marker-locked")
def rehearse(
    settings: Settings,
    out: Annotated[Path, typer.Argument(help="Folder of all stages and of the report.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="In seconds: it shows that it runs, and no more.")
    ] = False,
) -> None:
    """Run all stages of training on a small simulated set, up to an evaluation report.

    Started again with the same folder it goes on from where it was.
    """
    from app.quiet import silence_libraries
    from app.rehearse import QUICK, Rehearsal, rehearse

    if not settings.debug:
        silence_libraries()
    print(rehearse(settings, out, QUICK if quick else Rehearsal(), say))


@app.command("import")
@takes_settings()
def import_(
    _settings: Settings,
    checkpoint: Annotated[Path, typer.Argument(help="checkpoint.pth of DreamDiffusion's code.")],
    out: Annotated[Path, typer.Argument(help="Folder of the bundle; it must not exist.")],
    spec: Annotated[
        Path | None, typer.Option(help="epoch_spec.json of the bundle, if not EEG-ImageNet's.")
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(help="Attention heads of the EEG encoder, if not the file's or 16."),
    ] = None,
    unet_heads: Annotated[
        int | None, typer.Option(help="Attention heads of the U-Net, if not 8 as in SD 1.5.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels on a side of a picture, if not the file's or 512.")
    ] = None,
) -> None:
    """Make a bundle of a published checkpoint of DreamDiffusion, fine-tuned or pre-trained."""
    from app.checkpoints import import_checkpoint

    given = {"num_heads": heads, "unet_num_heads": unet_heads, "img_size": image_size}
    import_checkpoint(checkpoint, out, spec, given, say)


@app.command()
@takes_settings()
def export(
    _settings: Settings,
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle or of an imported encoder.")],
    out: Annotated[Path, typer.Argument(help="File that is written, as checkpoint.pth.")],
) -> None:
    """Write a bundle of Stable Diffusion 1.5's structure with DreamDiffusion's own names."""
    from app.checkpoints import export_folder

    export_folder(bundle, out, say)


@app.command()
@takes_settings("epochs", "seed", "threads", "device", epochs="marker-locked")
def evaluate(
    settings: Settings,
    bundle: Annotated[str, typer.Argument(help="Folder of the bundle.")],
    prepared: Annotated[Path, typer.Argument(help="Prepared set, made with --images.")],
    out: Annotated[Path, typer.Argument(help="Folder of the report; must be new or empty.")],
    classifier: Annotated[str, typer.Option(help=CLASSIFIER_TEXT)] = "",
    clip: Annotated[
        str, typer.Option(help="CLIP whose image encoder compares: folder, or name on the Hub.")
    ] = "",
    inception: Annotated[
        Path | None, typer.Option(help="Inception's weights for the FID, else downloaded.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, val, test or all, where the set has splits.")
    ] = "test",
    limit: Annotated[
        int, typer.Option(min=0, help="Trials to take, drawn by the seed; 0 takes all.")
    ] = 0,
    samples: Annotated[
        int, typer.Option(min=1, help="Pictures of each trial, whose mean counts.")
    ] = 1,
    n_way: Annotated[int, typer.Option(min=2, help="Classes that are compared.")] = 50,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampler steps, else as the bundle says.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=1, help="Guidance scale, else as the bundle says.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures that are painted at once.")] = 16,
) -> None:
    """Score a bundle's pictures, beside chance and beside EEG that says nothing."""
    from app.evaluation import Wanted, evaluate_bundle

    wanted = Wanted(
        classifier, clip, inception, steps, guidance, split, limit, samples, n_way, batch
    )
    print(evaluate_bundle(settings, bundle, prepared, out, wanted, say))


app.command()(render)
app.command()(results)
app.command()(results_page)


@app.command()
@takes_settings("bundle", "host", "port")
def doctor(
    settings: Settings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check whether everything needed is here, and say how to get what is not."""
    from app.doctor import examine, findings_text, is_well

    findings = examine(settings)
    if as_json:
        print(json.dumps([f.to_dict() for f in findings], indent=2))
    else:
        print(findings_text(findings))
    if not is_well(findings):
        from app.errors import ExitCode

        raise typer.Exit(int(ExitCode.DOCTOR))


def main() -> None:
    """Run the command line; an error becomes one sentence and an exit code."""
    try:
        app()
    except Exception as error:
        say(sentence(error))
        sys.exit(int(exit_code(error)))
