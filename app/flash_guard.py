"""Nothing that is shown flashes more than WCAG 2.3.1 allows.

Two lines of defence, on two principles. The first is time and amplitude: a picture
unlike the one on screen is faded to over a third of a second and not left before it is
reached; one that is much the same may follow at once, within a limit on how fast light
changes. The second is `FlashDetector`, which applies the success criterion itself to what
was let through, with stricter numbers; when it objects, the picture stands still and then
blends slowly.

Judged as if at full screen, so a small picture is no defence; only the share of a field of
view that flashes counts. Pure: no I/O, no clock of its own.

References
----------
W3C, Web Content Accessibility Guidelines 2.2, success criterion 2.3.1 and the definitions
of general flash and red flash.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

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

# The first line: seconds of a fade between unrelated pictures, the shortest fade, and the
# most that a fade goes on in one tick, so that a stalled caller makes no cut.
FADE = 1 / 3
SHORTEST_FADE = 1 / 15
LONGEST_STEP = 0.1

# Pictures are much the same if no more than this share of any field changes by a flash's worth.
CLOSE_AREA = 0.10

# The second line: its numbers, half of the rule's area and two thirds of its rate, and what
# follows when it objects, in seconds. Still for longer than the rule's one second.
STRICT_FLASHES = 2.0
STRICT_AREA = MAX_AREA / 2
FREEZE = 1.1
SLOW_FADE = 2.0

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
        luminance = light @ LUMINANCE
        u, v, is_red = _colour(light)
        if light.shape != self._shape:
            self._start(luminance, u, v, is_red)
            self._shape = light.shape
        changed = np.stack((self._general_change(luminance), self._red_change(u, v, is_red)))
        if changed.any():
            self._changes.append((t, changed))
            self._counts += changed
        while self._changes and self._changes[0][0] < t - 1:
            self._counts -= self._changes.popleft()[1]
        general, red = self._counts / 2
        area = max(largest_share(kind > self.max_flashes) for kind in (general, red))
        return Flashes(general, red, area, area > self.max_area)

    def _start(
        self, luminance: np.ndarray, u: np.ndarray, v: np.ndarray, is_red: np.ndarray
    ) -> None:
        self._changes.clear()
        self._counts = np.zeros((2, *luminance.shape), np.int32)
        # Since the last change of a block: its darkest and brightest, and a box around its
        # colours. `_way` is +1 after a rise, -1 after a fall, 0 before the first.
        self._darkest, self._brightest = luminance.copy(), luminance.copy()
        self._way = np.zeros(luminance.shape, np.int8)
        self._is_in_red = is_red.copy()
        self._box = np.stack((u, v, u, v))

    def _general_change(self, luminance: np.ndarray) -> np.ndarray:
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
        changed: np.ndarray = rises | falls
        self._way[rises], self._way[falls] = 1, -1
        self._darkest = np.where(changed, luminance, np.minimum(self._darkest, luminance))
        self._brightest = np.where(changed, luminance, np.maximum(self._brightest, luminance))
        return changed

    def _red_change(self, u: np.ndarray, v: np.ndarray, is_red: np.ndarray) -> np.ndarray:
        left, low, right, high = self._box
        # To the far corner: never less than to the farthest colour in the box.
        far = np.hypot(np.maximum(right - u, u - left), np.maximum(high - v, v - low))
        # Two saturated reds differ by 0.13 at most, so a change is always into red or out of it.
        changed: np.ndarray = (far > RED_CHANGE) & (is_red != self._is_in_red)
        self._is_in_red ^= changed
        # While in red the box holds reds alone: a change counts from or to one of them.
        widens = changed | is_red | ~self._is_in_red
        left = np.where(changed, u, np.where(widens, np.minimum(left, u), left))
        low = np.where(changed, v, np.where(widens, np.minimum(low, v), low))
        right = np.where(changed, u, np.where(widens, np.maximum(right, u), right))
        high = np.where(changed, v, np.where(widens, np.maximum(high, v), high))
        self._box = np.stack((left, low, right, high))
        return changed


def _colour(light: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chromaticity u' and v', and whether the colour is a saturated red."""
    light = light + np.float32(FLARE)
    x, y, z = np.moveaxis(light @ _XYZ.T, -1, 0)
    scale = 1 / (x + 15 * y + 3 * z)
    return 4 * x * scale, 9 * y * scale, light[..., 0] >= RED_SHARE * light.sum(-1)


@dataclass(frozen=True, slots=True)
class GuardedFrame:
    """What may be shown now.

    Attributes
    ----------
    rgb : array of shape (height, width, 3), uint8.
    fade : how far the picture on screen has moved to the one it fades to, 0 to 1.
    state : "painted": a picture as it was handed in; "interpolated": on the way to one;
        "held": the same as before.
    changed : whether `rgb` or `fade` may differ from the frame before.
    number : which picture it shows or fades to, counting calls of `show` from 1; 0 is the black
        before the first.
    """

    rgb: np.ndarray
    fade: float
    state: Literal["painted", "interpolated", "held"]
    changed: bool
    number: int


@dataclass(frozen=True, slots=True)
class _Picture:
    rgb: np.ndarray
    number: int
    t: float


class FlashGuard:
    """Turn pictures that come at any time into a sequence that is safe to show.

    The newest picture wins: one that comes while an unrelated one is faded to waits, and
    gives way to a newer one.

    Attributes
    ----------
    n_replaced : pictures that gave way before they were shown.
    n_breaches : how often the second line objected.
    """

    def __init__(self) -> None:
        self.n_replaced = 0
        self.n_breaches = 0
        # On screen now; where the fade began and the way from there, in linear light; its end.
        self._rgb = np.zeros((1, 1, 3), np.uint8)
        self._target = _Picture(self._rgb, 0, -np.inf)
        self._origin = self._way = to_linear(self._rgb)
        self._waiting: _Picture | None = None
        self._progress, self._duration = 1.0, FADE
        self._t = self._t_fade = self._t_thaw = -np.inf
        self._is_frozen = self._is_slow = False
        self._n_pictures = 0
        self._detector = FlashDetector(STRICT_FLASHES, STRICT_AREA)

    @property
    def is_moving(self) -> bool:
        """Whether `tick` has anything to do."""
        return self._is_frozen or self._progress < 1 or self._waiting is not None

    def show(self, rgb: np.ndarray, t: float) -> None:
        """Ask for a picture.

        Parameters
        ----------
        rgb : array of shape (height, width, 3), uint8; not to be written to afterwards.
        t : seconds.
        """
        self._n_pictures += 1
        self.n_replaced += self._waiting is not None
        self._waiting = _Picture(rgb, self._n_pictures, t)

    def tick(self, t: float) -> GuardedFrame:
        """What to show at time `t`, in seconds; times rise."""
        if self._is_frozen and t >= self._t_thaw:
            self._is_frozen, self._is_slow = False, True
            self._begin(self._waiting or self._target, t, SLOW_FADE)
        elif self._waiting is not None and not self._is_frozen and not self._is_slow:
            self._consider(self._waiting, t)
        if self._is_frozen or self._progress == 1:
            self._t = t
            return GuardedFrame(self._rgb, self._progress, "held", False, self._target.number)
        step = min(max(t - self._t, 0.0), LONGEST_STEP)
        self._t = t
        self._progress = min(1.0, self._progress + step / self._duration)
        self._rgb = self._blend()
        if self._detector.add_light(block_means(_sampled(self._rgb)), t).is_breach:
            self.n_breaches += 1
            self._is_frozen, self._t_thaw = True, t + FREEZE
        is_there = self._progress == 1
        self._is_slow &= not is_there
        return GuardedFrame(
            self._rgb,
            self._progress,
            "painted" if is_there else "interpolated",
            step > 0,
            self._target.number,
        )

    def _blend(self) -> np.ndarray:
        if self._progress == 1:
            return self._target.rgb
        # In linear light the luminance of every point runs straight from one picture to the
        # other; in sRGB it may dip between them (magenta to green by 0.16), which is a flash.
        np.multiply(self._way, np.float32(self._progress), out=self._scratch)
        self._scratch += self._origin
        return to_srgb(self._scratch)

    def _consider(self, picture: _Picture, t: float) -> None:
        """Turn to a picture now if that is safe; else it goes on waiting."""
        new, is_fading = _sampled(picture.rgb), self._progress < 1
        change = _change(_sampled(_resized(self._rgb, picture.rgb.shape)), new)
        if _is_close(change):
            # Light changes by no more than a flash's worth in the time of a fade.
            amount = float(np.quantile(change, 1 - CLOSE_AREA)) / GENERAL_CHANGE
            self._begin(picture, t, max(SHORTEST_FADE, FADE * min(amount, 1)))
        elif is_fading and self._is_close_to_target(picture.rgb, new):
            self._aim(picture)
        elif not is_fading and t - self._t_fade >= FADE:
            self._t_fade = t
            self._begin(picture, t, FADE)

    def _begin(self, picture: _Picture, t: float, duration: float) -> None:
        # A fade counts from when the picture was asked for, if nothing was in its way.
        self._t = min(t, max(self._t, picture.t))
        self._progress, self._duration = 0.0, duration
        self._rgb = _resized(self._rgb, picture.rgb.shape)
        self._origin = to_linear(self._rgb)
        self._scratch = np.empty_like(self._origin)
        self._aim(picture)

    def _is_close_to_target(self, rgb: np.ndarray, sampled: np.ndarray) -> bool:
        target = self._target.rgb
        return target.shape == rgb.shape and _is_close(_change(_sampled(target), sampled))

    def _aim(self, picture: _Picture) -> None:
        self._way = to_linear(picture.rgb) - self._origin
        self._target, self._waiting = picture, None


def _resized(rgb: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The same picture at another size, by nearest neighbour: it is about to fade away."""
    if rgb.shape == shape:
        return rgb
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape[:2], rgb.shape[:2], strict=True))
    return rgb[np.ix_(rows, columns)]


def _sampled(rgb: np.ndarray) -> np.ndarray:
    """Linear light of about two points for each side of a block: neighbours are alike."""
    step = max(1, min(rgb.shape[:2]) // (2 * BLOCKS))
    return to_linear(rgb[::step, ::step])


def _change(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much light changes in each block, in the channel that changes most.

    Averaged after taking the amount: a pattern and its negative differ.
    """
    amount = np.abs(a - b)
    return block_means(np.maximum(np.maximum(amount[..., 0], amount[..., 1]), amount[..., 2]))


def _is_close(change: np.ndarray) -> bool:
    return largest_share(change >= GENERAL_CHANGE) <= CLOSE_AREA
