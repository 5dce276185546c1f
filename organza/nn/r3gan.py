r"""The networks of R3GAN: two mirrored residual networks without any normalisation.

Each stage is a transition and residual blocks.  A block widens with a 1 x 1 convolution, mixes pixels with a grouped
3 x 3 one, and narrows again:

.. math:: x + W_3\, a(b_2 + W_2 * a(b_1 + W_1 x)), \qquad a = \text{LeakyReLU}_{0.2}, \quad W_3 = 0 \text{ at first}

Variance is kept by the initialisation alone: :math:`W_1, W_2 \sim N(0, g^2 / fan_{in})` with
:math:`g = \sqrt{2 / (1 + 0.2^2)}\, L^{-1/4}`, L the residual blocks of the network.  A transition resamples by the
filter [1, 2, 1] and changes the width, if it does, by a 1 x 1 convolution on the smaller map.

Sides follow :func:`~organza.nn.layers.pyramid`, one width for each stage: at 28 x 28 there are three (7, 14, 28), at
32 x 32 four (4, 8, 16, 32), and the smallest map may be of any shape.

References:
    The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from organza.nn.bilinear import Conv2d, Linear, conv2d, conv_transpose2d
from organza.nn.condition import vector
from organza.nn.layers import normal, pyramid
from organza.nn.mask import rectify

__all__ = ["R3GANDiscriminator", "R3GANGenerator"]


class R3GANGenerator(nn.Module):
    r"""z -> a learnt basis times a linear map of z -> stages -> x; the output is linear.

    Arguments:
        latent: The dimension of z.
        shape: (channels, height, width) of an image.
        widths: The channels of each stage, smallest map first.
        blocks: The residual blocks of each stage.
        group: The channels of one group of the 3 x 3 convolutions.
        classes: The number of classes if conditional, else 0: G(z, y) then embeds y beside z.
        embedding: The dimension of that embedding.

    Raises:
        ValueError: If the shape is not (C, H, W), a side is below 8, or a width does not divide into groups.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        widths: Sequence[int],
        blocks: int = 2,
        group: int = 16,
        classes: int = 0,
        embedding: int = 64,
    ) -> None:
        super().__init__()
        self.sizes = pyramid(shape)
        widths = _widths(widths, len(self.sizes), group)
        self.classes = classes
        self.embed = _linear(classes, embedding) if classes else None
        self.basis = nn.Parameter(torch.empty(widths[0], *self.sizes[0]))
        normal(self.basis, 0.0, 1.0)
        self.start = _linear(latent + (embedding if classes else 0), widths[0])
        self.narrow = nn.ModuleList(_change(a, b) for a, b in pairwise(widths))
        self.stages = nn.ModuleList(_stage(width, blocks, group, blocks * len(widths)) for width in widths)
        self.end = _conv(widths[-1], shape[0], 1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(vector(y, self.classes, z))], 1)  # (B, latent + embedding)
        h = self.stages[0](self.basis * self.start(z)[:, :, None, None])  # (B, C0, h, w)
        for narrow, stage, size in zip(self.narrow, self.stages[1:], self.sizes[1:], strict=True):
            h = stage(_double(narrow(h), size))  # (B, C, 2h, 2w)
        x: Tensor = self.end(h)  # (B, channels, H, W)
        return x


class R3GANDiscriminator(nn.Module):
    r"""x -> stages -> a depthwise convolution over the whole smallest map -> logit.

    With classes, the logit is :math:`\langle e(y), D'(x) \rangle` (Miyato and Koyama, 2018).

    Arguments:
        shape: (channels, height, width) of an image.
        widths: The channels of each stage, smallest map first, as for G.
        blocks: The residual blocks of each stage.
        group: The channels of one group of the 3 x 3 convolutions.
        classes: The number of classes if conditional, else 0: D(x, y).

    Raises:
        ValueError: If the shape is not (C, H, W), a side is below 8, or a width does not divide into groups.
    """

    def __init__(
        self, shape: Sequence[int], widths: Sequence[int], blocks: int = 2, group: int = 16, classes: int = 0
    ) -> None:
        super().__init__()
        sizes = pyramid(shape)
        widths = _widths(widths, len(sizes), group)[::-1]
        self.classes = classes
        self.start = _conv(shape[0], widths[0], 1)
        self.stages = nn.ModuleList(_stage(width, blocks, group, blocks * len(widths)) for width in widths)
        self.widen = nn.ModuleList(_change(a, b) for a, b in pairwise(widths))
        self.basis = _conv(widths[-1], widths[-1], sizes[0], groups=widths[-1])
        self.end = _linear(widths[-1], widths[-1] if classes else 1)
        self.embed = _linear(classes, widths[-1], gain=widths[-1] ** -0.5) if classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.stages[0](self.start(x))  # (B, C, H, W)
        for widen, stage in zip(self.widen, self.stages[1:], strict=True):
            h = stage(widen(_halve(h)))  # (B, C, H / 2, W / 2)
        logits: Tensor = self.end(self.basis(h).flatten(1))  # (B, C0, h, w) -> (B, 1), or (B, C0) with classes
        if self.embed is not None:
            logits = logits * self.embed(vector(y, self.classes, h))  # (B, C0)
        return logits.sum(1)  # (B,)


class _Block(nn.Module):
    """One residual block; ``depth`` is L, the blocks of the network."""

    def __init__(self, width: int, group: int, depth: int) -> None:
        super().__init__()
        wide, gain = 2 * width, math.sqrt(2 / (1 + 0.2**2)) * depth**-0.25
        self.expand = _conv(width, wide, 1, gain, bias=True)
        self.mix = _conv(wide, wide, 3, gain, bias=True, groups=wide // group)
        self.reduce = _conv(wide, width, 1, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = rectify(self.expand(x), 0.2, inplace=True)
        h = rectify(self.mix(h), 0.2, inplace=True)
        return torch.add(x, self.reduce(h))


def _stage(width: int, blocks: int, group: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width, group, depth) for _ in range(blocks)))


def _double(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Double a map to ``size``: each pixel is kept, and the mean of two is put before it (0 outside)."""
    channels = x.shape[1]
    # With a row and a column of zeros before the filter nothing is left to cut off, unless a side is odd; but on a GPU
    # such filters are slow.
    before = 0 if x.is_cuda else 1
    kernel = _kernel(x.dtype, x.device, before).expand(channels, 1, 3 + before, 3 + before)
    y = conv_transpose2d(x, kernel, stride=2, padding=before, groups=channels)
    if y.shape[2:] == size:
        return y
    last = y.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format  # of what is cut, no convolution could tell
    return y[..., : size[0], : size[1]].contiguous(memory_format=layout)


def _halve(x: Tensor) -> Tensor:
    """Halve a map, odd sides upwards, by the filter [1, 2, 1] / 4 in each direction (0 outside)."""
    channels = x.shape[1]
    kernel = _kernel(x.dtype, x.device).expand(channels, 1, 3, 3) / 4
    return conv2d(x, kernel, stride=2, padding=1, groups=channels)


def _kernel(dtype: torch.dtype, device: torch.device, before: int = 0) -> Tensor:
    """The filter [1, 2, 1] / 2 in both directions, after rows and columns of zeros: (3 + before, 3 + before)."""
    make = _made.__wrapped__ if torch.compiler.is_compiling() else _made  # a compiler's tensors have no numbers to keep
    return make(dtype, device, before)


@cache  # made anew, it would stop a GPU's queue at every resampling
def _made(dtype: torch.dtype, device: torch.device, before: int) -> Tensor:
    with torch.inference_mode(False):  # or training could not use what a first call in inference made
        line = torch.tensor([*[0.0] * before, 0.5, 1.0, 0.5], dtype=dtype, device=device)
        return torch.outer(line, line)


def _change(before: int, after: int) -> nn.Module:
    return _conv(before, after, 1) if before != after else nn.Identity()


def _conv(
    channels: int, wider: int, kernel: int | tuple[int, int], gain: float = 1.0, bias: bool = False, groups: int = 1
) -> nn.Conv2d:
    conv = Conv2d(channels, wider, kernel, padding=1 if kernel == 3 else 0, groups=groups, bias=bias)
    normal(conv.weight, 0.0, gain / math.sqrt(conv.weight[0].numel()))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _linear(fan_in: int, fan_out: int, gain: float = 1.0) -> nn.Linear:
    linear = Linear(fan_in, fan_out, bias=False)
    normal(linear.weight, 0.0, gain / math.sqrt(fan_in))
    return linear


def _widths(widths: Sequence[int], stages: int, group: int) -> list[int]:
    """The widths of so many stages, checked."""
    if len(widths) != stages:
        raise ValueError(f"widths={list(widths)}: images of this size need {stages}, one for each size of map")
    if min(widths) < 1 or group < 1 or any(2 * width % group for width in widths):
        raise ValueError(f"widths={list(widths)}: twice each width must be a multiple of group={group}")
    return list(widths)
