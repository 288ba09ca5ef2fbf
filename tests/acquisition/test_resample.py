import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acquisition.resample import Resampler

RATES = [(256.0, 250.0), (250.27, 250.0), (1000.0, 250.0), (125.0, 250.0), (512.0, 250.0)]
OFFSET = 5000.0  # session time of input sample 0


def stamps(sfreq: float, first: int, n_times: int) -> np.ndarray:
    return OFFSET + np.arange(first, first + n_times) / sfreq


@pytest.mark.parametrize(("sfreq_in", "sfreq_out"), RATES)
@pytest.mark.parametrize("freq", [1.0, 10.0, 23.0, 40.0])
def test_a_sine_keeps_amplitude_and_phase(sfreq_in: float, sfreq_out: float, freq: float) -> None:
    resampler = Resampler(2, sfreq_in, sfreq_out, 40)
    t = stamps(sfreq_in, 0, int(4 * sfreq_in))
    first = resampler.next_output
    wave = np.stack([np.sin(2 * np.pi * freq * t), np.ones(len(t))])
    out, times = resampler.push(wave, t)
    k = first + np.arange(out.shape[1])
    np.testing.assert_allclose(times[0], OFFSET + k / sfreq_out, atol=1e-7)
    # The value at just that moment: no delay of its own, and a thousandth off at most.
    np.testing.assert_allclose(out[0], np.sin(2 * np.pi * freq * times[0]), atol=0.001)
    np.testing.assert_allclose(out[1], 1, atol=1e-9)


@pytest.mark.parametrize(("sfreq_in", "sfreq_out"), RATES)
def test_output_waits_for_the_stated_delay_and_no_longer(sfreq_in: float, sfreq_out: float) -> None:
    resampler = Resampler(1, sfreq_in, sfreq_out, 40)
    n_times = int(3 * sfreq_in)
    out, times = resampler.push(np.zeros((1, n_times)), stamps(sfreq_in, 0, n_times))
    waited = times[1] - times[0]
    assert waited.max() <= resampler.delay_s + 1e-9
    assert waited.min() > resampler.delay_s - 1 / sfreq_in - 1e-9
    # All that could be computed was: the newest input is in use, or too new for another output.
    last_input = OFFSET + (n_times - 1) / sfreq_in
    assert last_input - times[1][-1] < 1 / sfreq_out + 1e-9
    assert resampler.delay_s < 0.065  # 64 ms at 125 Hz, 14 ms at 1000
    assert out.shape[1] == len(waited)


@settings(max_examples=40, deadline=None)
@given(
    rates=st.sampled_from([*RATES, (256.0, 128.0), (2048.0, 250.0)]),
    lengths=st.lists(st.integers(0, 120), max_size=15),
    first_sample=st.integers(0, 10**7),
)
def test_chunking_does_not_change_the_result(
    rates: tuple[float, float], lengths: list[int], first_sample: int
) -> None:
    n_times = 1000
    data = np.random.default_rng(3).normal(size=(2, n_times))
    t = stamps(rates[0], first_sample, n_times)

    def run(lengths: list[int]) -> tuple[int, np.ndarray, np.ndarray]:
        resampler = Resampler(2, *rates, 40)
        resampler.restart(first_sample)
        first, parts, at = resampler.next_output, [], 0
        for length in [*lengths, n_times]:
            parts.append(resampler.push(data[:, at : at + length], t[at : at + length]))
            at += length
        out, times = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        assert resampler.next_output == first + out.shape[1]
        return first, out, times

    first, out, times = run(lengths)
    whole_first, whole_out, whole_times = run([])
    assert first == whole_first
    np.testing.assert_allclose(out, whole_out, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(times, whole_times)


@settings(deadline=None)
@given(rates=st.sampled_from(RATES), first_sample=st.integers(0, 10**8))
def test_after_a_restart_the_grid_is_the_same_and_nothing_older_is_used(
    rates: tuple[float, float], first_sample: int
) -> None:
    resampler = Resampler(1, *rates, 40)
    resampler.push(np.full((1, 300), 1e6), stamps(rates[0], 0, 300))
    resampler.restart(first_sample)
    first = resampler.next_output
    out, times = resampler.push(np.ones((1, 300)), stamps(rates[0], first_sample, 300))
    np.testing.assert_allclose(out, 1, atol=1e-9)
    np.testing.assert_allclose(times[0][0], OFFSET + first / rates[1], rtol=0, atol=1e-6)
    # The grid's sample before would have needed input from before the restart.
    position = (first - 1) * rates[0] / rates[1]
    assert np.floor(position) - resampler.delay_s * rates[0] + 1 < first_sample + 1e-6


def test_memory_does_not_grow_with_the_stream() -> None:
    resampler = Resampler(1, 256, 250, 40)
    for first in range(0, 4000, 8):
        resampler.push(np.zeros((1, 8)), stamps(256, first, 8))
    assert resampler._data.shape[1] == len(resampler._timestamps) < 12


def test_what_would_fold_into_the_band_is_attenuated() -> None:
    t = stamps(1000, 0, 4000)
    # 215 Hz would appear at 35 Hz. Of the 70 dB promised the filter before brings another 58.
    out, _ = Resampler(1, 1000, 250, 40).push(np.sin(2 * np.pi * 215 * t)[np.newaxis], t)
    assert np.abs(out).max() < 0.001


def test_moments_follow_timestamps_that_are_not_regular() -> None:
    t = stamps(1000, 0, 1000)
    t[500:] += 0.1
    _, times = Resampler(1, 1000, 250, 40).push(np.zeros((1, 1000)), t)
    assert np.isclose(np.diff(times[0]), 0.004).sum() == times.shape[1] - 2
    assert np.diff(times[0]).max() == pytest.approx(0.104)
