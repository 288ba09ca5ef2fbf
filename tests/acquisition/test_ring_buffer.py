import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acquisition.ring_buffer import RingBuffer


def counted(first: int, n_times: int) -> np.ndarray:
    """Two rows that tell each sample's index."""
    index = np.arange(first, first + n_times, dtype=np.float32)
    return np.stack([index, -index])


@given(capacity=st.integers(1, 20), lengths=st.lists(st.integers(0, 50), max_size=12))
def test_overflow_keeps_the_newest_samples(capacity: int, lengths: list[int]) -> None:
    ring = RingBuffer(2, capacity)
    for length in lengths:
        ring.append(counted(ring.end, length))
        assert len(ring) == min(capacity, ring.end)
        assert ring.start == ring.end - len(ring)
        for n_times in range(len(ring) + 1):
            np.testing.assert_array_equal(
                ring.newest(n_times), counted(ring.end - n_times, n_times)
            )
    assert ring.end == sum(lengths)


@given(
    capacity=st.integers(1, 20),
    total=st.integers(0, 60),
    first=st.integers(-5, 70),
    n_times=st.integers(-2, 25),
)
def test_a_window_is_found_by_sample_number_or_refused(
    capacity: int, total: int, first: int, n_times: int
) -> None:
    ring = RingBuffer(2, capacity)
    for i in range(total):
        ring.append(counted(i, 1))
    if n_times >= 0 and ring.start <= first and first + n_times <= ring.end:
        np.testing.assert_array_equal(ring.window(first, n_times), counted(first, n_times))
    else:
        with pytest.raises(IndexError, match=f"{ring.start} to {ring.end} are held"):
            ring.window(first, n_times)


@given(first_sample=st.integers(0, 10**9), lengths=st.lists(st.integers(1, 9), min_size=1))
def test_after_a_restart_numbers_go_on_from_the_given_one(
    first_sample: int, lengths: list[int]
) -> None:
    ring = RingBuffer(2, 7)
    ring.append(counted(0, 5))
    ring.restart(first_sample)
    assert len(ring) == 0
    for length in lengths:
        ring.append(counted(ring.end - first_sample, length))
    held = len(ring)
    assert ring.end == first_sample + sum(lengths)
    np.testing.assert_array_equal(ring.window(ring.start, held), counted(sum(lengths) - held, held))


def test_the_newest_samples_are_one_contiguous_view_of_the_ring() -> None:
    ring = RingBuffer(2, 10)
    ring.append(counted(0, 17))
    newest = ring.newest(10)
    assert newest.base is not None
    assert newest.strides[1] == newest.itemsize
    assert newest.dtype == np.float32


def test_a_ring_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample, not 0"):
        RingBuffer(2, 0)
