"""Missing samples are found; jitter is not taken for them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.gaps import SampleGrid, find_missing, gap_threshold, level

RATE = 250.0


def regular(n: int, sfreq: float = RATE) -> np.ndarray:
    return 10 + np.arange(n) / sfreq


@pytest.mark.parametrize("gap_s", [0.16, 0.2, 1.0, 300.0])
def test_a_gap_is_counted_in_samples(gap_s: float) -> None:
    times = regular(500)
    times[200:] += gap_s
    missing = find_missing(times, RATE)
    assert np.flatnonzero(missing).tolist() == [200]
    assert missing[200] == round(gap_s * RATE)


def test_a_real_rate_that_differs_from_the_nominal_one_is_no_gap() -> None:
    # Mentalab's 250 Hz are 250.27; the 100 Hz of an example file are 91.6.
    assert not find_missing(regular(100_000, 250.27), RATE).any()
    assert not find_missing(regular(100_000, 91.6), 100.0).any()


@given(st.lists(st.floats(-0.05, 0.05), min_size=50, max_size=200))
def test_jitter_of_bluetooth_is_no_gap(jitter: list[float]) -> None:
    assert not find_missing(regular(len(jitter)) + jitter, RATE).any()


def test_a_burst_that_was_stamped_on_arrival_is_no_gap() -> None:
    times = regular(500)
    times[100:200] = times[199]  # 0.4 s of samples waited and came together
    assert times[100] - times[99] > gap_threshold(RATE)
    assert not find_missing(times, RATE).any()


def test_a_gap_at_the_very_end_of_what_is_known_counts_as_one() -> None:
    assert find_missing(np.array([0.0, 0.004, 1.004]), RATE).tolist() == [0, 0, 249]


def test_a_clock_that_was_set_back_breaks_the_stream() -> None:
    times = regular(100)
    times[50:] -= 5.0
    missing = find_missing(times, RATE)
    assert np.flatnonzero(missing).tolist() == [50]
    levelled = level(times, missing, RATE)
    np.testing.assert_allclose(levelled, regular(100), atol=1e-9)


def test_jitter_that_runs_backwards_becomes_a_plateau() -> None:
    times = np.array([0.0, 0.004, 0.003, 0.012])
    assert level(times, np.zeros(4, int), RATE).tolist() == [0.0, 0.004, 0.004, 0.012]


def test_chunks_jump_by_what_is_missing_and_hold_no_gap_inside() -> None:
    grid = SampleGrid()
    data = np.arange(10, dtype=np.float32).reshape(1, 10)
    missing = np.zeros(10, int)
    missing[4] = 7
    lost = np.zeros(10, int)
    lost[4] = 2
    first, second = grid.chunks(data, np.arange(10.0), missing, lost)
    assert (first.first_sample, first.n_times, first.n_lost) == (0, 4, 0)
    assert (second.first_sample, second.n_times, second.n_lost) == (11, 6, 2)
    assert second.data[0].tolist() == [4, 5, 6, 7, 8, 9]


def test_no_samples_make_no_chunk() -> None:
    assert SampleGrid().chunks(np.zeros((2, 0), np.float32), np.zeros(0), np.zeros(0, int)) == ()


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.lists(st.integers(1, 59), max_size=5),
    st.lists(st.floats(-0.01, 0.01), min_size=60, max_size=60),
)
def test_cutting_changes_neither_samples_nor_numbers_nor_times(
    missing: list[int], cuts: list[int], jitter: list[float]
) -> None:
    n = len(missing)
    data = np.arange(n, dtype=np.float32).reshape(1, n)
    times = regular(n) + jitter[:n]
    whole = SampleGrid().chunks(data, times, np.array(missing))
    grid, parts = SampleGrid(), []
    bounds = sorted({0, n, *(c for c in cuts if c < n)})
    for start, stop in pairwise(bounds):
        part = slice(start, stop)
        parts += grid.chunks(data[:, part], times[part], np.array(missing)[part])
    for chunks in (whole, parts):
        assert np.concatenate([c.data for c in chunks], axis=1).tolist() == data.tolist()
        assert all(np.all(np.diff(c.timestamps) >= 0) for c in chunks)
    numbers = [
        np.concatenate([np.arange(c.first_sample, c.end) for c in cs]) for cs in (whole, parts)
    ]
    assert numbers[0].tolist() == numbers[1].tolist()
    assert numbers[0].tolist() == (np.cumsum(missing) + np.arange(n)).tolist()
    stamps = [np.concatenate([c.timestamps for c in cs]) for cs in (whole, parts)]
    assert stamps[0].tolist() == stamps[1].tolist()
