"""Names and units are asked for, never guessed."""

import numpy as np
import pytest

from acquisition.channels import Channel, microvolts_per, select_eeg
from acquisition.errors import StreamInfoError
from acquisition.source import SourceOptions

NAMED = [Channel("C3", "EEG", "uV"), Channel("C4", "EEG", "uV")]


@pytest.mark.parametrize(
    ("unit", "size"),
    [("microvolts", 1), ("uV", 1), ("µV", 1), ("V", 1e6), ("volts", 1e6), ("mV", 1e3),
     ("nV", 1e-3), ("-6", 1), ("0", 1e6), ("", None), ("g", None)],
)  # fmt: skip
def test_units_of_voltage_are_known_by_their_usual_names(unit: str, size: float | None) -> None:
    assert microvolts_per(unit) == size


def test_samples_become_microvolts_of_the_eeg_channels_alone() -> None:
    channels = [Channel("X", "ACC", "g"), Channel("C3", "EEG", "V"), Channel("T", "TRIG", "")]
    eeg = select_eeg("S", channels, SourceOptions())
    assert (eeg.rows, eeg.ch_names) == ((1,), ("C3",))
    data = eeg.microvolts(np.array([[9, 1e-6, 9], [9, 2e-6, 9]]))
    assert data.dtype == np.float32
    np.testing.assert_allclose(data, [[1, 2]])


def test_a_missing_unit_is_asked_for_with_a_hint() -> None:
    channels = [Channel("C3", "EEG"), Channel("C4", "EEG")]
    rng = np.random.default_rng(0)
    with pytest.raises(StreamInfoError, match=r"states no unit\. .* in uV\. .*--unit uV or"):
        select_eeg("S", channels, SourceOptions(), rng.normal(4000, 10, (500, 2)))
    with pytest.raises(StreamInfoError, match=r"as they would in V\."):
        select_eeg("S", channels, SourceOptions(), rng.normal(0.004, 1e-5, (500, 2)))
    with pytest.raises(StreamInfoError, match=r"states no unit\. Say which it is"):
        select_eeg("S", channels, SourceOptions())


def test_a_unit_that_is_no_voltage_is_asked_for() -> None:
    with pytest.raises(StreamInfoError, match="states the unit 'counts'"):
        select_eeg("S", [Channel("C3", "EEG", "counts")], SourceOptions())


def test_the_operators_word_overrides_the_streams() -> None:
    eeg = select_eeg("S", NAMED, SourceOptions(ch_names=("O1", "O2"), unit="mV"))
    assert eeg.ch_names == ("O1", "O2")
    assert eeg.scale.ravel().tolist() == [1e3, 1e3]


def test_an_unknown_unit_of_the_operator_is_refused() -> None:
    with pytest.raises(StreamInfoError, match=r"--unit is 'parsec'\. Use one of uV, mV, V or nV"):
        select_eeg("S", NAMED, SourceOptions(unit="parsec"))


@pytest.mark.parametrize("labels", [("", ""), ("ch1", "ch2"), ("EXG Channel 0", "EXG Channel 1")])
def test_labels_that_name_no_place_are_asked_for(labels: tuple[str, str]) -> None:
    channels = [Channel(label, "EEG", "uV") for label in labels]
    with pytest.raises(StreamInfoError, match=r"'S' has 2 EEG channels .*--ch-names Fp1,Fp2"):
        select_eeg("S", channels, SourceOptions())


def test_a_wrong_number_of_names_is_refused() -> None:
    with pytest.raises(StreamInfoError, match="has 2 EEG channels, but --ch-names gives 1"):
        select_eeg("S", NAMED, SourceOptions(ch_names=("O1",)))


def test_a_dash_leaves_a_channel_out() -> None:
    eeg = select_eeg("S", NAMED, SourceOptions(ch_names=("-", "O2")))
    assert (eeg.rows, eeg.ch_names) == ((1,), ("O2",))


def test_a_stream_without_eeg_says_what_it_has() -> None:
    with pytest.raises(StreamInfoError, match="no channel of type EEG; its 1 channels are ACC"):
        select_eeg("S", [Channel("X", "ACC", "g")], SourceOptions())
