import numpy as np
import pytest

from acquisition.epochs import EpochSpec
from acquisition.errors import MontageError
from acquisition.montage import Montage, electrode_key, electrode_positions

FRONT = ("Fp1", "Fp2", "AF3", "AF4", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6")
MIDDLE = ("T7", "C3", "Cz", "C4", "T8", "CP5", "CP1", "CP2", "CP6")
NAMES = (*FRONT, *MIDDLE, "P7", "P3", "Pz", "P4", "P8", "PO3", "PO4", "O1", "Oz", "O2")
SPEC = EpochSpec(NAMES)
CYTON = ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2")


def topography(names: tuple[str, ...]) -> np.ndarray:
    """A smooth potential on the head, at the named electrodes."""
    at = np.array([electrode_positions(SPEC.montage)[electrode_key(n)] for n in names])
    return np.exp(-((at - [0.03, -0.06, 0.06]) ** 2).sum(axis=1) / 0.09**2)


def test_a_headset_with_the_models_electrodes_is_taken_as_it_is_in_any_order() -> None:
    montage = Montage.from_channels(NAMES[::-1], SPEC)
    np.testing.assert_array_equal(montage.matrix, np.eye(32)[::-1])
    assert montage.fidelity == pytest.approx(1)
    assert montage.sentence == "All 32 electrodes of the model are present: fidelity 1.00."


def test_electrodes_that_are_present_are_kept_and_the_others_estimated() -> None:
    montage = Montage.from_channels(CYTON, SPEC)
    rows = [NAMES.index(name) for name in CYTON]
    np.testing.assert_array_equal(montage.matrix[rows], np.eye(8))
    # A constant stays one, up to the reference: splines carry the mean.
    np.testing.assert_allclose(montage.matrix @ np.ones(8), 1, atol=1e-6)
    assert montage.sentence == (
        "8 of the model's 32 electrodes are present; the other 24 are estimated: "
        f"fidelity {montage.fidelity:.2f}."
    )


def test_a_smooth_potential_is_recovered_from_half_of_the_electrodes() -> None:
    half = NAMES[::2]
    estimate = Montage.from_channels(half, SPEC).matrix @ topography(half)
    wanted = topography(NAMES)
    explained = 1 - ((estimate - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
    assert explained > 0.95


def test_fidelity_rises_with_every_electrode() -> None:
    order = ("Cz", "O1", "Fp2", *[n for n in NAMES if n not in ("Cz", "O1", "Fp2")])
    figures = [Montage.from_channels(order[:n], SPEC).fidelity for n in range(3, 33)]
    assert np.all(np.diff(figures) > 0)
    assert 0.1 < figures[0] < 0.4
    assert figures[-1] == pytest.approx(1)


def test_electrodes_that_are_spread_tell_more_than_a_cluster() -> None:
    cluster = ("Oz", "O1", "O2", "PO3", "POz", "PO7", "PO8", "PO4")
    figure = Montage.from_channels(cluster, SPEC).fidelity
    assert figure < Montage.from_channels(CYTON, SPEC).fidelity


@pytest.mark.parametrize(
    "ch_names",
    [("TP9", "AF7", "AF8", "TP10"), ("Oz", "O1", "O2", "PO3", "POz", "PO7", "PO8", "PO4"), CYTON],
)
def test_noise_is_not_multiplied_beyond_the_edge_of_the_headset(ch_names: tuple[str, ...]) -> None:
    # With mne's own smoothing, one unit of noise at eight occipital electrodes gives 33.
    assert np.linalg.norm(Montage.from_channels(ch_names, SPEC).matrix, 2) < 4


@pytest.mark.parametrize(
    "name",
    ["Fp1", "FP1", "fp1", "EEG Fp1", "EEG FP1-REF", "Fp1-LE", "FP1.", " Fp1 ", "EEG:Fp1_A1A2"],
)
def test_a_name_is_known_in_what_devices_and_formats_make_of_it(name: str) -> None:
    assert electrode_key(name) == "fp1"


def test_old_names_are_known() -> None:
    montage = Montage.from_channels(("T3", "EEG T4-Ref", "T5", "T6"), SPEC)
    rows = [NAMES.index(name) for name in ("T7", "T8", "P7", "P8")]
    np.testing.assert_array_equal(montage.matrix[rows], np.eye(4))


def test_a_bipolar_channel_is_no_electrode() -> None:
    montage = Montage.from_channels(("Fp1-F7", "Cz", "Pz", "Oz"), SPEC)
    assert not montage.matrix[:, 0].any()


def test_of_two_names_for_one_place_the_first_counts() -> None:
    montage = Montage.from_channels(("T3", "T7", "Cz", "Oz"), SPEC)
    assert not montage.matrix[:, 1].any()
    assert np.isfinite(montage.matrix).all()


def test_unknown_channels_are_named_and_not_used() -> None:
    montage = Montage.from_channels(("TP9", "AF7", "AF8", "TP10", "Right AUX"), SPEC)
    assert not montage.matrix[:, 4].any()
    assert montage.sentence.startswith("None of the model's 32 electrodes are present; the other")
    assert montage.sentence.endswith("Right AUX is not used: no such electrode is known.")


def test_fewer_than_three_known_electrodes_are_refused_with_the_remedy() -> None:
    with pytest.raises(
        MontageError, match=r"has EXG1, EXG2, Cz, of which one is known\. Give .* --ch-names Fp1"
    ):
        Montage.from_channels(("EXG1", "EXG2", "Cz"), SPEC)
    with pytest.raises(MontageError, match=r"ch7 and 8 more, of which none is known"):
        Montage.from_channels([f"ch{i}" for i in range(16)], SPEC)


def test_a_montage_that_mne_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(MontageError, match=r"'my_cap', which mne does not have.*biosemi64"):
        Montage.from_channels(NAMES, EpochSpec(NAMES, montage="my_cap"))


def test_a_bundle_whose_montage_does_not_place_its_electrodes_is_refused() -> None:
    with pytest.raises(MontageError, match=r"standard_1005 does not place the bundle's X9"):
        Montage.from_channels(NAMES, EpochSpec(("Cz", "X9")))


def test_a_bundle_may_name_another_montage() -> None:
    spec = EpochSpec(("A1", "A2", "B1", "D32"), montage="biosemi128")
    assert Montage.from_channels(("A1", "A2", "B1", "D32"), spec).fidelity == pytest.approx(1)
