r"""The Parzen-window log-likelihood: how the generators of 2014 were scored.

Samples :math:`\mu_1, \dots, \mu_M` of G are the centres of one isotropic Gaussian each, and their mixture stands for
the law of G, which has no density of its own.  For x of d dimensions

.. math:: \log p(x) = \log \frac1M \sum_j \exp \Big( -\frac{\|x - \mu_j\|^2}{2 \sigma^2} \Big)
          - d \log (\sigma \sqrt{2 \pi}) \quad \text{nats.}

sigma is the one of a grid under which validation data are most likely; what is reported is the mean over the test
data, with its standard error :math:`\mathrm{std} / \sqrt N` (the choice of sigma and the draw of the centres are not in
it).  A density depends on the scale of x: scores compare only where the pixels have the same range, which for images
has been [0, 1] since 2014.

Read it with care.  Theis, van den Oord and Bethge ("A note on the evaluation of generative models", 2016) show that
in high dimensions it is far from the true log-likelihood even with very many samples, that it ranks models wrongly,
and that centroids of k-means beat samples of the true law.  It is here because the first papers report nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from organza.metrics.features import matrix
from organza.metrics.frechet import float64

__all__ = ["Parzen", "parzen", "parzen_log_likelihood"]

_TILE = (512, 8192)  # rows of x and of the centres in one block of distances: 32 MiB


class Parzen(NamedTuple):
    """What :func:`parzen` found.

    Attributes:
        value: The mean log-likelihood of the test data, in nats.
        error: Its standard error over the test data, std / sqrt(N).
        sigma: The chosen width.
        sigmas: The grid it was chosen from.
        valid_means: The mean log-likelihood of the validation data at each width of the grid.
        edge: Whether the chosen width is the first or the last of the grid, so that a better one may lie outside.
    """

    value: float
    error: float
    sigma: float
    sigmas: tuple[float, ...]
    valid_means: tuple[float, ...]
    edge: bool


def parzen_log_likelihood(centres: Tensor, x: Tensor, sigma: float) -> Tensor:
    r"""Return the log-density of each x under Gaussians of width sigma at the centres, equally weighted.

    .. math:: \log \frac1M \sum_j N(x; \mu_j, \sigma^2 I)

    Arguments:
        centres: mu, (M, d), floats.
        x: Where to evaluate it, (N, d), floats of the same scale.  Images must have been mapped to [0, 1] for a score
            that compares with published ones; nothing is rescaled here.
        sigma: The width of each Gaussian, in the unit of x, above 0.

    Returns:
        Nats, (N,), float64, on x's device (on the CPU if that device has no float64).

    Raises:
        ValueError: If the arguments are not that.
    """
    mu, x = float64(matrix(centres, "centres", 1)), float64(matrix(x, "x", 1))
    return _log_likelihoods(mu, x, [_width(sigma)])[0]


def parzen(
    centres: Tensor, valid: Tensor, test: Tensor, sigmas: Sequence[float] | None = None, limit: int | None = 1000
) -> Parzen:
    """Score samples of a generator by the Parzen-window log-likelihood, with the protocol of 2014.

    For Table 1 of that paper, 10,000 samples are the centres, ``valid`` is MNIST's training images from number 50,000
    on, ``test`` its 10,000 test images, and all pixels lie in [0, 1].

    Arguments:
        centres: Samples of G, (M, d), floats.  Images must have been mapped to [0, 1]; nothing is rescaled here.
        valid: The data that choose sigma, (V, d), which neither G nor the score may see otherwise.
        test: The data that are scored, (N, d), N at least 2.
        sigmas: The grid of widths; by default the authors' ``numpy.logspace(-1, 0, 10)``, from 0.1 to 1.
        limit: How many of the first rows of ``valid`` are used; the authors' 1,000 by default, None for all.

    Raises:
        ValueError: If the arguments are not that.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), section 5, and the authors' parzen_ll.py
        A note on the evaluation of generative models (Theis, van den Oord, Bethge, 2016), on why not to trust it
    """
    grid = [_width(sigma) for sigma in (np.logspace(-1, 0, 10) if sigmas is None else sigmas)]
    if not grid:
        raise ValueError("sigmas: got none; give at least one width, or None for those of 2014")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: at least 1 row of valid must choose sigma, or None for all")
    mu, test = float64(matrix(centres, "centres", 1)), float64(matrix(test, "test", 2))
    first = float64(matrix(valid, "valid", 1)[:limit])
    valid_means = _log_likelihoods(mu, first, grid).mean(1)  # (S,)
    best = int(valid_means.argmax())
    scores = _log_likelihoods(mu, test, [grid[best]])[0]
    return Parzen(
        value=float(scores.mean()),
        error=float(scores.std(correction=0)) / math.sqrt(len(scores)),  # NumPy's std, as in the authors' code
        sigma=grid[best],
        sigmas=tuple(grid),
        valid_means=tuple(valid_means.tolist()),
        edge=best in (0, len(grid) - 1),
    )


def _log_likelihoods(centres: Tensor, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Return the log-densities of x for every width, (S, N); the distances are computed once for all widths."""
    if centres.shape[1] != x.shape[1]:
        raise ValueError(f"centres of {centres.shape[1]} dimensions and x of {x.shape[1]}: they must be the same")
    if centres.device != x.device:
        raise ValueError(f"centres on {centres.device} and x on {x.device}: move one to the other's device")
    origin = centres.mean(0)
    x, centres = x - origin, centres - origin
    sums = x.new_full((len(sigmas), len(x)), -math.inf)  # log of the sum over the centres so far
    for first in range(0, len(x), _TILE[0]):
        rows = slice(first, first + _TILE[0])
        for mu in centres.split(_TILE[1]):
            squared = _squared_distances(x[rows], mu)
            for s, sigma in enumerate(sigmas):
                block = torch.logsumexp(squared / (-2 * sigma**2), 1)
                sums[s, rows] = torch.logaddexp(sums[s, rows], block)
    norms = [x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi)) for sigma in sigmas]
    return sums - math.log(len(centres)) - sums.new_tensor(norms)[:, None]


def _squared_distances(x: Tensor, mu: Tensor) -> Tensor:
    r"""Return the squared distances, (N, M), of two float64 sets near the origin.

    :math:`\|x\|^2 + \|\mu\|^2 - 2 x \cdot \mu` is fast, and cancels where x is close to mu and both are far from the
    origin: the error is about 1e-16 of the squared norms.  For images in [0, 1] that is 1e-13, to be divided by a
    squared sigma of 0.01 at least.
    """
    squared = torch.addmm(mu.square().sum(1), x, mu.T, alpha=-2).add_(x.square().sum(1)[:, None])
    return squared.clamp_(min=0)


def _width(sigma: float) -> float:
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma={sigma}: the width of a Gaussian must be finite and above 0")
    return float(sigma)
