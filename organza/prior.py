r"""The prior p_z: the law of the noise that G turns into data.

A prior is anything with ``draw(n, generator) -> Tensor``, the first axis of length n.  It always draws from the
generator it is given, never from the global one, so that what is drawn depends on the seed alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["Normal", "Prior", "Uniform"]


class Prior(ABC):
    """The law of z."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n independent z, (n, dim), on the generator's device."""


class Normal(Prior):
    r"""The standard normal law: :math:`z \sim N(0, I)`.

    Arguments:
        dim: The dimension of z; 0 gives an empty z, for a G whose only chance is its dropout.
    """

    def __init__(self, dim: int) -> None:
        self.dim = _checked(dim)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.dim, generator=generator, device=generator.device)

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

    def __repr__(self) -> str:
        return f"Uniform({self.dim}, {self.low}, {self.high})"


def _checked(dim: int) -> int:
    if dim < 0:
        raise ValueError(f"dim={dim}: the dimension of z must be 0 or more")
    return dim
