import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from acquisition.errors import EpochSpecError
from acquisition.filters import CausalFilter, design_filter, group_delay, settle_time

SFREQ = 250.0


def noise(n_channels: int, n_times: int, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.normal(offset, 20, (n_channels, n_times)).astype(np.float32)


def in_chunks(causal: CausalFilter, data: np.ndarray, lengths: list[int]) -> np.ndarray:
    parts, at = [], 0
    for length in [*lengths, data.shape[1]]:
        parts.append(causal.push(data[:, at : at + length]))
        at += length
    return np.concatenate(parts, axis=1)


def response(sos: np.ndarray, freq: float, sfreq: float = SFREQ) -> float:
    return float(np.abs(signal.sosfreqz(sos, [freq], fs=sfreq)[1][0]))


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 90), max_size=20))
def test_chunking_does_not_change_the_result(lengths: list[int]) -> None:
    data = noise(3, 700, offset=4000)
    whole = CausalFilter(3, SFREQ, 0.5, 40, (50,)).push(data)
    pieces = in_chunks(CausalFilter(3, SFREQ, 0.5, 40, (50,)), data, lengths)
    assert pieces.shape == data.shape
    np.testing.assert_allclose(pieces, whole, rtol=0, atol=1e-9)


def test_the_band_passes_and_what_is_outside_does_not() -> None:
    sos = design_filter(SFREQ, 0.5, 40, (50,))
    assert response(sos, 10) == pytest.approx(1, abs=0.01)
    assert response(sos, 0.5) == pytest.approx(math.sqrt(0.5), abs=0.01)
    assert response(sos, 40) == pytest.approx(math.sqrt(0.5), abs=0.02)
    assert response(sos, 50) < 1e-6
    assert response(sos, 0.05) < 1e-3
    assert response(sos, 100) < 0.01


def test_an_edge_above_what_the_rate_allows_is_lowered_and_the_notch_left_out() -> None:
    low = design_filter(80, 0.5, 40, (50,))
    np.testing.assert_array_equal(low, design_filter(80, 0.5, 36))
    assert len(design_filter(100, 0.5, 40, (50, 60))) == len(design_filter(100, 0.5, 40))
    assert len(design_filter(125, 0.5, 40, (50, 60))) == len(design_filter(125, 0.5, 40)) + 2


def test_a_band_that_the_rate_cannot_hold_is_refused() -> None:
    with pytest.raises(EpochSpecError, match=r"5 to 95 Hz cannot be had at 10 Hz.*4\.5 Hz"):
        design_filter(10, 5, 95)


def test_an_offset_of_thousands_of_microvolts_leaves_no_transient() -> None:
    data = noise(2, 2000, offset=187_000)
    filtered = CausalFilter(2, SFREQ, 0.5, 40).push(data)
    # Started from zero the transient is as large as the offset.
    assert np.abs(filtered).max() < 100


def test_mains_does_not_disturb_the_start() -> None:
    t = np.arange(2000) / SFREQ
    mains = 1000 * np.sin(2 * np.pi * 50 * t + 1)[np.newaxis]
    causal = CausalFilter(1, SFREQ, 0.5, 40, (50,))
    # Filtered from its first sample alone, this leaves 4 uV after the settling time.
    assert np.abs(causal.push(mains))[:, causal.n_settle :].max() < 1


@pytest.mark.parametrize(("sfreq", "l_freq"), [(250, 0.5), (1000, 0.5), (250, 1.0), (500, 0.1)])
def test_a_step_is_forgotten_within_the_settling_time_and_not_much_sooner(
    sfreq: float, l_freq: float
) -> None:
    sos = design_filter(sfreq, l_freq, 40, (50,))
    settle_s = settle_time(sos, sfreq)
    step = np.abs(signal.sosfilt(sos, np.ones(int(3 * settle_s * sfreq))))
    assert step[int(settle_s * sfreq) :].max() < 0.01
    assert step[int(0.8 * settle_s * sfreq) :].max() > 0.01


def test_where_the_band_begins_high_the_notch_settles_last() -> None:
    without = settle_time(design_filter(SFREQ, 5, 95), SFREQ)
    assert settle_time(design_filter(SFREQ, 5, 95, (50,)), SFREQ) > 2 * without


def test_a_filter_is_settled_only_after_the_settling_time_and_not_after_a_restart() -> None:
    causal = CausalFilter(1, SFREQ, 0.5, 40)
    data = noise(1, causal.n_settle + 1)
    causal.push(data[:, :-1])
    assert not causal.is_settled
    causal.push(data[:, -1:])
    assert causal.is_settled
    causal.restart()
    assert not causal.is_settled


def test_a_restarted_filter_is_like_a_new_one() -> None:
    causal = CausalFilter(2, SFREQ, 0.5, 40, (50,))
    causal.push(noise(2, 301, offset=-900))
    causal.push(noise(2, 1))
    causal.restart()
    data = noise(2, 400, offset=3000)
    new = CausalFilter(2, SFREQ, 0.5, 40, (50,))
    np.testing.assert_array_equal(causal.push(data), new.push(data))


def test_samples_are_held_back_until_the_first_mean_is_known() -> None:
    causal = CausalFilter(2, SFREQ, 0.5, 40)
    assert causal.push(noise(2, 24)).shape == (2, 0)
    assert causal.push(noise(2, 3)).shape == (2, 27)
    assert causal.push(noise(2, 8)).shape == (2, 8)


@pytest.mark.parametrize("length", [1, 7, 500])
def test_a_value_that_is_no_number_is_replaced_by_the_electrodes_last(length: int) -> None:
    data = noise(2, 500)
    data[1, 200:230] = np.nan
    data[1, 300] = np.inf
    held = data.copy()
    held[1, 200:230] = data[1, 199]
    held[1, 300] = data[1, 299]
    given_nan = in_chunks(CausalFilter(2, SFREQ, 0.5, 40), data, [length] * (499 // length))
    np.testing.assert_array_equal(given_nan, CausalFilter(2, SFREQ, 0.5, 40).push(held))
    assert np.isnan(data[1, 200])  # the caller's samples stay as they were


@pytest.mark.parametrize("freq", [4.0, 10.0, 20.0])
def test_a_burst_comes_later_by_the_stated_group_delay(freq: float) -> None:
    sos = design_filter(1000, 0.5, 40, (50,))
    t = np.arange(4000) / 1000
    envelope = np.exp(-(((t - 2) / 0.3) ** 2))
    out = signal.sosfilt(sos, envelope * np.sin(2 * np.pi * freq * t))
    power = np.abs(signal.hilbert(out)) ** 2
    centre = float((t * power).sum() / power.sum())
    assert centre - 2 == pytest.approx(group_delay(sos, 1000, [freq])[0], abs=0.003)
