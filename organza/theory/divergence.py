r"""Divergences between two known laws p and q, by quadrature, each with a bound on its error.

.. math:: KL = \int p \log \frac pq, \quad JS = \tfrac12 KL(p \| m) + \tfrac12 KL(q \| m), \ m = \tfrac{p + q}2, \quad
          TV = \tfrac12 \int |p - q|, \quad \chi^2 = \int \frac{(p - q)^2}{q}, \quad W_1 = \int |F_p - F_q|

The plane is cut into cells, on each of which the rules of Gauss and Kronrod with 15 and with 7 nodes are compared; the
worst are halved until their differences add up to no more than is asked for.  Beyond the laws' boxes the integral goes
on as far as it changes the sum: an integral that never ends, such as chi-squared of a wide law and a narrow one, is
infinite.  Errors asked for are 1e-10 on the line and 1e-6 in the plane, unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from organza.theory.density import Law

__all__ = ["Estimate", "chi2", "expectation", "integrate", "js", "kl", "reverse_kl", "tv", "w1"]

# The rule of Kronrod with 15 nodes on [-1, 1], which contains that of Gauss with 7: nodes, their weights in both.
_NODES = (0.991455371120812639206854697526, 0.949107912342758524526189684047, 0.864864423359769072789712788640,
          0.741531185599394439863864773280, 0.586087235467691130294144691693, 0.405845151377397166906606412076,
          0.207784955007898467600689403773)  # fmt: skip
_KRONROD = (0.022935322010529224963732008058, 0.063092092629978553290700663189, 0.104790010322250183839876322541,
            0.140653259715525918745189590510, 0.169004726639267902826583426598, 0.190350578064785409913256402421,
            0.204432940075298892414161999234, 0.209482141084727828012999174891)  # fmt: skip
_GAUSS = (0.0, 0.129484966168869693270611432679, 0.0, 0.279705391489276667901467771423, 0.0,
          0.381830050505118944950369775488, 0.0, 0.417959183673469387755102040816)  # fmt: skip
_MOST = 2**22  # evaluations of the integrand, after which the error is what it is
_DOUBLINGS = 6  # of the box, after which an integral that still grows is infinite


class Estimate(NamedTuple):
    """An integral and a bound on its error, as the rules' difference estimates it."""

    value: float
    error: float


def integrate(
    f: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, scale: float, tolerance: float = 1e-10
) -> Estimate:
    """Integrate f over a box of the line or the plane.

    Arguments:
        f: The integrand, (n, d) -> (n,).
        low: The lower corner, (d,).
        high: The upper corner, (d,).
        scale: The width of the finest detail of f: no first cell is wider than eight times that.
        tolerance: The error to reach.

    Returns:
        The integral; infinite if f is, at a node.
    """
    d = len(low)
    nodes, weights, coarse = _rule(d)  # (m, d), (m,), (m,)
    sides = [max(1, math.ceil(float(side) / (8 * scale))) for side in high - low]
    if math.prod(sides) * len(nodes) > _MOST:
        raise ValueError(
            f"a box {[float(s) for s in high - low]} wide with details of {scale:g}: too fine for a quadrature"
        )
    lines = [
        torch.linspace(float(a), float(b), n + 1, dtype=torch.float64) for a, b, n in zip(low, high, sides, strict=True)
    ]
    centre = torch.cartesian_prod(*[(line[1:] + line[:-1]) / 2 for line in lines]).reshape(-1, d)  # (cells, d)
    half = torch.tensor([float(line[1] - line[0]) / 2 for line in lines], dtype=torch.float64).expand_as(centre)
    total, error, used = 0.0, 0.0, 0
    while True:
        x = centre[:, None, :] + half[:, None, :] * nodes  # (cells, m, d)
        values = f(x.reshape(-1, d)).reshape(len(centre), -1) * half.prod(-1, keepdim=True)
        used += values.numel()
        fine = values @ weights
        if not bool(fine.isfinite().all()):
            return Estimate(math.inf if not bool(fine.isnan().any()) else math.nan, 0.0)
        off = 4 * (fine - values @ coarse).abs()  # fourfold, for integrands that jump
        # Halve the cells whose errors are not small, unless the work would be too much.
        bad = off > tolerance / max(len(centre), 64) / 4
        if not bool(bad.any()) or used + 2**d * int(bad.sum()) * len(nodes) > _MOST:
            return Estimate(total + float(fine.sum()), error + float(off.sum()))
        total, error = total + float(fine[~bad].sum()), error + float(off[~bad].sum())
        signs = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5], dtype=torch.float64)] * d).reshape(-1, d)
        half = half[bad] / 2
        centre = (centre[bad][:, None, :] + 2 * half[:, None, :] * signs).reshape(-1, d)
        half = half.repeat_interleave(2**d, 0)


def expectation(law: Law, f: Callable[[Tensor], Tensor], tolerance: float | None = None) -> Estimate:
    """Return E f(X) for X of the law, f (n, d) -> (n,) with details no finer than the law's."""
    return over(lambda x: weigh(law, f(x), x), law, law, tolerance)


def kl(p: Law, q: Law, tolerance: float | None = None) -> Estimate:
    """Kullback and Leibler's divergence KL(p || q), in nats; infinite where q has no mass and p has."""
    return over(lambda x: _relative(p.log_prob(x), q.log_prob(x)), p, q, tolerance)


def reverse_kl(p: Law, q: Law, tolerance: float | None = None) -> Estimate:
    """KL(q || p), in nats: what punishes samples outside the data."""
    return kl(q, p, tolerance)


def js(p: Law, q: Law, tolerance: float | None = None) -> Estimate:
    """Jensen and Shannon's divergence, in nats: 0 to log 2."""

    def integrand(x: Tensor) -> Tensor:
        log_p, log_q = p.log_prob(x), q.log_prob(x)
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        return 0.5 * (_relative(log_p, log_m) + _relative(log_q, log_m))

    return over(integrand, p, q, tolerance)


def tv(p: Law, q: Law, tolerance: float | None = None) -> Estimate:
    """The total variation, 0 to 1."""
    return over(lambda x: 0.5 * (p.log_prob(x).exp() - q.log_prob(x).exp()).abs(), p, q, tolerance)


def chi2(p: Law, q: Law, tolerance: float | None = None) -> Estimate:
    """Pearson's chi-squared of p from q; infinite where q is too thin."""

    def integrand(x: Tensor) -> Tensor:
        log_p, log_q = p.log_prob(x), q.log_prob(x)
        ratio = torch.where(log_p > -math.inf, 2 * log_p - log_q, -math.inf).exp()
        return ratio - 2 * log_p.exp() + log_q.exp()

    return over(integrand, p, q, tolerance)


def w1(p: Law, q: Law, tolerance: float | None = None) -> Estimate:
    """Wasserstein's distance of order 1 between two laws on the line, in the unit of x.

    Raises:
        ValueError: If the laws are not on the line.
    """
    if p.dim != 1:
        raise ValueError(f"w1 of laws in {p.dim} dimensions: only on the line is it an integral, of |F_p - F_q|")
    return over(lambda x: (p.cdf(x) - q.cdf(x)).abs(), p, q, tolerance)


def _relative(log_p: Tensor, log_q: Tensor) -> Tensor:
    """p log(p / q), 0 where p is, or too small for a number."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0)


def weigh(law: Law, f: Tensor, x: Tensor) -> Tensor:
    """The density at x times f, by their logarithms, as a small one and a large f may each leave the range of numbers.

    It is 0 where the density is 0 whatever f is, or too small for a number and f too large.
    """
    log = law.log_prob(x)
    none = (log == -math.inf) | (f.isinf() & (log.exp() == 0))
    return torch.where(none, 0.0, f.sign() * (log + f.abs().log()).exp())


def over(f: Callable[[Tensor], Tensor], p: Law, q: Law, tolerance: float | None) -> Estimate:
    """The integral over the box of both laws, and over ever larger ones until nothing is added."""
    if p.dim != q.dim:
        raise ValueError(f"laws in {p.dim} and {q.dim} dimensions: both must have as many")
    tolerance = tolerance or (1e-10 if p.dim == 1 else 1e-6)
    low, high = torch.minimum(p.box[0], q.box[0]), torch.maximum(p.box[1], q.box[1])
    scale = min(p.scale, q.scale)
    found = integrate(f, low, high, scale, tolerance)
    for _ in range(_DOUBLINGS):
        if not math.isfinite(found.value):
            return found
        middle, half = (low + high) / 2, high - low
        edge = _edge(f, low, high) * float(half.prod())
        if edge <= tolerance:
            return Estimate(found.value, found.error + edge)
        low, high, before = middle - half, middle + half, found
        found = integrate(f, low, high, scale, tolerance)
        if abs(found.value - before.value) <= tolerance:
            return found
    return Estimate(math.inf, 0.0)


def _edge(f: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> float:
    """The largest |f| seen on the border of a box."""
    line = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None]
    if len(low) == 1:
        border = torch.stack([low, high])
    else:
        a, b = torch.stack([low[0], high[1]]), torch.stack([high[0], low[1]])
        corners = [low, a, high, b, low]
        border = torch.cat([s + line * (e - s) for s, e in pairwise(corners)])
    values = f(border).abs()
    return float(values.max()) if bool(values.isfinite().all()) else math.inf


def _rule(d: int) -> tuple[Tensor, Tensor, Tensor]:
    """The nodes in d dimensions, their weights, and those of the coarser rule."""
    half, kronrod, gauss = (torch.tensor(row, dtype=torch.float64) for row in (_NODES, _KRONROD, _GAUSS))
    nodes = torch.cat([-half, half.new_zeros(1), half.flip(0)])
    fine, coarse = (torch.cat([w, w[:-1].flip(0)]) for w in (kronrod, gauss))
    if d == 1:
        return nodes[:, None], fine, coarse
    return torch.cartesian_prod(nodes, nodes), torch.outer(fine, fine).flatten(), torch.outer(coarse, coarse).flatten()
