"""What the page draws, judged by `app.flashes.FlashDetector`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from app.flashes import FlashDetector
from tests.web.room import Room, begin

pytestmark = pytest.mark.browser

BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)

# Plays pictures of 4 x 4 patches through the governor and an 8-bit canvas made of arrays.
PLAY = """async ([pictures, ticks]) => {
  const { Governor, SIDE } = await import("/governor.js");
  const governor = new Governor();
  const grid = (patches) => {
    const rgba = new Uint8ClampedArray(4 * SIDE * SIDE);
    for (let i = 0; i < SIDE * SIDE; i++) {
      const [x, y] = [i % SIDE, Math.floor(i / SIDE)];
      const patch = 4 * Math.floor((4 * y) / SIDE) + Math.floor((4 * x) / SIDE);
      rgba.set([...patches.slice(3 * patch, 3 * patch + 3), 255], 4 * i);
    }
    return rgba;
  };
  let shown = new Uint8ClampedArray(48);
  let next = 0;
  governor.tick(0);
  governor.drawn(grid(shown));
  const drawn = [];
  for (const t of ticks) {
    governor.tick(t);
    while (next < pictures.length && pictures[next][0] <= t) next++;
    if (next > 0) {
      const wanted = pictures[next - 1][1];
      const alpha = governor.allow(grid(wanted));
      if (alpha > 0) {
        shown = shown.map((value, i) => Math.round(value + alpha * (wanted[i] - value)));
        governor.drawn(grid(shown));
      }
    }
    drawn.push([t, [...shown]]);
  }
  return { drawn, nBreaches: governor.nBreaches };
}"""

COUNT = """async (frames) => {
  const { FlashCounter, Light } = await import("/flashes.js");
  const counter = new FlashCounter(24);
  return frames.map(([t, rgba]) => {
    counter.add(new Light(rgba), t);
    return [[...counter.general], [...counter.red]];
  });
}"""

# Records what is on the canvas whenever the screen is drawn.
RECORD = """(seconds) => new Promise((resolve) => {
  const small = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
  const frames = [];
  const begin = performance.now();
  const look = () => {
    const t = performance.now() - begin;
    small.drawImage(document.getElementById("picture"), 0, 0, 16, 16);
    frames.push([t / 1000, [...small.getImageData(0, 0, 16, 16).data]]);
    if (t < 1000 * seconds) requestAnimationFrame(look);
    else resolve(frames);
  };
  look();
})"""

Timed = list[tuple[float, np.ndarray]]


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((4, 4, 3), colour, np.uint8)


def random_pictures(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in range(50)]


def every(interval: float, pictures: Iterable[np.ndarray], duration: float = 4.0) -> Timed:
    times = np.arange(0, duration, interval) + 1
    return list(zip(times.tolist(), itertools.cycle(pictures), strict=False))


def is_safe(frames: Iterable[tuple[float, np.ndarray]]) -> bool:
    detector = FlashDetector()
    return not any(detector.add(rgb, t).is_breach for t, rgb in frames)


def grey(value: float) -> np.ndarray:
    return np.full((4, 4, 3), round(value), np.uint8)


STREAMS = {
    "strobe 10 Hz": every(0.05, [plain(BLACK), plain(WHITE)]),
    "strobe 4 Hz": every(0.125, [plain(BLACK), plain(WHITE)]),
    "red and black": every(0.05, [plain(RED), plain(BLACK)]),
    "red and blue": every(0.05, [plain(RED), plain(BLUE)]),
    # Between these luminance dips where colours are blended in sRGB.
    "magenta and green": every(0.3, [plain((255, 0, 255)), plain((0, 170, 0))]),
    "random at 20 per second": every(0.05, random_pictures(1)),
    "random at 4 per second": every(0.25, random_pictures(2)),
    "small flicker": every(0.05, [grey(0), grey(85)]),
}


def play(page: Any, pictures: Timed, pace: Callable[[], float] = lambda: 1 / 60) -> Timed:
    ticks = list(itertools.takewhile(lambda t: t < 6, itertools.accumulate(iter(pace, None))))
    wanted = [[t, rgb.ravel().tolist()] for t, rgb in pictures]
    drawn = page.evaluate(PLAY, [wanted, ticks])["drawn"]
    return [(t, np.array(rgb, np.uint8).reshape(4, 4, 3)) for t, rgb in drawn]


def test_flashes_are_counted_as_on_the_server(modules: Any) -> None:
    rng = np.random.default_rng(3)
    saturated = np.array([BLACK, WHITE, RED, BLUE, (90, 0, 0), (255, 150, 0), (128, 128, 128)])
    frames = []
    for i in range(60):
        patches = (
            rng.integers(0, 256, (4, 4, 3)) if i % 2 else saturated[rng.integers(0, 7, (4, 4))]
        )
        frames.append((i / 30, patches.astype(np.uint8).repeat(6, 0).repeat(6, 1)))
    counted = modules.evaluate(
        COUNT,
        [[t, np.dstack((f, np.full((24, 24), 255, np.uint8))).ravel().tolist()] for t, f in frames],
    )
    detector = FlashDetector()
    for (t, rgb), (general, red) in zip(frames, counted, strict=True):
        flashes = detector.add(rgb, t)
        np.testing.assert_array_equal(2 * flashes.general.ravel(), general)
        np.testing.assert_array_equal(2 * flashes.red.ravel(), red)
    assert max(general) > 6 < 2 * max(red)


@pytest.mark.parametrize("pace", ["60 per second", "irregular"])
@pytest.mark.parametrize("stream", list(STREAMS))
def test_nothing_that_is_drawn_flashes(modules: Any, stream: str, pace: str) -> None:
    rng = np.random.default_rng(4)
    paces = {
        "60 per second": lambda: 1 / 60,
        "irregular": lambda: float(rng.choice([1 / 60, 0.05, 0.2])),
    }
    drawn = play(modules, STREAMS[stream], paces[pace])
    assert is_safe(drawn)
    # It is a governor, not a wall.
    assert len({rgb.tobytes() for _, rgb in drawn}) > 1


def test_the_streams_above_need_governing() -> None:
    assert {name for name, stream in STREAMS.items() if is_safe(stream)} <= {
        "small flicker", "random at 4 per second", "magenta and green",
    }  # fmt: skip


def test_a_cut_becomes_a_fade_of_a_third_of_a_second(modules: Any) -> None:
    drawn = play(modules, [(1.0, plain(BLACK)), (2.0, plain(WHITE))])
    levels = [(t, rgb.mean()) for t, rgb in drawn if t >= 2]
    assert next(t for t, level in levels if level == 255) - 2 == pytest.approx(1 / 3, abs=0.05)
    assert next(t for t, level in levels if level >= 25.5) - 2 < 0.1


def test_fades_that_the_server_limited_pass_unchanged(modules: Any) -> None:
    fade = [(1 + i / 30, grey(255 * min(1.0, i / 10) ** (1 / 2.2))) for i in range(20)]
    drawn = play(modules, fade)
    for t, wanted in fade:
        # By the time the next one comes.
        shown = next(rgb for at, rgb in reversed(drawn) if at < t + 1 / 30 - 1e-6)
        np.testing.assert_array_equal(shown, wanted)


def test_a_picture_that_was_held_back_comes_in_the_end(modules: Any) -> None:
    drawn = play(modules, every(0.05, [plain(BLACK), plain(WHITE)], 2.0))
    np.testing.assert_array_equal(drawn[-1][1], plain(WHITE))


def canvas(page: Any, seconds: float) -> Timed:
    frames = page.evaluate(RECORD, seconds)
    return [(t, np.array(rgba, np.uint8).reshape(16, 16, 4)[..., :3]) for t, rgba in frames]


@pytest.mark.parametrize("pair", [(BLACK, WHITE), (RED, BLUE)])
def test_a_strobe_does_not_reach_the_canvas(page: Any, open_room: Room, pair: Any) -> None:
    begin(page, open_room)
    stop = threading.Event()

    def strobe() -> None:
        for colour in itertools.cycle(pair):
            if stop.wait(0.05):
                return
            open_room.show(np.full((32, 32, 3), colour, np.uint8))

    thread = threading.Thread(target=strobe)
    thread.start()
    try:
        drawn = canvas(page, 3.0)
    finally:
        stop.set()
        thread.join()
    assert len({rgb.tobytes() for _, rgb in drawn}) > 3
    assert is_safe(drawn)
    # What the server sent would not have been.
    assert len(open_room.acknowledged) > 5


def test_with_reduced_motion_pictures_come_rarely_and_slowly(
    still_page: Any, open_room: Room
) -> None:
    begin(still_page, open_room)
    assert still_page.get_by_text("Reduced motion").is_visible()
    open_room.show(np.full((32, 32, 3), 0, np.uint8))
    time.sleep(0.3)
    for value in (120, 200, 255):
        open_room.show(np.full((32, 32, 3), value, np.uint8))
        time.sleep(0.1)
    drawn = canvas(still_page, 5.0)
    levels = [(t, float(rgb.mean())) for t, rgb in drawn]
    begun = next(t for t, level in levels if level > 2)
    reached = next(t for t, level in levels if level > 250)
    assert reached - begun > 1.0
    # One fade to the newest; the ones between were never begun.
    assert all(b >= a for (_, a), (_, b) in itertools.pairwise(levels))
