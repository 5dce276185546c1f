r"""BEGAN's networks: a decoder for G, and an autoencoder for D, which finds real what it can reconstruct.

Sides are halved while the smaller is 16 or more: 64 -> 32 -> 16 -> 8 as published, 28 -> 14.  An odd side is halved
upwards (25 -> 13), and the doubled 26 is cropped to 25.

References:
    BEGAN: Boundary Equilibrium Generative Adversarial Networks (Berthelot, Schumm, Metz, 2017)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from organza.nn.bilinear import Conv2d, Linear
from organza.nn.layers import doubled, halves, initialise, numel, positive, sides

__all__ = ["BEGANDiscriminator", "BEGANGenerator"]


class BEGANGenerator(nn.Module):
    r"""z -> a small map -> two convolutions, doubled, two convolutions ... -> x.

    Each map has ``filters`` channels and goes through two 3x3 convolutions with ELU; it is doubled by repeating pixels.
    The first map is linear in z, and x is linear in the last, as published: values outside [-1, 1] are G's errors, and
    D sees them.

    Initialised after Glorot and Bengio (2010); the paper does not say how.

    Arguments:
        latent: The dimension of z.
        shape: (channels, height, width) of an image.
        filters: The channels n of all maps.

    Raises:
        ValueError: If the shape is not (C, H, W).
    """

    def __init__(self, latent: int, shape: Sequence[int], filters: int = 64) -> None:
        super().__init__()
        positive(filters=filters)
        self.sizes = halves(sides(shape), 16)
        self.start = Linear(latent, filters * numel(self.sizes[0]))
        self.levels = nn.ModuleList(_level(filters) for _ in self.sizes)
        self.end = Conv2d(filters, shape[0], 3, 1, 1)
        initialise(self, "glorot")

    def forward(self, z: Tensor) -> Tensor:
        h: Tensor = self.start(z)  # (B, latent) -> (B, n h w)
        h = self.levels[0](h.unflatten(1, (-1, *self.sizes[0])))  # (B, n, h, w)
        for size, level in zip(self.sizes[1:], self.levels[1:], strict=True):
            h = level(doubled(h, size))  # (B, n, 2h, 2w)
        x: Tensor = self.end(h)  # (B, C, H, W)
        return x


class BEGANDiscriminator(nn.Module):
    r"""x -> minus the energy of x, the mean absolute error of an autoencoder: the higher, the more real.

    .. math:: D(x) = -L(x), \qquad L(x) = \tfrac{1}{CHW} \| x - \mathrm{Dec}(\mathrm{Enc}(x)) \|_1

    The encoder's i-th level has i * filters channels, two 3x3 convolutions with ELU, and one of stride 2 to the next
    level; its last map goes linearly to ``hidden`` numbers.  The decoder is built as G.

    Initialised after Glorot and Bengio (2010); the paper does not say how.

    Arguments:
        shape: (channels, height, width) of an image.
        hidden: The dimension of the autoencoder's code.
        filters: The channels n of the first level.

    Raises:
        ValueError: If the shape is not (C, H, W).
    """

    def __init__(self, shape: Sequence[int], hidden: int = 64, filters: int = 64) -> None:
        super().__init__()
        positive(hidden=hidden, filters=filters)
        sizes = halves(sides(shape), 16)
        layers: list[nn.Module] = [Conv2d(shape[0], filters, 3, 1, 1), nn.ELU(inplace=True)]
        for i in range(1, len(sizes)):
            layers += [_level(i * filters), Conv2d(i * filters, (i + 1) * filters, 3, 2, 1), nn.ELU(inplace=True)]
        layers += [_level(len(sizes) * filters), nn.Flatten()]
        self.encoder = nn.Sequential(*layers, Linear(len(sizes) * filters * numel(sizes[0]), hidden))
        initialise(self.encoder, "glorot")
        self.decoder = BEGANGenerator(hidden, shape, filters)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return what is left of x after the code, (B, C, H, W)."""
        code = self.encoder(x)  # (B, hidden)
        return self.decoder(code)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return -(x - self.reconstruct(x)).abs().flatten(1).mean(1)  # (B,)


def _level(channels: int) -> nn.Sequential:
    convolutions = (Conv2d(channels, channels, 3, 1, 1) for _ in range(2))
    return nn.Sequential(*(part for convolution in convolutions for part in (convolution, nn.ELU(inplace=True))))
