r"""The prior p_z: the law of the noise that G turns into data.

A prior needs only ``draw(n, generator) -> Tensor``, the first axis of length n.  It always draws from the generator it
is given, never from the global one, so that what is drawn depends on the seed alone.  The rest of :class:`Prior` is
for a trained generator: which z to ask for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Normal", "Prior", "Uniform"]


class Prior(ABC):
    """The law of z.

    Attributes:
        spherical: Whether the law is round, so that the way from z to z' is an arc: on the chord between two draws of
            a high-dimensional normal law, z is shorter than G has ever seen it.
    """

    spherical: bool = False

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n independent z, (n, dim), on the generator's device."""

    def truncate(self, z: Tensor, bound: float) -> Tensor:
        """Draw z towards the middle of the law: samples that look better and differ less.

        Arguments:
            z: What was drawn, (n, dim).
            bound: How far from the middle z may lie at most; what it means is the law's to say.

        Raises:
            ValueError: If the law has no truncation, or the bound is not allowed.
        """
        raise ValueError(f"{type(self).__name__} has no truncation; leave it out")

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
        low = -z.to("cpu", torch.float64).abs()
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
        return self.low + (self.high - self.low) * u

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


def _checked(dim: int) -> int:
    if dim < 0:
        raise ValueError(f"dim={dim}: the dimension of z must be 0 or more")
    return dim
