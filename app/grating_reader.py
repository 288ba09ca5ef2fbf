"""Tell a grating's spatial frequency and orientation from a picture alone.

Nothing is learnt: a picture, seen or generated, is taken apart into what is coarser and
what is finer than half way between the two spatial frequencies. The stronger part decides
between low and high; the direction in which its light changes most (the structure tensor,
Bigun and Granlund 1987) decides the orientation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from app.gratings import DEGREES, FIXATION_DEGREES, HIGH, ORIENTATIONS

# A Gaussian whose transfer at the high frequency is 1 %: exp(-2 (pi f s)^2) = 0.01.
BLUR_CYCLES = 0.48


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows, were it one of the eight gratings.

    Attributes
    ----------
    label : place in `GRATINGS`.
    is_high : whether the high spatial frequency is the stronger.
    orientation : degrees clockwise from vertical bars, 0 to 180.
    """

    label: int
    is_high: bool
    orientation: float


def read_grating(picture: np.ndarray, degrees: float = DEGREES) -> Reading:
    """Read a picture.

    Parameters
    ----------
    picture : array of shape (pixels, pixels, 3), uint8.
    degrees : width of the picture.

    >>> from app.gratings import GRATINGS, draw_grating
    >>> [read_grating(draw_grating(g)).label for g in GRATINGS]
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    grey = np.asarray(picture, np.float64).mean(axis=2)
    per_degree = grey.shape[0] / degrees
    blur = BLUR_CYCLES / HIGH * per_degree
    # The fixation square is no part of the grating; a pixel more for its soft edge.
    place = (np.arange(grey.shape[0]) + 0.5) / per_degree - degrees / 2
    inside = np.abs(place) <= FIXATION_DEGREES / 2 + 2 / per_degree
    weight = 1.0 - np.outer(inside, inside)
    coarse = _blurred(grey * weight, blur) / np.maximum(_blurred(weight, blur), 1e-6)
    fine = (grey - coarse) * weight
    fine_power = float((fine**2).sum() / weight.sum())
    is_high = fine_power > float(np.average((coarse - coarse.mean()) ** 2, weights=weight))
    part = fine if is_high else coarse
    along_y, along_x = np.gradient(part)
    xx, yy, xy = (
        float((weight * a * b).sum())
        for a, b in ((along_x, along_x), (along_y, along_y), (along_x, along_y))
    )
    orientation = float(np.rad2deg(0.5 * np.arctan2(2 * xy, xx - yy)) % 180)
    nearest = round(orientation / 45) % len(ORIENTATIONS)
    return Reading(nearest + len(ORIENTATIONS) * int(is_high), is_high, orientation)


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(values, sigma, mode="nearest"))
