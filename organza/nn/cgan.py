r"""The networks of the first conditional GAN: noise and label enter by layers of their own, and meet in a joint one.

References:
    Conditional Generative Adversarial Nets (Mirza and Osindero, 2014), section 4.1
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from organza.nn.bilinear import Linear
from organza.nn.condition import vector
from organza.nn.layers import Unit, kept, marginal, numel, share, uniform
from organza.nn.mask import Largest, rectify

__all__ = ["CGANDiscriminator", "CGANGenerator"]


class CGANGenerator(nn.Module):
    r"""z -> 200 rectifiers and y -> 1000, together -> 1200 rectifiers -> x, with dropout on the hidden layers.

    What D judges is G with its dropout, and G comes to live on that chance: without it, it has one picture for each
    label, whatever the rest of z (docs/log.md).  So dropout stays on in use, as in the paper of pix2pix, and its masks
    come with z: the last numbers, of U(0, 1) each, keep a unit where they are below ``include``.  The same z is then
    the same x.  Between two z units come and go one by one; truncation at .5 and inversion change the noise alone.

    Arguments:
        latent: The dimension of z: the numbers of noise, and one for each hidden unit unless all are kept.
        shape: The shape of one example x.
        classes: The numbers of e(y).
        noise: The units that see the noise.
        label: The units that see y.
        joint: The units that see both.
        output: The law of the last layer: "sigmoid" (brought to [-1, 1]), "tanh" or "linear".
        include: The probability to keep a hidden unit, in (0, 1]; what is kept is divided by it.
        irange: The initial weights are from U(-irange, irange), the biases 0.
        marginals: Whether the output biases start at the logits of the data's mean pixels (:meth:`prime`).

    Raises:
        ValueError: If a shape, probability or range is not allowed, or z has no numbers but those for the masks.
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        classes: int,
        noise: int = 200,
        label: int = 1000,
        joint: int = 1200,
        output: str = "sigmoid",
        include: float = 0.5,
        irange: float = 0.05,
        marginals: bool = True,
    ) -> None:
        super().__init__()
        self.shape, self.classes, self.marginals = tuple(shape), classes, marginals and output == "sigmoid"
        self.include = share(include)
        self.sizes = [latent, 0, 0]  # of z: noise, and the masks of both hidden layers
        if include < 1:
            self.sizes = [latent - noise - label - joint, noise + label, joint]
        if self.sizes[0] < 1:
            masks = latent - self.sizes[0]
            raise ValueError(f"latent={latent}: {masks} numbers of z are masks; must be {masks + 1} or more")
        self.noise, self.label = Linear(self.sizes[0], noise), Linear(classes, label)
        self.joint, self.end = Linear(noise + label, joint), Linear(joint, numel(self.shape))
        self.unit = Unit(output)
        uniform(self, irange)

    def prime(self, mean: Tensor) -> None:
        """Set the output biases of a fresh G by the data's mean example, of shape ``shape``, in [-1, 1]."""
        if self.marginals:
            marginal(self.end, mean)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        z, first, second = z.split(self.sizes, 1)
        seen = rectify(self.noise(z)), rectify(self.label(vector(y, self.classes, z)))  # (B, 200), (B, 1000)
        h = rectify(self.joint(self._kept(torch.cat(seen, 1), first)))  # (B, 1200)
        x: Tensor = self.unit(self.end(self._kept(h, second)))  # (B, prod(shape))
        return x.view(-1, *self.shape)  # (B, *shape)

    def _kept(self, h: Tensor, u: Tensor) -> Tensor:
        """Dropout by masks that z brought, if any."""
        return h * (u < self.include) / self.include if self.include < 1 else h


class CGANDiscriminator(nn.Module):
    r"""x -> 240 maxout units of 5 pieces and y -> 50 of 5, together -> 240 of 4 -> logit, with dropout.

    Arguments:
        shape: The shape of one example x.
        classes: The numbers of e(y).
        units: The maxout units that see x.
        label: Those that see y.
        joint: Those that see both.
        pieces: The linear pieces of the first two kinds; the joint units have one less.
        include: The probability to keep a hidden unit, in (0, 1]; what is kept is divided by it.
        irange: The initial weights are from U(-irange, irange), the biases 0.
        pixels: Whether x is brought from [-1, 1] to [0, 1], as in 2014.

    Raises:
        ValueError: If a shape, probability or range is not allowed.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        units: int = 240,
        label: int = 50,
        joint: int = 240,
        pieces: int = 5,
        include: float = 0.5,
        irange: float = 0.005,
        pixels: bool = True,
    ) -> None:
        super().__init__()
        if pieces < 2:
            raise ValueError(f"pieces={pieces}: must be 2 or more, as the joint units have one less")
        self.classes, self.pixels = classes, pixels
        self.units = nn.Sequential(Linear(numel(shape), units * pieces), Largest(pieces))
        self.label = nn.Sequential(Linear(classes, label * pieces), Largest(pieces))
        self.joint = nn.Sequential(Linear(units + label, joint * (pieces - 1)), Largest(pieces - 1))
        self.end, self.drop = Linear(joint, 1), kept(include)
        uniform(self, irange)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = ((x + 1) / 2 if self.pixels else x).flatten(1)  # (B, prod(shape))
        seen = self.units(x), self.label(vector(y, self.classes, x))  # (B, 240), (B, 50)
        h = self.joint(self.drop(torch.cat(seen, 1)))  # (B, 240)
        logits: Tensor = self.end(self.drop(h))  # (B, 1)
        return logits.squeeze(1)  # (B,)
