r"""The best D against a fixed G, and what V is there.

For laws p (data) and q (model) and an objective whose D loses l(r, f) on a real logit r and a fake one f,

.. math:: V(D, G) = -E_{x \sim p, \, y \sim q} \; l(D(x), D(y)), \qquad C(G) = \max_D V(D, G)

For the game of Goodfellow et al. 2014 D* = p / (p + q) and C(G) = -log 4 + 2 JSD(p || q).  What any other objective
leads to is found from its losses alone: on a finite support by maximising V, with a bound on how far from the maximum
that is, and for known densities by quadrature.

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), Proposition 1 and Theorem 1
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from organza.objective import Objective
from organza.theory.density import Law
from organza.theory.divergence import Estimate, over, weigh

__all__ = ["Best", "D_star", "V", "best", "cost", "divergence", "kantorovich", "separable", "value"]

# The logits among which the best D is sought first, s(-60) = 9e-27, and then, where it is not among those.
BOX, WIDE = (-60.0, 60.0), (-1e8, 1e8)


class Best(NamedTuple):
    """The best D on a finite support.

    Attributes:
        logits: D*, (n,), within the box; up to a constant where V does not see one.
        value: V there.
        error: No D within that box is better by more than this, as far as the points that are asked tell; infinite if
            V may have more than one peak.
        inside: Whether D* lies inside of the box: it does not if V grows for ever, as Wasserstein's does, or levels
            off, as the logistic losses' does where one law has no mass.
        unique: Whether other logits are worse, but for a constant.
    """

    logits: Tensor
    value: float
    error: float
    inside: bool
    unique: bool


def V(objective: Objective, p: Tensor, q: Tensor, logits: Tensor) -> Tensor:
    """Return V(D, G) on a finite support: the mean over all pairs of a real and a fake point.

    Arguments:
        objective: Whose D loses what.
        p: The data's probabilities, (n,).
        q: The model's, (n,).
        logits: D's, (..., n).

    Returns:
        V, (...).
    """
    real = logits.unsqueeze(-1).expand(*logits.shape, len(q))  # (..., x, y)
    fake = logits.unsqueeze(-2).expand_as(real)
    return -(p.unsqueeze(-1) * q * objective.discriminator(real, fake)).sum((-1, -2))


def separable(objective: Objective) -> bool:
    """Whether D's loss is one function of the real logit plus one of the fake: not so of relativistic objectives."""
    r, f = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = objective.discriminator
    return torch.allclose(loss(r, f) + loss(f, r), loss(r, r) + loss(f, f), atol=1e-12)


def best(objective: Objective, p: Tensor, q: Tensor, box: tuple[float, float] | None = None) -> Best:
    r"""Find the best D on a finite support, from the losses alone, and bound how far from the best it is.

    Where V falls into one function of each logit, the sign of its slope brackets each, if it changes only once: 481
    points of the box are asked.  Elsewhere Newton's steps climb, and if V is concave, as it is where the loss of a pair
    is convex, no v* in the box [low, high]^n is better than its linearisation says:
    :math:`V(v^*) \le V(v) + \nabla V(v) \cdot (v^* - v)`.

    Arguments:
        objective: Any, of the package or your own.
        p: The data's probabilities, (n,), float64.
        q: The model's, (n,).
        box: The lowest and the highest logit allowed: (-60, 0) for minus an energy.  If not given, (-60, 60), and,
            of losses that fall into one of each logit, (-1e8, 1e8) where that is too narrow; the error then bounds
            what lies beyond, as far as that.

    Raises:
        ValueError: If p and q are not two laws on the same points.
    """
    p, q = _law(p, "p"), _law(q, "q")
    if p.shape != q.shape:
        raise ValueError(f"p of {len(p)} points and q of {len(q)}: they must be the same points")
    if box is not None:
        return _best(objective, p, q, box)
    found = _best(objective, p, q, BOX)
    if found.inside or not separable(objective):
        return found
    wide = _best(objective, p, q, WIDE)
    beyond = wide.value - found.value
    return wide if wide.inside else found._replace(error=found.error + beyond if beyond >= 0 else math.inf)


def _law(p: Tensor, name: str) -> Tensor:
    """Probabilities as float64, (n,)."""
    p = torch.as_tensor(p).double()
    if p.ndim != 1 or not bool((p >= 0).all()) or not math.isclose(float(p.sum()), 1.0, abs_tol=1e-5):
        raise ValueError(
            f"{name} = {p.tolist()}: probabilities of a finite support are needed, (n,), which add up to 1"
        )
    return p


def _best(objective: Objective, p: Tensor, q: Tensor, box: tuple[float, float]) -> Best:
    if separable(objective):
        low, high = _bracketed(objective, p, q, box)
        logits, peak = (low + high) / 2, _unimodal(objective, p, q, box)
        slopes = torch.stack([_own_slopes(objective, p, q, end).abs() for end in (low, high)])
        gain = (slopes.amax(0) * (high - low)).sum()
    else:
        logits, peak = _climbed(objective, p, q, box), _convex(objective, box)
        slope = _slope(objective, p, q, logits)
        gain = torch.maximum(slope * (box[1] - logits), slope * (box[0] - logits)).sum()
    hessian = _hessian(objective, p, q, logits)
    flat = int((torch.linalg.eigvalsh(-hessian) < 1e-12).sum())
    blind = bool((hessian @ torch.ones_like(p)).abs().max() < 1e-12)  # V does not see a constant
    return Best(
        logits=logits - logits.mean() if blind and hessian.any() else logits,
        value=float(V(objective, p, q, logits)),
        error=float(gain) + 1e-15 if peak else math.inf,
        inside=bool(((logits > box[0] + 1e-6) & (logits < box[1] - 1e-6)).all()),
        unique=flat <= int(blind),
    )


def divergence(objective: Objective, p: Tensor, q: Tensor, box: tuple[float, float] | None = None) -> Estimate:
    """Return max_D V less its value at p = q, found numerically, with its error: what D's best reveals of p and q.

    ``objective.divergence`` is the same in closed form, where it is known.
    """
    there, here = best(objective, p, q, box), best(objective, p, p, box)
    return Estimate(there.value - here.value, there.error + here.error)


def D_star(objective: Objective, p: Law, q: Law) -> Callable[[Tensor], Tensor]:
    """Return the objective's best D between two densities, x (..., d) -> logits (...).

    Raises:
        ValueError: If the objective does not know its optimum: :func:`best` finds it on a finite support.
    """
    one = torch.ones((), dtype=torch.float64)
    if objective.optimum(one, one) is None:
        raise ValueError(
            f"{type(objective).__name__} does not know its optimum; theory.best finds it on a finite support"
        )

    def D(x: Tensor) -> Tensor:
        # Only the ratio counts, and densities underflow: half of it to either side, where it is not beyond all numbers.
        log_p, log_q = (law.log_prob(x).clamp(min=-1e300) for law in (p, q))
        gap, most = log_p - log_q, torch.maximum(log_p, log_q)
        half = gap.clamp(-1400, 1400) / 2
        near = [torch.where(gap.abs() < 1400, h, log - most).exp() for h, log in ((half, log_p), (-half, log_q))]
        logits = objective.optimum(*near)
        assert logits is not None
        return logits

    return D


def value(
    objective: Objective, p: Law, q: Law, D: Callable[[Tensor], Tensor], tolerance: float | None = None
) -> Estimate:
    """Return V(D, G) for two densities and any D, x (n, d) -> logits (n,), by quadrature.

    Where D is infinitely sure, as the best D is where one law has no mass, its logit is taken to be 10,000; if that
    is not as good as 100,000, the error is infinite, as it is where V leaves the range of numbers.

    Raises:
        ValueError: If the objective judges pairs, whose V is an integral over twice as many dimensions.
    """
    if not separable(objective):
        raise ValueError(f"{type(objective).__name__} judges pairs; take V on a finite support")

    sure = lost = False

    def taken(far: float) -> Estimate:
        def integrand(x: Tensor) -> Tensor:
            nonlocal sure, lost
            logits = D(x)
            sure = sure or bool(logits.isinf().any())
            logits = logits.nan_to_num(nan=math.nan, posinf=far, neginf=-far)
            zero = torch.zeros_like(logits)
            real = objective.discriminator(logits, zero)
            fake = objective.discriminator(zero, logits) - objective.discriminator(zero, zero)
            for law, infinite in ((p, real.isinf()), (q, fake.isinf())):
                lost = lost or bool(infinite.any() and (infinite & (law.log_prob(x) > -math.inf)).any())
            return -weigh(p, real, x) - weigh(q, fake, x)

        return over(integrand, p, q, tolerance)

    found = taken(1e4)
    known = math.isfinite(found.value) and not lost and (not sure or abs(taken(1e5).value - found.value) <= 1e-8)
    return found if known else found._replace(error=math.inf)


def cost(objective: Objective, p: Law, q: Law, tolerance: float | None = None) -> Estimate:
    """Return C(G) = max_D V(D, G) for two densities, by quadrature: -log 4 + 2 JSD(p || q) for the paper's game."""
    return value(objective, p, q, D_star(objective, p, q), tolerance)


def kantorovich(p: Law, q: Law, x: Tensor) -> Tensor:
    r"""Return the best critic of slope at most 1 on the line, at sorted points x, (n,), up to a constant.

    .. math:: D^*(x) = \int^x \mathrm{sign}(F_q - F_p), \qquad E_p D^* - E_q D^* = W_1(p, q)

    It is what an exactly 1-Lipschitz critic of the Wasserstein objective learns.

    References:
        Wasserstein GAN (Arjovsky, Chintala, Bottou, 2017)
    """
    middle = ((x[1:] + x[:-1]) / 2)[:, None]
    rise = torch.sign(q.cdf(middle) - p.cdf(middle)) * x.diff()
    return torch.cat([rise.new_zeros(1), rise.cumsum(0)])


def _slope(objective: Objective, p: Tensor, q: Tensor, logits: Tensor) -> Tensor:
    with torch.enable_grad():
        at = logits.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(V(objective, p, q, at), at)
    return slope


def _hessian(objective: Objective, p: Tensor, q: Tensor, logits: Tensor) -> Tensor:
    hessian: Tensor = torch.autograd.functional.hessian(lambda v: V(objective, p, q, v), logits.detach())
    return hessian


def _own_slopes(objective: Objective, p: Tensor, q: Tensor, logits: Tensor) -> Tensor:
    """The slope of a separable V in each logit, for logits (n, ...)."""
    with torch.enable_grad():
        v = logits.detach().clone().requires_grad_()
        zero = torch.zeros_like(v)
        shape = (-1, *[1] * (v.ndim - 1))
        real, fake = objective.discriminator(v, zero), objective.discriminator(zero, v)
        (slope,) = torch.autograd.grad(-(p.view(shape) * real + q.view(shape) * fake).sum(), v)
    return slope


def _bracketed(objective: Objective, p: Tensor, q: Tensor, box: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Halve the box of each logit by the sign of V's slope, to the last bit."""
    low, high = torch.full_like(p, box[0]), torch.full_like(p, box[1])
    for _ in range(96):
        middle = (low + high) / 2
        up = _own_slopes(objective, p, q, middle) > 0
        low, high = torch.where(up, middle, low), torch.where(up, high, middle)
    return low, high


def _unimodal(objective: Objective, p: Tensor, q: Tensor, box: tuple[float, float]) -> bool:
    """Whether a separable V rises and then falls in each logit, as far as 481 points of the box tell."""
    slopes = _own_slopes(objective, p, q, torch.linspace(*box, 481, dtype=torch.float64).expand(len(p), -1))
    fallen = (slopes < 0).cummax(dim=1).values
    return not bool((fallen & (slopes > 0)).any())


def _convex(objective: Objective, box: tuple[float, float]) -> bool:
    """Whether D's loss of a pair is convex in both logits, so that V is concave, as far as 33 x 33 points of the box,
    densest in its middle, tell."""
    t = torch.linspace(-1, 1, 33, dtype=torch.float64) ** 3
    points = (box[0] + box[1]) / 2 + (box[1] - box[0]) / 2 * t
    with torch.enable_grad():
        r, f = (each.flatten().requires_grad_() for each in torch.meshgrid(points, points, indexing="ij"))
        slopes = torch.autograd.grad(objective.discriminator(r, f).sum(), (r, f), create_graph=True)
        rows = [
            torch.autograd.grad(s.sum(), (r, f), retain_graph=True, materialize_grads=True)
            if s.requires_grad
            else (0 * r, 0 * f)
            for s in slopes
        ]
    hessians = torch.stack([torch.stack(row, -1) for row in rows], -2)  # (1089, 2, 2)
    return bool(torch.linalg.eigvalsh(hessians).min() > -1e-9)


def _climbed(objective: Objective, p: Tensor, q: Tensor, box: tuple[float, float]) -> Tensor:
    """Newton's method with halved steps, for a concave V that may be blind to a constant."""
    logits = torch.zeros_like(p)
    for _ in range(200):
        slope, hessian = _slope(objective, p, q, logits), _hessian(objective, p, q, logits)
        step = torch.linalg.pinv(-hessian, rtol=1e-14, hermitian=True) @ slope
        now, size = V(objective, p, q, logits), 1.0
        while not V(objective, p, q, logits + size * step) >= now and size > 1e-6:
            size /= 2
        if size <= 1e-6 or step.abs().max() < 1e-13:
            break
        logits = (logits + size * step).clamp(*box)
    return logits
