r"""Modes: how many of the known modes of a law a generator reaches, how evenly, and how well it fills them.

For a mixture of K Gaussians :math:`\sum_k w_k N(c_k, \sigma^2 I)` in d dimensions, :math:`w_k = 1/K` if not given, a
sample belongs to the mode whose centre is nearest, and is of *high quality* if it is less than R sigma away from it
(R = 3).  With :math:`m_k` high-quality samples in mode k, :math:`m = \sum_k m_k` of n:

- captured: the number of modes with :math:`m_k \ge 1`;
- quality: m / n, for which a perfect sampler expects :math:`P(\chi_d < R) = P(\frac d2, \frac{R^2}{2})`, the
  regularised incomplete gamma function: :math:`1 - e^{-9/2}` = 98.89 % in the plane;
- reverse KL: :math:`\sum_k \frac{m_k}{m} \log \frac{m_k}{m w_k}`, in nats: 0 for modes as frequent as they should be,
  :math:`-\log w_k` for a single one.  A sampler of the true weights expects (K - 1) / (2m), to first order, because m
  is finite;
- width: the standard deviation within modes over that of a perfect sampler.  A generator that emits nothing but the
  centres has all modes, a quality of 100 % and a width of 0.

Pictures of three digits side by side as colours, "stacked MNIST", are 1,000 modes that a classifier tells apart.

References:
    VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning (Srivastava et al., 2017)
    PacGAN: The power of two samples in generative adversarial networks (Lin et al., 2018)
    Unrolled Generative Adversarial Networks (Metz et al., 2017), for stacked MNIST
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from organza.metrics.features import matrix
from organza.metrics.frechet import float64

__all__ = ["Modes", "Stacked", "mode_coverage", "stacked_modes"]

_TILE = 2**22  # distances at once


class Modes(NamedTuple):
    """What :func:`mode_coverage` found; the module's docstring defines it.

    Attributes:
        captured: The number of modes with at least one high-quality sample.
        total: K, the number of modes.
        quality: The share of samples that are of high quality.
        ceiling: The share that a perfect sampler expects.
        reverse_kl: KL(histogram of high-quality samples over modes || w), in nats; NaN without such samples.
        kl_floor: What a sampler of the true weights expects of it with as many high-quality samples; NaN without.
        width: The standard deviation within modes, 1 for a perfect sampler; NaN if no mode has two samples.
        counts: The number of high-quality samples of each mode, (K,), int64, on the CPU.
    """

    captured: int
    total: int
    quality: float
    ceiling: float
    reverse_kl: float
    kl_floor: float
    width: float
    counts: Tensor


class Stacked(NamedTuple):
    """What :func:`stacked_modes` found.

    Attributes:
        modes: The number of the 1,000 modes with at least one sample.
        kl: KL(histogram of samples over modes || uniform), in nats: at most log 1000 = 6.908.
        floor: What an even sampler of as many samples expects of it: 999 / (2n), .0192 for n = 26,000.
    """

    modes: int
    kl: float
    floor: float


def mode_coverage(
    x: Tensor, centres: Tensor, sigma: float, radius: float = 3.0, weights: Tensor | None = None
) -> Modes:
    r"""Count the modes that samples reach, and measure how they lie in them.

    A mode is captured by a single sample, so the number of modes grows with n: compare at the same n, 2,500 in the
    published tables, whose samples are of high quality within 3 sigma.

    The width is the root of the pooled variance within modes over its expectation under the law cut off at R,

    .. math:: w^2 = \frac{\sum_k \sum_i \|x_i - \bar x_k\|^2}{\sum_k d \, (m_k - 1)} \Big/
              \sigma^2 \frac{P(d/2 + 1, R^2/2)}{P(d/2, R^2/2)},

    over high-quality samples: :math:`E w^2 = 1` for a perfect sampler.  It sees modes that are too narrow; those that
    are too wide lose quality first.

    Arguments:
        x: Samples of G, (n, d), floats.
        centres: c, (K, d), more than 2 radius sigma apart.
        sigma: The standard deviation of every mode, above 0.
        radius: R, in sigma, above 0.  Most of the law lies near sqrt(d), so 3 suits only few dimensions.
        weights: w, (K,), above 0, in any proportion to the true ones; equal if not given.

    Raises:
        ValueError: If the arguments are not that, or less than 1 % of the law lies within the radius.
    """
    x, centres = float64(matrix(x, "x", 1)), float64(matrix(centres, "centres", 1))
    if x.shape[1] != centres.shape[1]:
        raise ValueError(f"x of {x.shape[1]} dimensions and centres of {centres.shape[1]}: they must be the same")
    for name, value in (("sigma", sigma), ("radius", radius)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: must be finite and above 0")
    closest = float(torch.pdist(centres).min()) if len(centres) > 1 else math.inf
    if closest <= 2 * radius * sigma:
        raise ValueError(
            f"centres {closest:g} apart with sigma={sigma:g} and radius={radius:g}: modes may not overlap, so "
            f"more than {2 * radius * sigma:g} is needed; give each centre once, or a smaller radius"
        )
    d = x.shape[1]
    ceiling = _within(d, radius)
    if ceiling < 0.01:
        raise ValueError(
            f"radius={radius:g} in {d} dimensions: less than 1 % of the law itself lies so close to a centre; "
            f"give sqrt(d) + 3 = {math.sqrt(d) + 3:.3g} for nearly all of it"
        )
    w = torch.ones(len(centres)) if weights is None else weights
    if w.shape != (len(centres),) or not bool((w > 0).all() & w.isfinite().all()):
        raise ValueError(
            f"weights {w.tolist()}: one for each of the {len(centres)} modes, finite and above 0, is needed"
        )
    centres = centres.to(x.device)
    distance, mode = _nearest(x, centres)
    inside = distance < radius * sigma
    x, mode = x[inside], mode[inside]
    counts = mode.bincount(minlength=len(centres))
    return Modes(
        captured=int((counts > 0).sum()),
        total=len(centres),
        quality=float(inside.double().mean()),
        ceiling=ceiling,
        reverse_kl=_kl(counts, w),
        kl_floor=_floor(counts),
        width=_spread(x - centres[mode], mode, counts) / (sigma * _cut(d, radius)),
        counts=counts.cpu(),
    )


def stacked_modes(labels: Tensor) -> Stacked:
    """Count the modes of stacked digits that samples reach.

    The number of modes and the KL divergence depend on n: compare at the same n, 26,000 in most published tables, and
    beside the floor.

    Arguments:
        labels: What a classifier of digits sees in each channel, (n, 3), integers 0 to 9.

    Raises:
        ValueError: If they are not that.
    """
    if labels.ndim != 2 or labels.shape[1] != 3 or not len(labels):
        raise ValueError(f"labels of shape {tuple(labels.shape)}: one digit for each of 3 channels is needed, (n, 3)")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels of {labels.dtype}: integers 0 to 9 are needed, e.g. logits.argmax(-1)")
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or high > 9:
        raise ValueError(f"labels from {low} to {high}: digits, 0 to 9, are needed")
    counts = (labels.cpu().long() * torch.tensor([100, 10, 1])).sum(1).bincount(minlength=1000)
    return Stacked(int((counts > 0).sum()), _kl(counts, torch.ones(1000)), _floor(counts))


def _nearest(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the nearest centre, (n,), and its number, (n,); from differences, so exact."""
    found = [
        torch.cdist(part, centres, compute_mode="donot_use_mm_for_euclid_dist").min(1)
        for part in x.split(max(1, _TILE // len(centres)))
    ]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def _kl(counts: Tensor, w: Tensor) -> float:
    """Return KL(histogram || w), (K,) each, in nats; NaN if the histogram is empty."""
    p, w = counts.double().cpu() / counts.sum().cpu(), w.double().cpu()
    return float(torch.special.xlogy(p, p * w.sum() / w).sum())


def _floor(counts: Tensor) -> float:
    """Return what a sampler of the true weights expects of it: 2n KL is about chi-squared, K - 1 degrees."""
    n = int(counts.sum())
    return (len(counts) - 1) / (2 * n) if n else math.nan


def _spread(x: Tensor, mode: Tensor, counts: Tensor) -> float:
    """Return the standard deviation within modes, a coordinate; NaN if no mode has two samples."""
    means = torch.zeros(len(counts), x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, mode, x)
    means /= counts.clamp(min=1)[:, None]
    freedom = x.shape[1] * int((counts - 1).clamp(min=0).sum())
    return math.sqrt(float((x - means[mode]).square().sum()) / freedom) if freedom else math.nan


def _within(d: int, radius: float) -> float:
    """Return the probability that a standard normal vector of d dimensions is shorter than radius."""
    half, bound = torch.tensor([d / 2, radius**2 / 2], dtype=torch.float64)
    return float(torch.special.gammainc(half, bound))


def _cut(d: int, radius: float) -> float:
    """Return the standard deviation of a coordinate of such a vector, given that it is shorter than radius."""
    return math.sqrt(_within(d + 2, radius) / _within(d, radius))
