"""Sliding windows that are read with those before them."""

import copy

import numpy as np
import pytest
import torch

from app.bundle import read_epoch_spec
from app.settings import ROOT
from models.frames import Listener
from models.networks import EagerNetworks
from models.pipeline import load_bundle
from models.template_reader import TemplateReader
from models.training.templates import backwards, set_lags, set_stream
from models.window_filter import WindowFilter

N_CHANNELS, N_TIMES, WIDTH, HOP = 4, 64, 8, 16
N_CONCEPTS, N_LAGS, BEFORE = 5, 14, 7
N_WINDOWS = N_TIMES // WIDTH
# Windows of samples in which a concept is answered to, from its appearance on.
RESPONSE = 5
NOISE = 1.5


@pytest.fixture(scope="module")
def responses():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N_CONCEPTS, N_CHANNELS, RESPONSE))


@pytest.fixture
def reader(responses):
    """Knows the responses at every lag; window means of white noise around them."""
    reader = TemplateReader(N_CHANNELS, N_TIMES, WIDTH, WIDTH, N_CONCEPTS, N_LAGS, 60, 2, 4)
    padded = np.zeros((N_CONCEPTS, N_CHANNELS, N_LAGS + N_WINDOWS))
    padded[:, :, BEFORE : BEFORE + RESPONSE] = responses
    at_lags = []
    for lag in range(N_LAGS):
        window = padded[:, :, lag : lag + N_WINDOWS]
        centred = window - window.mean(axis=2, keepdims=True)
        at_lags.append(centred.reshape(N_CONCEPTS, -1))
    n_features = N_CHANNELS * N_WINDOWS
    # A little less than the noise has: white noise less its mean has no full rank.
    set_lags(reader, np.array(at_lags), NOISE**2 / WIDTH * np.eye(n_features))
    return reader


def stream(responses, shown, seed=0, gap=18):
    """EEG (n_channels, n_times), and the sample at which each of the concepts appears."""
    rng = np.random.default_rng(seed)
    n_times = WIDTH * gap * (len(shown) + 2)
    eeg = NOISE * rng.standard_normal((N_CHANNELS, n_times))
    onsets = []
    for i, concept in enumerate(shown):
        onset = WIDTH * gap * (i + 1) + WIDTH * int(rng.integers(4))
        length = RESPONSE * WIDTH
        eeg[:, onset : onset + length] += np.repeat(responses[concept], WIDTH, axis=1)
        onsets.append(onset)
    return eeg.astype(np.float32), onsets


def windows(eeg):
    """First samples and windows (1, n_channels, n_times)."""
    for first in range(0, eeg.shape[1] - N_TIMES + 1, HOP):
        yield first, torch.from_numpy(eeg[None, :, first : first + N_TIMES].copy())


def heard(reader, eeg):
    """First samples, concepts, whether anything is seen, of all windows."""
    listening = WindowFilter(reader)
    found = [(first, listening.read(window, first)) for first, window in windows(eeg)]
    first = np.array([first for first, _ in found])
    named = np.array([int(reading.probabilities.argmax()) for _, reading in found])
    return first, named, np.array([bool(reading.is_seen) for _, reading in found])


def test_what_was_seen_is_remembered_when_its_response_has_left_the_window(reader, responses):
    rng = np.random.default_rng(1)
    shown = [int(k) for k in rng.integers(N_CONCEPTS, size=60)]
    eeg, onsets = stream(responses, shown)
    first, named, _ = heard(reader, eeg)
    alone = torch.cat([reader.scores(window, False) for _, window in windows(eeg)]).argmax(1)
    late, right, right_alone = 0, 0, 0
    for concept, onset in zip(shown, onsets, strict=True):
        # Windows that begin behind the response and end before the next picture's.
        for i in np.flatnonzero((first > onset + 36) & (first < onset + 60)):
            late += 1
            right += named[i] == concept
            right_alone += int(alone[i]) == concept
    assert late > 25
    assert right > 0.6 * late
    assert right > right_alone + 0.2 * late


def learn_nothing(reader):
    """Let a reader know windows in which nothing is seen."""
    blank = NOISE * np.random.default_rng(5).standard_normal((N_CHANNELS, 16000)).astype(np.float32)
    every = list(windows(blank))
    some = torch.cat([window for _, window in every])
    first = np.array([first for first, _ in every])
    set_stream(reader, some, first, np.ones(len(some), bool))


def test_of_nothing_little_is_said_and_of_pictures_much(reader, responses):
    learn_nothing(reader)
    other = NOISE * np.random.default_rng(6).standard_normal((N_CHANNELS, 16000))
    assert heard(reader, other.astype(np.float32))[2].mean() < 0.2
    eeg, _ = stream(responses, [0, 1, 2, 3, 4] * 12, seed=2)
    assert heard(reader, eeg)[2][4:].mean() > 0.6


def test_where_nothing_was_never_seen_the_eeg_backwards_stands_for_it(reader, responses):
    eeg, _ = stream(responses, [0, 1, 2, 3, 4] * 12, seed=3, gap=7)
    some = torch.cat([window for _, window in windows(eeg)])
    first = np.array([first for first, _ in windows(eeg)])
    turned, turned_first = backwards(some, first)
    again, expected = list(windows(eeg[:, ::-1])), turned_first - turned_first[0]
    assert [first for first, _ in again] == expected.tolist()
    torch.testing.assert_close(torch.cat([window for _, window in again]), turned)
    # Evidence that is believed twice, and what was learnt before does not know it.
    learn_nothing(reader)
    eager = copy.deepcopy(reader)
    eager.register_to_config(stream_weight=2.5)
    blank = NOISE * np.random.default_rng(6).standard_normal((N_CHANNELS, 16000)).astype(np.float32)
    before = heard(eager, blank)[2].mean()
    set_stream(eager, some, first, np.zeros(len(some), bool))
    assert heard(eager, blank)[2].mean() < 0.15 < before
    # Of no windows nothing is learnt.
    odds = eager.config.stream_odds
    set_stream(eager, some[:0], first[:0], np.zeros(0, bool))
    assert eager.config.stream_odds == odds > 0.1
    assert heard(eager, eeg)[2][4:].mean() > 0.6


def test_after_a_gap_it_begins_anew(reader, responses):
    eeg, _ = stream(responses, [3])
    anew = WindowFilter(reader)
    every = list(windows(eeg))
    fresh = anew.read(every[-1][1], 0).probabilities
    for begin in (-5, 1000, every[-2][0] + 3):
        listening = WindowFilter(reader)
        for first, window in every[:-1]:
            listening.read(window, first)
        # Back in time, far ahead, and on another grid.
        torch.testing.assert_close(listening.read(every[-1][1], begin).probabilities, fresh)
    listening.restart()
    torch.testing.assert_close(listening.read(every[-1][1], 7).probabilities, fresh)


def test_a_window_that_was_left_out_is_passed_over(reader, responses):
    eeg, [onset] = stream(responses, [2], seed=3)
    listening = WindowFilter(reader)
    said = [
        listening.read(window, first).probabilities[0]
        for i, (first, window) in enumerate(windows(eeg))
        if i % 2 == 0 and first < onset + 24
    ]
    assert int(said[-1].argmax()) == 2


def test_what_is_no_eeg_says_nothing(reader, responses):
    eeg, _ = stream(responses, [1])
    far = copy.deepcopy(reader)
    far.farthest.data.fill_(-1e9)
    _, _, is_seen = heard(far, eeg)
    assert not is_seen.any()


def test_a_listener_reads_windows_with_those_before():
    bundle = ROOT / "weights" / "scale-model"
    pipeline = load_bundle(bundle)
    spec = read_epoch_spec(bundle)
    rng = np.random.default_rng(0)
    eeg = rng.standard_normal((spec.n_channels, spec.n_times + 8 * spec.hop)).astype(np.float32)
    starts = range(0, 8 * spec.hop, spec.hop)
    cut = [eeg[:, start : start + spec.n_times].copy() for start in starts]
    listening = WindowFilter(pipeline.reader)
    listener = Listener(pipeline, EagerNetworks(pipeline))
    for _ in range(2):
        for start, window in zip(starts, cut, strict=True):
            expected = listening.read(torch.from_numpy(window)[None], start)
            _, decoded = listener.read(window, False, start)
            best = dict(decoded.concepts)
            names = pipeline.concepts.config.names
            assert [best[name] for name in names] == expected.probabilities[0].tolist()
            assert decoded.is_sure == bool(expected.is_seen[0])
        listening.restart()
        listener.restart()
    # Without a place in the stream a window is read alone, and so is a marker-locked epoch.
    for is_locked, place in ((False, None), (True, 0)):
        _, decoded = listener.read(cut[0], is_locked, place)
        alone = pipeline.encode(torch.from_numpy(cut[0])[None], is_locked).probabilities[0]
        assert [p for _, p in decoded.concepts] == alone.sort(descending=True).values.tolist()


def test_who_knows_when_pictures_come_says_less_between_them_and_names_more(reader, responses):
    rng = np.random.default_rng(7)
    shown = [int(k) for k in rng.integers(N_CONCEPTS, size=120)]
    # Weaker than the reader knows them: else all is clear anyway.
    eeg, onsets = stream(0.55 * responses, shown, seed=7, gap=24)

    def shares(apart):
        """Of windows in view those named rightly, and of those behind the last lag those answered.

        Each with the threshold that leaves three of ten in view without an answer.
        """
        knowing = copy.deepcopy(reader)
        knowing.register_to_config(stream_apart=apart)
        listening = WindowFilter(knowing)
        in_view, behind, right = [], [], []
        for first, window in windows(eeg):
            best = int(listening.read(window, first).probabilities.argmax())
            before = [i for i, onset in enumerate(onsets) if onset <= first + N_TIMES - 3 * WIDTH]
            if not before:
                continue
            since = first - onsets[before[-1]]
            if 0 <= since < (N_LAGS - BEFORE - 1) * WIDTH:
                in_view.append(listening.log_odds)
                right.append(best == shown[before[-1]])
            elif since > (N_LAGS - BEFORE) * WIDTH:
                behind.append(listening.log_odds)
        assert len(behind) > 100
        return np.mean(right), np.mean(np.array(behind) > np.quantile(in_view, 0.3))

    # They come 20 to 28 lags apart.
    (right, answered), (right_knowing, answered_knowing) = shares(0), shares(20)
    assert right_knowing > right + 0.03
    assert answered_knowing < 0.7 * answered


@pytest.mark.parametrize("apart", [0, 5, N_LAGS, 30])
@pytest.mark.parametrize("n_lags", [1, 4, N_LAGS])
def test_as_time_goes_by_no_probability_is_lost(reader, responses, apart, n_lags):
    eeg, _ = stream(responses, [3, 1])
    knowing = copy.deepcopy(reader)
    knowing.register_to_config(stream_apart=apart)
    listening = WindowFilter(knowing)
    for first, window in windows(eeg):
        listening.read(window, first)
        passing = copy.deepcopy(listening)
        passing._pass(n_lags, n_lags / N_WINDOWS)
        parts = (passing._at_lags, passing._after, passing._due, passing._nothing)
        assert sum(float(np.sum(part)) for part in parts) == pytest.approx(1, abs=1e-9)
        assert all(np.min(part, initial=0) >= 0 for part in parts)
