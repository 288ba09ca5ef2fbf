"""Draw the eight gratings of muse-lsl's spatial frequency experiment, and others like them.

The experiment is that of Hermes et al. 2015 (doi:10.1093/cercor/bhu091) in the form that
muse-lsl gives it (github.com/alexandrebarachant/muse-lsl, stimulus_presentation/
generate_spatial_gratings.py): PsychoPy's `GratingStim` with size 40 degrees, a circular
mask, spatial frequency 4 f + 0.1 cycles per degree with f in {0, 1}, orientation 0, 45, 90
or 135 degrees, contrast 1, and a red fixation square of 0.2 degrees in the middle.

**Scale.** Over 40 degrees the high frequency has 164 cycles, which no picture of fewer than
328 pixels can hold. What is drawn is the middle of the stimulus, `DEGREES` (3) wide, as it
was shown there: 12.3 cycles of the high frequency (5.2 pixels a cycle at 64 pixels), and
0.3 of a cycle of the low one, whose light falls from 1 in the middle to 0.8 at the sides
(0.6 in the corners, where it lies at 45 degrees). The mask's edge lies outside.

**Assumed**, because the recordings do not say: phase 0, whose brightest line goes through
the middle (PsychoPy's default); mean grey 0.5 of full luminance without gamma; orientation
clockwise from vertical bars; degrees as nominal as the monitor's calibration, PsychoPy's
"testMonitor", was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEGREES = 3.0
LOW, HIGH = 0.1, 4.1
ORIENTATIONS = (0, 45, 90, 135)
FIXATION_DEGREES = 0.2
FIXATION_RGB = (255.0, 0.0, 0.0)
# Points in a pixel and direction whose mean is the pixel.
SUPERSAMPLING = 4


@dataclass(frozen=True, slots=True)
class Grating:
    """A sine grating in the middle of the visual field.

    Attributes
    ----------
    sf : spatial frequency in cycles per degree.
    orientation : degrees clockwise from vertical bars.
    phase : in cycles; 0 has the brightest line through the middle.
    contrast : 0 to 1.
    """

    sf: float
    orientation: float
    phase: float = 0.0
    contrast: float = 1.0


# A picture's id is its place here; so is the label of its epochs.
GRATINGS = tuple(Grating(sf, orientation) for sf in (LOW, HIGH) for orientation in ORIENTATIONS)
NAMES = tuple(f"{band} {orientation}°" for band in ("low", "high") for orientation in ORIENTATIONS)
CAPTIONS = tuple(
    f"grating {band} {orientation}" for band in ("low", "high") for orientation in ORIENTATIONS
)


def draw_grating(grating: Grating, pixels: int = 64, degrees: float = DEGREES) -> np.ndarray:
    """Draw the middle of a grating with the fixation square.

    Parameters
    ----------
    degrees : width of the picture; up to 28 the circular mask stays outside.

    Returns
    -------
    array of shape (pixels, pixels, 3), uint8 RGB.
    """
    n = pixels * SUPERSAMPLING
    place = ((np.arange(n) + 0.5) / n - 0.5) * degrees
    angle = np.deg2rad(grating.orientation)
    along = np.cos(angle) * place[None, :] + np.sin(angle) * place[:, None]
    wave = np.cos(2 * np.pi * (grating.sf * along - grating.phase))
    rgb = np.repeat((127.5 * (1 + grating.contrast * wave))[:, :, None], 3, axis=2)
    middle = np.abs(place) <= FIXATION_DEGREES / 2
    rgb[np.ix_(middle, middle)] = FIXATION_RGB
    blocks = rgb.reshape(pixels, SUPERSAMPLING, pixels, SUPERSAMPLING, 3)
    return np.asarray(blocks.mean(axis=(1, 3)).round().astype(np.uint8))


def vary(grating: Grating, rng: np.random.Generator) -> Grating:
    """A grating like `grating`: what an image model is trained on.

    Frequency varies by 3 %, orientation by 2 degrees (standard deviations), phase by up to a
    tenth of a cycle and contrast down to 0.8.
    """
    return Grating(
        sf=grating.sf * float(np.exp(0.03 * rng.standard_normal())),
        orientation=grating.orientation + 2 * float(rng.standard_normal()),
        phase=float(rng.uniform(-0.1, 0.1)),
        contrast=float(rng.uniform(0.8, 1)),
    )
