r"""Laws whose density is known exactly, in one and two dimensions, and the law that a 1-D generator makes of another.

A law takes points x, (..., d), and gives log-densities, (...).  A deterministic G pushes the law of z forward to

.. math:: q(x) = \sum_{z : G(z) = x} \frac{p_z(z)}{|G'(z)|}, \qquad
          P(G(z) \le x) = \int_{\{z : G(z) \le x\}} p_z(z) \, dz

Legend: d = dimensions (1 or 2), K = parts of a mixture.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from organza.prior import Normal, Prior
from organza.prior import Uniform as UniformPrior

__all__ = ["Gaussian", "Law", "Mixture", "Pushforward", "Spiral", "Uniform", "grid", "law_of", "ring"]

_FAR = 12.0  # standard deviations; a Gaussian has 4e-33 of its mass beyond


class Law(ABC):
    """A law on the line or the plane.

    Attributes:
        box: The corners between which (almost) all of the law lies, (2, d).
        scale: The width of its finest detail, which a quadrature must not step over.
    """

    box: Tensor
    scale: float

    @property
    def dim(self) -> int:
        """The number d of dimensions."""
        return self.box.shape[1]

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density at x, (..., d) -> (...); -inf where there is none."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n independent points, (n, d), on the generator's device."""

    def cdf(self, x: Tensor) -> Tensor:
        """Return P(X <= x) of a law on the line, (..., 1) -> (...).

        Raises:
            ValueError: If it is not known.
        """
        raise ValueError(f"{type(self).__name__} in {self.dim} dimensions has no cdf here; laws on the line have one")

    def quantile(self, u: Tensor) -> Tensor:
        """Return the x with P(X <= x) = u of a law on the line, (...) -> (..., 1), by bisection to the last bit."""
        low, high = self.box[0].expand(*u.shape, 1), self.box[1].expand(*u.shape, 1)
        for _ in range(80):
            middle = (low + high) / 2
            left = self.cdf(middle)[..., None] < u[..., None]
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        x: Tensor = (low + high) / 2
        return x


class Gaussian(Law):
    r"""The normal law :math:`N(\mu, \sigma^2 I)`.

    Arguments:
        mean: mu, a number or (d,) of them.
        sigma: The standard deviation of each coordinate, above 0.

    Raises:
        ValueError: If ``sigma`` is not above 0 or there are more than two dimensions.
    """

    def __init__(self, mean: float | Sequence[float] | Tensor = 0.0, sigma: float = 1.0) -> None:
        if not sigma > 0:
            raise ValueError(f"Gaussian(sigma={sigma}): must be above 0")
        self.mean, self.sigma, self.scale = _vector(mean), float(sigma), float(sigma)
        self.box = torch.stack([self.mean - _FAR * sigma, self.mean + _FAR * sigma])

    def log_prob(self, x: Tensor) -> Tensor:
        u = (x - self.mean.to(x)) / self.sigma  # (..., d)
        log_p: Tensor = -0.5 * u.square().sum(-1) - self.dim * math.log(self.sigma * math.sqrt(2 * math.pi))
        return log_p

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.mean + self.sigma * _normal(n, self.dim, generator)

    def cdf(self, x: Tensor) -> Tensor:
        if self.dim > 1:
            return super().cdf(x)
        share: Tensor = torch.special.ndtr((x[..., 0] - self.mean[0]) / self.sigma)
        return share


class Uniform(Law):
    """The uniform law on an interval or a rectangle.

    Arguments:
        low: The lower end, a number or (d,).
        high: The upper end, a number or (d,).

    Raises:
        ValueError: If an upper end is not above the lower one.
    """

    def __init__(self, low: float | Sequence[float] = 0.0, high: float | Sequence[float] = 1.0) -> None:
        self.box = torch.stack([_vector(low), _vector(high)])
        sides = self.box[1] - self.box[0]
        if not bool((sides > 0).all()):
            raise ValueError(f"Uniform(low={low}, high={high}): high must be above low")
        self.area, self.scale = float(sides.prod()), float(sides.min()) / 4

    def log_prob(self, x: Tensor) -> Tensor:
        inside = ((x >= self.box[0]) & (x <= self.box[1])).all(-1)
        return torch.where(inside, -math.log(self.area), -math.inf).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, self.dim, generator=generator, device=generator.device, dtype=torch.float64)
        return self.box[0] + (self.box[1] - self.box[0]) * u

    def cdf(self, x: Tensor) -> Tensor:
        if self.dim > 1:
            return super().cdf(x)
        low, high = self.box[:, 0]
        share: Tensor = (x[..., 0] - low) / (high - low)
        return share.clamp(0, 1)


class Mixture(Law):
    r"""A mixture of laws with any weights: :math:`p(x) = \sum_k w_k p_k(x)`.

    Arguments:
        components: The K laws, all of the same dimension.
        weights: w, (K,), none below 0; brought to a sum of 1.  Equal if not given.

    Raises:
        ValueError: If the weights are not that, or the dimensions differ.
    """

    def __init__(self, components: Sequence[Law], weights: Sequence[float] | Tensor | None = None) -> None:
        if not components or len({law.dim for law in components}) != 1:
            raise ValueError(
                f"Mixture of dimensions {[law.dim for law in components]}: one or more of the same is needed"
            )
        given = [1.0] * len(components) if weights is None else weights
        w = torch.as_tensor(given, dtype=torch.float64)
        if w.shape != (len(components),) or not bool((w >= 0).all()) or not 0 < float(w.sum()) < math.inf:
            raise ValueError(
                f"Mixture(weights={weights}): {len(components)} numbers of at least 0 are needed, one above"
            )
        self.components, self.weights = list(components), w / w.sum()
        boxes = torch.stack([law.box for law in components])  # (K, 2, d)
        self.box = torch.stack([boxes[:, 0].amin(0), boxes[:, 1].amax(0)])
        self.scale = min(law.scale for law in components)

    def log_prob(self, x: Tensor) -> Tensor:
        parts = torch.stack([law.log_prob(x) for law in self.components], -1)  # (..., K)
        return torch.logsumexp(parts + self.weights.log().to(x), -1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)  # (n,)
        x = torch.empty(n, self.dim, dtype=torch.float64, device=generator.device)
        for k, law in enumerate(self.components):
            here = which == k
            x[here] = law.sample(int(here.sum()), generator)
        return x

    def cdf(self, x: Tensor) -> Tensor:
        return torch.stack([law.cdf(x) for law in self.components], -1) @ self.weights.to(x)


def ring(modes: int = 8, radius: float = 1.0, sigma: float = 0.01, weights: Sequence[float] | None = None) -> Mixture:
    """Gaussians evenly on a circle: with the defaults, the law of the built-in data ``ring``."""
    angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    centres = radius * torch.stack([angle.cos(), angle.sin()], -1)  # (modes, 2)
    return Mixture([Gaussian(c, sigma) for c in centres], weights)


def grid(side: int = 5, spacing: float = 2.0, sigma: float = 0.05, weights: Sequence[float] | None = None) -> Mixture:
    """Gaussians on a square lattice about 0: with the defaults, the law of the built-in data ``grid25``."""
    line = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    return Mixture([Gaussian(c, sigma) for c in torch.cartesian_prod(line, line)], weights)


class Spiral(Law):
    r"""Two spiral arms with Gaussian noise: the law of the built-in data ``spiral``.

    .. math:: x = \pm \tfrac t3 (-\cos t, \sin t) + \sigma \epsilon, \quad t = t_1 \sqrt u, \ u \sim U(0, 1), \qquad
              p(x) = \tfrac12 \sum_\pm \int_0^1 N(x; c_\pm(t_1 s), \sigma^2 I) \, 2 s \, ds

    The integral is taken by Gauss and Legendre's rule with nodes less than sigma apart, which leaves less than 1e-9
    of the density's maximum.

    Arguments:
        turns: t_1 in turns of 2 pi.
        sigma: The noise.
    """

    def __init__(self, turns: float = 1.5, sigma: float = 0.1) -> None:
        if not (turns > 0 and sigma > 0):
            raise ValueError(f"Spiral(turns={turns}, sigma={sigma}): both must be above 0")
        self.turns, self.sigma, self.scale = turns, float(sigma), float(sigma)
        reach = 2 * math.pi * turns / 3
        self.box = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).expand(2, 2) * (reach + _FAR * sigma)
        # An arm's length is at most t_1^2 / 6 + t_1; the curve is fastest where the rule's nodes are densest.
        length = (2 * math.pi * turns) ** 2 / 6 + 2 * math.pi * turns
        s, w = legendre(math.ceil(2 * length / sigma))
        self.curve = torch.cat([self._arm((s + 1) / 2), -self._arm((s + 1) / 2)])  # (2 nodes, 2)
        self.log_weight = (w * (s + 1) / 4).log().repeat(2)  # half of 2 s ds, on each arm

    def _arm(self, s: Tensor) -> Tensor:
        t = 2 * math.pi * self.turns * s
        return t[:, None] / 3 * torch.stack([-t.cos(), t.sin()], -1)

    def log_prob(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, 2)
        found = []
        for part in flat.split(4096):
            squared = torch.cdist(part, self.curve.to(x), compute_mode="donot_use_mm_for_euclid_dist").square()
            found.append(torch.logsumexp(self.log_weight.to(x) - squared / (2 * self.sigma**2), -1))
        return torch.cat(found).reshape(x.shape[:-1]) - math.log(2 * math.pi * self.sigma**2)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, 2, generator=generator, device=generator.device, dtype=torch.float64)
        side = torch.where(u[:, 1:] < 0.5, 1.0, -1.0)
        return side * self._arm(u[:, 0].sqrt()) + self.sigma * _normal(n, 2, generator)


class Pushforward(Law):
    r"""The law of G(z) for a deterministic G from the line to the line.

    .. math:: q(x) = \sum_{z : G(z) = x} p_z(z) / |G'(z)|

    The roots are bracketed on a grid of z and then found by bisection; a pair of roots between two neighbours of the
    grid is missed.  Where G turns, G' = 0, the density is infinite, and where G is constant there is an atom and no
    density at all.

    Arguments:
        G: A differentiable map of (n, 1) to (n, 1), each row on its own.
        prior: The law of z.
        nodes: The size of the grid of z.
    """

    def __init__(self, G: Callable[[Tensor], Tensor], prior: Law, nodes: int = 4097) -> None:
        if prior.dim != 1:
            raise ValueError(f"Pushforward of a law in {prior.dim} dimensions: only maps of the line are turned back")
        self.G, self.prior = G, prior
        low, high = (float(end) for end in prior.box[:, 0])
        self.z = torch.linspace(low, high, nodes, dtype=torch.float64)
        self.x = self._map(self.z)  # (nodes,)
        margin = 1e-9 * (1 + float(self.x.abs().max()))
        self.box = torch.stack([self.x.min() - margin, self.x.max() + margin])[:, None]
        self.scale = max(float(self.box[1, 0] - self.box[0, 0]) / 256, 1e-12)

    def _map(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            return self.G(z[:, None]).double()[:, 0]

    def roots(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find all z with G(z) = x: (row of x, root z, whether G rises there), each (roots,)."""
        below = self.x[None, :-1] <= x[:, None], self.x[None, 1:] <= x[:, None]
        row, cell = (below[0] != below[1]).nonzero(as_tuple=True)
        low, high, rises, goal = self.z[cell], self.z[cell + 1], below[0][row, cell], x[row]
        for _ in range(60):
            middle = (low + high) / 2
            left = (self._map(middle) <= goal) == rises  # the root lies to the right of the middle
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        return row, (low + high) / 2, rises

    def log_prob(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1).double()
        row, z, _ = self.roots(flat)
        with torch.enable_grad():
            z = z.requires_grad_()
            (slope,) = torch.autograd.grad(self.G(z[:, None]).sum(), z)
        z = z.detach()
        density = self.prior.log_prob(z[:, None]).exp() / slope.abs()
        return torch.zeros_like(flat).index_add_(0, row, density).log().reshape(x.shape[:-1])

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self._map(self.prior.sample(n, generator)[:, 0])[:, None]

    def cdf(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1).double()
        row, z, rises = self.roots(flat)
        # {z : G(z) <= x} is a row of intervals that end at the roots: on the right where G rises, left where it falls.
        mass = self.prior.cdf(z[:, None]) * torch.where(rises, 1.0, -1.0)
        total = (self.x[-1] <= flat).double().index_add(0, row, mass)
        return total.clamp(0, 1).reshape(x.shape[:-1])


def law_of(prior: Prior) -> Law:
    """Return the law of a game's prior of one or two dimensions.

    Raises:
        ValueError: If its density is not known here.
    """
    if isinstance(prior, Normal) and prior.dim in (1, 2):
        return Gaussian([0.0] * prior.dim)
    if isinstance(prior, UniformPrior) and prior.dim in (1, 2):
        return Uniform([prior.low] * prior.dim, [prior.high] * prior.dim)
    raise ValueError(f"the density of {prior!r} is not known here; Normal and Uniform of 1 or 2 dimensions are")


def legendre(n: int) -> tuple[Tensor, Tensor]:
    """Return the n nodes and weights of Gauss and Legendre's rule on [-1, 1], float64."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def _vector(values: float | Sequence[float] | Tensor) -> Tensor:
    vector = torch.as_tensor(values, dtype=torch.float64).reshape(-1)
    if len(vector) not in (1, 2) or not bool(vector.isfinite().all()):
        raise ValueError(f"got {values}: laws here have one or two dimensions, with finite numbers")
    return vector


def _normal(n: int, d: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, d, generator=generator, device=generator.device, dtype=torch.float64)
