"""What an evaluation measures: pure functions of classifier outputs, embeddings and pixels.

Every function returns one value for each trial, so that `Score.of` can say how sure their
mean is. Ties are broken fairly: a decoder or a classifier that says nothing gets exactly
the score of chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

DRAWS = 2000


def wilson(p: float, n: int) -> tuple[float, float]:
    """95 % interval of a share `p` of `n` independent trials.

    Wilson 1927, doi 10.1080/01621459.1927.10502953.

    >>> [round(bound, 3) for bound in wilson(0.5, 10)]
    [0.237, 0.763]
    """
    z = 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: np.ndarray, group: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean, by drawing whole groups again (percentiles of 2,000 draws).

    Efron 1979, doi 10.1214/aos/1176344552. Trials that share a picture are not independent,
    so pictures are drawn and not trials.

    Parameters
    ----------
    values : (n,).
    group : (n,), whatever tells the groups apart.
    seed : of the draws.

    >>> bootstrap(np.array([1.0, 1.0]), np.array([0, 1]))
    (1.0, 1.0)
    """
    _, group = np.unique(group, return_inverse=True)
    total, count = np.bincount(group, values), np.bincount(group)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(total), size=len(total)) for _ in range(DRAWS))
    means = [total[d].sum() / count[d].sum() for d in drawn]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over trials and how sure it is.

    Attributes
    ----------
    value : the mean.
    low, high : its 95 % interval; None where there is none.
    n : trials.
    n_images : seen pictures that they share.
    interval : how the interval was found.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    n_images: int
    interval: str

    @classmethod
    def of(cls, values: np.ndarray, image: np.ndarray, seed: int = 0) -> Self:
        """Score of the trials' values.

        Wilson's interval for shares of independent trials, else the bootstrap over pictures.
        A share of 0 or 1 leaves the bootstrap nothing to draw, so it gets Wilson's interval
        of as many trials as there are pictures.

        Parameters
        ----------
        values : (n,).
        image : (n,), which picture each trial saw.
        seed : of the bootstrap.

        >>> Score.of(np.array([1.0, 0.0]), np.array([3, 4])).interval
        'Wilson'
        """
        value, n, n_images = float(values.mean()), len(values), len(np.unique(image))
        is_share = bool(np.isin(values, (0, 1)).all())
        if is_share and (n == n_images or value in (0, 1)):
            return cls(value, *wilson(value, n_images), n, n_images, "Wilson")
        return cls(value, *bootstrap(values, image, seed), n, n_images, "bootstrap over pictures")


def n_way_top_k(probabilities: np.ndarray, truth: np.ndarray, n_way: int, k: int) -> np.ndarray:
    """Probability that the true class is among the `k` best of itself and n - 1 others.

    The score of MinD-Vis (Chen et al. 2022, arXiv 2211.06956) and DreamDiffusion, who draw
    the other classes at random many times. The expectation over all draws follows from the
    rank of the true class: of the drawn ones that are better, their number is
    hypergeometric.

    Parameters
    ----------
    probabilities : (n, n_classes).
    truth : (n,), the true class.
    n_way : classes compared, 2 to n_classes.
    k : best ones that count.

    Returns
    -------
    array of shape (n,).

    >>> n_way_top_k(np.array([[0.5, 0.3, 0.2]]), np.array([1]), n_way=2, k=1)
    array([0.5])
    """
    better, tied = _ahead(probabilities, truth)
    n_others = probabilities.shape[1] - 1
    by_rank = hypergeom.cdf(k - 1, n_others, np.arange(n_others + 1), n_way - 1)
    total = np.concatenate([[0.0], by_rank.cumsum()])
    out: np.ndarray = ((total[better + tied + 1] - total[better]) / (tied + 1)).round(12)
    return out


def two_way(similarity: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the other seen pictures that a decoded one resembles less than its own.

    Two-way identification, as Ozcelik and VanRullen 2023, arXiv 2303.05334. Chance is 0.5.

    Parameters
    ----------
    similarity : (n, n_images), of decoded and seen pictures.
    truth : (n,), the column of the seen picture.

    Returns
    -------
    array of shape (n,).

    >>> two_way(np.array([[0.9, 0.1, 0.95]]), np.array([0]))
    array([0.5])
    """
    better, tied = _ahead(similarity, truth)
    out: np.ndarray = 1 - (better + tied / 2) / (similarity.shape[1] - 1)
    return out


def correlation_parts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Values (n,) whose mean is Pearson's correlation of `a` and `b` (n,); 0 if one is constant.

    >>> correlation_parts(np.array([1.0, 2.0]), np.array([5.0, 3.0])).mean()
    np.float64(-1.0)
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    scales = a.std(), b.std()
    if min(scales) < 1e-6:
        return np.zeros(len(a))
    return np.asarray((a - a.mean()) / scales[0] * (b - b.mean()) / scales[1])


def retrieval_top_k(similarity: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """Whether the seen picture is among the `k` most similar, (n,) of 0 to 1.

    Parameters
    ----------
    similarity : (n, n_images), of what was decoded and the pictures.
    truth : (n,), the column of the seen picture.
    k : most similar ones that count.

    >>> retrieval_top_k(np.array([[0.9, 0.1, 0.95]]), np.array([0]), k=1)
    array([0.])
    """
    better, tied = _ahead(similarity, truth)
    out: np.ndarray = np.clip(k - better, 0, tied + 1) / (tied + 1)
    return out


def _ahead(values: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many columns are greater than the true one, and how many others equal it."""
    own = np.take_along_axis(values, truth[:, None], axis=1)
    return (values > own).sum(1), (values == own).sum(1) - 1


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, dim) of unit length; a row of zeros stays one.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    out: np.ndarray = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return out


def standardised(pixels: np.ndarray) -> np.ndarray:
    """Rows (n, dim) whose inner products are Pearson correlations.

    >>> x = standardised(np.array([[0.0, 1.0, 2.0], [3.0, 2.0, 1.0]]))
    >>> (x @ x.T).round(6).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    return unit(pixels - pixels.mean(1, keepdims=True))


def ssim(decoded: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each pair (Wang et al. 2004, doi 10.1109/TIP.2003.819861).

    Parameters
    ----------
    decoded, seen : (n, 3, H, W) in 0 to 1.

    Returns
    -------
    tensor of shape (n,), 1 for equal pictures.
    """
    values = structural_similarity_index_measure(decoded, seen, data_range=1.0, reduction="none")
    assert isinstance(values, torch.Tensor)
    return values.reshape(len(decoded))


def frechet_distance(
    extractor: nn.Module, seen: Iterable[torch.Tensor], decoded: Iterable[torch.Tensor]
) -> float:
    """Fréchet distance of two sets of pictures in a network's features.

    With Inception's 2,048 features this is the FID (Heusel et al. 2017, arXiv 1706.08500).
    It is biased upwards for small sets (Chong and Forsyth 2020, arXiv 1911.07023): compare
    only distances of as many pictures.

    Parameters
    ----------
    extractor : from pictures (n, 3, H, W) in 0 to 1 to features (n, dim).
    seen, decoded : batches of such pictures, at least two pictures each.
    """
    distance = FrechetInceptionDistance(feature=extractor, normalize=True)
    for pictures in seen:
        distance.update(pictures, real=True)
    for pictures in decoded:
        distance.update(pictures, real=False)
    return float(distance.compute())
