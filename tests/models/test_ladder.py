"""The ladder: as much as fits, down at once, up when there is room for long."""

from __future__ import annotations

from models.ladder import EARLY, LATE, RUNGS, TICK, Ladder

NAMES = [rung.name for rung in RUNGS]


def settle(ladder: Ladder, call: float, decode: float, n: int = 400) -> str:
    for _ in range(n):
        ladder.took(max(1, ladder.rung.calls), max(1, ladder.rung.calls) * call, decode)
    return ladder.rung.name


def test_each_machine_finds_its_rung() -> None:
    for call, decode, name in (
        (0.008, 0.003, "two steps"),
        (0.02, 0.005, "one step"),
        (0.03, 0.01, "half rate"),
        (0.035, 0.025, "15 a second"),
        (0.045, 0.032, "12 a second"),
        (0.05, 0.04, "10 a second"),
        (0.07, 0.05, "7.5 a second"),
        (0.2, 0.03, "keyframes"),
    ):
        for begin in range(len(RUNGS)):
            found = settle(Ladder(begin), call, decode)
            assert NAMES.index(found) - NAMES.index(name) in (0, 1)
        assert settle(Ladder(NAMES.index(name)), call, decode) == name


def test_it_goes_down_after_a_few_late_frames_and_up_after_many_early_ones() -> None:
    ladder = Ladder(1)
    for _ in range(LATE - 1):
        ladder.took(1, 2 * TICK, 0.0)
    assert ladder.rung == RUNGS[1]
    ladder.took(1, 2 * TICK, 0.0)
    assert ladder.rung == RUNGS[2]
    ladder = Ladder(2)
    for _ in range(EARLY - 1):
        ladder.took(1, 0.01, 0.001)
    assert ladder.rung == RUNGS[2]
    ladder.took(1, 0.01, 0.001)
    assert ladder.rung == RUNGS[1]


def test_one_slow_frame_changes_nothing() -> None:
    ladder = Ladder(1)
    for _ in range(20):
        ladder.took(1, 0.02, 0.005)
    ladder.took(1, 0.06, 0.005)
    for _ in range(20):
        ladder.took(1, 0.02, 0.005)
    assert ladder.rung == RUNGS[1]


def test_between_two_rungs_it_does_not_swing() -> None:
    ladder = Ladder()
    settle(ladder, 0.025, 0.02)
    seen = set()
    for k in range(300):
        ladder.took(1, 0.025 + 0.004 * (-1) ** k, 0.02)
        seen.add(ladder.rung.name)
    assert len(seen) == 1


def test_the_end_of_the_ladder_is_not_left() -> None:
    assert settle(Ladder(0), 0.001, 0.001) == "two steps"
    assert settle(Ladder(len(RUNGS) - 1), 5.0, 5.0) == "keyframes"


def test_frames_without_a_call_tell_nothing_of_calls() -> None:
    ladder = Ladder(len(RUNGS) - 1)
    for _ in range(100):
        ladder.took(0, 0.0, 0.001)
    assert ladder.rung == RUNGS[-1]
