"""The guard's output is judged by the detector, and the detector by plain counting."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.flash_guard import (
    FADE,
    FlashDetector,
    Flashes,
    FlashGuard,
    GuardedFrame,
    block_means,
    largest_share,
    to_linear,
    to_srgb,
)

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


# The detector


def longest_chain(states: list[float], rises: Callable[[float, float], bool]) -> int:
    """Most opposing changes that can be picked from a sequence, by trying all pairs."""
    up, down = [0] * len(states), [0] * len(states)
    for j, i in itertools.combinations(range(len(states)), 2):
        if rises(states[j], states[i]):
            up[i] = max(up[i], down[j] + 1)
        if rises(states[i], states[j]):
            down[i] = max(down[i], up[j] + 1)
    return max(up + down)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_general_flashes_are_as_many_as_opposing_changes_can_be_picked(values: list[int]) -> None:
    frames = [(i / 100, plain((v, v, v), 1)) for i, v in enumerate(values)]
    luminance = [float(to_linear(np.array(v, np.uint8))) for v in values]
    expected = longest_chain(luminance, lambda a, b: b - a >= 0.1 and a < 0.8)
    assert judged(frames)[-1].general.item() == expected / 2


COLOURS = {
    "red": (255, 0, 0),
    "dark red": (90, 0, 0),
    "orange": (255, 150, 0),
    "pink": (255, 130, 170),
    "black": BLACK,
    "grey": GREY,
    "blue": BLUE,
    "green": GREEN,
    "magenta": (255, 0, 255),
}


def uv(colour: tuple[int, int, int]) -> tuple[float, float]:
    r, g, b = to_linear(np.array(colour, np.uint8)).astype(float) + 0.001
    x, y, z = (
        0.4124 * r + 0.3576 * g + 0.1805 * b,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        0.0193 * r + 0.1192 * g + 0.9505 * b,
    )
    return 4 * x / (x + 15 * y + 3 * z), 9 * y / (x + 15 * y + 3 * z)


def becomes_red(before: str, after: str) -> bool:
    distance = np.hypot(*np.subtract(uv(COLOURS[before]), uv(COLOURS[after])))
    return "red" in after and distance > 0.2


@given(st.lists(st.sampled_from(sorted(COLOURS)), min_size=1, max_size=40))
def test_red_flashes_are_as_many_as_opposing_changes_can_be_picked(names: list[str]) -> None:
    flashes = judged((i / 100, plain(COLOURS[name], 1)) for i, name in enumerate(names))
    expected = longest_chain(names, becomes_red)  # type: ignore[arg-type]
    # Half a flash may be missed before the first.
    assert expected / 2 - 0.5 <= flashes[-1].red.item() <= expected / 2


def test_a_strobe_of_10_hz_is_flagged_with_its_number_of_flashes() -> None:
    flashes = judged(every(0.05, [plain(BLACK), plain(WHITE)]))
    assert flashes[-1].is_breach
    assert flashes[-1].area == 1
    assert flashes[-1].general.max() == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("other", [BLACK, BLUE, GREY, GREEN])
def test_a_red_strobe_is_flagged_as_red(other: tuple[int, int, int]) -> None:
    flashes = judged(every(0.05, [plain(RED), plain(other)]))
    assert flashes[-1].is_breach
    assert flashes[-1].red.max() == pytest.approx(10, abs=0.5)


def test_a_red_strobe_of_equal_luminance_is_no_general_flash() -> None:
    # Linear luminance 0.213 each.
    flashes = judged(every(0.05, [plain(RED), plain((127, 127, 127))]))
    assert flashes[-1].general.max() == 0
    assert flashes[-1].red.max() > 9


@pytest.mark.parametrize("pair", [(BLACK, WHITE), (RED, BLUE)])
def test_a_strobe_of_2_hz_is_not_flagged(pair: tuple[tuple[int, int, int], ...]) -> None:
    flashes = judged(every(0.25, [plain(colour) for colour in pair]))
    assert not any(f.is_breach for f in flashes)
    assert max(f.general.max() for f in flashes) + max(f.red.max() for f in flashes) > 1.5


@pytest.mark.parametrize(("interval", "is_flagged"), [(0.17, False), (0.13, True)])
def test_the_limit_lies_between_three_and_four_flashes(interval: float, is_flagged: bool) -> None:
    assert is_safe(every(interval, [plain(BLACK), plain(WHITE)])) != is_flagged


def test_slow_fades_are_not_flagged() -> None:
    wave = 0.5 - 0.5 * np.cos(2 * np.pi * 0.8 * np.arange(0, 5, 1 / 30))
    flashes = judged(
        (i / 30, to_srgb(np.full((4, 4, 3), w, np.float32))) for i, w in enumerate(wave)
    )
    assert not any(f.is_breach for f in flashes)
    assert max(f.general.max() for f in flashes) >= 1


def test_flicker_between_bright_states_is_not_flagged() -> None:
    assert is_safe(every(0.05, [plain((235, 235, 235)), plain(WHITE)]))


def test_small_flicker_is_not_flagged() -> None:
    assert is_safe(every(0.05, [plain(BLACK), plain((80, 80, 80))]))


def test_noise_in_black_is_not_red() -> None:
    assert is_safe(every(0.05, [plain(BLACK), plain((12, 0, 0))]))


@pytest.mark.parametrize(("side", "is_flagged"), [(3, False), (5, True)])
def test_flashes_count_where_they_fill_a_quarter_of_a_field(side: int, is_flagged: bool) -> None:
    # A field is 8 x 8 of 24 x 24 points: 9 of 64 are less than a quarter, 25 are more.
    dark, bright = plain(GREY, 24), plain(GREY, 24)
    dark[10 : 10 + side, 10 : 10 + side] = 0
    bright[10 : 10 + side, 10 : 10 + side] = 255
    assert is_safe(every(0.05, [dark, bright])) != is_flagged


def test_unrelated_pictures_at_20_per_second_are_flagged() -> None:
    rng = np.random.default_rng(1)
    flashes = judged(every(0.05, [random_picture(rng) for _ in range(40)], 2.0))
    assert all(f.is_breach and f.area == 1 for f in flashes[20:])


def test_what_flashed_more_than_a_second_ago_counts_no_more() -> None:
    strobe = every(0.05, [plain(BLACK), plain(WHITE)])
    assert not judged([*strobe, (15.1, plain(BLACK))])[-1].is_breach


@given(
    st.integers(1, 150).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, 150))),
    st.integers(0, 2**32 - 1),
)
def test_blocks_keep_the_mean_of_what_they_cover(size: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).random((*size, 3), np.float32)
    blocks = block_means(values)
    assert blocks.shape == (min(size[0], 64), min(size[1], 64), 3)
    assert values.min() - 1e-6 <= blocks.min()
    assert blocks.max() <= values.max() + 1e-6
    if size[0] % blocks.shape[0] == 0 and size[1] % blocks.shape[1] == 0:
        np.testing.assert_allclose(blocks.mean((0, 1)), values.mean((0, 1)), atol=1e-5)


def test_the_largest_share_is_that_of_the_worst_field() -> None:
    mask = np.zeros((24, 24), bool)
    assert largest_share(mask) == 0
    mask[3:11, 5:9] = True
    assert largest_share(mask) == 0.5


def test_linear_light_and_back_is_exact() -> None:
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_srgb(to_linear(values)), values)


# The guard


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
    monkeypatch.setattr("app.flash_guard._is_close", lambda _: True)
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


def test_the_newest_picture_wins_and_the_others_are_counted() -> None:
    rng = np.random.default_rng(6)
    pictures = [random_picture(rng) for _ in range(4)]
    guard = FlashGuard()
    frames = list(
        _guarded(guard, [(10 + i / 50, p) for i, p in enumerate(pictures)], lambda: 1 / 30, 2)
    )
    np.testing.assert_array_equal(frames[-1][1].rgb, pictures[-1])
    assert [n for n, _ in itertools.groupby(f.number for _, f in frames)] == [1, 4]
    assert guard.n_replaced == 2


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
