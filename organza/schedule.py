r"""Schedules: numbers that change with the images shown to D.

A schedule is a function of the number of images; wherever one is allowed, so is a plain number or any callable.
Measured in images rather than steps, it means the same for every batch size and every number of processes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

__all__ = ["Bursts", "Constant", "Cosine", "Exponential", "Linear", "Schedule", "at"]


class Schedule(ABC):
    """A number as a function of the images shown to D (or, for a number of steps, of G's moves so far)."""

    @abstractmethod
    def __call__(self, images: int) -> float: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in vars(self).items())})"


def at(value: float | Callable[[int], float], images: int) -> float:
    """Return the value of a number or a schedule at this point."""
    return value(images) if callable(value) else value


class Constant(Schedule):
    """The same number always."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, images: int) -> float:
        return self.value


class Linear(Schedule):
    """``start`` for the first ``hold`` images, then straight to ``end`` over the next ``images``, then constant."""

    def __init__(self, start: float, end: float, images: int, hold: int = 0) -> None:
        self.start, self.end, self.images, self.hold = start, end, _positive(self, "images", images), hold

    def __call__(self, images: int) -> float:
        t = min(max(images - self.hold, 0) / self.images, 1.0)
        return self.start + (self.end - self.start) * t


class Exponential(Schedule):
    r"""Decay :math:`\max(start \cdot factor^{images / per}, floor)`.

    A decay written per update becomes ``per=batch``: the 2014 code divides the learning rate by 1.000004 at every
    update of 100 images, which is ``Exponential(0.1, 1 / 1.000004, 100, 1e-6)``.  With ``stairs`` the number of whole
    ``per`` counts: a rate halved at every 100,000th step.
    """

    def __init__(self, start: float, factor: float, per: int, floor: float = 0.0, stairs: bool = False) -> None:
        if factor <= 0:
            raise ValueError(f"Exponential(factor={factor}): the factor must be above 0")
        self.start, self.factor, self.per, self.floor = start, factor, _positive(self, "per", per), floor
        self.stairs = stairs

    def __call__(self, images: int) -> float:
        power = images // self.per if self.stairs else images / self.per
        return max(self.start * math.pow(self.factor, power), self.floor)


class Cosine(Schedule):
    r"""Burn-in along half a cosine from ``start`` to ``end`` over the first ``images``, then constant.

    .. math:: end + (start - end) \tfrac12 (1 + \cos \pi t), \quad t = \min(images / \text{length}, 1)

    References:
        The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
    """

    def __init__(self, start: float, end: float, images: int) -> None:
        self.start, self.end, self.images = start, end, _positive(self, "images", images)

    def __call__(self, images: int) -> float:
        t = min(images / self.images, 1.0)
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * t))


class Bursts(Schedule):
    """The steps of D per step of G, as a function of G's moves: ``k``, but ``burst`` at the start and now and then.

    The code of Wasserstein GAN (Arjovsky, Chintala, Bottou, 2017) takes k = 5, and 100 for the first 25 moves of G
    and at every 500th.
    """

    def __init__(self, k: int = 5, burst: int = 100, first: int = 25, every: int = 500) -> None:
        self.k, self.burst, self.first, self.every = k, burst, first, _positive(self, "every", every)

    def __call__(self, images: int) -> float:
        return self.burst if images < self.first or images % self.every == 0 else self.k


def _positive(schedule: Schedule, name: str, value: int) -> int:
    if value <= 0:
        raise ValueError(f"{type(schedule).__name__}({name}={value}): must be above 0")
    return value
