"""Draw faces and houses: **stand-ins** for the photographs of muse-lsl's N170 experiment.

Which photographs were shown is not recorded, only whether each was a face or a house. So
the pictures here are drawn anew, plainly, and stand for the category and nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

# A picture's id is its place here; so is the label of its epochs.
NAMES = ("house", "face")
CAPTIONS = NAMES
SUPERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Sketch:
    """A face or a house.

    Attributes
    ----------
    kind : "face" or "house".
    x, y : of its middle, in picture widths from the picture's middle.
    size : height in picture widths.
    width : relative to the usual.
    light, background : grey values, 0 to 1.
    """

    kind: str
    x: float = 0.0
    y: float = 0.0
    size: float = 0.8
    width: float = 1.0
    light: float = 0.85
    background: float = 0.5


SKETCHES = tuple(Sketch(name) for name in NAMES)


def draw_sketch(sketch: Sketch, pixels: int = 64) -> np.ndarray:
    """Draw a face or a house in greys.

    Returns
    -------
    array of shape (pixels, pixels, 3), uint8 RGB.
    """
    side = pixels * SUPERSAMPLING
    picture = Image.new("L", (side, side), round(255 * sketch.background))
    draw = ImageDraw.Draw(picture)
    light, dark = round(255 * sketch.light), round(255 * 0.25 * sketch.light)
    half = sketch.size * side / 2

    def box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Corners of a box around (x, y), all in units of half of the height."""
        middle_x = side * (0.5 + sketch.x) + x * half * sketch.width
        middle_y = side * (0.5 + sketch.y) + y * half
        wide, high = width * half * sketch.width / 2, height * half / 2
        return middle_x - wide, middle_y - high, middle_x + wide, middle_y + high

    if sketch.kind == "face":
        draw.ellipse(box(0, 0, 1.5, 2), fill=light)
        for eye in (-0.32, 0.32):
            draw.ellipse(box(eye, -0.2, 0.3, 0.18), fill=dark)
        draw.ellipse(box(0, 0.15, 0.16, 0.3), fill=(light + dark) // 2)
        draw.ellipse(box(0, 0.55, 0.6, 0.16), fill=dark)
    else:
        left, _, right, foot = box(0, 0.35, 1.7, 1.3)
        _, top, _, eaves = box(0, -0.65, 2, 0.7)
        draw.rectangle((left, eaves, right, foot), fill=light)
        overhang = 0.1 * half
        ridge = ((left + right) / 2, top)
        draw.polygon([(left - overhang, eaves), ridge, (right + overhang, eaves)], fill=dark)
        draw.rectangle(box(0, 0.7, 0.34, 0.6), fill=dark)
        for window in (-0.5, 0.5):
            draw.rectangle(box(window, 0.2, 0.36, 0.36), fill=dark)
    grey = picture.resize((pixels, pixels), Image.Resampling.BOX)
    return np.asarray(grey.convert("RGB"))


def vary(sketch: Sketch, rng: np.random.Generator) -> Sketch:
    """A face or house of the same kind, elsewhere, of another size and other greys."""
    return Sketch(
        sketch.kind,
        x=float(rng.uniform(-0.06, 0.06)),
        y=float(rng.uniform(-0.06, 0.06)),
        size=float(rng.uniform(0.65, 0.9)),
        width=float(rng.uniform(0.85, 1.15)),
        light=float(rng.uniform(0.75, 0.95)),
        background=float(rng.uniform(0.4, 0.6)),
    )
