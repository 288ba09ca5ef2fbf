"""Metrics whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.training.metrics import (
    Score,
    bootstrap,
    frechet_distance,
    n_way_top_k,
    retrieval_top_k,
    ssim,
    standardised,
    two_way,
    unit,
    wilson,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("n_classes", "n_way", "k", "n_better"),
    [(1000, 50, 1, (0, 3, 20, 100)), (1000, 50, 5, (0, 60, 100, 250)), (8, 5, 2, (0, 3, 4, 6))],
)
def test_n_way_top_k_is_what_many_draws_come_to(
    n_classes: int, n_way: int, k: int, n_better: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    truth = np.arange(4)
    probabilities = np.stack([rng.permutation(n_classes) for _ in truth]).astype(float)
    for row, n in enumerate(n_better):
        # The class that stands where the true one belongs takes its place.
        there = probabilities[row] == n_classes - 1 - n
        probabilities[row, there] = probabilities[row, row]
        probabilities[row, row] = n_classes - 1 - n
    n_draws = 4000
    drawn = np.zeros((4, n_draws))
    for row in range(4):
        others = np.delete(np.arange(n_classes), truth[row])
        for draw in range(n_draws):
            distractors = rng.permutation(others)[: n_way - 1]
            better = (probabilities[row, distractors] > probabilities[row, row]).sum()
            drawn[row, draw] = better < k
    found = n_way_top_k(probabilities, truth, n_way, k)
    # Four standard errors of a share of 4,000 draws at most.
    np.testing.assert_allclose(found, drawn.mean(1), atol=4 * 0.5 / np.sqrt(n_draws))
    assert found[0] == 1
    assert np.all(np.diff(found) < 0)
    assert found[3] < 0.5


def test_a_classifier_that_says_nothing_gets_exactly_chance() -> None:
    nothing = np.full((3, 40), 1 / 40)
    truth = np.array([0, 17, 39])
    np.testing.assert_allclose(n_way_top_k(nothing, truth, 40, 1), 1 / 40)
    np.testing.assert_allclose(n_way_top_k(nothing, truth, 10, 5), 0.5)
    np.testing.assert_allclose(two_way(nothing, truth), 0.5)
    np.testing.assert_allclose(retrieval_top_k(nothing, truth, 5), 5 / 40)


def test_among_all_classes_n_way_is_plain_accuracy() -> None:
    probabilities = RNG.random((200, 7))
    truth = RNG.integers(7, size=200)
    found = n_way_top_k(probabilities, truth, 7, 1)
    np.testing.assert_array_equal(found, probabilities.argmax(1) == truth)
    np.testing.assert_array_equal(found, retrieval_top_k(probabilities, truth, 1))


def test_two_way_counts_the_others_that_are_less_similar() -> None:
    similarity = np.array([[0.3, 0.1, 0.2, 0.9], [0.3, 0.1, 0.2, 0.9]])
    assert two_way(similarity, np.array([3, 1])).tolist() == [1, 0]
    assert two_way(similarity, np.array([0, 2])).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_wilsons_interval_is_that_of_the_literature() -> None:
    # Newcombe 1998, doi 10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E,
    # Table I, method 3.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_the_bootstrap_is_as_wide_as_the_standard_error_says() -> None:
    values = RNG.normal(size=500)
    low, high = bootstrap(values, np.arange(500))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(500), rel=0.1)
    assert bootstrap(values, np.arange(500)) == (low, high)
    assert bootstrap(values, np.arange(500), seed=1) != (low, high)


def test_trials_of_the_same_picture_do_not_make_a_score_surer() -> None:
    values, image = RNG.random(50), np.arange(50)
    once = Score.of(values, image)
    ten_times = Score.of(np.repeat(values, 10), np.repeat(image, 10))
    assert (ten_times.n, ten_times.n_images) == (500, 50)
    assert ten_times.low == pytest.approx(once.low)
    assert ten_times.high == pytest.approx(once.high)


def test_shares_get_wilsons_interval_and_means_the_bootstrap() -> None:
    share = Score.of(np.array([1.0] * 5 + [0.0] * 5), np.arange(10))
    assert (share.interval, share.low) == ("Wilson", pytest.approx(0.2366, abs=1e-4))
    assert Score.of(np.linspace(0, 1, 10), np.arange(10)).interval == "bootstrap over pictures"
    shared = Score.of(np.array([1.0] * 5 + [0.0] * 5), np.arange(10) // 2)
    assert shared.interval == "bootstrap over pictures"
    # Nothing right in a hundred trials of four pictures proves little about others.
    never = Score.of(np.zeros(100), np.arange(100) % 4)
    assert never.low == 0
    assert never.high == pytest.approx(wilson(0, 4)[1])


def test_correlation_ignores_brightness_and_contrast() -> None:
    pixels = RNG.random((2, 300))
    other = 0.3 * pixels + 0.5
    expected = np.corrcoef(np.concatenate([pixels, other]))
    np.testing.assert_allclose(standardised(pixels) @ standardised(other).T, expected[:2, 2:])
    assert unit(np.zeros((1, 4))).tolist() == [[0, 0, 0, 0]]


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(3, 3, 32, 32, generator=generator)
    noise = torch.randn(pictures.shape, generator=generator)
    equal, little, much = (
        ssim((pictures + amount * noise).clamp(0, 1), pictures) for amount in (0, 0.1, 0.5)
    )
    assert equal.tolist() == pytest.approx([1, 1, 1])
    assert (equal > little).all()
    assert (little > much).all()
    # One picture is a batch too.
    assert ssim(pictures[:1], pictures[:1]).shape == (1,)


class MeanColour(nn.Module):
    num_features = 3

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean((2, 3))


def test_frechet_distance_of_shifted_sets_is_the_shift_squared() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(60, 3, 8, 8, generator=generator)
    shifted = pictures + torch.tensor([0.1, 0.2, 0.0]).view(3, 1, 1)
    extractor = MeanColour()
    assert frechet_distance(extractor, [pictures], pictures.split(7)) == pytest.approx(0, abs=1e-5)
    found = frechet_distance(extractor, pictures.split(25), [shifted])
    assert found == pytest.approx(0.1**2 + 0.2**2, abs=1e-5)
