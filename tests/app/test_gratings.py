import numpy as np
import pytest

from app.face_house import SKETCHES, draw_sketch
from app.face_house import vary as vary_sketch
from app.face_house_reader import SHOWN, read_sketch
from app.grating_reader import read_grating
from app.gratings import DEGREES, GRATINGS, HIGH, LOW, NAMES, Grating, draw_grating, vary


def test_the_high_frequency_has_its_cycles_and_the_low_one_its_part_of_one() -> None:
    row = draw_grating(Grating(HIGH, 0), 128)[40, :, 0].astype(float) - 127.5
    n_crossings = np.count_nonzero(np.diff(np.sign(row)))
    assert n_crossings == pytest.approx(2 * HIGH * DEGREES, abs=1)
    low = draw_grating(Grating(LOW, 0), 64)[10, :, 0].astype(float) / 255
    assert low.max() == pytest.approx(1, abs=0.01)
    assert low[0] == pytest.approx((1 + np.cos(2 * np.pi * LOW * DEGREES / 2)) / 2, abs=0.01)


def test_orientation_turns_clockwise_from_vertical_bars() -> None:
    upright, leaning = draw_grating(GRATINGS[4]), draw_grating(GRATINGS[5])
    assert np.ptp(upright[:20, 10, 0]) == 0, "along a vertical bar nothing changes"
    # Turned clockwise, a bar rises to the right: the same light up and right of a point.
    np.testing.assert_array_equal(leaning[20, 10], leaning[10, 20])


def test_the_fixation_square_is_red_and_in_the_middle() -> None:
    picture = draw_grating(GRATINGS[0]).astype(int)
    is_red = (picture[..., 0] - picture[..., 1]) > 200
    rows, columns = np.nonzero(is_red)
    assert rows.mean() == columns.mean() == 31.5
    assert 8 <= is_red.sum() <= 25


@pytest.mark.parametrize("label", range(8))
def test_the_reader_tells_varied_gratings(label: int) -> None:
    rng = np.random.default_rng(label)
    for _ in range(10):
        picture = draw_grating(vary(GRATINGS[label], rng)).astype(float)
        noisy = np.clip(picture + 15 * rng.standard_normal(picture.shape), 0, 255)
        reading = read_grating(noisy)
        assert reading.label == label, NAMES[label]
        assert reading.is_high == (label >= 4)


def test_the_reader_reads_the_picture_and_not_its_light() -> None:
    for label, grating in enumerate(GRATINGS):
        assert read_grating(draw_grating(grating) // 2 + 60).label == label


def test_the_reader_of_noise_says_each_of_the_orientations() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (200, 64, 64, 3))
    said = np.bincount([read_grating(p).label % 4 for p in noise], minlength=4)
    assert said.min() > 20


def test_faces_and_houses_are_told_apart_however_varied() -> None:
    rng = np.random.default_rng(0)
    for i in range(40):
        read = read_sketch(draw_sketch(vary_sketch(SKETCHES[i % 2], rng)))
        assert read.argmax() == i % 2
        assert read.max() > SHOWN


def test_what_is_neither_a_face_nor_a_house_shows_neither() -> None:
    rng = np.random.default_rng(0)
    noise = list(rng.integers(0, 255, (10, 64, 64, 3)))
    for picture in [*noise, *(draw_grating(g) for g in GRATINGS)]:
        assert read_sketch(picture).max() < SHOWN
    assert read_sketch(np.full((64, 64, 3), 128, np.uint8)).tolist() == [0, 0]
