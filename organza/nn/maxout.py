r"""The networks of the first GAN, as its code has them: rectifier and sigmoid generators, maxout discriminators.

A maxout unit is the largest of k linear pieces, :math:`h_j(x) = \max_{i \le k} x^T W_{ij} + b_{ij}`.

References:
    Generative Adversarial Nets (Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio, 2014)
    Maxout Networks (Goodfellow, Warde-Farley, Mirza, Courville, Bengio, 2013)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from organza.nn.bilinear import Conv2d, ConvTranspose2d, Linear
from organza.nn.layers import Unit, image, kept, marginal, numel, uniform
from organza.nn.mask import Largest, Rectifier

__all__ = ["MaxoutConvDiscriminator", "MaxoutDiscriminator", "RectifierConvGenerator", "RectifierGenerator"]


class RectifierGenerator(nn.Module):
    r"""z -> rectifiers, or rectifiers and then sigmoids -> x, with weights from :math:`U(-irange, irange)`.

    Where ``marginals`` is set and the output is a sigmoid, the output biases start at the logits of the data's mean
    pixels, so that an untrained G makes the mean image (:meth:`prime`).

    Arguments:
        latent: The dimension of z.
        shape: The shape of one example x.
        widths: The units of each hidden layer.
        hidden: The activation of each hidden layer: "relu" or "sigmoid".
        output: The law of the last layer: "sigmoid" (brought to [-1, 1]), "tanh" or "linear".
        irange: The range of the initial weights.
        output_irange: That of the last layer's; ``irange`` if None.
        sparse: If above 0, each output unit starts with so many incoming weights from N(0, 1) and the rest 0.
        bias: The initial bias of sigmoid hidden layers.
        marginals: Whether the output biases start from the data.

    Raises:
        ValueError: If a shape, width, name or range is not allowed.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        widths: Sequence[int] = (1200, 1200),
        hidden: Sequence[str] = ("relu", "relu"),
        output: str = "sigmoid",
        irange: float = 0.05,
        output_irange: float | None = None,
        sparse: int = 0,
        bias: float = 0.0,
        marginals: bool = True,
    ) -> None:
        super().__init__()
        self.shape, self.marginals = tuple(shape), marginals and output == "sigmoid"
        self.hidden = _hidden((latent, *widths), hidden, irange, bias)
        self.end = Linear((latent, *widths)[-1], numel(self.shape))
        self.unit = Unit(output)
        if sparse < 0:
            raise ValueError(f"sparse={sparse}: must be 0 or more weights, 0 for all")
        if sparse:
            _sparse(self.end, sparse)
        elif output_irange is None:
            uniform(self.end, irange)
        else:
            uniform(self.end, output_irange, name="output_irange")

    def prime(self, mean: Tensor) -> None:
        """Set the output biases of a fresh G by the data's mean example, of shape ``shape``, in [-1, 1]."""
        if self.marginals:
            marginal(self.end, mean)

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.unit(self.end(self.hidden(z)))  # (B, latent) -> (B, prod(shape))
        return x.view(-1, *self.shape)  # (B, *shape)


class RectifierConvGenerator(nn.Module):
    r"""z -> 8000 rectifiers -> 8000 sigmoids = 80 maps of 10 x 10 -> one strided deconvolution -> x (CIFAR-10).

    The deconvolution has kernel 5, stride 3, and a bias of its own at every pixel; the output is linear.  For other
    sizes the maps are as large as it takes (28 x 28 also needs 10 x 10 maps: 9 * 3 + 5 = 32, cropped at the far edge).

    Arguments:
        latent: The dimension of z.
        shape: (channels, height, width) of an image.
        width: The units of the first layer.
        channels: The maps of the second layer.
        irange: The range of the initial weights.

    Raises:
        ValueError: If the shape is not (C, H, W) with sides of 5 or more.
    """

    def __init__(
        self, latent: int, shape: Sequence[int], width: int = 8000, channels: int = 80, irange: float = 0.05
    ) -> None:
        super().__init__()
        self.shape = image(shape, 5)
        self.maps = (channels, *(-(-(side - 5) // 3) + 1 for side in shape[1:]))
        self.hidden = _hidden((latent, width, numel(self.maps)), ("relu", "sigmoid"), irange, 0.0)
        self.up = ConvTranspose2d(channels, shape[0], 5, 3, bias=False)
        self.bias = nn.Parameter(torch.zeros(self.shape))
        uniform(self.up, irange)

    def forward(self, z: Tensor) -> Tensor:
        maps = self.hidden(z).view(-1, *self.maps)  # (B, latent) -> (B, channels, h, w)
        x: Tensor = self.up(maps)  # (B, C, 3h + 2, 3w + 2)
        return x[..., : self.shape[1], : self.shape[2]] + self.bias


class MaxoutDiscriminator(nn.Module):
    r"""x -> maxout layers -> logit, with dropout on the input of every layer.

    Dropout is the code's: an input is kept with the include probability p and then multiplied by 1 / p.  Images are
    brought from [-1, 1] to pixels in [0, 1] first, so that a dropped pixel is a black one, as in 2014.

    Arguments:
        shape: The shape of one example x.
        units: The maxout units of each hidden layer.
        pieces: The linear pieces of each unit.
        include_input: The include probability of the first layer's input, in (0, 1].
        include: That of the other layers' inputs.
        irange: The initial weights are from U(-irange, irange), the biases 0.
        pixels: Whether x is brought from [-1, 1] to [0, 1].

    Raises:
        ValueError: If a shape, width, probability or range is not allowed.
    """

    def __init__(
        self,
        shape: Sequence[int],
        units: Sequence[int] = (240, 240),
        pieces: int = 5,
        include_input: float = 0.8,
        include: float = 0.5,
        irange: float = 0.005,
        pixels: bool = True,
    ) -> None:
        super().__init__()
        sizes = (numel(shape), *units)
        if min(sizes) < 1 or pieces < 1:
            raise ValueError(f"units={tuple(units)}, pieces={pieces}: every layer needs at least 1 of each")
        self.pixels = pixels
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (before, after) in enumerate(pairwise(sizes)):
            first = kept(include) if i else kept(include_input, "include_input")
            layers += [first, Linear(before, after * pieces), Largest(pieces)]
        self.layers = nn.Sequential(*layers, kept(include), Linear(sizes[-1], 1))
        uniform(self, irange)

    def forward(self, x: Tensor) -> Tensor:
        x = (x + 1) / 2 if self.pixels else x
        logits: Tensor = self.layers(x)  # (B, *shape) -> (B, 1)
        return logits.squeeze(1)  # (B,)


class MaxoutConvDiscriminator(nn.Module):
    r"""x -> three convolutional maxout layers with max pooling -> a dense maxout layer -> logit (CIFAR-10).

    At 3 x 32 x 32: 32 maps (kernel 8, padding 4, pool 4 / 2), 32 (8, 3, 4 / 2), 192 (5, 3, 2 / 2), each the largest
    of 2 pieces, then 500 units of 5 pieces.  A pool that hangs over the far edge is kept (ceil), as in the code:
    33 -> 16, 15 -> 7, 9 -> 5.  Dropout as in :class:`MaxoutDiscriminator`.

    Arguments:
        shape: (channels, height, width) of an image.
        widths: The maps of each convolutional layer.
        units: The units of the dense layer.
        include_input: The include probability of the first layer's input, in (0, 1].
        include: That of the other layers' inputs.
        irange: The initial weights are from U(-irange, irange), the biases 0.

    Raises:
        ValueError: If the shape is not (C, H, W) with sides of 8 or more, or a number is not allowed.
    """

    def __init__(
        self,
        shape: Sequence[int],
        widths: Sequence[int] = (32, 32, 192),
        units: int = 500,
        include_input: float = 0.8,
        include: float = 0.5,
        irange: float = 0.005,
    ) -> None:
        super().__init__()
        channels, *sides = image(shape, 8)
        layers: list[nn.Module] = []
        for wide, (kernel, pad, pool) in zip(widths, ((8, 4, 4), (8, 3, 4), (5, 3, 2)), strict=True):
            layers += [
                kept(include) if layers else kept(include_input, "include_input"),
                Conv2d(channels, 2 * wide, kernel, padding=pad),
                Largest(2),
                nn.MaxPool2d(pool, 2, ceil_mode=True),
            ]
            sides = [-(-(side + 2 * pad - kernel + 1 - pool) // 2) + 1 for side in sides]
            channels = wide
        features = channels * numel(sides)
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.end = nn.Sequential(
            kept(include), Linear(features, 5 * units), Largest(5), kept(include), Linear(units, 1)
        )
        uniform(self, irange)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.end(self.layers(x))  # (B, C, H, W) -> (B, 1)
        return logits.squeeze(1)  # (B,)


def _hidden(sizes: Sequence[int], hidden: Sequence[str], irange: float, bias: float) -> nn.Sequential:
    """Linear layers with rectifiers or sigmoids between them."""
    known = {"relu": Rectifier, "sigmoid": nn.Sigmoid}
    if len(hidden) != len(sizes) - 1 or min(sizes) < 1 or not set(hidden) <= set(known):
        raise ValueError(
            f"hidden={list(hidden)} for layers of {tuple(sizes[1:])} units: give each layer one of relu, sigmoid, "
            "and at least 1 unit"
        )
    layers: list[nn.Module] = []
    for (before, after), name in zip(pairwise(sizes), hidden, strict=True):
        linear = Linear(before, after)
        uniform(linear, irange, bias if name == "sigmoid" else 0.0)
        layers += [linear, known[name]()]
    return nn.Sequential(*layers)


@torch.no_grad()
def _sparse(linear: nn.Linear, count: int) -> None:
    """Give each output unit ``count`` incoming weights from N(0, 1), at random places, and 0 elsewhere."""
    if linear.weight.is_meta:  # as in layers.Fourier
        return
    count = min(count, linear.in_features)
    places = torch.rand(linear.weight.shape, device=linear.weight.device).topk(count, dim=1).indices
    linear.weight.zero_().scatter_(1, places, torch.randn(places.shape, device=places.device))
    nn.init.zeros_(linear.bias)
