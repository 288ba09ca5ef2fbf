from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from acquisition.epochs import Epoch, EpochKind, EpochSpec, EpochStream
from acquisition.filters import design_filter
from acquisition.montage import Montage
from acquisition.source import Chunk, Marker
from acquisition.stream_info import StreamInfo

NAMES = ("Fp1", "Fp2", "C3", "C4", "O1", "O2")
SPEC = EpochSpec(ch_names=NAMES)
T0 = 700.0  # session time of the first sample


def stream(
    sfreq: float = 250.0,
    spec: EpochSpec = SPEC,
    kinds: Sequence[EpochKind] = ("sliding", "marker-locked"),
) -> EpochStream:
    info = StreamInfo("test", NAMES, sfreq, "live")
    return EpochStream(info, spec, Montage.from_channels(NAMES, spec), kinds)


def recording(seconds: float, sfreq: float = 250.0) -> np.ndarray:
    rng = np.random.default_rng(11)
    n_times = int(seconds * sfreq)
    alpha = 30 * np.sin(2 * np.pi * 10 * np.arange(n_times) / sfreq)
    return (rng.normal(0, 15, (len(NAMES), n_times)) + alpha + 4000).astype(np.float32)


def chunk(data: np.ndarray, first: int, stop: int, sfreq: float = 250.0, late: float = 0) -> Chunk:
    t = T0 + late + np.arange(first, stop) / sfreq
    return Chunk(data[:, first:stop], t, first)


def play(
    epochs_of: EpochStream, data: np.ndarray, lengths: Sequence[int], markers: Sequence[Marker] = ()
) -> list[Epoch]:
    """Push all of `data` in chunks, each with the markers up to its last sample."""
    epochs, at, waiting = [], 0, list(markers)
    for length in [*lengths, data.shape[1]]:
        stop = min(at + length, data.shape[1])
        part = chunk(data, at, stop, epochs_of.info.sfreq)
        t_last = T0 + (stop - 1) / epochs_of.info.sfreq
        epochs += epochs_of.push(part, [m for m in waiting if m.timestamp <= t_last])
        waiting = [m for m in waiting if m.timestamp > t_last]
        at = stop
    return epochs


def same(a: Sequence[Epoch], b: Sequence[Epoch]) -> None:
    assert [(e.number, e.kind, e.first_sample, e.t_first, e.t_last, e.marker) for e in a] == [
        (e.number, e.kind, e.first_sample, e.t_first, e.t_last, e.marker) for e in b
    ]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sfreq", [250.0, 256.0, 1000.0, 125.0])
def test_no_epoch_is_complete_before_what_is_due_has_come(sfreq: float) -> None:
    """Reading as much as is due, or a chunk if that is less, an epoch's last sample comes last."""
    data = recording(16, sfreq)
    markers = [Marker(T0 + t, "onset/cat") for t in (5.0, 8.21, 9.99)]
    reader, at, n_reads, waits = stream(sfreq), 0, 0, []
    n_chunk = round(0.04 * sfreq)
    while at < data.shape[1]:
        n_due = reader.n_due
        n = min(n_chunk, n_due)
        here = [m for m in markers if at <= (m.timestamp - T0) * sfreq < at + n]
        epochs = reader.push(chunk(data, at, at + n, sfreq), here)
        at, n_reads = at + n, n_reads + 1
        waits += [T0 + (at - 1) / sfreq - e.t_last for e in epochs]
    assert len(waits) > 20
    assert max(waits) < 1e-6
    # Most readings are whole chunks all the same.
    assert n_reads < 2.2 * data.shape[1] / n_chunk


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 700), max_size=15),
    sfreq=st.sampled_from([250.0, 256.0, 125.0]),
)
def test_chunking_does_not_change_the_epochs(lengths: list[int], sfreq: float) -> None:
    data = recording(12, sfreq)
    markers = [Marker(T0 + t, "onset/cat") for t in (0.5, 4.0, 4.7, 6.21, 9.99, 11.8)]
    by_chunks = play(stream(sfreq), data, lengths, markers)
    same(by_chunks, play(stream(sfreq), data, [], markers))
    assert {e.kind for e in by_chunks} == {"sliding", "marker-locked"}


def test_an_epoch_is_the_filtered_referenced_and_normalised_signal() -> None:
    data = recording(8)
    epoch = play(stream(kinds=["sliding"]), data, [8] * 300)[-1]
    x = data.astype(np.float64)
    sos = design_filter(250, 0.5, 40, (50,))
    zi = signal.sosfilt_zi(sos)[:, np.newaxis, :] * x[:, :25].mean(axis=1)[:, np.newaxis]
    x, _ = signal.sosfilt(sos, x, zi=zi)
    x = (x - x.mean(axis=0))[:, epoch.first_sample : epoch.first_sample + 256]
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    np.testing.assert_allclose(epoch.data, x, atol=1e-4)
    assert epoch.data.dtype == np.float32
    assert epoch.data.flags.c_contiguous
    assert epoch.t_first == pytest.approx(T0 + epoch.first_sample / 250)
    assert epoch.t_last == pytest.approx(epoch.t_first + 255 / 250)


def test_sliding_epochs_end_at_multiples_of_the_hop_once_the_filters_have_settled() -> None:
    sliding = stream(kinds=["sliding"])
    epochs = play(sliding, recording(10), [7] * 400)
    ends = [e.first_sample + 256 for e in epochs]
    first_end = -(-(sliding.filter.n_settle + 256) // 64) * 64
    assert ends == list(range(first_end, 2501, 64))
    assert [e.number for e in epochs] == list(range(len(epochs)))
    assert sliding.is_ready


def test_nothing_is_ready_while_the_filters_settle() -> None:
    young = stream()
    assert not young.is_ready
    assert play(young, recording(3.8), [10] * 90, [Marker(T0 + 2, "onset/cat")]) == []
    assert not young.is_ready
    assert young.n_markers_missed == 1


def test_an_epoch_never_spans_a_gap_or_the_settling_after_it() -> None:
    sliding = stream(kinds=["sliding"])
    data = recording(20)
    before = sliding.push(chunk(data, 0, 2000))
    after = sliding.push(chunk(data, 2001, 5000))  # one sample is missing
    assert before[-1].first_sample + 256 <= 2000
    assert after[0].first_sample >= 2001 + sliding.filter.n_settle
    assert after[0].first_sample + 256 < 2001 + sliding.filter.n_settle + 256 + 64
    same_data = stream(kinds=["sliding"]).push(chunk(data, 2001, 5000))
    np.testing.assert_array_equal(after[0].data, same_data[0].data)


@pytest.mark.parametrize("jump_s", [-3600.0, -0.7, 2.0])
def test_timestamps_that_jump_are_a_gap_even_within_a_chunk(jump_s: float) -> None:
    sliding = stream(kinds=["sliding"])
    whole = chunk(recording(12), 0, 3000)
    whole.timestamps[1500:] += jump_s
    firsts = [e.first_sample for e in sliding.push(whole)]
    settle = sliding.filter.n_settle
    assert any(f + 256 <= 1500 for f in firsts)
    assert any(f >= 1500 + settle for f in firsts)
    assert not any(1500 - 256 < f < 1500 + settle for f in firsts)


def test_a_marker_locked_epoch_begins_tmin_before_its_marker() -> None:
    data = recording(10)
    times = (T0 + 5.0, T0 + 6.0013, T0 + 7.0027)
    epochs = play(stream(kinds=["marker-locked"]), data, [9] * 300, [Marker(t, "x") for t in times])
    assert [e.first_sample for e in epochs] == [1225, 1475, 1726]
    assert [e.marker.timestamp for e in epochs if e.marker] == list(times)
    whole = stream(kinds=["sliding"], spec=EpochSpec(NAMES, hop=1)).push(chunk(data, 0, 2500))
    matching = next(e for e in whole if e.first_sample == 1475)
    np.testing.assert_array_equal(epochs[1].data, matching.data)


@pytest.mark.parametrize("sfreq", [256.0, 1000.0, 125.0])
def test_a_marker_finds_its_place_at_another_rate_too(sfreq: float) -> None:
    data = np.zeros((len(NAMES), int(8 * sfreq)), np.float32)
    onset = int(6 * sfreq)
    data[0, onset] = 5000  # a click at the marker, which the filter delays by some 10 ms
    spec = EpochSpec(NAMES, normalisation="none", reference="none", notch_freqs=())
    [epoch] = play(
        stream(sfreq, spec, ["marker-locked"]), data, [8] * 200, [Marker(T0 + 6.0, "click")]
    )
    peak_s = int(np.argmax(epoch.data[0])) / 250 + spec.tmin
    assert 0 <= peak_s < 0.02
    assert epoch.t_first == pytest.approx(T0 + 5.9, abs=0.002)


def test_each_marker_gets_one_epoch_and_an_offset_none() -> None:
    locked = stream(kinds=["marker-locked"])
    data = recording(12)
    onset, offset = Marker(T0 + 5, "onset/cat"), Marker(T0 + 7, "offset")
    first = locked.push(chunk(data, 0, 1750), [onset, offset])
    second = locked.push(chunk(data, 1750, 3000))
    assert [e.marker for e in first + second] == [onset]


def test_a_marker_may_come_before_its_samples_or_seconds_after_them() -> None:
    data = recording(20)
    early, late = stream(kinds=["marker-locked"]), stream(kinds=["marker-locked"])
    marker = Marker(T0 + 8, "onset/cat")
    assert early.push(None, [marker]) == []
    from_early = play(early, data, [13] * 400)
    assert play(late, data, [13] * 250) == []
    same(from_early, late.push(None, [marker]))


def test_a_marker_that_comes_much_too_late_is_counted_as_missed() -> None:
    locked = stream(kinds=["marker-locked"])
    play(locked, recording(40), [100] * 100)
    assert locked.push(None, [Marker(T0 + 6, "onset/cat")]) == []
    assert locked.n_markers_missed == 1


def test_markers_in_a_gap_or_cut_by_one_are_counted_as_missed() -> None:
    locked = stream(kinds=["marker-locked"])
    data = recording(20)
    cut, in_gap, good = (Marker(T0 + t, "onset/cat") for t in (7.8, 9.0, 16.0))
    epochs = locked.push(chunk(data, 0, 2000), [cut, in_gap, good])
    epochs += locked.push(chunk(data, 2500, 5000))
    assert [e.marker for e in epochs] == [good]
    assert locked.n_markers_missed == 2


def test_a_marker_from_before_the_index_began_anew_gets_no_epoch() -> None:
    locked = stream(kinds=["marker-locked"])
    data = recording(12)
    assert locked.push(chunk(data, 0, 2000), [Marker(T0 + 7.8, "onset/cat")]) == []
    assert locked.push(chunk(data, 0, 3000, late=100)) == []
    assert locked.n_markers_missed == 1


def test_markers_that_wait_in_vain_are_bounded() -> None:
    locked = stream(kinds=["marker-locked"])
    for i in range(400):
        locked.push(None, [Marker(T0 + 1e6 + i, "never")])
    assert locked.n_markers_missed == 400 - 256


def test_a_push_of_minutes_loses_no_epoch_and_no_marker() -> None:
    seconds = 300
    markers = [Marker(T0 + 5 + 0.9 * i, "onset/cat") for i in range(320)]
    epochs = play(stream(), recording(seconds), [], markers)
    assert sum(e.kind == "marker-locked" for e in epochs) == 320
    ends = [e.first_sample + 256 for e in epochs if e.kind == "sliding"]
    assert ends == list(range(ends[0], seconds * 250 + 1, 64))
    assert [e.first_sample for e in epochs] == sorted(e.first_sample for e in epochs)


def test_a_replay_at_another_speed_cuts_the_same_epochs() -> None:
    data = recording(10)
    [normal] = play(stream(kinds=["marker-locked"]), data, [], [Marker(T0 + 6, "x")])
    fast = Chunk(data, T0 + np.arange(2500) / 2500, 0)  # ten times as fast
    [epoch] = stream(kinds=["marker-locked"]).push(fast, [Marker(T0 + 0.6, "x")])
    assert epoch.first_sample == normal.first_sample
    np.testing.assert_array_equal(epoch.data, normal.data)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_jitter_of_timestamps_moves_an_epoch_by_no_more_than_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    jittered = chunk(recording(8), 0, 2000)
    jittered.timestamps[:] += rng.uniform(-0.006, 0.006, 2000)  # neighbours change places
    [epoch] = stream(kinds=["marker-locked"]).push(jittered, [Marker(T0 + 6, "x")])
    assert abs(epoch.first_sample - 1475) <= 2


def test_a_missing_electrode_is_estimated_and_the_display_shows_the_headsets_own() -> None:
    info = StreamInfo("muse", ("TP9", "AF7", "AF8", "TP10"), 256, "live")
    muse = EpochStream(info, SPEC, Montage.from_channels(info.ch_names, SPEC))
    data = recording(6, 256)[:4]
    t = T0 + np.arange(data.shape[1]) / 256
    epochs = muse.push(Chunk(data, t, 40_000))
    assert epochs[0].data.shape == (6, 256)
    assert muse.display[0] == 40_000
    assert muse.display[1].shape == data.shape
    assert muse.display[1].dtype == np.float32
    assert epochs[0].first_sample * 256 / 250 >= 40_000 + muse.filter.n_settle


def test_the_display_holds_what_the_last_push_added() -> None:
    shown = stream()
    data = recording(3)
    shown.push(chunk(data, 0, 20))
    assert shown.display[0] == 0
    assert shown.display[1].shape == (6, 0)  # held back until the first mean is known
    shown.push(chunk(data, 20, 28))
    first, held = shown.display
    assert (first, held.shape) == (0, (6, 28))
    shown.push(chunk(data, 28, 36))
    first, newest = shown.display
    assert (first, newest.shape) == (28, (6, 8))
    shown.push(chunk(data, 100, 140))
    assert (shown.display[0], shown.display[1].shape) == (100, (6, 40))
    shown.push(None, [])
    assert (shown.display[0], shown.display[1].shape) == (140, (6, 0))


def test_a_flat_channel_is_not_blown_up_by_the_normalisation() -> None:
    data = recording(7)
    data[:] = 12.5
    epochs = play(stream(), data, [])
    assert epochs
    assert max(np.abs(e.data).max() for e in epochs) < 1e-3
