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

from organza.nn.layers import Unit, activation, initialise, numel, pyramid

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

    Raises:
        ValueError: If the shape is not (C, H, W) or a side is below 8.
    """

    def __init__(self, latent: int, shape: Sequence[int], width: int = 64, norm: bool = True) -> None:
        super().__init__()
        self.sizes = pyramid(shape)
        levels = len(self.sizes) - 1
        channels = [width * 2**i for i in reversed(range(levels))] + [shape[0]]
        self.start = nn.Linear(latent, channels[0] * numel(self.sizes[0]), bias=not norm)
        self.begin = nn.Sequential(_norm(channels[0], norm), activation("relu"))
        self.ups = nn.ModuleList()
        for i in range(levels):
            last = i == levels - 1
            up = nn.ConvTranspose2d(channels[i], channels[i + 1], 4, 2, 1, bias=last or not norm)
            rest = (Unit("tanh"),) if last else (_norm(channels[i + 1], norm), activation("relu"))
            self.ups.append(nn.Sequential(up, _Crop(self.sizes[i + 1]), *rest))
        self.channels = channels[0]
        initialise(self, "dcgan")

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.start(z)  # (B, latent) -> (B, C0 h w)
        x = self.begin(x.view(-1, self.channels, *self.sizes[0]))  # (B, C0, h, w)
        for up in self.ups:
            x = up(x)  # (B, C / 2, 2h, 2w)
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

    Raises:
        ValueError: If the shape is not (C, H, W) or a side is below 8.
    """

    def __init__(
        self, shape: Sequence[int], width: int = 64, norm: bool = True, dense: int = 0, kernel: int = 4
    ) -> None:
        super().__init__()
        if kernel not in (3, 4):
            raise ValueError(f"kernel={kernel}: must be 3 or 4")
        sides, channels = list(pyramid(shape)[-1]), shape[0]
        layers: list[nn.Module] = []
        while min(sides) >= 8:
            first = not layers
            side, wider = (4, width) if first else (kernel, 2 * channels)
            normed = norm and not first
            layers += [
                nn.Conv2d(channels, wider, side, 2, 1, bias=not normed),
                _norm(wider, normed),
                activation("leaky"),
            ]
            sides, channels = [(s + 2 - side) // 2 + 1 for s in sides], wider
        self.layers = nn.Sequential(*layers)
        features = channels * numel(tuple(sides))
        hidden = (nn.Linear(features, dense), activation("leaky")) if dense else ()
        self.end = nn.Sequential(*hidden, nn.Linear(dense or features, 1))
        initialise(self, "dcgan")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)  # (B, C, H, W) -> (B, width 2^(n-1), h, w)
        logits: Tensor = self.end(x.flatten(1))  # (B, 1)
        return logits.squeeze(1)  # (B,)


class _Crop(nn.Module):
    """Cut a map to a size at most one row and column smaller."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.size[0], : self.size[1]]


def _norm(channels: int, norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm else nn.Identity()
