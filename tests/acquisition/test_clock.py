import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.clock import RunningMinimumClock, measure_offset


class FakeClock:
    """A clock that is read; every reading takes a little time."""

    def __init__(self, offset: float = 0.0, drag: float = 1e-6) -> None:
        self.now = 1000.0
        self.offset = offset
        self.drag = drag

    def session(self) -> float:
        self.now += self.drag
        return self.now

    def other(self) -> float:
        self.now += self.drag
        return self.now - self.offset


def test_the_same_clock_has_an_offset_of_exactly_zero() -> None:
    clock = FakeClock()
    assert measure_offset(clock.other, clock.session) == 0.0


@given(offset=st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-4))
def test_another_clock_is_measured(offset: float) -> None:
    clock = FakeClock(offset)
    assert measure_offset(clock.other, clock.session) == pytest.approx(offset, abs=2e-6)


def test_a_reading_that_was_interrupted_does_not_count() -> None:
    clock = FakeClock(5.0)
    readings = iter(range(100))

    def slow() -> float:
        value = clock.other()
        if next(readings) != 3:
            clock.now += 0.2
        return value

    assert measure_offset(slow, clock.session) == pytest.approx(5.0, abs=2e-6)


def run(
    clock: RunningMinimumClock, seconds: float, *, t_from: float, offset: float, seed: int = 0
) -> list[float]:
    """Thirty arrivals a second, each 5 to 45 ms late; the steps that were found."""
    rng = np.random.default_rng(seed)
    times = np.arange(t_from, t_from + seconds, 1 / 30)
    delays = 0.005 + 0.04 * rng.random(len(times))
    steps = [clock.update(t - offset, t + late) for t, late in zip(times, delays, strict=True)]
    return [step for step in steps if step]


@given(offset=st.floats(-2e9, 2e9), seed=st.integers(0, 99))
def test_the_least_delay_gives_the_offset(offset: float, seed: int) -> None:
    clock = RunningMinimumClock()
    assert run(clock, 10, t_from=50.0, offset=offset, seed=seed) == []
    mapped = clock.to_session(np.array([60.0 - offset, 61.0 - offset]))
    np.testing.assert_allclose(mapped, [60.005, 61.005], atol=0.003)


def test_nothing_is_mapped_before_anything_is_known() -> None:
    with pytest.raises(ValueError, match="before the first update"):
        RunningMinimumClock().to_session(np.zeros(1))


def test_a_drift_between_the_clocks_is_followed() -> None:
    clock = RunningMinimumClock()
    for t in np.arange(0, 3600, 0.1):
        clock.update(t * (1 - 50e-6), t)  # the offset grows by 0.18 s in an hour
    assert clock.to_session(np.array([3600 * (1 - 50e-6)]))[0] == pytest.approx(3600, abs=0.0035)


def test_a_clock_set_forward_is_seen_at_once() -> None:
    clock = RunningMinimumClock()
    run(clock, 5, t_from=0, offset=-1e9)
    [step] = run(clock, 5, t_from=5, offset=-1e9 - 3600)
    assert step == pytest.approx(3600, abs=0.05)
    assert clock.offset == pytest.approx(-1e9 - 3600 + 0.005, abs=0.003)


def test_a_clock_set_back_is_seen_after_two_seconds() -> None:
    clock = RunningMinimumClock()
    run(clock, 5, t_from=0, offset=-1e9)
    assert run(clock, 1.9, t_from=5, offset=-1e9 + 3600) == []
    [step] = run(clock, 2, t_from=6.9, offset=-1e9 + 3600)
    assert step == pytest.approx(-3600, abs=0.05)
    assert clock.offset == pytest.approx(-1e9 + 3600 + 0.005, abs=0.003)


def test_a_stall_and_its_backlog_are_no_step() -> None:
    clock = RunningMinimumClock()
    run(clock, 5, t_from=0, offset=100)
    before = clock.offset
    # One late sample, silence, then four seconds of samples within 0.3 s.
    steps = [clock.update(5.0 - 100, 5.8)]
    steps += [clock.update(5.0 + i / 10 - 100, 9 + i / 133) for i in range(40)]
    assert not any(steps)
    assert run(clock, 5, t_from=9.3, offset=100) == []
    assert clock.offset == pytest.approx(before, abs=0.002)
