"""The commands of the stages that only the scale model has: `phosphene scale-model`.

Where training starts from Stable Diffusion and CLIP, these are not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.stage_flags import PREPARED_TEXT, STAGE_TEXT, takes_config
from app.terminal import say
from models.training.scale_config import (
    AlignConfig,
    ClipConfig,
    DecoderConfig,
    IpAdapterConfig,
    JudgeConfig,
    TextToImageConfig,
    VaeConfig,
)

app = typer.Typer(
    help="Train what the scale model has in place of Stable Diffusion and CLIP, and its judge.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PICTURES_TEXT = "Folder of pictures (`phosphene prepare --pictures`), or of EEG with --images."
HELD_OUT_TEXT = "Prepared set that is scored and never trained on."
CLIP_TEXT = "Folder of the small CLIP (`phosphene scale-model clip`)."

Pictures = Annotated[Path, typer.Argument(help=PICTURES_TEXT)]
Out = Annotated[Path, typer.Argument(help=STAGE_TEXT)]
Vae = Annotated[Path, typer.Option(help="Folder of the VAE (`phosphene scale-model vae`).")]
Clip = Annotated[Path, typer.Option(help=CLIP_TEXT)]


@app.command()
@takes_config(VaeConfig)
def vae(config: VaeConfig, pictures: Pictures, out: Out) -> None:
    """Teach a VAE to keep pictures in small latents.

    Started again with the same folder it goes on from its checkpoint, as all stages.
    """
    from models.training.vae import train

    train(pictures, out, config, say)


@app.command()
@takes_config(ClipConfig)
def clip(config: ClipConfig, pictures: Pictures, out: Out) -> None:
    """Teach a small CLIP which caption belongs to which picture."""
    from models.training.clip import train

    train(pictures, out, config, say)


@app.command()
@takes_config(DecoderConfig)
def decoder(config: DecoderConfig, pictures: Pictures, out: Out, vae: Vae, clip: Clip) -> None:
    """Teach a VAE another decoder, sharper or quicker; its latents stay."""
    from models.training.decoder import train

    train(pictures, out, config, vae, clip, say)


@app.command()
@takes_config(TextToImageConfig)
def text_to_image(
    config: TextToImageConfig,
    pictures: Pictures,
    out: Out,
    vae: Vae,
    clip: Clip,
) -> None:
    """Teach a U-Net to paint from captions: the base that fine-tuning starts from."""
    from models.training.text_to_image import train

    train(pictures, out, config, vae, clip, say)


@app.command()
@takes_config(IpAdapterConfig)
def ip_adapter(
    config: IpAdapterConfig,
    pictures: Pictures,
    out: Out,
    base: Annotated[
        Path, typer.Option(help="Folder with unet, vae and scheduler, as a base or a bundle.")
    ],
    clip: Clip,
) -> None:
    """Teach an adapter to let a U-Net paint from CLIP's embeddings of pictures."""
    from models.training.ip_adapter import train

    train(pictures, out, config, base, clip, say)


@app.command()
@takes_config(AlignConfig)
def align(
    config: AlignConfig,
    prepared: Annotated[Path, typer.Argument(help=PREPARED_TEXT)],
    out: Out,
    encoder: Annotated[
        Path,
        typer.Option(
            help="Folder that `phosphene pretrain` wrote, or an earlier alignment that goes on."
        ),
    ],
    clip: Annotated[Path | None, typer.Option(help=CLIP_TEXT)] = None,
    held_out: Annotated[Path | None, typer.Option(help=HELD_OUT_TEXT)] = None,
) -> None:
    """Teach encoder and conditioner what CLIP says of the picture that was seen."""
    from models.training.align import train

    train(prepared, out, config, clip, encoder, held_out, say)


@app.command()
@takes_config(JudgeConfig)
def judge(
    config: JudgeConfig,
    pictures: Pictures,
    out: Out,
    held_out: Annotated[Path, typer.Option(help=HELD_OUT_TEXT)],
) -> None:
    """Teach a classifier of pictures, used to score and for nothing else."""
    from models.training.judge import train

    train(pictures, out, config, held_out, say)


@app.command()
def stimuli(
    base: Annotated[Path, typer.Argument(help="Folder with unet, vae and scheduler.")],
    out: Annotated[Path, typer.Argument(help="Folder of the pictures, as stimuli of a bundle.")],
    clip: Clip,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each concept.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Of compositions and noise.")] = 0,
) -> None:
    """Paint from captions what a simulated subject is shown."""
    from app.painted_stimuli import paint_stimuli

    paint_stimuli(base, clip, out, count, seed, say)
    say(f"{out} holds the pictures; in a bundle's folder, as stimuli, its subject is shown them.")


@app.command()
def reader(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle; its encoder is weighed in.")],
    out: Out,
    locked: Annotated[
        Path, typer.Option(help="Prepared set of marker-locked epochs with --images.")
    ],
    long: Annotated[
        Path, typer.Option(help="Set of long epochs in microvolts, of the same subject.")
    ],
    population: Annotated[Path, typer.Option(help="The same of many subjects.")],
    held_out: Annotated[Path, typer.Option(help=HELD_OUT_TEXT)],
    clip: Clip,
) -> None:
    """Give a bundle templates that read concepts beside its encoder, also of windows at any lag."""
    from models.training.scale_reader import train_reader

    train_reader(bundle, out, locked, long, held_out, clip, population, say)
