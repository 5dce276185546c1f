r"""Linear programmes, solved with a certificate: what a zero-sum game on finitely many moves comes down to.

A programme in standard form and its dual are

.. math:: \min_x c \cdot x \;\; \text{subject to} \; A x = b, \; x \ge 0
   \qquad\text{and}\qquad \max_y b \cdot y \;\; \text{subject to} \; s = c - A^T y \ge 0.

Feasible x and y have :math:`c \cdot x - b \cdot y = x \cdot s \ge 0`: a pair without a gap proves its own optimality.
Both are found at once from the homogeneous equations

.. math:: A x = b \tau, \quad A^T y + s = c \tau, \quad b \cdot y - c \cdot x = \kappa, \qquad x, s, \tau, \kappa \ge 0,

which always have solutions.  One with :math:`\tau > 0` is the answer, scaled by :math:`\tau`; one with
:math:`\kappa > 0` proves that there is none: :math:`A^T y \le 0 < b \cdot y` that no x is feasible,
:math:`A x = 0 > c \cdot x` that c.x has no lower bound.  An interior-point method follows :math:`x_i s_i = \tau \kappa
= \mu` as :math:`\mu \to 0` by Newton's steps: a predictor with :math:`\mu = 0` tells how far :math:`\mu` can fall, and
a corrector makes up for the predictor's error.  Where many x are best, the one found lies inside the set of them.

References:
    On the implementation of a primal-dual interior point method (Mehrotra, 1992)
    A simplified homogeneous and self-dual linear programming algorithm and its implementation (Xu, Hung, Ye, 1996)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Programme", "programme"]

TOLERANCE = 1e-11  # of infeasibilities and gap, relative to 1 + the size of what they are differences of
STEPS = 100  # 10 to 30 suffice


class Programme(NamedTuple):
    """A solved programme, with its certificate.

    Attributes:
        x: The best x, (n,), float64, no entry below 0.
        y: The best y of the dual, (m,): how much ``value`` grows per unit of b.
        value: c.x.
        dual: b.y.
        gap: value - dual, 0 but for rounding.
        infeasibility: The largest violation of A x = b and of A^T y <= c.
    """

    x: Tensor
    y: Tensor
    value: float
    dual: float
    gap: float
    infeasibility: float


def programme(c: Tensor, A: Tensor, b: Tensor) -> Programme:
    """Return the x >= 0 with A x = b of least c.x.

    Arguments:
        c: The costs, (n,).
        A: The constraints' coefficients, (m, n); rows may depend on each other.
        b: Their right-hand sides, (m,).

    Raises:
        ValueError: If shapes do not fit, no x is feasible, c.x has no lower bound, or the method does not converge.
    """
    c, A, b = (torch.as_tensor(part, dtype=torch.float64) for part in (c, A, b))
    if A.ndim != 2 or c.shape != A.shape[1:] or b.shape != A.shape[:1]:
        raise ValueError(f"c {tuple(c.shape)}, A {tuple(A.shape)}, b {tuple(b.shape)}: need (n,), (m, n) and (m,)")
    # Rows made orthonormal, A = U S B, so that B x = r: those that depend on others fall away.
    U, S, B = torch.linalg.svd(A, full_matrices=False)
    rank = int((S / S[0] > 1e-12).sum())  # none of a matrix of zeros
    U, S, B = U[:, :rank], S[:rank], B[:rank]
    r = (U.T @ b) / S
    if (U @ (S * r) - b).norm() > 1e-9 * (1 + b.norm()):
        raise ValueError("the linear programme is infeasible: A x = b has no solution, of whatever sign")
    n = len(c)
    y, x, s = torch.zeros_like(r), c.new_ones(n + 1), c.new_ones(n + 1)  # x and tau, s and kappa
    for _ in range(STEPS):
        primal, dual, gap = r * x[n] - B @ x[:n], c * x[n] - B.T @ y - s[:n], c @ x[:n] - r @ y
        sizes = ((primal, r.norm()), (dual, c.norm()), (gap, (gap + r @ y).abs() / x[n]))
        if all(error.norm() <= TOLERANCE * x[n] * (1 + size) for error, size in sizes):
            return _certified(c, A, b, x[:n] / x[n], U @ (y / S) / x[n])
        if x[n] < 1e-7 * s[n]:
            what = "no x is feasible" if r @ y > -c @ x[:n] else "c.x has no lower bound"
            raise ValueError(f"the linear programme has no solution: {what}")
        newton = _newton(c, B, r, x, s, (primal, dual, gap + s[n]))
        dx, dy, ds = newton(1.0, -x * s)  # predictor
        share = 1.0 - _longest(x, s, dx, ds)
        share = share**2 * max(0.1, share)  # of mu, to be left by the corrector
        dx, dy, ds = newton(1.0 - share, share * (x @ s) / (n + 1) - x * s - dx * ds)
        step = 0.995 * _longest(x, s, dx, ds)
        x, y, s = x + step * dx, y + step * dy, s + step * ds
    off = float((A @ x[:n] / x[n] - b).norm())
    raise ValueError(f"the linear programme was not solved in {STEPS} steps: |A x - b| is still {off:.2g}")


def _newton(
    c: Tensor, B: Tensor, r: Tensor, x: Tensor, s: Tensor, residuals: tuple[Tensor, Tensor, Tensor]
) -> Callable[[float, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return (share, t) -> (dx, dy, ds) that makes up for this share of the residuals, with s dx + x ds = t."""
    (x, tau), (s, kappa), (primal, dual, gap) = (x[:-1], x[-1]), (s[:-1], s[-1]), residuals
    root = (x / s).sqrt()
    Q, R = torch.linalg.qr(root[:, None] * B.T)  # never B diag(x / s) B^T = R^T R, whose condition is squared

    def solve(f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """u, v with B^T v - (s / x) u = f and B u = g."""
        w, h = torch.linalg.solve_triangular(R.T, g[:, None], upper=False)[:, 0], root * f
        v = torch.linalg.solve_triangular(R, (w + Q.T @ h)[:, None], upper=True)[:, 0]
        return root * (Q @ (w + Q.T @ h) - h), v

    u0, v0 = solve(c, r)

    def newton(share: float, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, v = solve(share * dual - t[:-1] / x, share * primal)
        dtau = (share * gap + t[-1] / tau + c @ u - r @ v) / (kappa / tau - c @ u0 + r @ v0)
        dy = v + v0 * dtau
        ds = share * dual + c * dtau - B.T @ dy  # not (t - s dx) / x, which rounding spoils where x is small
        return torch.cat([u + u0 * dtau, dtau[None]]), dy, torch.cat([ds, ((t[-1] - kappa * dtau) / tau)[None]])

    return newton


def _longest(x: Tensor, s: Tensor, dx: Tensor, ds: Tensor) -> float:
    """The longest step, at most 1, that leaves x and s at 0 or above."""
    return float(torch.where((d := torch.cat([dx, ds])) < 0, -torch.cat([x, s]) / d, 1.0).clamp(max=1.0).amin())


def _certified(c: Tensor, A: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Programme:
    value, dual = float(c @ x), float(b @ y)
    violation = max(float((A @ x - b).abs().amax()), float((A.T @ y - c).amax()), 0.0)
    return Programme(x, y, value, dual, value - dual, violation)
