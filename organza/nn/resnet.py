r"""Residual networks of SNGAN: batch norm in G, spectral norm in D, for any height, width and channel count.

G doubles its map from the smallest of :func:`~organza.nn.layers.pyramid`; D halves it once, and again while the
smaller side is 14 or more (32 -> 16 -> 8 as published, 28 -> 14 -> 7), and ends with two blocks of one size.

References:
    Spectral Normalization for Generative Adversarial Networks (Miyato, Kataoka, Koyama, Yoshida, 2018)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from organza.nn.bilinear import Conv2d, Linear
from organza.nn.condition import ConditionalBatchNorm2d, Head, planes
from organza.nn.layers import SpectralConv2d, SpectralLinear, Unit, doubled, glorot, numel, positive, pyramid
from organza.nn.mask import Rectifier, rectify
from organza.round import Verdict

__all__ = ["ResNetDiscriminator", "ResNetGenerator"]

_GAIN = 2**0.5  # of the two convolutions of a block, which follow rectifiers; shortcuts have 1


class ResNetGenerator(nn.Module):
    r"""z -> a small map -> residual blocks that double it -> batch norm, ReLU, convolution, tanh.

    Arguments:
        latent: The dimension of z.
        shape: (channels, height, width) of an image.
        width: The channels of every map; 256 as published.
        classes: The numbers of e(y), which set the scale and shift of the blocks' batch norms, if conditional; else 0.

    Raises:
        ValueError: If the shape is not (C, H, W) or a side is below 8.
    """

    def __init__(self, latent: int, shape: Sequence[int], width: int = 256, classes: int = 0) -> None:
        super().__init__()
        positive(width=width)
        self.sizes = pyramid(shape)
        self.start = glorot(Linear(latent, width * numel(self.sizes[0])))
        self.blocks = nn.ModuleList(_Up(width, size, classes) for size in self.sizes[1:])
        end = glorot(Conv2d(width, shape[0], 3, padding=1))
        self.end = nn.Sequential(nn.BatchNorm2d(width), Rectifier(), end, Unit("tanh"))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.start(z).unflatten(1, (-1, *self.sizes[0]))  # (B, latent) -> (B, width, h, w)
        for block in self.blocks:
            h = block(h, y)  # (B, width, 2h, 2w)
        x: Tensor = self.end(h)  # (B, C, H, W)
        return x


class ResNetDiscriminator(nn.Module):
    r"""x -> residual blocks under spectral norm -> the sum over the map -> logit.

    Arguments:
        shape: (channels, height, width) of an image.
        width: The channels of every map; 128 as published.
        classes, condition, codes, components: How D is conditional and what else it says: see
            :class:`~organza.nn.condition.Head`; the published conditional D has a "projection".

    Raises:
        ValueError: If the shape is not (C, H, W), a side is below 8, or the condition is unknown.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        classes: int = 0,
        condition: str = "projection",
        codes: int = 0,
        components: int = 0,
    ) -> None:
        super().__init__()
        positive(width=width)
        side = min(pyramid(shape)[-1])
        self.planes = classes if condition == "concat" else 0
        blocks = [_Down(shape[0] + self.planes, width, halve=True, first=True)]
        while (side := side // 2) >= 14:
            blocks.append(_Down(width, width, halve=True))
        self.blocks = nn.Sequential(*blocks, _Down(width, width), _Down(width, width))
        self.end = Head(width, classes, condition, codes, components, SpectralLinear)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Verdict:
        x = planes(x, y, self.planes)  # (B, C + classes, H, W)
        h = rectify(self.blocks(x)).sum((2, 3))  # (B, width)
        says: Tensor | Verdict = self.end(h, y)  # (B,)
        return says


class _Up(nn.Module):
    """x -> conv(relu(norm(conv(double(relu(norm(x))))))) + conv1x1(double(x)), at the given size."""

    def __init__(self, width: int, size: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.size, self.conditional = size, classes > 0
        norm = partial(ConditionalBatchNorm2d, classes=classes) if classes else nn.BatchNorm2d
        self.norms = nn.ModuleList(norm(width) for _ in range(2))
        self.convs = nn.ModuleList(glorot(Conv2d(width, width, 3, padding=1), _GAIN) for _ in range(2))
        self.shortcut = glorot(Conv2d(width, width, 1))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        given = (y,) if self.conditional else ()
        h = self.convs[0](doubled(rectify(self.norms[0](x, *given)), self.size))
        h = self.convs[1](rectify(self.norms[1](h, *given)))
        # A 1 x 1 convolution and a doubling of pixels commute, and the small map is a quarter of the work.
        result: Tensor = h + doubled(self.shortcut(x), self.size)
        return result


class _Down(nn.Module):
    """x -> halve(conv(relu(conv(relu(x))))) + halve(conv1x1(x)); the first block has no first relu."""

    def __init__(self, channels: int, width: int, halve: bool = False, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.convs = nn.ModuleList(SpectralConv2d(c, width, 3, 1, _GAIN) for c in (channels, width))
        self.shortcut = SpectralConv2d(channels, width, 1) if halve or channels != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.convs[1](rectify(self.convs[0](x if self.first else rectify(x))))
        # Means of pixels and a 1 x 1 convolution commute, so the shortcut is halved first.
        if self.halve:
            return torch.add(avg_pool2d(h, 2), self.shortcut(avg_pool2d(x, 2)))
        return torch.add(h, self.shortcut(x))
