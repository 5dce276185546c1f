r"""Optimizers as plain settings: which rule, and numbers that may be schedules of the images shown to D."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from organza.schedule import at

__all__ = ["SGD", "Adam", "Optimizer", "RMSprop"]

Number = float | Callable[[int], float]


class Optimizer(ABC):
    """The settings from which a player's optimizer is built, and by which it is set before every step.

    Attributes:
        lr: The learning rate, a number or a schedule.
        moments: How many numbers it keeps for each weight.
    """

    lr: Number
    moments: int = 0

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return a torch optimizer of these parameters."""

    @abstractmethod
    def settings(self, images: int) -> dict[str, Any]:
        """Return the settings of the parameter group after so many images.

        Raises:
            ValueError: If a number is out of its range then.
        """

    def set(self, optimizer: torch.optim.Optimizer, images: int) -> None:
        """Set the optimizer's learning rate and momenta for the step after so many images."""
        settings = self.settings(images)
        for group in optimizer.param_groups:
            group.update(settings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in vars(self).items())})"


class Adam(Optimizer):
    """Adam, fused.

    References:
        Adam: A Method for Stochastic Optimization (Kingma and Ba, 2015)

    Arguments:
        lr: The learning rate, a number or a schedule.
        beta1: The decay of the mean of gradients, in [0, 1).
        beta2: The decay of the mean of squares, in [0, 1).
        eps: Added to the root of the mean of squares, 0 or more.
    """

    moments = 2

    def __init__(self, lr: Number = 2e-4, beta1: Number = 0.5, beta2: Number = 0.999, eps: float = 1e-8) -> None:
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, fused=True, eps=self.eps, **self.settings(0))

    def settings(self, images: int) -> dict[str, Any]:
        lr, beta1, beta2 = at(self.lr, images), at(self.beta1, images), at(self.beta2, images)
        if not (lr >= 0 and 0 <= beta1 < 1 and 0 <= beta2 < 1 and self.eps >= 0):
            got = f"lr={lr}, beta1={beta1}, beta2={beta2}, eps={self.eps}"
            raise ValueError(f"Adam: {got}: lr and eps must be 0 or more, the betas at least 0 and below 1")
        return {"lr": lr, "betas": (beta1, beta2)}


class SGD(Optimizer):
    r"""Stochastic gradient descent with classical momentum, fused.

    .. math:: v \leftarrow \mu v - \eta g, \qquad \theta \leftarrow \theta + v

    The learning rate enters the velocity, as in the papers and the code of 2014; PyTorch multiplies it in afterwards,
    which is the same while it is constant.

    References:
        On the importance of initialization and momentum in deep learning (Sutskever, Martens, Dahl, Hinton, 2013)

    Arguments:
        lr: The learning rate :math:`\eta`, a number or a schedule.
        momentum: The momentum :math:`\mu`, a number or a schedule.
    """

    def __init__(self, lr: Number = 0.1, momentum: Number = 0.0) -> None:
        self.lr, self.momentum = lr, momentum

    @property
    def moments(self) -> int:  # type: ignore[override]
        return int(self._rolls)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        parameters = list(parameters)
        optimizer = torch.optim.SGD(parameters, fused=True, **self.settings(0))
        if self._rolls:
            for weight in parameters:  # PyTorch's own first step would take a whole gradient for the velocity
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return optimizer

    def settings(self, images: int) -> dict[str, Any]:
        lr, momentum = at(self.lr, images), at(self.momentum, images)
        if not (lr >= 0 and 0 <= momentum < 1):
            raise ValueError(
                f"SGD: lr={lr}, momentum={momentum}: lr must be 0 or more, momentum at least 0 and below 1"
            )
        if not self._rolls:
            return {"lr": lr, "momentum": 0.0, "dampening": 0.0}
        # Dampening scales the gradient that enters PyTorch's velocity, which is minus ours; and a momentum of 0, where
        # a schedule begins, would keep no velocity at all.
        return {"lr": 1.0, "momentum": max(momentum, 1e-30), "dampening": 1.0 - lr}

    @property
    def _rolls(self) -> bool:
        return callable(self.momentum) or self.momentum > 0


class RMSprop(Optimizer):
    """Steps divided by the root of the running mean of squares, as the first WGAN used.

    Arguments:
        lr: The learning rate, a number or a schedule.
        decay: The decay of the mean of squares, in [0, 1).
        eps: Added to its root, 0 or more.
    """

    moments = 1

    def __init__(self, lr: Number = 5e-5, decay: float = 0.99, eps: float = 1e-8) -> None:
        self.lr, self.decay, self.eps = lr, decay, eps

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, foreach=True, alpha=self.decay, eps=self.eps, **self.settings(0))

    def settings(self, images: int) -> dict[str, Any]:
        lr = at(self.lr, images)
        if not (lr >= 0 and 0 <= self.decay < 1 and self.eps >= 0):
            got = f"lr={lr}, decay={self.decay}, eps={self.eps}"
            raise ValueError(f"RMSprop: {got}: lr and eps must be 0 or more, decay at least 0 and below 1")
        return {"lr": lr}
