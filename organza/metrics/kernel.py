r"""The kernel distance: the squared maximum mean discrepancy of fakes and reals in feature space.

With the polynomial kernel :math:`k(x, y) = (x^T y / d + 1)^p` of features x, y in R^d, for n fakes x and m reals y,

.. math::
    \widehat{\mathrm{MMD}}^2 = \frac{1}{n (n - 1)} \sum_{i \ne j} k(x_i, x_j)
        + \frac{1}{m (m - 1)} \sum_{i \ne j} k(y_i, y_j) - \frac{2}{n m} \sum_{i, j} k(x_i, y_j)

is unbiased at every n and m: of one law its mean is 0, so that values below 0 are as they should be.  The KID is its
mean over random subsets, with p = 3 and the features of Inception.

References:
    Demystifying MMD GANs (Binkowski, Sutherland, Arbel, Gretton, 2018)
    A Kernel Two-Sample Test (Gretton, Borgwardt, Rasch, Schölkopf, Smola, 2012)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from organza.metrics.features import matrix
from organza.metrics.frechet import float64, product

__all__ = ["Estimate", "kernel_distance", "mmd"]

TILE = 1024  # rows at once of the matrix of all pairs


class Estimate(NamedTuple):
    """A number that was estimated.

    Arguments:
        value: It.
        error: What the function that returns it says: a standard error, or the deviation of repetitions.
    """

    value: float
    error: float


def kernel_distance(
    fake: Tensor, real: Tensor, subsets: int = 100, size: int = 1000, degree: int = 3, seed: int = 0
) -> Estimate:
    """Return the mean squared discrepancy of random subsets of fakes and reals, as the KID is defined.

    Its ``error`` is the standard deviation over subsets, the definition's own: the spread at ``size`` examples, and
    not the error of the mean; subsets share examples.  Subsets are drawn without replacement, each of the fakes
    before that of the reals, from ``numpy.random.RandomState(seed)``: torch-fidelity's with the same seed.

    Arguments:
        fake: Features of the fakes, (N, d).
        real: Features of the reals, (M, d).
        subsets: How many subsets.
        size: How many fakes and how many reals a subset has.
        degree: p, at least 1.
        seed: Of the subsets.

    Raises:
        ValueError: If there are fewer than ``size`` examples on one side, or the features do not fit.
    """
    _check(fake, real, degree)
    fewest = min(len(fake), len(real))
    if subsets < 1 or not 2 <= size <= fewest:
        got = f"size={size}, subsets={subsets} of {len(fake)} fakes and {len(real)} reals"
        raise ValueError(f"{got}: a subset has 2 to {fewest} of each; give a smaller size, as size={fewest}")
    random = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        rows = [torch.from_numpy(random.choice(len(side), size, replace=False)) for side in (fake, real)]
        both = torch.cat([side[row.to(side.device)] for side, row in zip((fake, real), rows, strict=True)])
        values[i] = _subset(float64(both), degree)
    return Estimate(float(values.mean()), float(values.std()))


def mmd(fake: Tensor, real: Tensor, degree: int = 3) -> float:
    """Return the unbiased estimate of the squared discrepancy from all examples.

    Arguments:
        fake: Features of the fakes, (N, d).
        real: Features of the reals, (M, d).
        degree: p, at least 1.

    Raises:
        ValueError: If the features do not fit.
    """
    _check(fake, real, degree)
    n, m = len(fake), len(real)
    between = sum(_sum(float64(x), real, degree) for x in fake.split(TILE))
    return _within(fake, degree) / (n * (n - 1)) + _within(real, degree) / (m * (m - 1)) - 2 * between / (n * m)


def _check(fake: Tensor, real: Tensor, degree: int) -> None:
    if matrix(fake, "fakes").shape[1] != matrix(real, "reals").shape[1]:
        raise ValueError(f"fakes have {fake.shape[1]} features, reals {real.shape[1]}; take the same extractor")
    if degree < 1:
        raise ValueError(f"degree={degree}: at least 1 is needed; the KID's is 3")


def _kernel(x: Tensor, y: Tensor, degree: int) -> Tensor:
    """k of all pairs, (n, m)."""
    return product(x, y.T).div_(x.shape[1]).add_(1).pow_(degree)


def _subset(both: Tensor, degree: int) -> float:
    """The estimate of as many fakes as reals, stacked: one symmetric product holds all pairs."""
    size = len(both) // 2
    k = _kernel(both, both, degree)
    fakes, reals = (part.sum() - part.trace() for part in (k[:size, :size], k[size:, size:]))
    return float((fakes + reals) / (size * (size - 1)) - 2 * k[:size, size:].mean())


def _sum(x: Tensor, rows: Tensor, degree: int) -> float:
    """The kernel's sum over all pairs of x and rows."""
    return sum(float(_kernel(x, float64(tile), degree).sum()) for tile in rows.split(TILE))


def _within(rows: Tensor, degree: int) -> float:
    """The kernel's sum over ordered pairs of different rows."""
    total = 0.0
    for start in range(0, len(rows), TILE):
        x, later = float64(rows[start : start + TILE]), rows[start + TILE :]
        k = _kernel(x, x, degree)
        total += float(k.sum() - k.trace()) + (2 * _sum(x, later, degree) if len(later) else 0.0)
    return total
