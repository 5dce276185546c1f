r"""A prior of components whose weights are learnt while the game is played."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from organza.prior import Codes, Prior

__all__ = ["Mixture"]

_MOST = 2**16  # components; more are a mistake, and would take memory before it is told
_LONGEST = 10**12  # examples


class Mixture(Prior, nn.Module):
    r"""A law of components, :math:`c \sim \mathrm{Cat}(\pi)`, and normal noise, whose weights :math:`\pi` are learnt.

    Data that lie in pieces have some larger than others, and G cannot enlarge one that the law draws too seldom.  From
    the counts :math:`N_k` of the real examples that a component is to answer for
    (:class:`~organza.term.Responsibilities`) its weight follows as in expectation maximisation, as a moving average:

    .. math:: \pi_k \leftarrow \beta \pi_k + (1 - \beta) N_k / \textstyle\sum_j N_j, \qquad
        \beta = 2^{-\sum_j N_j / h}

    A component that nothing real is like fades away.  Before there are samples to speak of, nothing is learnt.
    Examples are those that the term was asked of, fewer under :class:`~organza.term.Lazy`.

    References:
        Disconnected Manifold Learning for Generative Adversarial Networks (Khayatkhoei, Singh, Elgammal, 2018), where
        the weights of several G are learnt so
        On-line Expectation-Maximization Algorithm for Latent Data Models (Cappé, Moulines, 2009)

    Arguments:
        components: Their number K, from 2 to 65,536.
        noise, spread, height: As of :class:`Codes`.
        weights: pi to begin with, (K,), adding up to 1; none for even ones.
        half_life: h, in real examples, above 0.
        after: The real examples before the first that is counted.

    Raises:
        ValueError: If a number is not allowed, or there are weights and they are not K shares of 1.
    """

    shares: Tensor
    seen: Tensor

    def __init__(
        self,
        components: int = 64,
        noise: int = 64,
        spread: float = 1.0,
        height: float = 5.0,
        weights: Sequence[float] = (),
        half_life: float = 10_000.0,
        after: int = 20_000,
    ) -> None:
        super().__init__()
        if not 2 <= components <= _MOST:
            raise ValueError(f"Mixture(components={components}): must be from 2 to {_MOST:,}")
        if not half_life > 0 or not 0 <= after <= _LONGEST:
            raise ValueError(
                f"Mixture(half_life={half_life}, after={after}): must be above 0, and from 0 to {_LONGEST:,}"
            )
        self.codes = Codes((components,), 0, noise, spread, height)  # the same but for the weights
        if len(weights) and (len(weights) != components or min(weights) < 0 or not abs(sum(weights) - 1) <= 1e-3):
            raise ValueError(f"Mixture(weights={list(weights)}): must be {components} of 0 or more that add up to 1")
        self.components, self.noise, self.dim = components, noise, self.codes.dim
        self.spread, self.height, self.half_life, self.after = spread, height, half_life, after
        # On the CPU, also where networks are made of shapes alone: a law must be drawn from.
        self.register_buffer("shares", torch.tensor(list(weights) or [1 / components] * components, device="cpu"))
        self.register_buffer("seen", torch.zeros((), device="cpu"))

    @property
    def weights(self) -> list[float]:
        """pi as it is now, none if it is even: what makes this law again."""
        return [] if bool((self.shares == self.shares[0]).all()) else self.shares.tolist()

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        edges = self.shares.to(device).cumsum(0)
        u = edges[-1] * torch.rand(n, generator=generator, device=device)
        drawn = torch.searchsorted(edges, u, right=True).clamp(max=self.components - 1)  # never one whose share is 0
        noise = torch.randn(n, self.noise, generator=generator, device=device)
        return torch.cat([self.height * one_hot(drawn, self.components), self.spread * noise], 1)  # (n, dim)

    def truncate(self, z: Tensor, bound: float) -> Tensor:
        return self.codes.truncate(z, bound)

    def project(self, z: Tensor) -> Tensor:
        """Move each z, (n, dim), to the nearest component that has not faded away, below a tenth of an even weight."""
        faded = (self.shares < 0.1 / self.components).to(z.device)
        code, noise = z.split([self.components, self.noise], 1)
        return self.codes.project(torch.cat([code.masked_fill(faded, -math.inf), noise], 1))

    def traverse(self, z: Tensor, code: int, steps: int = 10) -> Tensor:
        """Return each z in every component, the most frequent first, (n, K, dim); there is one code, 0."""
        order = self.shares.argsort(descending=True, stable=True).to(z.device)
        return self.codes.traverse(z, code, steps)[:, order]

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        """Move the weights by the counts of a move of D, over all processes, which are the evidence "prior/counts"."""
        counts = evidence.get("prior/counts")
        if counts is None:  # it was G's move alone
            return
        if len(counts) != self.components:
            raise ValueError(f"Mixture(components={self.components}): D tells {len(counts)} apart; both must be equal")
        examples = counts.sum().round()  # the begin must not depend on how they were added up
        kept = (0.5 ** (examples / self.half_life)).where(self.seen >= self.after, 1.0)
        self.seen = (self.seen + examples).clamp(max=self.after)
        shares = kept * self.shares + (1 - kept) * (counts / examples).to(self.shares)
        self.shares = shares / shares.sum()
