"""Lost packages are counted across the counter's wrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.packages import PackageCounter


def count(numbers: np.ndarray, missing: np.ndarray | None = None, **kind: int) -> np.ndarray:
    counter = PackageCounter(250.0, **kind)
    return counter.lost(numbers, np.zeros(len(numbers), int) if missing is None else missing)


@given(st.integers(0, 255), st.integers(1, 40), st.integers(1, 600))
def test_a_loss_is_counted_wherever_the_counter_stands(start: int, n_lost: int, at: int) -> None:
    numbers = start + np.arange(700)
    numbers[at:] += n_lost
    lost = count(numbers % 256)
    assert lost.sum() == n_lost
    assert lost[at] == n_lost


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        (np.arange(2000) % 256, {}),
        (np.arange(0, 4000, 2) % 256, {"stride": 2}),  # Cyton with Daisy
        (np.repeat(np.arange(300), 12) % 65536, {}),  # Muse
        (np.repeat(np.arange(400) % 101, 2), {}),  # Ganglion with accelerometer
        (100 + np.repeat(np.arange(400) % 100, 2), {}),  # and without
    ],
)
def test_regular_counters_lose_nothing(numbers: np.ndarray, kind: dict[str, int]) -> None:
    assert count(numbers, **kind).sum() == 0


def test_packages_that_hold_several_samples_lose_several() -> None:
    numbers = np.repeat(np.delete(np.arange(40), 20), 12)
    assert count(numbers).sum() == 12


def test_a_loss_longer_than_the_counters_turn_is_told_by_time() -> None:
    numbers = np.concatenate((np.arange(10), np.arange(10) + 10 + 3 * 256)) % 256
    missing = np.zeros(20, int)
    missing[10] = 3 * 256 + 5  # what the timestamps say, with jitter
    assert count(numbers, missing)[10] == 3 * 256


def test_a_pause_of_the_device_is_no_loss() -> None:
    missing = np.zeros(20, int)
    missing[10] = 60
    assert count(np.arange(20), missing).sum() == 0


def test_the_count_goes_on_between_calls() -> None:
    counter = PackageCounter(250.0)
    nothing = np.zeros(3, int)
    counter.lost(np.array([253, 254, 255]), nothing)
    assert counter.lost(np.array([2, 3, 4]), nothing).tolist() == [2, 0, 0]
