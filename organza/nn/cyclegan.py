r"""G of CycleGAN: a residual translator of images, and a pair of them that goes both ways at once.

References:
    Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu, Park, Isola, Efros, 2017)
    Perceptual Losses for Real-Time Style Transfer and Super-Resolution (Johnson, Alahi, Fei-Fei, 2016)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from organza.nn.bilinear import Conv2d, ConvTranspose2d
from organza.nn.layers import Unit, activation, crossed, half, initialise, padded, positive, sides

__all__ = ["Translator", "TranslatorPair"]


class Translator(nn.Module):
    r"""y -> halved twice -> residual blocks -> doubled twice -> x in [-1, 1], of any size.

    In the paper's words c7s1-w, d2w, d4w, R4w repeated, u2w, uw, c7s1-C: 7x7 convolutions at both ends, 3x3 ones of
    stride 2 and their transposes, and blocks x + f(x) of two 3x3 convolutions; instance norm and ReLU after each but
    the last, which tanh follows; edges are reflected, at the halvings and doublings 0.

    Images are repeated at their edges until both sides are multiples of 4, and 8 or more, and the output is cropped to
    where y was.  There is no chance in G: z is ignored.  ``Normal(0)`` is a prior for an empty z.

    Arguments:
        condition: (channels, height, width) of the condition y.
        shape: (channels, height, width) of an image x, with the sides of y.
        width: The channels after the first layer.
        blocks: The number of residual blocks; 0 for the paper's, 9 for sides of 256 and more, else 6.

    Raises:
        ValueError: If a shape is not (C, H, W), the sides differ, or a number is not allowed.
    """

    def __init__(self, condition: Sequence[int], shape: Sequence[int], width: int = 64, blocks: int = 0) -> None:
        super().__init__()
        positive(width=width)
        side = min(sides(shape, condition))
        if blocks < 0:
            raise ValueError(f"blocks={blocks}: must be 1 or more, or 0 for as many as the paper takes")
        self.condition = tuple(condition)
        wide = [width, 2 * width, 4 * width]
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), Conv2d(condition[0], width, 7), *_after(width)]
        for before, after in pairwise(wide):
            layers += [Conv2d(before, after, 3, 2, 1), *_after(after)]
        layers += [_Residual(4 * width) for _ in range(blocks or (9 if side >= 256 else 6))]
        for before, after in pairwise(wide[::-1]):
            layers += [ConvTranspose2d(before, after, 3, 2, 1, output_padding=1), *_after(after)]
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(3), Conv2d(width, shape[0], 7), Unit("tanh"))
        initialise(self, "dcgan")

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        y, rows, columns = padded(y, 4, least=8)
        x: Tensor = self.layers(y)  # (B, C', H, W) -> (B, C, H, W)
        return x[..., rows, columns]


class TranslatorPair(nn.Module):
    r"""Both directions as one G: from y = (a, b), joined along the channels, :math:`(G_A(b), G_B(a))`.

    Arguments:
        shape: (channels, height, width) of the joined pair: an even number of channels.
        width: The channels after the first layer of either :class:`Translator`.
        blocks: The residual blocks of either.

    Raises:
        ValueError: If the shape is not (2 C, H, W), or a number is not allowed.
    """

    directions = 2

    def __init__(self, shape: Sequence[int], width: int = 64, blocks: int = 0) -> None:
        super().__init__()
        self.condition = one = half(shape)
        self.a, self.b = (Translator(one, one, width, blocks) for _ in "ab")

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return crossed(self.a, self.b, z, y)


class _Residual(nn.Module):
    """x + f(x), f of two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = ([nn.ReflectionPad2d(1), Conv2d(width, width, 3), nn.InstanceNorm2d(width)] for _ in range(2))
        self.layers = nn.Sequential(*first, activation("relu"), *second)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.layers(x)
        return x + change


def _after(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width), activation("relu")]
