r"""How different are examples from each other, with no look at reals?

The Vendi score is the number of directions in feature space that are in use: with the eigenvalues
:math:`\lambda_i` of K / n, where :math:`K_{ij} = \cos(x_i, x_j)`,

.. math:: V = \exp(-\sum_i \lambda_i \ln \lambda_i), \qquad 1 \le V \le \min(n, d).

It is n for examples orthogonal to each other and 1 for copies of one.  K = U U^T of rows of length 1 has the
eigenvalues, beside zeros, of the d x d matrix U^T U.

References:
    The Vendi Score: A Diversity Evaluation Metric for Machine Learning (Friedman, Dieng, 2023)
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections import Counter
from functools import reduce

import torch
from torch import Tensor

from organza.metrics.features import matrix
from organza.metrics.frechet import Moments, float64, product

__all__ = ["duplicates", "mean_distance", "vendi"]

BLOCK = 8192  # rows at once


def vendi(features: Tensor) -> float:
    """Return the Vendi score with the cosine kernel, see the module.

    Cosines are taken from the origin: features with a common mean, as after rectifiers, score lower than the same
    ones centred.  Rows of zeros count as copies of one example that is orthogonal to all others.

    Arguments:
        features: (N, d).

    Raises:
        ValueError: If the features are no matrix, none, or not finite.
    """
    matrix(features, least=1)
    n, d = features.shape
    blocks = (_directions(block) for block in features.split(BLOCK if n > d else n))
    # The smaller of the d x d side, a sum over blocks of rows, and the n x n side, all rows at once.
    gram = reduce(operator.add, (product(U.T, U) if n > d else product(U, U.T) for U in blocks))
    zeros = (n - gram.trace()).round()  # rows without a direction: they share one that no other has
    values = torch.cat([torch.linalg.eigvalsh(gram).clamp_min(0), zeros[None]]) / n
    return math.exp(-float(torch.xlogy(values, values).sum()))


def mean_distance(moments: Moments) -> float:
    r"""Return the root mean square distance of two independent examples, :math:`\sqrt{2 \operatorname{tr} C}`.

    Arguments:
        moments: Of the examples' features, of at least 2.

    Raises:
        ValueError: If there are fewer.
    """
    if moments.n < 2:
        raise ValueError(f"got {moments.n} example; a distance needs at least 2")
    return math.sqrt(2 * float(moments.covariance.trace()))


def duplicates(x: Tensor) -> float:
    """Return the share of rows that have an equal row.

    Arguments:
        x: (N, ...), features or pixels, of any type.

    Raises:
        ValueError: If there is no row.
    """
    if not x.ndim or not x.numel():
        raise ValueError(f"duplicates: got {tuple(x.shape)}; at least one row is needed")
    counts: Counter[bytes] = Counter()
    for block in x.detach().split(BLOCK):
        rows = block.cpu().flatten(1) if x.ndim > 1 else block.cpu()[:, None]
        if rows.is_floating_point():
            rows = rows + 0.0  # -0 equals 0, and so must their bytes
        seen = rows.contiguous().view(torch.uint8).numpy()
        counts.update(hashlib.blake2b(row, digest_size=16).digest() for row in seen)
    return sum(count for count in counts.values() if count > 1) / len(x)


def _directions(x: Tensor) -> Tensor:
    """Rows scaled to length 1, float64; a row of zeros stays."""
    x = float64(x)
    lengths = x.square().sum(1, keepdim=True).sqrt()
    return x / torch.where(lengths > 0, lengths, 1.0)
