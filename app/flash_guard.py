"""Nothing that is shown flashes more than WCAG 2.3.1 allows.

Two lines of defence. The first moves what is on screen towards the newest picture, all but a
fiftieth of it no faster than from black to white in a third of a second, and begins no move
whose end would make more flashes than are allowed: that picture waits, or gives way to a newer
one. The second judges what was let through; when it objects, the picture stands still and then
blends slowly. Both apply the success criterion itself (`FlashDetector`), with stricter numbers.
Pure: no I/O, no clock of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.flashes import (
    BLOCKS,
    MAX_AREA,
    FlashDetector,
    block_means,
    to_linear,
    to_srgb,
)

# Half of the rule's area and two thirds of its rate.
STRICT_FLASHES = 2.0
STRICT_AREA = MAX_AREA / 2

# The first line: seconds of a fade from black to white, the shortest fade, and the most that a
# fade goes on in one tick, so that a stalled caller makes no cut. A fade takes as long as all
# blocks but this share of them need.
FADE = 1 / 3
SHORTEST_FADE = 1 / 15
LONGEST_STEP = 0.1
SPARED_AREA = 0.02

# What follows when the second line objects, in seconds. Still for longer than the rule's one.
FREEZE = 1.1
SLOW_FADE = 2.0


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

    The newest picture wins: one that may not be turned to yet waits, and gives way to a newer
    one.

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
        self._t = self._t_thaw = -np.inf
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
            self._turn_to(self._waiting, t)
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

    def _turn_to(self, picture: _Picture, t: float) -> None:
        """Turn to a picture now if what comes of it is safe; else it goes on waiting."""
        new = _sampled(picture.rgb)
        if self._detector.foresee(block_means(new), t).is_breach:
            return
        change = _change(_sampled(_resized(self._rgb, picture.rgb.shape)), new)
        amount = float(np.quantile(change, 1 - SPARED_AREA))
        self._begin(picture, t, max(SHORTEST_FADE, FADE * amount))

    def _begin(self, picture: _Picture, t: float, duration: float) -> None:
        # From rest a fade counts from when the picture was asked for. What moves goes on from the
        # tick before: else pictures that come as often as ticks would each get but a part of one.
        if self._progress == 1:
            self._t = min(t, max(self._t, picture.t))
        self._progress, self._duration = 0.0, duration
        self._rgb = _resized(self._rgb, picture.rgb.shape)
        self._origin = to_linear(self._rgb)
        self._scratch = np.empty_like(self._origin)
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
