r"""Multilayer perceptrons: any data as one long vector, as in the first GAN programs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from organza.nn.bilinear import Linear
from organza.nn.condition import Head, beside
from organza.nn.layers import Fourier, Unit, activation, initialise, numel
from organza.nn.mask import Dropout
from organza.round import Verdict

__all__ = ["MLPDiscriminator", "MLPGenerator"]


class MLPGenerator(nn.Module):
    r"""z -> widths -> x: linear layers, an activation after each, and an output law.

    Arguments:
        latent: The dimension of z.
        shape: The shape of one example x.
        widths: The units of each hidden layer.
        hidden: The activation: "relu", "leaky" or "tanh".
        output: The law of the last layer: "tanh", "sigmoid" (brought to [-1, 1]) or "linear".
        init: "glorot" or "dcgan".
        classes: The numbers of e(y), which stand beside z, if conditional; else 0.
        skip: How many of the last numbers of z enter the last layer too, as chunks of z enter each block of Large Scale
            GAN Training (Brock, Donahue, Simonyan, 2019).  Of a normal z these are straight ways to x, so that where
            data are normal around their places samples are, to the tails.  At first they weigh a tenth of the others.

    Raises:
        ValueError: If a shape, width, name or number is not allowed.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        widths: Sequence[int] = (256, 512, 1024),
        hidden: str = "leaky",
        output: str = "tanh",
        init: str = "glorot",
        classes: int = 0,
        skip: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= skip <= latent:
            raise ValueError(f"skip={skip}: must be from 0 to the {latent} numbers of z")
        self.shape, self.classes, self.skip = tuple(shape), classes, skip
        sizes = (latent + classes, *widths)
        layers = _layers(sizes, hidden, 0.0)
        last = Linear(sizes[-1] + skip, numel(self.shape))
        self.layers = nn.Sequential(*layers, last, Unit(output))
        initialise(self, init)
        with torch.no_grad():  # or at first there is nothing to be seen but them
            last.weight[:, sizes[-1] :] *= 0.1

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        *layers, last, unit = self.layers
        h = beside(z, y, self.classes)  # (B, latent + classes)
        for layer in layers:
            h = layer(h)
        if self.skip:
            h = torch.cat([h, z[:, -self.skip :]], 1)  # (B, widths[-1] + skip)
        x: Tensor = unit(last(h))  # (B, prod(shape))
        return x.view(-1, *self.shape)  # (B, *shape)


class MLPDiscriminator(nn.Module):
    r"""x -> widths -> logit: linear layers, an activation and dropout after each.

    Arguments:
        shape: The shape of one example x.
        widths: The units of each hidden layer.
        hidden: The activation: "relu", "leaky" or "tanh".
        dropout: The share of units dropped after each hidden layer, in [0, 1).
        init: "glorot" or "dcgan".
        noise: The standard deviation of normal noise added to the units of each hidden layer while training, and six
            tenths of it to x, as in the semi-supervised networks of Salimans et al. (2016), who take 0.5.
        waves: How many waves of x, :class:`~organza.nn.layers.Fourier`, stand beside it.
        classes, condition, codes, components: How D is conditional and what else it says: see
            :class:`~organza.nn.condition.Head`.

    Raises:
        ValueError: If a shape, width or name is not allowed.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int] = (1024, 512, 256),
        hidden: str = "leaky",
        dropout: float = 0.0,
        init: str = "glorot",
        noise: float = 0.0,
        waves: int = 0,
        classes: int = 0,
        condition: str = "concat",
        codes: int = 0,
        components: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        if noise < 0:
            raise ValueError(f"noise={noise}: must be 0 or more")
        self.beside = classes if condition == "concat" else 0
        d = numel(shape)
        self.waves = Fourier(d, waves) if waves else nn.Identity()
        sizes = (d + 2 * waves + self.beside, *widths)
        self.layers = nn.Sequential(*_layers(sizes, hidden, dropout, noise))
        self.end = Head(sizes[-1], classes, condition, codes, components)
        initialise(self, init)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Verdict:
        x = self.waves(x.flatten(1))  # (B, *shape) -> (B, prod(shape) + 2 waves)
        h = self.layers(beside(x, y, self.beside))  # (B, widths[-1])
        says: Tensor | Verdict = self.end(h, y)  # (B,)
        return says


class _Noise(nn.Module):
    """Add normal noise of this standard deviation while training."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x) if self.training else x

    def extra_repr(self) -> str:
        return f"std={self.std:g}"


def _layers(sizes: Sequence[int], hidden: str, dropout: float, noise: float = 0.0) -> list[nn.Module]:
    if min(sizes) < 1:
        raise ValueError(f"sizes {tuple(sizes)}: every layer needs at least 1 unit")
    layers: list[nn.Module] = [_Noise(0.6 * noise)] if noise else []
    for before, after in pairwise(sizes):
        layers += [Linear(before, after), activation(hidden)]
        if dropout:
            layers.append(Dropout(dropout))
        if noise:
            layers.append(_Noise(noise))
    return layers
