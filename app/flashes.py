"""Counting flashes by WCAG 2.3.1, in any sequence of pictures; web/flashes.js does the same.

A picture is judged in blocks, as if at full screen: a small picture is no defence, only the
share of a field of view that flashes counts.

References
----------
W3C, Web Content Accessibility Guidelines 2.2, success criterion 2.3.1 and the definitions
of general flash and red flash.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

# The rule. Luminance and linear light are 0 to 1, chromaticity is u'v' of CIE 1976.
GENERAL_CHANGE = 0.10
GENERAL_DARKER_BELOW = 0.80
RED_SHARE = 0.80
RED_CHANGE = 0.20
MAX_FLASHES = 3.0
MAX_AREA = 0.25

# A picture is judged in at most this many blocks a side; 10 degrees of view are a third of a
# screen (341 x 256 of 1024 x 768 CSS pixels).
BLOCKS = 64
FIELD = 1 / 3

# White light added before colour is judged, so that black is grey and noise in it not red:
# sRGB (20, 0, 0) counts as red, darker does not.
FLARE = 0.001

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32
)


def _srgb_to_linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


_LINEAR = _srgb_to_linear(np.arange(256) / 255).astype(np.float32)
# Back again by table: 16384 steps are finer than the darkest step of sRGB by a factor of five.
_STEPS = (1 << 14) - 1
_SRGB = np.searchsorted(
    _srgb_to_linear((np.arange(255) + 0.5) / 255), np.arange(_STEPS + 1) / _STEPS
).astype(np.uint8)


def to_linear(rgb: np.ndarray) -> np.ndarray:
    """Decode sRGB: uint8 to linear light, float32, 0 to 1."""
    linear: np.ndarray = _LINEAR.take(rgb)
    return linear


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Encode linear light, float32, 0 to 1, as sRGB uint8."""
    srgb: np.ndarray = _SRGB.take((linear * _STEPS + np.float32(0.5)).astype(np.uint16))
    return srgb


def block_means(values: np.ndarray) -> np.ndarray:
    """Average over blocks.

    Parameters
    ----------
    values : array of shape (height, width, ...).

    Returns
    -------
    array of shape (min(height, 64), min(width, 64), ...).
    """
    for axis in (0, 1):
        n = values.shape[axis]
        if n > BLOCKS:
            edges = np.linspace(0, n, BLOCKS, endpoint=False).astype(np.intp)
            sizes = np.diff(edges, append=n).astype(values.dtype)
            shape = [1] * values.ndim
            shape[axis] = BLOCKS
            values = np.add.reduceat(values, edges, axis) / sizes.reshape(shape)
    return values


def largest_share(mask: np.ndarray) -> float:
    """Of all fields of 10 degrees, the largest share that is set in `mask`, 0 to 1."""
    if not mask.any():
        return 0.0
    height, width = (max(1, round(n * FIELD)) for n in mask.shape)
    total = np.pad(mask.astype(np.int32).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows = total[height:] - total[:-height]
    return float((rows[:, width:] - rows[:, :-width]).max() / (height * width))


# u', v', and whether it is a saturated red; of each block.
_Colour = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Flashes:
    """What a detector counted in the second that ends with the newest frame.

    Attributes
    ----------
    general, red : array of shape (rows, columns), flashes in each block; half a flash is one
        change that none has answered yet.
    area : the largest share of any field in which one kind of flash exceeds the limit.
    is_breach : whether that area exceeds the limit too.
    """

    general: np.ndarray
    red: np.ndarray
    area: float
    is_breach: bool


class FlashDetector:
    """Judge any sequence of pictures by WCAG 2.3.1.

    In every block, opposing changes are counted: of luminance by a tenth of the maximum with
    the darker state below 0.8, and of colour to and from saturated red. Two make a flash.

    Parameters
    ----------
    max_flashes : allowed in any one second.
    max_area : share of a field of 10 degrees in which more are allowed.
    """

    def __init__(self, max_flashes: float = MAX_FLASHES, max_area: float = MAX_AREA) -> None:
        self.max_flashes = max_flashes
        self.max_area = max_area
        self._changes: deque[tuple[float, np.ndarray]] = deque()
        self._shape: tuple[int, ...] = ()

    def add(self, rgb: np.ndarray, t: float) -> Flashes:
        """Take the picture shown from time `t` on.

        Parameters
        ----------
        rgb : array of shape (height, width, 3), uint8; of one size all the time.
        t : seconds.
        """
        return self.add_light(block_means(to_linear(rgb)), t)

    def add_light(self, light: np.ndarray, t: float) -> Flashes:
        """Take a picture as linear light in blocks, array of shape (rows, columns, 3)."""
        luminance, colour = light @ LUMINANCE, _colour(light)
        if light.shape != self._shape:
            self._start(luminance, colour)
            self._shape = light.shape
        general, red = self._general_change(luminance), self._red_change(colour)
        self._turn(luminance, *general)
        self._cross(colour, red)
        changed = np.stack((general[0] | general[1], red))
        if changed.any():
            self._changes.append((t, changed))
            self._counts += changed
        self._forget(t)
        return self._judge(self._counts)

    def foresee(self, light: np.ndarray, t: float) -> Flashes:
        """What `add_light` would answer, and nothing is counted."""
        if light.shape != self._shape:
            zero = np.zeros((2, *light.shape[:2]), np.int32)
            return self._judge(zero)
        self._forget(t)
        rises, falls = self._general_change(light @ LUMINANCE)
        return self._judge(
            self._counts + np.stack((rises | falls, self._red_change(_colour(light))))
        )

    def _forget(self, t: float) -> None:
        while self._changes and self._changes[0][0] < t - 1:
            self._counts -= self._changes.popleft()[1]

    def _judge(self, counts: np.ndarray) -> Flashes:
        general, red = counts / 2
        area = max(largest_share(kind > self.max_flashes) for kind in (general, red))
        return Flashes(general, red, area, area > self.max_area)

    def _start(self, luminance: np.ndarray, colour: _Colour) -> None:
        u, v, is_red = colour
        self._changes.clear()
        self._counts = np.zeros((2, *luminance.shape), np.int32)
        # Since the last change of a block: its darkest and brightest, and a box around its
        # colours. `_way` is +1 after a rise, -1 after a fall, 0 before the first.
        self._darkest, self._brightest = luminance.copy(), luminance.copy()
        self._way = np.zeros(luminance.shape, np.int8)
        self._is_in_red = is_red.copy()
        self._box = np.stack((u, v, u, v))

    def _general_change(self, luminance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where luminance has risen by a flash's worth since the last change, and fallen."""
        rises = (
            (self._way <= 0)
            & (luminance - self._darkest >= GENERAL_CHANGE)
            & (self._darkest < GENERAL_DARKER_BELOW)
        )
        falls = (
            (self._way >= 0)
            & (self._brightest - luminance >= GENERAL_CHANGE)
            & (luminance < GENERAL_DARKER_BELOW)
        )
        return rises, falls

    def _turn(self, luminance: np.ndarray, rises: np.ndarray, falls: np.ndarray) -> None:
        changed = rises | falls
        self._way[rises], self._way[falls] = 1, -1
        self._darkest = np.where(changed, luminance, np.minimum(self._darkest, luminance))
        self._brightest = np.where(changed, luminance, np.maximum(self._brightest, luminance))

    def _red_change(self, colour: _Colour) -> np.ndarray:
        """Where colour has gone into saturated red or out of it."""
        u, v, is_red = colour
        left, low, right, high = self._box
        # To the far corner: never less than to the farthest colour in the box.
        far = np.hypot(np.maximum(right - u, u - left), np.maximum(high - v, v - low))
        # Two saturated reds differ by 0.13 at most, so a change is always into red or out of it.
        changed: np.ndarray = (far > RED_CHANGE) & (is_red != self._is_in_red)
        return changed

    def _cross(self, colour: _Colour, changed: np.ndarray) -> None:
        u, v, is_red = colour
        left, low, right, high = self._box
        self._is_in_red ^= changed
        # While in red the box holds reds alone: a change counts from or to one of them.
        widens = changed | is_red | ~self._is_in_red
        left = np.where(changed, u, np.where(widens, np.minimum(left, u), left))
        low = np.where(changed, v, np.where(widens, np.minimum(low, v), low))
        right = np.where(changed, u, np.where(widens, np.maximum(right, u), right))
        high = np.where(changed, v, np.where(widens, np.maximum(high, v), high))
        self._box = np.stack((left, low, right, high))


def _colour(light: np.ndarray) -> _Colour:
    """Chromaticity u' and v', and whether the colour is a saturated red."""
    light = light + np.float32(FLARE)
    x, y, z = np.moveaxis(light @ _XYZ.T, -1, 0)
    scale = 1 / (x + 15 * y + 3 * z)
    return 4 * x * scale, 9 * y * scale, light[..., 0] >= RED_SHARE * light.sum(-1)
