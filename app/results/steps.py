"""Pictures of the same EEG in one step of the U-Net and in more, side by side."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from app.errors import SummaryError
from app.results.answers import outputs
from app.results.controls import Controlled, nothing_like
from app.results.inputs import Inputs
from app.results.part import Part, Table, written
from models.training.metrics import Score
from models.training.seen import unit_pictures
from models.training.trials import CONDITIONS, N_NOISE, Trials

STEPS = (1, 2, 4, 8)
# Pages of several difficulties are joined, and keep their figures.
FIGURE = "results-steps-{}.jpg"
# Of the figure: pictures, how many of them side by side, pixels of each and of the words beside.
SHOWN, COLUMNS, SIDE, MARGIN = 40, 10, 96, 64


def measure(inputs: Inputs) -> Part:
    """Paint the test set's marker-locked trials in every number of steps, and draw some.

    Raises
    ------
    PreparedSetError, EpochShapeError
        The set and the bundle do not go together.
    SummaryError
        The figure cannot be written.
    """
    trials = Trials.choose(inputs.test, inputs.options)
    eeg = inputs.test.epochs().rows("eeg", trials.rows).float().numpy()
    seen = unit_pictures(inputs.test.pictures(), trials.images[torch.from_numpy(trials.image)])
    silent = nothing_like(eeg[:N_NOISE], inputs.options.seed)
    painted, named = {}, {}
    for steps in STEPS:
        painted[steps] = _paint(inputs, eeg, steps)
        kinds = (painted[steps], *(_paint(inputs, data, steps) for data in silent))
        said = [_named(inputs, pictures) for pictures in kinds]
        named[steps] = Controlled.of(said, trials.label, trials.image)
    rows, values = [], {}
    for steps, pictures in painted.items():
        scores = named[steps].scores()
        values[str(steps)] = {name: asdict(score) for name, score in scores.items()}
        off = "–"
        if steps != STEPS[-1]:
            each = (pictures - painted[STEPS[-1]]).abs().mean(dim=(1, 2, 3)).numpy()
            differs = Score.of(each.astype(float), trials.image)
            off = written(differs, ".3f")
            values[str(steps)][f"from {STEPS[-1]} steps"] = asdict(differs)
        rows.append([str(steps), *map(written, scores.values()), off])
    drawn = torch.from_numpy(np.random.default_rng(inputs.options.seed).permutation(len(trials)))
    path = inputs.out / FIGURE.format(inputs.wanted.sessions.parameters.difficulty)
    figure = draw({"seen": seen, **{str(n): x for n, x in painted.items()}}, drawn[:SHOWN])
    try:
        figure.save(path, quality=88)
    except OSError as error:
        raise SummaryError(
            f"{path} cannot be written ({error.strerror}). Free some room."
        ) from error
    return Part("In one step and in more", [_table(rows, trials.label, path.name)], values)


def _paint(inputs: Inputs, eeg: np.ndarray, steps: int) -> torch.Tensor:
    """Pictures (n, 3, H, W) of epochs (n, n_channels, n_times)."""
    options = replace(inputs.options, steps=steps)
    parts = outputs(inputs.painter.pipeline, eeg, options, f"{steps} step(s)")
    return torch.cat([torch.as_tensor(part.images).cpu() for part in parts])


def _named(inputs: Inputs, pictures: torch.Tensor) -> np.ndarray:
    """What the judge sees in pictures, (n,)."""
    some = pictures.split(inputs.options.batch)
    return np.asarray(torch.cat([inputs.judge(part).argmax(1).cpu() for part in some]))


def _table(rows: list[list[str]], label: np.ndarray, figure: str) -> Table:
    return Table(
        "Steps of the U-Net for a picture",
        ["steps", *CONDITIONS, f"from {STEPS[-1]} steps"],
        rows,
        [
            f"What the judge names in pictures of the same {len(label)} trials of simulated EEG, "
            f"all painted from the same noise; chance is {1 / len(np.unique(label)):.1%}. The last "
            f"column: mean difference of a pixel (0 to 1) from the picture of {STEPS[-1]} steps. "
            "Intervals are of 95 %.",
            f"![{SHOWN} trials drawn by seed: what was seen, and what is painted of its EEG in "
            f"{', '.join(map(str, STEPS))} steps]({figure})",
        ],
    )


def draw(pictures: dict[str, torch.Tensor], rows: torch.Tensor) -> Image.Image:
    """Bands of columns: of each picture the same place in every line.

    Parameters
    ----------
    pictures : (n, 3, H, W) in 0 to 1, by what stands beside their line.
    rows : which of them.
    """
    n_bands = -(-len(rows) // COLUMNS)
    height = SIDE * len(pictures) + SIDE // 4
    sheet = Image.new("RGB", (MARGIN + COLUMNS * SIDE, n_bands * height), "white")
    pen = ImageDraw.Draw(sheet)
    for band, some in enumerate(rows.split(COLUMNS)):
        for line, (name, all_of_them) in enumerate(pictures.items()):
            top = band * height + line * SIDE
            pen.text((4, top + SIDE // 2), name if line == 0 else f"{name} step(s)", "black")
            small = F.interpolate(all_of_them[some], (SIDE, SIDE), mode="area")
            pixels = (small.permute(0, 2, 3, 1) * 255).round().byte().numpy()
            for column, picture in enumerate(pixels):
                sheet.paste(Image.fromarray(picture), (MARGIN + column * SIDE, top))
    return sheet
