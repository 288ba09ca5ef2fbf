"""What the guard lets through, judged by the detector."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.flash_guard import FADE, FlashGuard, GuardedFrame
from app.flashes import FlashDetector, Flashes
from tests.app.flash_sequences import (
    BLACK,
    BLUE,
    GREY,
    RED,
    WHITE,
    Timed,
    every,
    is_safe,
    plain,
    random_picture,
)


def guarded(
    wanted: Timed, tick: Callable[[], float] = lambda: 1 / 30, rest: float = 2.5
) -> list[tuple[float, GuardedFrame]]:
    """Play pictures into a guard and tick it as the hub does."""
    return list(_guarded(FlashGuard(), wanted, tick, rest))


def _guarded(
    guard: FlashGuard, wanted: Timed, tick: Callable[[], float], rest: float
) -> Iterator[tuple[float, GuardedFrame]]:
    queue = list(wanted)
    t, end = queue[0][0], queue[-1][0] + rest
    while t < end:
        while queue and queue[0][0] <= t:
            t_show, rgb = queue.pop(0)
            guard.show(rgb, t_show)
        if guard.is_moving:
            yield t, guard.tick(t)
        t += tick()


def shown(frames: list[tuple[float, GuardedFrame]]) -> Timed:
    return [(t, frame.rgb) for t, frame in frames]


def _rng_pictures(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [random_picture(rng) for _ in range(60)]


STREAMS = {
    "strobe 10 Hz": every(0.05, [plain(BLACK), plain(WHITE)]),
    "strobe 15 Hz": every(1 / 30, [plain(BLACK), plain(WHITE)]),
    "red and black": every(0.05, [plain(RED), plain(BLACK)]),
    "red and blue": every(0.05, [plain(RED), plain(BLUE)]),
    "red and grey of equal luminance": every(0.05, [plain(RED), plain((127, 127, 127))]),
    "random at 20 per second": every(0.05, _rng_pictures(2)),
    "random at 4 per second": every(0.25, _rng_pictures(3), 8.0),
    "random at the painter's pace": every(0.256, _rng_pictures(4), 8.0),
    **{
        f"black and white every {ms} ms": every(ms / 1000, [plain(BLACK), plain(WHITE)], 6.0)
        for ms in (100, 200, 300, 333, 334, 350, 400, 500, 700, 1000)
    },
    "steps just below a flash": every(1 / 30, [plain(BLACK), plain((88, 88, 88))]),
    "checkers and their negative": every(
        0.05,
        [
            np.indices((128, 128)).sum(0)[..., None].repeat(3, 2).astype(np.uint8) // 2 % 2 * 255,
            255
            - np.indices((128, 128)).sum(0)[..., None].repeat(3, 2).astype(np.uint8) // 2 % 2 * 255,
        ],
        2.0,
    ),
}


def paces() -> dict[str, Callable[[], float]]:
    rng = np.random.default_rng(5)
    return {
        "30 per second": lambda: 1 / 30,
        "5 per second": lambda: 0.2,
        "5 to 60 per second": lambda: float(rng.choice([1 / 60, 1 / 30, 0.07, 0.2])),
    }


@pytest.mark.parametrize("pace", list(paces()))
@pytest.mark.parametrize("stream", list(STREAMS))
def test_what_the_guard_lets_through_never_flashes(stream: str, pace: str) -> None:
    frames = guarded(STREAMS[stream], paces()[pace])
    assert is_safe(shown(frames))
    # It is a guard, not a wall.
    assert len({frame.number for _, frame in frames}) > 3


def test_the_streams_above_need_guarding() -> None:
    unsafe = [name for name, stream in STREAMS.items() if not is_safe(stream)]
    assert {"strobe 10 Hz", "red and blue", "random at 20 per second"} <= set(unsafe)


@settings(max_examples=60, deadline=None)
@given(
    pictures=st.lists(
        st.tuples(st.floats(0.01, 0.6), st.sampled_from(range(12))), min_size=8, max_size=40
    ),
    ticks=st.lists(st.floats(1 / 120, 0.25), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
)
def test_no_sequence_and_no_pace_of_ticks_makes_it_flash(
    pictures: list[tuple[float, int]], ticks: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    known = [random_picture(rng, 8) for _ in range(6)]
    known += [plain(c, 8) for c in (BLACK, WHITE, RED, BLUE, GREY, (90, 0, 0))]
    times = itertools.accumulate((wait for wait, _ in pictures), initial=5.0)
    wanted = [(t, known[i]) for t, (_, i) in zip(times, pictures, strict=False)]
    pace = itertools.cycle(ticks)
    assert is_safe(shown(guarded(wanted, lambda: next(pace))))


def test_the_second_line_alone_keeps_a_flickering_stream_safe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = Flashes(np.zeros((1, 1)), np.zeros((1, 1)), 0.0, is_breach=False)
    monkeypatch.setattr(FlashDetector, "foresee", lambda *_: nothing)
    monkeypatch.setattr("app.flash_guard.FADE", 0.0)
    guard = FlashGuard()
    wanted = every(0.1, [plain(BLACK), plain(WHITE)], 8.0)
    frames = list(_guarded(guard, wanted, lambda: 1 / 30, 1.0))
    assert is_safe(shown(frames))
    assert guard.n_breaches >= 2
    # Still for over a second, then two seconds to the newest picture.
    t_frozen = next(t for (t, f), (_, g) in itertools.pairwise(frames) if g.state == "held" != f)
    after = [f.rgb.mean() for t, f in frames if t_frozen + 0.1 < t < t_frozen + 1.0]
    assert np.ptp(after) == 0


def test_an_unrelated_picture_takes_a_third_of_a_second() -> None:
    frames = guarded([(10, plain(BLACK)), (12, plain(WHITE))])
    moving = [t for t, frame in frames if t >= 12 and frame.state == "interpolated"]
    assert moving[-1] - 12 == pytest.approx(FADE, abs=0.04)
    assert frames[-1][1].state == "painted"
    np.testing.assert_array_equal(frames[-1][1].rgb, plain(WHITE))


@pytest.mark.parametrize("phase", [0.0, 0.01, 0.02, 0.03])
def test_a_tenth_of_the_way_is_gone_within_120_ms(phase: float) -> None:
    frames = guarded([(10, plain(BLACK)), (12 + phase, plain(WHITE))])
    first = next(t for t, frame in frames if frame.number == 2 and frame.fade >= 0.1)
    assert first - (12 + phase) <= 0.12


def test_a_slow_coherent_stream_passes_nearly_unchanged() -> None:
    ramp = np.linspace(60, 190, 24 * 24).reshape(24, 24, 1).repeat(3, 2)
    drift = [(10 + i / 20, (ramp + 30 * np.sin(i / 20)).astype(np.uint8)) for i in range(120)]
    guard = FlashGuard()
    frames = list(_guarded(guard, drift, lambda: 1 / 30, 0.5))
    wanted = dict(drift)
    lags = [
        np.abs(frame.rgb.astype(int) - wanted[max(w for w in wanted if w <= t)]).mean()
        for t, frame in frames
        if t > 11
    ]
    # Of 130 levels; the stream itself moves by up to 1.5 in one of its frames.
    assert max(lags) < 6
    assert guard.n_replaced == guard.n_breaches == 0


@pytest.mark.parametrize("phase", [0.001, 0.016, 0.032])
def test_pictures_as_frequent_as_ticks_are_followed_whenever_they_come(phase: float) -> None:
    """Thirty pictures a second, each so long before a tick; from grey to a lighter one in 0.3 s."""
    levels = [90 + min(1.0, i / 9) * 80 for i in range(30)]
    stream = [(10 + (i + 1) / 30 - phase, plain((int(v),) * 3)) for i, v in enumerate(levels)]
    guard = FlashGuard()
    # Long before, so that it rests.
    frames = list(_guarded(guard, [(5.0, plain((90,) * 3)), *stream], lambda: 1 / 30, 1.0))
    there = next(t for t, frame in frames if t > 10 and frame.rgb.mean() >= 130)
    wanted = next(t for t, rgb in stream if rgb.mean() >= 130)
    assert there - wanted <= 0.1


def test_the_newest_picture_wins_and_the_others_are_counted() -> None:
    rng = np.random.default_rng(6)
    pictures = [random_picture(rng) for _ in range(4)]
    guard = FlashGuard()
    frames = list(
        _guarded(guard, [(10 + i / 50, p) for i, p in enumerate(pictures)], lambda: 1 / 30, 2)
    )
    np.testing.assert_array_equal(frames[-1][1].rgb, pictures[-1])
    # The third came before the guard was asked again.
    assert [n for n, _ in itertools.groupby(f.number for _, f in frames)] == [1, 2, 4]
    assert guard.n_replaced == 1


def test_a_coherent_stream_is_followed_and_never_waits() -> None:
    """Ten pictures a second, each a fifth of the way on, between unrelated ones every 2 s."""
    rng = np.random.default_rng(7)
    ends = [random_picture(rng).astype(float) for _ in range(5)]
    wanted = []
    for n, (a, b) in enumerate(itertools.pairwise(ends)):
        for i in range(20):
            share = min(1.0, i / 5)
            wanted.append((10 + 2 * n + i / 10, (a + share * (b - a)).astype(np.uint8)))
    guard = FlashGuard()
    frames = list(_guarded(guard, wanted, lambda: 1 / 30, 0.5))
    assert guard.n_replaced == guard.n_breaches == 0
    assert is_safe(shown(frames))
    late = [t - wanted[frame.number - 1][0] for t, frame in frames if frame.fade < 1]
    assert max(late) < FADE + 0.05


def test_a_picture_that_would_flash_waits_until_it_would_not() -> None:
    wanted = every(0.15, [plain(BLACK), plain(WHITE)], 1.6)
    frames = guarded([(10, plain(GREY)), *[(t + 12, rgb) for t, rgb in wanted]])
    shown_numbers = {frame.number for _, frame in frames}
    assert len(shown_numbers) < len(wanted)
    np.testing.assert_array_equal(frames[-1][1].rgb, wanted[-1][1])
    assert is_safe(shown(frames))


def test_a_guard_at_rest_says_so() -> None:
    guard = FlashGuard()
    assert not guard.is_moving
    assert guard.tick(9.0) == GuardedFrame(guard.tick(9.0).rgb, 1.0, "held", False, 0)
    guard.show(plain(WHITE), 10.0)
    assert guard.is_moving
    t = 10.0
    while guard.is_moving:
        t += 1 / 30
        frame = guard.tick(t)
    assert (frame.state, frame.fade, frame.changed) == ("painted", 1.0, True)
    assert t < 10.5
    assert guard.tick(t + 1).state == "held"


def test_pictures_may_change_their_size() -> None:
    frames = guarded(every(0.4, [plain(WHITE, 8), plain(BLACK, 30), plain(RED, 130)]))
    assert {frame.rgb.shape for _, frame in frames} == {(8, 8, 3), (30, 30, 3), (130, 130, 3)}


def test_a_stall_of_the_caller_makes_no_cut() -> None:
    guard = FlashGuard()
    guard.show(plain(WHITE), 10.0)
    first = guard.tick(10.0).fade
    assert first < guard.tick(15.0).fade < 0.31
