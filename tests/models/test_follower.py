"""The spring: smooth, exact in time, on the arc, and limited."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.follower import AT_REST, MOST_TURN, TAU, Conditioning, Follower


def told(*vectors: tuple[float, ...]) -> Conditioning:
    context = torch.tensor(vectors)
    return Conditioning(context[None], torch.ones(1, 4))


def angle(follower: Follower, token: int = 0) -> float:
    x, y = follower.conditioning().context[0, token, :2].tolist()
    return math.atan2(y, x)


def length(follower: Follower, token: int = 0) -> float:
    return float(follower.conditioning().context[0, token].norm())


NEAR = told((2.0, 0.0), (0.0, 1.0))
FAR = told((0.0, 3.0), (0.0, 1.0))


def test_the_first_conditioning_is_taken_as_it_is() -> None:
    follower = Follower(NEAR)
    assert follower.step(1.0) == 0
    assert follower.is_at_rest
    torch.testing.assert_close(follower.conditioning().context, NEAR.context)
    torch.testing.assert_close(follower.conditioning().time_embedding, NEAR.time_embedding)


def test_it_is_the_critically_damped_spring_on_the_arc_between() -> None:
    follower = Follower(told((2.0, 0.0)))
    follower.aim(told((2 * math.cos(0.5), 2 * math.sin(0.5))))
    for k in range(1, 20):
        follower.step(0.02)
        x = 0.02 * k / TAU
        assert angle(follower) == pytest.approx(0.5 * (1 - (1 + x) * math.exp(-x)), abs=1e-4)
        assert length(follower) == pytest.approx(2, abs=1e-4)


def test_lengths_go_straight_by_the_same_spring() -> None:
    follower = Follower(told((1.0, 0.0)))
    follower.aim(told((3.0, 0.0)))
    follower.step(TAU)
    assert length(follower) == pytest.approx(1 + 2 * (1 - 2 * math.exp(-1)), abs=1e-4)


def test_half_of_a_step_is_covered_within_the_bar_of_200_ms() -> None:
    follower = Follower(told((1.0, 0.0)))
    follower.aim(told((math.cos(1.0), math.sin(1.0))))
    t = 0.0
    while angle(follower) < 0.5:
        follower.step(0.001)
        t += 0.001
    assert t == pytest.approx(1.678 * TAU, abs=0.002)
    assert t < 0.2


@given(st.lists(st.floats(0.001, 0.2), min_size=1, max_size=6))
def test_how_time_is_cut_changes_nothing(steps: list[float]) -> None:
    whole, cut = Follower(told((1.0, 0.2, 0.0))), Follower(told((1.0, 0.2, 0.0)))
    for follower in (whole, cut):
        follower.aim(told((0.8, 0.1, 0.5)))
    whole.step(sum(steps))
    for dt in steps:
        cut.step(dt)
    torch.testing.assert_close(
        whole.conditioning().context, cut.conditioning().context, atol=2e-4, rtol=0
    )


def test_velocity_is_carried_over_to_a_new_end() -> None:
    follower = Follower(told((1.0, 0.0)))
    follower.aim(told((math.cos(1.0), math.sin(1.0))))
    follower.step(TAU)
    before = follower.step(0.001)
    follower.aim(told((math.cos(1.1), math.sin(1.1))))
    assert follower.step(0.001) == pytest.approx(before, rel=0.1)


def test_no_epoch_cuts_the_picture() -> None:
    follower = Follower(NEAR)
    follower.aim(told((-2.0, 0.01), (0.0, 1.0)))
    speeds = [follower.step(0.01) for _ in range(200)]
    # Of two tokens one turns.
    assert max(speeds) == pytest.approx(MOST_TURN / 2, rel=0.01)
    assert follower.is_at_rest
    torch.testing.assert_close(angle(follower), math.pi, atol=0.02, rtol=0)


def test_it_rests_when_every_token_is_there() -> None:
    follower = Follower(NEAR)
    follower.aim(FAR)
    assert not follower.is_at_rest
    for _ in range(100):
        follower.step(0.02)
    assert follower.is_at_rest
    assert angle(follower) == pytest.approx(math.pi / 2, abs=AT_REST)
    torch.testing.assert_close(follower.conditioning().context[0, 1], FAR.context[0, 1])


def test_empty_tokens_are_no_numbers_that_are_none() -> None:
    follower = Follower(told((0.0, 0.0), (1.0, 0.0)))
    follower.aim(told((1.0, 0.0), (0.0, 0.0)))
    for _ in range(100):
        assert math.isfinite(follower.step(0.02))
    torch.testing.assert_close(
        follower.conditioning().context[0],
        torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
        atol=1e-3,
        rtol=0,
    )
    assert follower.step(0.0) == 0
