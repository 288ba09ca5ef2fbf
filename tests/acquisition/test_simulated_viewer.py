"""The simulated subject who sees what somebody else shows."""

from __future__ import annotations

import numpy as np
import pytest

from acquisition.errors import SourceError
from acquisition.simulated import SimulatedSource, open_simulated
from acquisition.simulated_subject import CH_NAMES, SFREQ, SimulatedSubject
from acquisition.simulated_viewer import LAG, GuidedSource
from acquisition.source import Guided, Marker, SourceOptions
from acquisition.stimuli import features, read_stimuli
from tests.acquisition.test_simulated import STIMULI, Clock

SHOWN = read_stimuli(STIMULI)


class Watching:
    """A subject in front of a screen, and the same one with closed eyes."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = Clock()
        self.start = self.clock.t
        self.subject = SimulatedSubject(seed=seed, looks=False)
        self.source = GuidedSource(self.subject, SHOWN, self.clock.now, self.clock.sleep)
        self.messages: list[str] = []

    def watch(self, seconds: float, *markers: tuple[float, Marker]) -> np.ndarray:
        """EEG of the first seconds; each marker comes at the moment beside it."""
        waiting = sorted(markers, key=lambda m: m[0])
        data: list[np.ndarray] = []
        n = 0
        while n < seconds * SFREQ:
            while waiting and waiting[0][0] <= self.clock.t - self.start:
                self.source.see(waiting.pop(0)[1])
            reading = self.source.read(1.0)
            self.messages.append(reading.message)
            for chunk in reading.chunks:
                data.append(chunk.data)
                np.testing.assert_allclose(
                    chunk.timestamps, self.start + (n + np.arange(chunk.n_times)) / SFREQ
                )
                n += chunk.n_times
        return np.concatenate(data, axis=1)

    def onset(self, t: float, picture: str, trial: int = 1) -> Marker:
        return Marker(self.start + t, "onset/x", {"picture": picture, "trial": trial})

    def offset(self, t: float, trial: int = 1) -> Marker:
        return Marker(self.start + t, "offset", {"trial": trial})


def evoked(*pictures: tuple[float, float, str], late: float = 0.05) -> np.ndarray:
    """What pictures add to the EEG of one whose alpha falls as much, and who does not respond."""
    seen, blank = Watching(), Watching()
    blank.source._respond = lambda *_: np.zeros((32, 1))  # type: ignore[method-assign]
    results = []
    for one in (seen, blank):
        markers = [
            item
            for n, (onset, end, name) in enumerate(pictures)
            for item in (
                (onset + late, one.onset(onset, name, n)),
                (end + late, one.offset(end, n)),
            )
        ]
        results.append(one.watch(6, *markers).astype(float))
    return results[0] - results[1]


def expected(number: int, onset: float, end: float, name: str) -> np.ndarray:
    subject = SimulatedSubject(seed=1, looks=False)
    rng = np.random.default_rng((15485863, 1, 1, number))
    shown = SHOWN[name]
    response = subject.response(features(shown), shown.label, rng, end - onset)
    out = np.zeros((32, 6 * round(SFREQ)))
    first = round(onset * SFREQ)
    out[:, first : first + response.shape[1]] = response * subject.gain[:, None]
    return out


@pytest.mark.parametrize(("onset", "end"), [(1.5, 2.5), (2.3136, 4.2), (1.0, 4.5)])
def test_the_response_is_the_generators_at_the_stamped_onset(onset: float, end: float) -> None:
    found = evoked((onset, end, "cat 1"))
    np.testing.assert_allclose(found[:, : 6 * 250], expected(0, onset, end, "cat 1"), atol=2e-3)
    assert np.abs(found).max() > 5
    # Nothing before it, to the sample.
    assert np.abs(found[:, : round(onset * SFREQ)]).max() < 1e-3


def test_pictures_add_up_and_differ() -> None:
    found = evoked((1.0, 2.0, "cat 1"), (2.5, 3.5, "dog 1"))
    both = expected(0, 1.0, 2.0, "cat 1") + expected(1, 2.5, 3.5, "dog 1")
    np.testing.assert_allclose(found[:, : 6 * 250], both, atol=2e-3)
    assert np.abs(found[:, 275:325] - found[:, 650:700]).max() > 5


def test_a_picture_that_goes_early_or_late_has_its_own_end() -> None:
    short, long = evoked((1.0, 2.0, "cat 1")), evoked((1.0, 3.0, "cat 1"))
    end = round(2.0 * SFREQ)
    np.testing.assert_allclose(short[:, : end - 25], long[:, : end - 25], atol=0.05)
    assert np.abs(short - long)[:, end + 20 : end + 60].max() > 2


def test_by_itself_it_sees_nothing_and_samples_come_late_with_their_own_time() -> None:
    watching = Watching()
    data = watching.watch(3)
    n_read = watching.source._source.n_read
    assert watching.clock.t - watching.start == pytest.approx(LAG + n_read / SFREQ)
    plain = SimulatedSource(
        SimulatedSubject(seed=1, looks=False), now=(clock := Clock()).now, sleep=clock.sleep
    )
    alone = np.concatenate([plain.read(1.0).chunks[0].data for _ in range(30)], axis=1)
    np.testing.assert_array_equal(data[:, :500], alone[:, :500])


def test_an_onset_that_comes_too_late_and_an_unknown_picture_are_said() -> None:
    watching = Watching()
    watching.watch(
        4, (1.0, watching.onset(1.0, "cat 1")), (2.0, watching.onset(1.5, "dog 1")),
        (3.0, watching.onset(3.0, "cat/1.jpg")),
    )  # fmt: skip
    told = list(dict.fromkeys(watching.messages))
    assert told[0] == ""
    assert "too late" in told[1]
    assert "'cat/1.jpg'" in told[2]


def test_the_name_says_who_shows_the_pictures() -> None:
    source = open_simulated("", {"shown": "page", "seed": "3"}, SourceOptions(stimuli=STIMULI))
    assert isinstance(source, Guided)
    assert not isinstance(open_simulated("", {}, SourceOptions(stimuli=STIMULI)), Guided)
    with pytest.raises(SourceError, match="shown=page"):
        open_simulated("", {"shown": "wall"}, SourceOptions(stimuli=STIMULI))
    with pytest.raises(SourceError, match="this one has none"):
        open_simulated("", {"shown": "page"}, SourceOptions())
    with pytest.raises(SourceError, match="no parameter 'colour'"):
        open_simulated("", {"shown": "page", "colour": "1"}, SourceOptions(stimuli=STIMULI))


def test_a_headset_with_some_electrodes_sees_the_same() -> None:
    some = ("Oz", "Fp1")
    data = []
    for ch_names in (CH_NAMES, some):
        one = Watching()
        one.source = GuidedSource(
            one.subject, SHOWN, one.clock.now, one.clock.sleep, ch_names=ch_names
        )
        onset = one.onset(1.0, next(iter(SHOWN)))
        data.append(one.watch(2.0, (1.05, onset)))
    rows = [CH_NAMES.index(name) for name in some]
    np.testing.assert_array_equal(data[1], data[0][rows])
