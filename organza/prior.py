r"""The prior p_z: the law of the noise that G turns into data.

A prior needs only ``draw(n, generator) -> Tensor``, the first axis of length n.  It always draws from the generator it
is given, never from the global one, so that what is drawn depends on the seed alone.  The rest of :class:`Prior` is
for a trained generator: which z to ask for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = ["Codes", "Normal", "Prior", "Uniform", "path"]


class Prior(ABC):
    """The law of z.

    Attributes:
        spherical: Whether the law is round, so that the way from z to z' is an arc: on the chord between two draws of
            a high-dimensional normal law, z is shorter than G has ever seen it.
        learns: The evidence of a term from which the law learns, if it does.
    """

    spherical: bool = False
    learns: str = ""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n independent z, (n, dim), on the generator's device."""

    def truncate(self, z: Tensor, bound: float) -> Tensor:
        """Pull z towards the middle of the law: samples that look better and differ less.

        Arguments:
            z: What was drawn, (n, dim).
            bound: How far from the middle z may lie at most; what it means is the law's to say.

        Raises:
            ValueError: If the law has no truncation, or the bound is not allowed.
        """
        raise ValueError(f"{type(self).__name__} has no truncation; leave it out")

    def traverse(self, z: Tensor, code: int, steps: int = 10) -> Tensor:
        """Return each z with one of its codes led through its values, (n, steps, dim), for a law that has codes.

        Raises:
            ValueError: If the law has none, or not this one.
        """
        raise ValueError(f"code={code}: this prior, {type(self).__name__}, has no codes; that of recipe infogan has")

    def project(self, z: Tensor) -> Tensor:
        """Move a z that the law would hardly ever draw, (n, dim), to the nearest that it would; by default none."""
        return z


class Normal(Prior):
    r"""The standard normal law: :math:`z \sim N(0, I)`.

    Arguments:
        dim: The dimension of z; 0 gives an empty z, for a G whose only chance is its dropout.
    """

    spherical = True

    def __init__(self, dim: int) -> None:
        self.dim = _checked(dim)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, device=generator.device)

    def truncate(self, z: Tensor, bound: float) -> Tensor:
        r"""Turn normal numbers into numbers of the normal law truncated to [-b, b], in the same order.

        .. math:: z' = \Phi^{-1}(\Phi(-b) + (\Phi(b) - \Phi(-b)) \Phi(z))

        This is the monotone map between the two laws: a seed keeps its samples, only drawn towards the middle, and
        b -> infinity gives z back.  (Drawing again what falls outside has the same law but other samples.)

        Arguments:
            z: Normal numbers, any shape.
            bound: b > 0.

        Raises:
            ValueError: If the bound is not above 0.

        References:
            Large Scale GAN Training for High Fidelity Natural Image Synthesis (Brock, Donahue, Simonyan, 2019)
        """
        if not bound > 0:
            raise ValueError(f"truncation={bound}: must be above 0; Normal is truncated to [-bound, bound]")
        if bound == math.inf:
            return z
        # In float64 (on the CPU: not every device has it), and of the lower half only: there the sum below has no
        # cancellation however far z lies in the tail, and the other half is its mirror image.
        low = -z.cpu().double().abs()
        edge = math.erfc(bound / math.sqrt(2)) / 2  # Phi(-b)
        p = edge + (1 - 2 * edge) * torch.special.erfc(-low / math.sqrt(2)) / 2
        made: Tensor = torch.maximum(torch.special.ndtri(p), low.clamp(min=-bound))  # ndtri(0), of a far tail, is -inf
        return made.to(z).copysign(z)

    def project(self, z: Tensor) -> Tensor:
        r"""Shorten each z to the norm :math:`\sqrt{dim} + 3` at most, which a draw exceeds once in 90 times or less.

        Whatever the dimension, :math:`P(\|z\| > \sqrt{dim} + t) \le e^{-t^2 / 2}`: the draws lie in a thin shell, and
        a box about it would allow corners that are never drawn.
        """
        most = math.sqrt(self.dim) + 3
        shorter: Tensor = z * (most / z.norm(dim=1, keepdim=True)).clamp(max=1)  # (n, dim)
        return shorter

    def __repr__(self) -> str:
        return f"Normal({self.dim})"


class Uniform(Prior):
    r"""The uniform law on a cube: :math:`z_i \sim U(low, high)`.

    The code of Goodfellow et al. 2014 uses U(-sqrt 3, sqrt 3), which has unit variance.

    Arguments:
        dim: The dimension of z.
        low: The lower end of each coordinate.
        high: The upper end of each coordinate.

    Raises:
        ValueError: If ``high`` is not above ``low``.
    """

    def __init__(self, dim: int, low: float = -1.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(f"Uniform(low={low}, high={high}): high must be above low")
        self.dim = _checked(dim)
        self.low = low
        self.high = high

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        u = torch.rand(n, self.dim, generator=generator, device=generator.device)
        return u.mul_(self.high - self.low).add_(self.low)

    def truncate(self, z: Tensor, bound: float) -> Tensor:
        r"""Shrink the cube about its middle m to a part of its width: :math:`z' = z + (1 - b) (m - z)`.

        Arguments:
            z: Numbers in [low, high], any shape.
            bound: The part b of the width that is kept, 0 < b <= 1.

        Raises:
            ValueError: If the bound is not in (0, 1].
        """
        if not 0 < bound <= 1:
            raise ValueError(f"truncation={bound}: must be above 0 and at most 1, the part of Uniform's width kept")
        return z + (1 - bound) * ((self.low + self.high) / 2 - z)  # b = 1 gives z back to the last bit

    def project(self, z: Tensor) -> Tensor:
        """Move what lies outside the cube to its surface."""
        return z.clamp(self.low, self.high)

    def __repr__(self) -> str:
        return f"Uniform({self.dim}, {self.low}, {self.high})"


class Codes(Prior):
    r"""InfoGAN's law of z: codes first, then noise, z = (c, c', z').

    Each categorical code is one-hot and even, :math:`c \sim \mathrm{Cat}(K, 1/K)`; continuous codes are
    :math:`c' \sim U(-1, 1)`; the noise is normal, :math:`z' \sim N(0, s^2 I)`.  With a small s, or a large
    height of the 1 in one-hot codes, the categories are what G hears best, and its images part into clusters.

    References:
        InfoGAN (Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel, 2016)
        ClusterGAN: Latent Space Clustering in Generative Adversarial Networks (Mukherjee et al., 2019), for small noise

    Arguments:
        categories: The number of categories K of each categorical code.
        continuous: The number of continuous codes.
        noise: The dimension of the noise.
        spread: The standard deviation s of the noise.
        height: The number that stands for 1 in categorical codes.

    Raises:
        ValueError: If a code has fewer than 2 categories, or a number is below 0.
    """

    def __init__(
        self,
        categories: Sequence[int] = (10,),
        continuous: int = 2,
        noise: int = 62,
        spread: float = 1.0,
        height: float = 1.0,
    ) -> None:
        if any(k < 2 for k in categories) or continuous < 0 or spread < 0 or height <= 0:
            given = f"categories={list(categories)}, continuous={continuous}, spread={spread}, height={height}"
            raise ValueError(
                f"Codes({given}): each code needs 2 categories or more, the others must be 0 or more, height above 0"
            )
        self.categories, self.continuous, self.noise = tuple(categories), continuous, _checked(noise, "noise")
        self.spread, self.height = spread, height
        self.dim = sum(self.categories) + continuous + noise

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        if len({*self.categories}) == 1:  # all at once
            k, m = self.categories[0], len(self.categories)
            drawn = torch.randint(k, (n, m), generator=generator, device=device)
            parts = [self.height * one_hot(drawn, k).flatten(1)]
        else:
            parts = [
                self.height * one_hot(torch.randint(k, (n,), generator=generator, device=device), k)
                for k in self.categories
            ]
        parts.append(2 * torch.rand(n, self.continuous, generator=generator, device=device) - 1)
        parts.append(self.spread * torch.randn(n, self.noise, generator=generator, device=device))
        return torch.cat(parts, 1)  # (n, dim)

    def truncate(self, z: Tensor, bound: float) -> Tensor:
        """Truncate the noise of z, (n, dim), to [-bound s, bound s] as :meth:`Normal.truncate` does; keep the codes.

        Raises:
            ValueError: If the bound is not above 0.
        """
        codes, noise = z.split([self.dim - self.noise, self.noise], 1)
        return torch.cat([codes, self.spread * Normal(self.noise).truncate(noise / (self.spread or 1.0), bound)], 1)

    def project(self, z: Tensor) -> Tensor:
        """Move each categorical code to the nearest category, continuous codes into [-1, 1]; leave the noise."""
        *codes, continuous, noise = z.split([*self.categories, self.continuous, self.noise], 1)
        vertices = [self.height * one_hot(code.argmax(1), code.shape[1]).to(z) for code in codes]
        return torch.cat([*vertices, continuous.clamp(-1, 1), noise], 1)

    def traverse(self, z: Tensor, code: int, steps: int = 10, reach: float = 2.0) -> Tensor:
        """Return each z with one code led through its values and all else kept, (n, steps, dim).

        Arguments:
            z: What was drawn, (n, dim).
            code: Which code, from 0; the categorical ones first, which go through their categories.
            steps: The values of a continuous code, from -reach to reach, beyond the law's own ends as in the paper.
            reach: Where a continuous code begins and ends.

        Raises:
            ValueError: If there is no such code.
        """
        known = len(self.categories) + self.continuous
        if not 0 <= code < known:
            there = f"there are {known} codes" if known != 1 else "there is one code"
            raise ValueError(f"code={code}: {there}, counted from 0")
        begin = sum(self.categories[:code])
        if code < len(self.categories):
            values = self.height * torch.eye(self.categories[code])  # (K, K)
        else:
            begin += code - len(self.categories)
            values = torch.linspace(-reach, reach, steps).unsqueeze(1)  # (steps, 1)
        led = z.unsqueeze(1).repeat(1, len(values), 1)  # (n, steps, dim)
        led[:, :, begin : begin + values.shape[1]] = values.to(z)
        return led

    def __repr__(self) -> str:
        return f"Codes({list(self.categories)}, {self.continuous}, {self.noise}, {self.spread}, {self.height})"


def path(z0: Tensor, z1: Tensor, steps: int, kind: str = "spherical") -> Tensor:
    r"""Return the points on the ways from z0 to z1, (n, steps, ...), evenly spaced; the ends are exactly those.

    "linear" is the chord, :math:`(1 - t) z_0 + t z_1`.  "spherical" turns the direction along a great circle at
    constant speed and changes the norm linearly, so that z is always about as long as the prior draws it:

    .. math:: \frac{\sin((1 - t) \theta)}{\sin \theta} u_0 + \frac{\sin(t \theta)}{\sin \theta} u_1, \qquad
        u_i = \frac{z_i}{\|z_i\|}, \quad \cos \theta = u_0 \cdot u_1

    Where the two are parallel, or one is 0, no great circle is singled out, and it is the chord.

    Arguments:
        z0: The beginnings, (n, ...).
        z1: The ends, (n, ...).
        steps: The points of each way, its ends among them; at least 2.
        kind: "spherical" or "linear".

    Raises:
        ValueError: If steps is below 2 or the kind unknown.

    References:
        Animating Rotation with Quaternion Curves (Shoemake, 1985)
        Sampling Generative Networks (White, 2016)
    """
    if kind not in ("spherical", "linear"):
        raise ValueError(f"kind={kind!r}: must be one of spherical, linear")
    if steps < 2:
        raise ValueError(f"steps={steps}: at least 2, the ends of the way, are needed")
    a, b = (z.cpu().double().flatten(1).unsqueeze(1) for z in (z0, z1))  # (n, 1, dim); not on each device
    t = torch.linspace(0, 1, steps, dtype=a.dtype).view(1, steps, 1)
    points: Tensor = (1 - t) * a + t * b  # (n, steps, dim)
    if kind == "spherical":
        length_a, length_b = a.norm(dim=2, keepdim=True), b.norm(dim=2, keepdim=True)  # (n, 1, 1)
        u, v = a / length_a, b / length_b
        # Of the sum and the difference, as the arc cosine has lost half of its digits at small angles.
        angle = 2 * torch.atan2((u - v).norm(dim=2, keepdim=True), (u + v).norm(dim=2, keepdim=True))
        turned = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
        arc = turned * ((1 - t) * length_a + t * length_b)
        points = torch.where(angle.sin() > 1e-6, arc, points)  # false for the NaN of a z that is 0
    points = points.unflatten(2, z0.shape[1:]).to(z0)
    points[:, 0], points[:, -1] = z0, z1
    return points


def _checked(dim: int, name: str = "dim") -> int:
    if dim < 0:
        raise ValueError(f"{name}={dim}: a dimension of z must be 0 or more")
    return dim
