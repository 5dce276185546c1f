r"""The objective V(D, G), on logits alone.

D ascends V, G descends it (or a loss of its own).  With logits r = D(x), f = D(G(z)) and the logistic function s,

.. math:: \min_G \max_D V(D, G) = E[\log s(r)] + E[\log(1 - s(f))]

An objective returns losses to be *minimised*, unreduced, in the logits' shape, and D's optimum for fixed laws p (data)
and q (model) and the divergence that V measures there, where they are known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, relu, softplus

__all__ = [
    "DIVERGENCES",
    "FGAN",
    "Hinge",
    "LeastSquares",
    "Minimax",
    "NonSaturating",
    "Objective",
    "RelativisticLogistic",
    "Scaled",
    "Wasserstein",
]


class Objective(nn.Module, ABC):
    """What the two players want, as losses on logits.

    Attributes:
        paired: Whether G's loss needs the logits of real examples (relativistic objectives).
        anchored: Whether zero is D's border between real and fake; else a logit's sign says nothing (Wasserstein).
    """

    paired: bool = False
    anchored: bool = True

    @abstractmethod
    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return D's loss, unreduced, in the logits' shape."""

    @abstractmethod
    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """Return G's loss, unreduced, in the logits' shape; ``real_logits`` is given only if ``paired``."""

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        """Change the objective's buffers by the global means of a move just made (BEGAN's k).  Default: nothing."""

    def score(self, logits: Tensor) -> Tensor:
        """Return what a person reads as D(x): the probability of being real where D has one, else the logit."""
        return logits

    def measures(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """Return further scalars of D's turn for the log, by name (BEGAN's measure of convergence).  Default: none."""
        return {}

    def optimum(self, p: Tensor, q: Tensor) -> Tensor | None:
        """Return the logits of the best D for data law p and model law q (up to a constant if ``paired``), if known.

        p and q are densities or probabilities of the same shape.
        """
        return None

    def divergence(self, p: Tensor, q: Tensor) -> Tensor | None:
        """Return max_D V less its value at p = q, for probabilities p and q on a finite support (last axis), if known.

        It is at least 0, with equality exactly at p = q.
        """
        return None


def _xlog(x: Tensor, ratio: Tensor) -> Tensor:
    """x log(ratio), 0 at x = 0."""
    return torch.where(x > 0, x * torch.log(torch.where(x > 0, ratio, 1.0)), 0.0)


def _smoothing(smoothing: float) -> float:
    if not 0.0 < smoothing <= 1.0:
        raise ValueError(f"smoothing={smoothing}: the target of real examples must lie in (0, 1], e.g. 0.9")
    return smoothing


def _logistic(real_logits: Tensor, fake_logits: Tensor, smoothing: float) -> Tensor:
    """-[t log s(r) + (1 - t) log(1 - s(r)) + log(1 - s(f))], t the target of real examples, finite for any logits."""
    real = softplus(-real_logits)
    if smoothing < 1.0:
        real = real + (1.0 - smoothing) * real_logits
    return real + softplus(fake_logits)


def _logistic_optimum(p: Tensor, q: Tensor, smoothing: float) -> Tensor:
    return torch.log(smoothing * p) - torch.log((1.0 - smoothing) * p + q)


def _logistic_divergence(p: Tensor, q: Tensor, smoothing: float) -> Tensor:
    real, fake = smoothing * p, (1.0 - smoothing) * p + q
    return (_xlog(real, 2 * p / (p + q)) + _xlog(fake, 2 * fake / ((2 - smoothing) * (p + q)))).sum(-1)


class Minimax(Objective):
    r"""The zero-sum game of the paper, in which G's gradient saturates while D is sure.

    .. math:: L_D = -\log s(r) - \log(1 - s(f)), \qquad L_G = \log(1 - s(f))

    D* = p / (p + q) and max V = -log 4 + 2 JSD(p || q) (Proposition 1 and Theorem 1).  With one-sided smoothing t,
    real examples have the target t: D* = t p / (p + q), and 1/2 becomes t/2 at p = q.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014)
        Improved Techniques for Training GANs (Salimans et al., 2016), for one-sided smoothing

    Arguments:
        smoothing: The target t of real examples, in (0, 1]; 1 is the paper's.

    Raises:
        ValueError: If ``smoothing`` lies outside (0, 1].
    """

    def __init__(self, smoothing: float = 1.0) -> None:
        super().__init__()
        self.smoothing = _smoothing(smoothing)
        self.anchored = smoothing == 1.0  # otherwise the border is log(smoothing / (2 - smoothing))

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return _logistic(real_logits, fake_logits, self.smoothing)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -softplus(fake_logits)

    def score(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def optimum(self, p: Tensor, q: Tensor) -> Tensor:
        return _logistic_optimum(p, q, self.smoothing)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        return _logistic_divergence(p, q, self.smoothing)


class NonSaturating(Objective):
    r"""The paper's remedy for saturation: D as in :class:`Minimax`, G raises log D(G(z)) instead.

    .. math:: L_D = -\log s(r) - \log(1 - s(f)), \qquad L_G = -\log s(f)

    The fixed point is the same; against D* G's gradient is that of KL(q || p) - 2 JSD(p || q).

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), section 3
        Towards Principled Methods for Training Generative Adversarial Networks (Arjovsky and Bottou, 2017), theorem 2.5

    Arguments:
        smoothing: The target t of real examples, in (0, 1].

    Raises:
        ValueError: If ``smoothing`` lies outside (0, 1].
    """

    def __init__(self, smoothing: float = 1.0) -> None:
        super().__init__()
        self.smoothing = _smoothing(smoothing)
        self.anchored = smoothing == 1.0  # otherwise the border is log(smoothing / (2 - smoothing))

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return _logistic(real_logits, fake_logits, self.smoothing)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return softplus(-fake_logits)

    def score(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def optimum(self, p: Tensor, q: Tensor) -> Tensor:
        return _logistic_optimum(p, q, self.smoothing)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        return _logistic_divergence(p, q, self.smoothing)


class LeastSquares(Objective):
    r"""Regression to targets a (fake), b (real) and c (what G wants D to say).

    .. math:: L_D = \tfrac12 (r - b)^2 + \tfrac12 (f - a)^2, \qquad L_G = \tfrac12 (f - c)^2

    D* = (b p + a q) / (p + q).  The default targets -1, 1, 0 make G minimise Pearson's chi-squared between p + q and
    2q; 0, 1, 1 is the other common choice.

    References:
        Least Squares Generative Adversarial Networks (Mao et al., 2017)

    Raises:
        ValueError: If ``a`` equals ``b``.
    """

    def __init__(self, a: float = -1.0, b: float = 1.0, c: float = 0.0) -> None:
        super().__init__()
        if a == b:
            raise ValueError(f"LeastSquares(a={a}, b={b}): the targets of fake and real must differ")
        self.a, self.b, self.c = a, b, c
        self.anchored = a + b == 0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return 0.5 * (real_logits - self.b) ** 2 + 0.5 * (fake_logits - self.a) ** 2

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return 0.5 * (fake_logits - self.c) ** 2

    def optimum(self, p: Tensor, q: Tensor) -> Tensor:
        return (self.b * p + self.a * q) / (p + q)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        overlap = torch.where(p + q > 0, p * q / (p + q), 0.0).sum(-1)
        return 0.5 * (self.b - self.a) ** 2 * (0.5 - overlap)


class Hinge(Objective):
    r"""Margins for D, the plain logit for G.

    .. math:: L_D = \max(0, 1 - r) + \max(0, 1 + f), \qquad L_G = -f

    D* = sign(p - q) and min L_D = 2 - 2 TV(p, q), so the divergence is twice the total variation.

    References:
        Geometric GAN (Lim and Ye, 2017)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(1.0 - real_logits) + relu(1.0 + fake_logits)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits

    def optimum(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.sign(p - q)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        return (p - q).abs().sum(-1)


class Wasserstein(Objective):
    r"""The critic's mean difference; it means W1 only while D is 1-Lipschitz (clipping, penalty, spectral norm).

    .. math:: L_D = f - r, \qquad L_G = -f

    References:
        Wasserstein GAN (Arjovsky, Chintala, Bottou, 2017)
    """

    anchored = False

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits - real_logits

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits


class RelativisticLogistic(Objective):
    r"""RpGAN: a real and a fake are judged as a pair, so no mode can be left on one side of a border.

    .. math:: L_D = -\log s(r - f), \qquad L_G = -\log s(f - r)

    D* = log(p / q) + any constant, and max V = JSD(p x q || q x p) - log 2 on the pairs.

    References:
        The relativistic discriminator (Jolicoeur-Martineau, 2018)
        Towards a Better Global Loss Landscape of GANs (Sun, Fang, Schwing, 2020)
    """

    paired, anchored = True, False

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(fake_logits - real_logits)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None
        return softplus(real_logits - fake_logits)

    def optimum(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.log(p) - torch.log(q)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        forward = p.unsqueeze(-1) * q.unsqueeze(-2)  # (..., n, n): x from p, y from q
        backward = forward.transpose(-1, -2)
        return _xlog(forward, 2 * forward / (forward + backward)).sum((-1, -2))


class Divergence(NamedTuple):
    """One row of the f-GAN table: T(v) = g_f(v), f*(T(v)), f(u) and the best logit as a function of log u."""

    activation: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    f: Callable[[Tensor], Tensor]
    optimum: Callable[[Tensor], Tensor]


# Nowozin et al. 2016, tables 1, 2 and 6, with each activation shifted and scaled so that the best logit grows with
# u = p/q and is 0 at p = q; only Pearson's has another slope than log u.
DIVERGENCES: dict[str, Divergence] = {
    "kl": Divergence(lambda v: 1 + v, torch.exp, lambda u: torch.xlogy(u, u), lambda w: w),
    "reverse-kl": Divergence(lambda v: -torch.exp(-v), lambda v: v - 1, lambda u: -torch.log(u), lambda w: w),
    "pearson": Divergence(lambda v: v, lambda v: v**2 / 4 + v, lambda u: (u - 1) ** 2, lambda w: 2 * torch.expm1(w)),
    "hellinger": Divergence(
        lambda v: -torch.expm1(-v / 2),
        lambda v: torch.expm1(v / 2),
        lambda u: (torch.sqrt(u) - 1) ** 2,
        lambda w: w,
    ),
    "jensen-shannon": Divergence(
        lambda v: math.log(2) + logsigmoid(v),
        lambda v: softplus(v) - math.log(2),
        lambda u: torch.xlogy(u, u) - (1 + u) * torch.log((1 + u) / 2),
        lambda w: w,
    ),
}


class FGAN(Objective):
    r"""Any f-divergence, by its variational form.

    .. math:: D_f(p \| q) = \max_T E_p[T] - E_q[f^*(T)], \quad T = g_f(v), \qquad L_G = -E_q[f^*(T)] \text{ or } -E_q[T]

    References:
        f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization (Nowozin et al., 2016)

    Arguments:
        name: A divergence of ``DIVERGENCES``: kl, reverse-kl, pearson, hellinger, jensen-shannon.
        saturating: G descends -f*(T), the zero-sum game, or else (default, the paper's section 3.2) -T.

    Raises:
        ValueError: If the divergence is unknown.
    """

    def __init__(self, name: str = "kl", saturating: bool = False) -> None:
        super().__init__()
        if name not in DIVERGENCES:
            raise ValueError(f"FGAN(name={name!r}): unknown divergence; known are {', '.join(DIVERGENCES)}")
        self.name = name
        self.saturating = saturating

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        row = DIVERGENCES[self.name]
        return row.conjugate(fake_logits) - row.activation(real_logits)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        row = DIVERGENCES[self.name]
        return -(row.conjugate if self.saturating else row.activation)(fake_logits)

    def optimum(self, p: Tensor, q: Tensor) -> Tensor:
        return DIVERGENCES[self.name].optimum(torch.log(p) - torch.log(q))

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        row = DIVERGENCES[self.name]
        both = q * row.f(p / torch.where(q > 0, q, 1.0))
        alone = p * row.activation(torch.full_like(p, math.inf))  # q f(p / q) tends to p f'(inf) as q -> 0
        return torch.where(q > 0, both, torch.where(p > 0, alone, 0.0)).sum(-1)


class Scaled(Objective):
    """An objective whose two losses are weighted: ``d`` times D's, ``g`` times G's.

    ``d=0.5`` is D's loss as the mean over the joined batch of 2B examples, as most programs write it.

    Arguments:
        objective: The objective to weigh.
        d, g: The weights of D's and of G's loss; g = 0 leaves G to its terms (feature matching).
    """

    def __init__(self, objective: Objective, d: float = 1.0, g: float = 1.0) -> None:
        super().__init__()
        self.objective = objective
        self.d, self.g = d, g
        self.paired, self.anchored = objective.paired, objective.anchored

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.d * self.objective.discriminator(real_logits, fake_logits)

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return self.g * self.objective.generator(real_logits, fake_logits)

    def score(self, logits: Tensor) -> Tensor:
        return self.objective.score(logits)

    def measures(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        return self.objective.measures(real_logits, fake_logits)

    def optimum(self, p: Tensor, q: Tensor) -> Tensor | None:
        return self.objective.optimum(p, q)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor | None:
        divergence = self.objective.divergence(p, q)
        return None if divergence is None else self.d * divergence
