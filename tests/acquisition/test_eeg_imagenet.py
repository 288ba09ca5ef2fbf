import numpy as np

from acquisition.eeg_imagenet import DREAMDIFFUSION_SPEC
from acquisition.montage import Montage, electrode_positions

CH_NAMES = DREAMDIFFUSION_SPEC.ch_names


def test_every_electrode_has_its_place() -> None:
    assert len(CH_NAMES) == 128
    places = electrode_positions(DREAMDIFFUSION_SPEC.montage)
    assert len({places[name.lower()] for name in CH_NAMES}) == 128
    # The rows that EEG-ImageNet's makers point out.
    assert (CH_NAMES[0], CH_NAMES[2], CH_NAMES[28:31]) == ("Fp1", "F7", ("O1", "Oz", "O2"))
    matrix = Montage.from_channels(CH_NAMES, DREAMDIFFUSION_SPEC).matrix
    assert np.array_equal(matrix, np.eye(128))


def test_samples_stand_where_the_references_interpolation_puts_them() -> None:
    spec = DREAMDIFFUSION_SPEC
    onset = 0.0
    ours = onset + spec.tmin + np.arange(spec.n_times) / spec.sfreq
    theirs = np.interp(np.linspace(0, 1, 512), np.linspace(0, 1, 440), np.arange(20, 460) / 1000)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
