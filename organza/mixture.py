r"""Priors of components whose weights are learnt while the game is played."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from organza.prior import Codes, Prior

__all__ = ["Cells", "Mixture"]

_MOST = 2**16  # components; more are a mistake, and would take memory before it is told
_LONGEST = 10**12  # examples


class _Weighed(nn.Module):
    """What these priors share: categorical codes whose cells, one value of every code, have a weight each, and noise.

    Attributes:
        shares: The weights pi of the cells, (K,), adding up to 1; the values of the last code lie side by side.
        seen: The examples that were counted so far, up to ``after``, before which no weight moves.
    """

    shares: Tensor
    seen: Tensor

    def __init__(self, codes: Codes, weights: Sequence[float], after: int) -> None:
        super().__init__()
        name, cells = type(self).__name__, math.prod(codes.categories)
        if not 0 <= after <= _LONGEST:
            raise ValueError(f"{name}(after={after}): must be from 0 to {_LONGEST:,}")
        if len(weights) and (len(weights) != cells or min(weights) < 0 or not abs(sum(weights) - 1) <= 1e-3):
            raise ValueError(f"{name}(weights={[*weights][:8]}): must be {cells} of 0 or more that add up to 1")
        self.codes, self.noise, self.dim = codes, codes.noise, codes.dim
        self.spread, self.height, self.after = codes.spread, codes.height, after
        # On the CPU, also where networks are made of shapes alone: a law must be drawn from.
        self.register_buffer("shares", torch.tensor([*weights] or [1 / cells] * cells, device="cpu"))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64, device="cpu"))

    @property
    def weights(self) -> list[float]:
        """pi as it is now, none if it is even: what makes this law again."""
        if bool((self.shares == self.shares[0]).all()):
            return []
        return [float(f"{share:.9g}") for share in self.shares.tolist()]  # nine digits tell all float32 apart

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        edges = self.shares.to(device).cumsum(0)
        u = edges[-1] * torch.rand(n, generator=generator, device=device)
        drawn = torch.searchsorted(edges, u, right=True).clamp(max=len(edges) - 1)  # never one whose share is 0
        noise = torch.randn(n, self.noise, generator=generator, device=device)
        return torch.cat([self._vertices(drawn), self.spread * noise], 1)  # (n, dim)

    def truncate(self, z: Tensor, bound: float) -> Tensor:
        return self.codes.truncate(z, bound)

    def project(self, z: Tensor) -> Tensor:
        """Move each z, (n, dim), to the nearest cell that has not faded away, below a tenth of an even weight."""
        *codes, noise = z.split([*self.codes.categories, self.noise], 1)
        near = codes[0]  # of two vertices of one height the nearer has more in common with z
        for code in codes[1:]:
            near = (near[:, :, None] + code[:, None]).flatten(1)  # (n, K) in the end
        faded = (self.shares < 0.1 / len(self.shares)).to(z.device)
        return torch.cat([self._vertices(near.masked_fill(faded, -math.inf).argmax(1)).to(z), noise], 1)

    def _vertices(self, cell: Tensor) -> Tensor:
        """The codes of these cells, (n,), as they stand in z, (n, the values of all codes)."""
        parts: list[Tensor] = []
        for k in reversed(self.codes.categories):
            parts.insert(0, self.height * one_hot(cell % k, k))
            cell = cell // k
        return torch.cat(parts, 1)

    def _learns(self, examples: Tensor) -> Tensor:
        """Count the examples of a move; return whether the weights may follow them, without asking the device."""
        learns = self.seen >= self.after
        self.seen = (self.seen + examples.to(self.seen)).clamp(max=self.after)
        return learns


class Mixture(_Weighed, Prior):
    r"""A law of components, :math:`c \sim \mathrm{Cat}(\pi)`, and normal noise, whose weights :math:`\pi` are learnt.

    Data that lie in pieces have some larger than others, and G cannot enlarge one that the law draws too seldom.  From
    the counts :math:`N_k` of the real examples that a component is to answer for, of
    :class:`~organza.weighing.Responsibilities`, its weight follows as in expectation maximisation, as a moving average:

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

    learns = "prior/counts"

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
        if not 2 <= components <= _MOST:
            raise ValueError(f"Mixture(components={components}): must be from 2 to {_MOST:,}")
        if not half_life > 0:
            raise ValueError(f"Mixture(half_life={half_life}): must be above 0")
        super().__init__(Codes((components,), 0, noise, spread, height), weights, after)
        self.components, self.half_life = components, half_life

    def traverse(self, z: Tensor, code: int, steps: int = 10) -> Tensor:
        """Return each z in every component, the most frequent first, (n, K, dim); there is one code, 0."""
        order = self.shares.argsort(descending=True, stable=True).to(z.device)
        return self.codes.traverse(z, code, steps)[:, order]

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        """Move the weights by the counts of a move of D, over all processes, which are the evidence "prior/counts"."""
        counts = evidence.get(self.learns)
        if counts is None:  # it was G's move alone
            return
        if len(counts) != self.components:
            raise ValueError(f"Mixture(components={self.components}): D tells {len(counts)} apart; both must be equal")
        examples = counts.sum().round()  # the begin must not depend on how they were added up
        kept = (0.5 ** (examples / self.half_life)).where(self._learns(examples), 1.0)
        shares = kept * self.shares + (1 - kept) * (counts / examples).to(self.shares)
        self.shares = shares / shares.sum()


class Cells(_Weighed, Prior):
    r"""Codes whose cells, one value of every code, are drawn by weights :math:`\pi = \mathrm{softmax}(\theta)`, and
    normal noise; the weights are parameters of G, and follow the gradient of its game.

    G moves what a cell gives, but cannot part it: one that is left between two modes stays there, and modes keep the
    number of cells that they have caught.  How well the fakes of a cell do is their advantage, by the pairs of a real
    example and a fake that D has judged (:class:`~organza.weighing.Advantage`),

    .. math:: a_i = 2 \sigma(D(G(z_i)) - D(x_i)) - 1 \in (-1, 1)

    whose mean is 0 in every cell if G's law is the data's.  Its gradient needs no derivative of G: by the score
    function, with the mean :math:`\bar a` of a batch of B as the baseline, a move of D is followed by

    .. math:: \theta_k \leftarrow \theta_k + \frac{\eta}{B \max(\pi_k, 1 / 10 K)} \sum_{i: z_i \in k} (a_i - \bar a)

    Over :math:`B \pi_k` it is the natural gradient: a cell follows the mean advantage of its fakes however seldom it is
    drawn, where by the gradient itself a mode whose cells have become rare may never come back (docs/log.md).  Of a
    cell ten times rarer than the mean a single fake would say too much; hence the max.

    References:
        Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning (Williams, 1992)
        Natural Gradient Works Efficiently in Learning (Amari, 1998)
        Disconnected Manifold Learning for Generative Adversarial Networks (Khayatkhoei, Singh, Elgammal, 2018), why
        weights must be learnt
        Latent Reweighting, an Almost Free Improvement for GANs (Issenhuth, Tanielian, Picard, Mary, 2021), where they
        are learnt once G has been

    Arguments:
        categories: The values of each code, 2 or more; K is their product, at most 65,536.
        noise, spread, height: As of :class:`Codes`.
        weights: pi to begin with, (K,), adding up to 1; none for even ones.
        rate: eta, 0 or more.  Above .01 the weights run ahead of D, and modes may be lost (docs/log.md).
        after: The fakes before the first that is counted.

    Raises:
        ValueError: If a number is not allowed, or there are weights and they are not K shares of 1.
    """

    learns = "prior/advantages"

    def __init__(
        self,
        categories: Sequence[int] = (64, 64),
        noise: int = 8,
        spread: float = 1.0,
        height: float = 5.0,
        weights: Sequence[float] = (),
        rate: float = 0.003,
        after: int = 20_000,
    ) -> None:
        if not categories or not 2 <= math.prod(categories) <= _MOST:
            raise ValueError(f"Cells(categories={[*categories]}): their product must be from 2 to {_MOST:,}")
        if not 0 <= rate < math.inf:
            raise ValueError(f"Cells(rate={rate}): must be 0 or more")
        super().__init__(Codes(categories, 0, noise, spread, height), weights, after)
        self.categories, self.rate = tuple(categories), rate

    def traverse(self, z: Tensor, code: int, steps: int = 10) -> Tensor:
        return self.codes.traverse(z, code, steps)

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        """Move the weights by the evidence of a move of D, over all processes: the fakes of each cell, "prior/fakes",
        and the sum of their advantages, "prior/advantages"."""
        fakes, advantages = evidence.get("prior/fakes"), evidence.get(self.learns)
        if fakes is None or advantages is None:  # it was G's move alone
            return
        cells, examples = len(self.shares), fakes.sum().round()
        if len(fakes) != cells:
            raise ValueError(f"Cells(categories={[*self.categories]}): the term tells {len(fakes)} cells apart")
        above = (advantages - fakes * advantages.sum() / examples).to(self.shares)  # the sum of a - mean in each cell
        theta = self.shares.log() + self.rate * above / (examples * self.shares.clamp(min=0.1 / cells))
        self.shares = theta.softmax(0).where(self._learns(examples), self.shares)
