"""Sequences of pictures, and their judge."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from app.flashes import FlashDetector, Flashes

BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (128, 128, 128)
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)

Timed = Iterable[tuple[float, np.ndarray]]


def plain(colour: tuple[int, int, int], side: int = 12) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def random_picture(rng: np.random.Generator, side: int = 24) -> np.ndarray:
    """Four patches a side, so that blocks differ but none averages out."""
    patches = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return patches.repeat(side // 4, 0).repeat(side // 4, 1)


def every(interval: float, pictures: Iterable[np.ndarray], duration: float = 4.0) -> Timed:
    """Pictures at a regular interval, starting at 10 s."""
    times = np.arange(0, duration, interval) + 10
    return list(zip(times.tolist(), itertools.cycle(pictures), strict=False))


def judged(frames: Timed) -> list[Flashes]:
    detector = FlashDetector()
    return [detector.add(rgb, t) for t, rgb in frames]


def is_safe(frames: Timed) -> bool:
    return not any(flashes.is_breach for flashes in judged(frames))
