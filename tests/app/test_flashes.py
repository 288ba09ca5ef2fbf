"""The detector, judged by plain counting."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flashes import block_means, largest_share, to_linear, to_srgb
from tests.app.flash_sequences import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    RED,
    WHITE,
    every,
    is_safe,
    judged,
    plain,
    random_picture,
)


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
