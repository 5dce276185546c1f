r"""Convolutional networks after DCGAN, for any height, width and channel count.

Sides are halved while the smaller is 8 or more: 64 -> 32 -> 16 -> 8 -> 4 as published, 28 -> 14 -> 7.  An odd side
is halved upwards by G (7 -> 4, whose doubled 8 is cropped to 7) and downwards by D.

References:
    Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks
    (Radford, Metz, Chintala, 2016)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from organza.nn.bilinear import Conv2d, ConvTranspose2d, Linear
from organza.nn.condition import ConditionalBatchNorm2d, Head, beside, planes
from organza.nn.layers import Unit, activation, initialise, numel, positive, pyramid
from organza.round import Verdict

__all__ = ["DCGANDiscriminator", "DCGANGenerator"]


class DCGANGenerator(nn.Module):
    r"""z -> a small map of many channels -> doubled again and again -> x in [-1, 1].

    Each doubling is a 4x4 transposed convolution of stride 2, half the channels, batch norm and ReLU; the last is
    followed by tanh alone.

    Arguments:
        latent: The dimension of z.
        shape: (channels, height, width) of an image.
        width: The channels before the last layer; each map of half the side has twice as many.
        norm: Whether to normalise by batch statistics.
        dense: The units of a hidden layer between z and the first map, as InfoGAN's has; 0, as published, for none.
        classes: The numbers of e(y) if conditional, else 0.
        condition: Where y enters: "concat", beside z; or "norm", in the scale and shift of every batch norm.

    Raises:
        ValueError: If the shape is not (C, H, W), a side is below 8, or the condition is not allowed.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        width: int = 64,
        norm: bool = True,
        dense: int = 0,
        classes: int = 0,
        condition: str = "concat",
    ) -> None:
        super().__init__()
        positive(width=width)
        if condition not in ("concat", "norm") or (condition == "norm" and not norm):
            raise ValueError(f"condition={condition!r}: must be concat, or norm where norm is true")
        self.sizes = pyramid(shape)
        self.classes = classes if condition == "concat" else 0
        levels = len(self.sizes) - 1
        channels = [width * 2**i for i in reversed(range(levels))] + [shape[0]]
        seen = latent + self.classes
        normed = nn.BatchNorm1d(dense) if norm else nn.Identity()
        hidden = (Linear(seen, dense, bias=not norm), normed, activation("relu")) if dense else ()
        self.hidden = nn.Sequential(*hidden)
        self.start = Linear(dense or seen, channels[0] * numel(self.sizes[0]), bias=not norm)
        conditions = classes if condition == "norm" else 0
        self.begin = _Normed(channels[0], norm, conditions)
        self.ups = nn.ModuleList()
        for i in range(levels):
            last = i == levels - 1
            up = ConvTranspose2d(channels[i], channels[i + 1], 4, 2, 1, bias=last or not norm)
            end = Unit("tanh") if last else _Normed(channels[i + 1], norm, conditions)
            self.ups.append(_Up(up, self.sizes[i + 1], end))
        initialise(self, "dcgan")

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.hidden(beside(z, y, self.classes))  # (B, latent) -> (B, dense)
        x: Tensor = self.start(h)  # (B, C0 h w)
        x = self.begin(x.unflatten(1, (-1, *self.sizes[0])), y)  # (B, C0, h, w)
        for up in self.ups:
            x = up(x, y)  # (B, C / 2, 2h, 2w)
        return x


class DCGANDiscriminator(nn.Module):
    r"""x -> halved again and again -> logit.

    Each halving is a 4x4 convolution of stride 2 with twice the channels, batch norm (not on the first) and
    LeakyReLU 0.2.

    Arguments:
        shape: (channels, height, width) of an image.
        width: The channels after the first layer.
        norm: Whether to normalise by batch statistics; not with penalties on the slope of single examples.
        dense: The units of a hidden layer before the logit; 0, as published, for none.
        kernel: The side of the kernels after the first layer's: 4 as published, or 3.
        classes, condition, codes, components: How D is conditional and what else it says: see
            :class:`~organza.nn.condition.Head`; with "concat", y enters as even planes beside x.

    Raises:
        ValueError: If the shape is not (C, H, W) or a side is below 8.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        norm: bool = True,
        dense: int = 0,
        kernel: int = 4,
        classes: int = 0,
        condition: str = "concat",
        codes: int = 0,
        components: int = 0,
    ) -> None:
        super().__init__()
        positive(width=width)
        if kernel not in (3, 4):
            raise ValueError(f"kernel={kernel}: must be 3 or 4")
        sides = list(pyramid(shape)[-1])
        self.planes = classes if condition == "concat" else 0
        channels = shape[0] + self.planes
        layers: list[nn.Module] = []
        while min(sides) >= 8:
            first = not layers
            side, wider = (4, width) if first else (kernel, 2 * channels)
            normed = norm and not first
            layers += [
                Conv2d(channels, wider, side, 2, 1, bias=not normed),
                _norm(wider, normed),
                activation("leaky"),
            ]
            sides, channels = [(s + 2 - side) // 2 + 1 for s in sides], wider
        features = channels * numel(sides)
        hidden = (Linear(features, dense), activation("leaky")) if dense else ()
        self.layers = nn.Sequential(*layers, nn.Flatten(), *hidden)
        self.end = Head(dense or features, classes, condition, codes, components)
        initialise(self, "dcgan")

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Verdict:
        x = planes(x, y, self.planes)  # (B, C + classes, H, W)
        h = self.layers(x)  # (B, width 2^(n-1) h w), or (B, dense)
        says: Tensor | Verdict = self.end(h, y)  # (B,)
        return says


class _Normed(nn.Module):
    """Batch norm, conditional or not, and ReLU."""

    def __init__(self, channels: int, norm: bool, classes: int) -> None:
        super().__init__()
        self.conditional = classes > 0
        self.norm = ConditionalBatchNorm2d(channels, classes) if classes else _norm(channels, norm)
        self.unit = activation("relu")

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h: Tensor = self.unit(self.norm(x, y) if self.conditional else self.norm(x))
        return h


class _Up(nn.Module):
    """A transposed convolution, whose map is cut to a size at most one row and column smaller, and what follows it."""

    def __init__(self, up: nn.Module, size: tuple[int, ...], end: nn.Module) -> None:
        super().__init__()
        self.up, self.size, self.end = up, size, end

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        x = self.up(x)[..., : self.size[0], : self.size[1]]
        h: Tensor = self.end(x, y) if isinstance(self.end, _Normed) else self.end(x)
        return h


def _norm(channels: int, norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm else nn.Identity()
