r"""Small parts that several networks share: activations, output laws and initialisations, by the papers' names."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["Unit", "activation", "initialise", "numel"]


class Unit(nn.Module):
    r"""The last layer of a generator: maps any number into [-1, 1].

    Arguments:
        kind: "tanh"; "sigmoid", which is :math:`2 s(x) - 1`, a pixel in [0, 1] brought to [-1, 1]; or "linear".
    """

    def __init__(self, kind: str = "tanh") -> None:
        super().__init__()
        self.kind = _known("output", kind, ("tanh", "sigmoid", "linear"))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "linear":
            return x
        return x.tanh() if self.kind == "tanh" else 2 * x.sigmoid() - 1

    def extra_repr(self) -> str:
        return self.kind


def activation(kind: str) -> nn.Module:
    """Return the activation: "relu", "leaky" (slope 0.2) or "tanh"."""
    known: dict[str, Callable[[], nn.Module]] = {
        "relu": lambda: nn.ReLU(inplace=True),
        "leaky": lambda: nn.LeakyReLU(0.2, inplace=True),
        "tanh": nn.Tanh,
    }
    return known[_known("hidden", kind, tuple(known))]()


@torch.no_grad()
def initialise(network: nn.Module, kind: str) -> None:
    r"""Initialise all weight matrices and kernels in place; biases become 0.

    Arguments:
        network: The network.
        kind: "glorot": :math:`U(-a, a)`, :math:`a = \sqrt{6 / (in + out)}` (Glorot and Bengio, 2010);
            "dcgan": :math:`N(0, 0.02^2)`, and the scale of batch norm :math:`N(1, 0.02^2)` (Radford et al., 2016).
    """
    _known("init", kind, ("glorot", "dcgan"))
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if kind == "glorot":
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and kind == "dcgan":
            nn.init.normal_(module.weight, 1.0, 0.02)


def numel(shape: tuple[int, ...]) -> int:
    """Return the numbers in one example of this shape.

    Raises:
        ValueError: If the shape is empty or a side is below 1.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"shape={shape}: every side must be 1 or more")
    return math.prod(shape)


def _known(name: str, kind: str, known: tuple[str, ...]) -> str:
    if kind not in known:
        raise ValueError(f"{name}={kind!r}: must be one of {', '.join(known)}")
    return kind
