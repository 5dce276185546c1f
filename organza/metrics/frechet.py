r"""The Fréchet distance of two samples: how far apart are the Gaussians fitted to their features?

With means m1, m2 and covariances C1, C2 of the features of fakes and reals,

.. math:: d^2 = \|m_1 - m_2\|^2 + \operatorname{tr}(C_1 + C_2 - 2 (C_1 C_2)^{1/2}),

which is the squared 2-Wasserstein distance of N(m1, C1) and N(m2, C2); with the features of Inception it is the FID.
For any factors :math:`C_i = F_i^T F_i` the last trace is the sum of the singular values of :math:`F_1 F_2^T`, and so
it is computed: no root of a matrix is taken, and singular covariances (fewer examples than features, dead features)
are as good as others.

The distance of finite samples is biased upwards by about 1/n: measure reals against other reals to see that floor.

References:
    The Fréchet Distance between Multivariate Normal Distributions (Dowson, Landau, 1982)
    GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017)
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from organza.metrics.features import matrix

__all__ = ["Moments", "frechet_distance", "frechet_error", "float64", "product"]

EPS = torch.finfo(torch.float64).eps
BLOCK = 2**28  # bytes, at most, of the float64 copy of a block of examples
FAST = 1e-7  # relative error of the distance up to which eigenvalues may stand for singular values


@dataclass(frozen=True, eq=False)
class Moments:
    r"""Number, mean and scatter of a sample: all that a Gaussian fit needs, of parts that can be merged.

    ``a + b`` are the moments of both samples together, with :math:`\delta = m_b - m_a`

    .. math:: S = S_a + S_b + \frac{n_a n_b}{n_a + n_b} \delta \delta^T

    References:
        Algorithms for Computing the Sample Variance (Chan, Golub, LeVeque, 1983)

    Arguments:
        n: The number of examples.
        mean: m, (d,), float64.
        scatter: S, the sum of the outer products of all deviations from the mean, (d, d), float64.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @staticmethod
    def of(features: Tensor) -> Moments:
        """Return the moments of features, (N, d), in float64 on their device (on the CPU where that has no float64).

        Each block of examples is centred at its own mean before it is squared, so that a large common mean costs no
        digits, and only one block at a time is held in float64.

        Raises:
            ValueError: If the features are no matrix, none, or not finite.
        """
        matrix(features[:1], "features", 1)
        device = torch.device("cpu") if features.device.type == "mps" else features.device
        blocks = _blocks(features)
        copy = torch.empty(blocks[0].shape, dtype=torch.float64, device=device)
        moments = reduce(operator.add, (_centred(copy[: len(block)].copy_(block)) for block in blocks))
        if not bool(moments.mean.isfinite().all()):
            matrix(features, "features", 1)  # says which; to look at every number before would take longer
        return moments

    def __add__(self, other: Moments) -> Moments:
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of {len(self.mean)} and of {len(other.mean)} features cannot be merged")
        n = self.n + other.n
        delta = other.mean - self.mean
        scatter = torch.addr(self.scatter, delta, delta, alpha=self.n * other.n / n).add_(other.scatter)
        return Moments(n, torch.add(self.mean, delta, alpha=other.n / n), scatter)

    @property
    def covariance(self) -> Tensor:
        """C = S / (n - 1), (d, d)."""
        return self.scatter / (self.n - 1)


def frechet_distance(fake: Moments, real: Moments) -> float:
    """Return the squared Fréchet distance of the Gaussians fitted to fakes and reals, see the module; at least 0.

    Only rounding, of some 1e-16 of the covariances' traces, can take it below 0, and that is cut off.

    Arguments:
        fake: Moments of the fakes' features.
        real: Moments of the reals' features.

    Raises:
        ValueError: If one side has fewer than 2 examples, or the features differ in number.
    """
    _check(fake, real)
    C1, C2 = fake.covariance, real.covariance
    apart = (fake.mean - real.mean).square().sum() + C1.trace() + C2.trace()
    common = product(_root(C1), _root(C2).T)  # (rank of C1, rank of C2)
    squares = product(common, common.T) if common.shape[0] <= common.shape[1] else product(common.T, common)
    # Eigenvalues of the square are twice as fast as singular values, but each is off by some eps times the greatest:
    # |(l + e)^(1/2) - l^(1/2)| <= min(e^(1/2), e / l^(1/2)).  The sum of these bounds was 10 to 1000 times the error.
    values = torch.linalg.eigvalsh(squares).clamp_min(torch.finfo(torch.float64).tiny)
    noise = EPS * values[-1]
    error = (noise / values.clamp_min(noise).sqrt()).sum()
    distance = apart - 2 * values.sqrt().sum()
    if 2 * error > FAST * distance:
        distance = apart - 2 * torch.linalg.svdvals(common).sum()
    return max(float(distance), 0.0)


def frechet_error(features: Tensor, fake: Moments, real: Moments) -> float:
    r"""Return the standard error of the distance from the sampling of the fakes, by the delta method.

    The distance's gradient is :math:`2 (m_1 - m_2)` in m1 and :math:`I - T` in C1, where T is the linear map that
    carries N(0, C1) to N(0, C2) optimally,

    .. math:: T = C_1^{-1/2} (C_1^{1/2} C_2 C_1^{1/2})^{1/2} C_1^{-1/2},

    the inverses taken on the range of C1.  So one example x moves the distance by its influence (infinitesimal
    jackknife), less its mean, over n:

    .. math:: 2 (m_1 - m_2)^T (x - m_1) + (x - m_1)^T (I - T) (x - m_1),

    and the error is the standard deviation of these over the root of n.  It is of first order: at equal laws it is 0,
    and what is left, a chance and a bias of about 1/n, is what the floor shows.

    References:
        The Jackknife, the Bootstrap and Other Resampling Plans (Efron, 1982)

    Arguments:
        features: The fakes' features, (N, d), all or some of those behind ``fake``, at least 2.
        fake: Moments of the fakes' features.
        real: Moments of the reals' features.

    Raises:
        ValueError: As in :func:`frechet_distance`, or if features are no matrix of d columns.
    """
    _check(fake, real)
    if matrix(features).shape[1] != len(fake.mean):
        raise ValueError(f"features: got {features.shape[1]} columns, the moments have {len(fake.mean)}")
    F, inverse = _factor(fake.covariance)
    squares, W = torch.linalg.eigh(product(product(F, real.covariance), F.T))
    P = inverse @ (W * squares.clamp_min(0).sqrt().sqrt())  # (d, rank): T = P P^T
    shift = 2 * (fake.mean - real.mean)
    influences = []
    for block in _blocks(features):
        x = float64(block) - fake.mean
        influences.append(x @ shift + x.square().sum(1) - product(x, P).square().sum(1))  # (B,)
    return float(torch.cat(influences).std()) / math.sqrt(fake.n)


def float64(x: Tensor) -> Tensor:
    """Return x in float64, apart from any graph, on its device or on the CPU where that has no float64."""
    x = x.detach()
    return x.cpu().double() if x.device.type == "mps" else x.double()


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a b of matrices in float64; on the CPU by NumPy, half the multiplications where a is the transpose of b.

    NumPy sees that case and takes BLAS's syrk, to which PyTorch has no door.
    """
    if a.device.type != "cpu":
        return a @ b
    with np.errstate(all="ignore"):  # NaN and infinity pass without a warning, as in PyTorch
        return torch.from_numpy(a.numpy() @ b.numpy())


def _blocks(features: Tensor) -> tuple[Tensor, ...]:
    """Parts of even size, none of which is large as float64."""
    n, d = features.shape
    parts = math.ceil(8 * n * d / BLOCK)
    blocks: tuple[Tensor, ...] = features.detach().split(math.ceil(n / parts))
    return blocks


def _centred(x: Tensor) -> Moments:
    """The moments of a block of examples, which is centred in place."""
    mean = x.mean(0)
    return Moments(len(x), mean, product(x.sub_(mean).T, x))


def _check(fake: Moments, real: Moments) -> None:
    for side, moments in (("fake", fake), ("real", real)):
        if moments.n < 2:
            raise ValueError(f"{side}: got {moments.n} example; a covariance needs at least 2")
    if fake.mean.shape != real.mean.shape:
        raise ValueError(f"fakes have {len(fake.mean)} features, reals {len(real.mean)}; take the same extractor")


def _correlation(covariance: Tensor) -> tuple[Tensor, Tensor, float]:
    """Standard deviations, correlations (a row of zeros for a dead feature), and the rounding in them.

    Ranks are decided on correlations, so that the features' units do not matter.
    """
    deviations = covariance.diagonal().sqrt()
    units = _units(deviations)
    return deviations, covariance / units / units[:, None], 100 * EPS * math.sqrt(len(units))


def _units(deviations: Tensor) -> Tensor:
    """Deviations to divide by: 1 for a dead feature."""
    return deviations + (deviations == 0).double()


def _root(covariance: Tensor) -> Tensor:
    """F with F^T F = C, (rank or d, d), to the last digits that C determines."""
    deviations, correlation, rounding = _correlation(covariance)
    correlation.diagonal().add_((deviations == 0).double())  # a dead feature need not make it singular
    L, failed = torch.linalg.cholesky_ex(correlation)
    if failed or bool(L.diagonal().square().min() <= rounding):
        return _factor(covariance)[0]
    F: Tensor = L.T * deviations
    return F


def _factor(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """F with F^T F = C, (rank, d), and G with F G = I, (d, rank), by eigenvalues.

    Those that are no more than rounding are left out: their roots would be of half the digits.  So are dead features,
    of which a collapsed G leaves so many that LAPACK may not find the eigenvalues.
    """
    alive = covariance.diagonal() > 0
    deviations, correlation, rounding = _correlation(covariance[alive][:, alive])
    values, vectors = torch.linalg.eigh(correlation)
    kept = values > rounding * values[-1:]
    roots, vectors = values[kept].sqrt(), vectors[:, kept]
    F, inverse = covariance.new_zeros(2, len(alive), len(roots))
    F[alive], inverse[alive] = vectors * roots * deviations[:, None], vectors / roots / deviations[:, None]
    return F.T, inverse
