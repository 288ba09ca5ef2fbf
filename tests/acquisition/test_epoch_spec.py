import json

import pytest

from acquisition.epochs import EpochSpec
from acquisition.errors import EpochSpecError


def test_a_specification_survives_json() -> None:
    spec = EpochSpec(("Cz", "Oz"), sfreq=128, n_times=128, notch_freqs=(50, 60), reference="none")
    assert EpochSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert EpochSpec.from_dict({"ch_names": ["Cz"], "n_times": 128.0}).n_times == 128


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sfreq": "fast"}, "sfreq must be a number; found 'fast'"),
        ({"sfreq": float("nan")}, "sfreq must be a number; found nan"),
        ({"sfreq": 0}, "sfreq must be 0 to 5000 Hz; found 0"),
        ({"n_times": 25.5}, "n_times must be a whole number"),
        ({"n_times": True}, "n_times must be a number; found True"),
        ({"n_times": 10**400}, "n_times must be a number"),
        ({"n_times": 10**9}, "n_times must be 2 to 7500"),
        ({"hop": 0}, "hop must be 1 to 7500"),
        ({"h_freq": 125}, "l_freq < h_freq < 125 Hz"),
        ({"l_freq": 0}, "l_freq and h_freq must be 0.01"),
        ({"notch_freqs": 50}, "notch_freqs must be a list"),
        ({"notch_freqs": [-50]}, "notch_freqs must be positive"),
        ({"reference": "Cz"}, "reference must be average or none; found 'Cz'"),
        ({"reference": ["average"]}, "reference must be a word"),
        ({"normalisation": "epoch"}, "normalisation must be channel or none"),
        ({"tmin": 60}, "tmin must be -10 to 10 s"),
        ({"montage": ""}, "montage must be the name"),
        ({"ch_names": []}, "ch_names must be 1 to 512 names"),
        ({"ch_names": "Cz"}, "ch_names must be a list"),
        ({"ch_names": ["Cz", 1]}, "ch_names must be a list of names"),
        ({"ch_names": ["Cz", "CZ"]}, "ch_names must be each name once"),
        ({"sfrq": 250}, "has 'sfrq', which this program does not know.*It knows ch_names, sfreq"),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(change: object, text: str) -> None:
    values = {**EpochSpec(("Cz", "Oz")).to_dict(), **change}  # type: ignore[dict-item]
    with pytest.raises(EpochSpecError, match=text):
        EpochSpec.from_dict(values)


@pytest.mark.parametrize("values", [None, [], "spec", 3, {}])
def test_what_is_no_specification_is_refused(values: object) -> None:
    with pytest.raises(EpochSpecError, match=r"is a JSON object; found|lacks ch_names"):
        EpochSpec.from_dict(values)
