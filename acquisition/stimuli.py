"""What a simulated subject is shown: one of 40 concepts in a composition.

A composition says where and how the concept's picture stands on its background.
Its `features` (colour, size, place, outline) drive the early visual response of
the simulated subject; `app.pictures` renders the same composition as an image.
"""

from __future__ import annotations

import colorsys
import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.errors import SourceError

FEATURE_NAMES = (
    "background_luminance",
    "background_red_green",
    "background_blue_yellow",
    "object_luminance",
    "object_red_green",
    "object_blue_yellow",
    "size",
    "x",
    "y",
    "aspect",
    "fill",
    "edges",
    "axis_cos",
    "axis_sin",
)
N_FEATURES = len(FEATURE_NAMES)

# Hue in turns of the named background colours; captions use the names.
BACKGROUND_HUES = {
    "red": 0.0,
    "orange": 0.08,
    "yellow": 0.15,
    "green": 0.35,
    "cyan": 0.5,
    "blue": 0.61,
    "purple": 0.76,
    "pink": 0.9,
}


@dataclass(frozen=True, slots=True)
class Concept:
    """One of the 40 classes of EEG-ImageNet, as an emoji.

    The glyph's statistics (measured on Noto Color Emoji by
    `python -m app.pictures`) describe what the picture looks like.

    Attributes
    ----------
    wnid, imagenet_class : WordNet id and name of the class in EEG-ImageNet.
    imagenet_index : its place among the 1,000 classes of ImageNet-1k, which are in the order
        of their WordNet ids.
    name : one word, used in captions and on the page.
    code_point : of the emoji, hexadecimal.
    note : what the emoji shows instead, where it differs.
    rgb : mean colour of the glyph, each 0 to 1.
    aspect : log of width over height of the glyph's bounding box.
    fill : share of the bounding box that the glyph covers.
    edges : mean gradient of luminance inside the bounding box.
    elongation : 0 (round) to 1 (a line).
    axis : direction of the longer axis in radians, counter-clockwise from right.
    """

    wnid: str
    imagenet_class: str
    imagenet_index: int
    name: str
    code_point: str
    note: str
    rgb: tuple[float, float, float]
    aspect: float
    fill: float
    edges: float
    elongation: float
    axis: float

    @property
    def character(self) -> str:
        return chr(int(self.code_point, 16))


@cache
def concepts() -> tuple[Concept, ...]:
    """The 40 concepts, in the order of their labels."""
    rows = json.loads((Path(__file__).parent / "concepts.json").read_text(encoding="utf-8"))
    return tuple(Concept(**{**row, "rgb": tuple(row["rgb"])}) for row in rows)


@dataclass(frozen=True, slots=True)
class Composition:
    """A concept on a background; lengths are shares of the picture's side.

    Attributes
    ----------
    label : index of the concept.
    hue, saturation, value : background colour (HSV, each 0 to 1).
    gradient : change of `value` from one side of the background to the other.
    gradient_angle : its direction, radians.
    size : longer side of the glyph.
    x, y : centre of the glyph, from the left and from the top.
    rotation : radians, counter-clockwise.
    is_mirrored : whether left and right are exchanged.
    light : factor on the glyph's brightness.
    """

    label: int
    hue: float
    saturation: float
    value: float
    gradient: float
    gradient_angle: float
    size: float
    x: float
    y: float
    rotation: float
    is_mirrored: bool
    light: float

    @property
    def concept(self) -> Concept:
        return concepts()[self.label]

    @property
    def colour_name(self) -> str:
        """Name of the nearest background hue; grey where there is little colour."""
        if self.saturation < 0.15:
            return "white" if self.value > 0.8 else "grey"
        distance = {n: abs((self.hue - h + 0.5) % 1 - 0.5) for n, h in BACKGROUND_HUES.items()}
        return min(distance, key=distance.__getitem__)

    @property
    def caption(self) -> str:
        """A sentence that names concept, size, place and colour of the background."""
        size = "small" if self.size < 0.62 else "large" if self.size > 0.78 else "medium"
        across = "left" if self.x < 0.44 else "right" if self.x > 0.56 else "centre"
        down = "top" if self.y < 0.44 else "bottom" if self.y > 0.56 else "middle"
        return (
            f"a {size} {self.concept.name} on the {down} {across} "
            f"of a {self.colour_name} background"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_stimuli(folder: Path) -> dict[str, Composition]:
    """What the pictures of a folder show, by their names: its `stimuli.json`.

    Raises
    ------
    SourceError
        The file is missing, damaged or shows other concepts.
    """
    path = folder / "stimuli.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["stimuli"]
        stimuli = {str(name): Composition(**values) for name, values in found.items()}
        for composition in stimuli.values():
            features(composition)  # fails here, and not in the middle of a session
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read ({error.strerror}). Give the folder of a bundle's stimuli."
        ) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise SourceError(
            f"{path} does not say what its pictures show ({error}). Fetch the bundle again, or "
            "paint them anew by `phosphene scale-model stimuli`."
        ) from error
    missing = set(range(len(concepts()))) - {c.label for c in stimuli.values()}
    if missing:
        raise SourceError(
            f"{path} has no picture of {concepts()[min(missing)].name}. Paint them anew by "
            "`phosphene scale-model stimuli`."
        )
    return stimuli


def random_composition(rng: np.random.Generator, label: int) -> Composition:
    """Draw a composition of the concept `label`."""
    size = float(rng.uniform(0.5, 0.9))
    # The glyph may touch the border of the picture but is never cut by more than a tenth.
    slack = (1 - size) / 2 + 0.04
    hue = list(BACKGROUND_HUES.values())[int(rng.integers(len(BACKGROUND_HUES)))]
    return Composition(
        label=label,
        hue=float((hue + rng.normal(0, 0.015)) % 1),
        saturation=float(rng.uniform(0.35, 0.9))
        if rng.random() < 0.85
        else float(rng.uniform(0, 0.1)),
        value=float(rng.uniform(0.45, 0.95)),
        gradient=float(rng.uniform(-0.3, 0.3)),
        gradient_angle=float(rng.uniform(0, 2 * math.pi)),
        size=size,
        x=float(np.clip(0.5 + rng.uniform(-1, 1) * slack, 0, 1)),
        y=float(np.clip(0.5 + rng.uniform(-1, 1) * slack, 0, 1)),
        rotation=float(rng.uniform(-0.35, 0.35)),
        is_mirrored=bool(rng.random() < 0.5),
        light=float(rng.uniform(0.85, 1.15)),
    )


def _opponent(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """Luminance and the two opponent colour channels, each about -1 to 1."""
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return 2 * luminance - 1, red - green, blue - (red + green) / 2


# Mean and standard deviation of each raw feature over random compositions of all concepts.
_FEATURE_MEAN = np.array(
    [0.01, 0.04, -0.02, 0.17, 0.13, -0.21, 0.0, 0.0, 0.0, 0.07, -0.17, -0.03, 0.03, 0.0]
)
_FEATURE_STD = np.array(
    [0.35, 0.32, 0.27, 0.27, 0.21, 0.28, 0.58, 0.57, 0.57, 0.57, 0.89, 0.47, 0.46, 0.44]
)


def features(composition: Composition) -> np.ndarray:
    """What the picture looks like, each feature with mean 0 and variance 1 over compositions.

    Returns
    -------
    array of shape (14,), float64, in the order of `FEATURE_NAMES`.
    """
    c, concept = composition, composition.concept
    background = colorsys.hsv_to_rgb(c.hue, c.saturation, c.value)
    red, green, blue = (min(1.0, v * c.light) for v in concept.rgb)
    axis = (math.pi - concept.axis if c.is_mirrored else concept.axis) + c.rotation
    raw = np.array(
        [
            *_opponent(*background),
            *_opponent(red, green, blue),
            (c.size - 0.7) / 0.2,
            (c.x - 0.5) / 0.2,
            (c.y - 0.5) / 0.2,
            concept.aspect / 0.4,
            (concept.fill - 0.65) / 0.2,
            (concept.edges - 0.029) / 0.03,
            2 * concept.elongation * math.cos(2 * axis),
            2 * concept.elongation * math.sin(2 * axis),
        ]
    )
    return np.asarray((raw - _FEATURE_MEAN) / _FEATURE_STD)
