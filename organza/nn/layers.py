r"""Small parts that several networks share: activations, output laws and initialisations, by the papers' names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, pad

from organza.nn.bilinear import conv2d, linear
from organza.nn.mask import Dropout, Rectifier

__all__ = [
    "Fourier",
    "SpectralConv2d",
    "SpectralLinear",
    "Unit",
    "activation",
    "crossed",
    "doubled",
    "glorot",
    "half",
    "halves",
    "image",
    "initialise",
    "kept",
    "marginal",
    "normal",
    "numel",
    "one_of",
    "padded",
    "positive",
    "pyramid",
    "share",
    "sides",
    "uniform",
]


class Unit(nn.Module):
    r"""The last layer of a generator: maps any number into [-1, 1].

    Arguments:
        kind: "tanh"; "sigmoid", which is :math:`2 s(x) - 1`, a pixel in [0, 1] brought to [-1, 1]; or "linear".
    """

    def __init__(self, kind: str = "tanh") -> None:
        super().__init__()
        self.kind = one_of("output", kind, ("tanh", "sigmoid", "linear"))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "linear":
            return x
        return x.tanh() if self.kind == "tanh" else 2 * x.sigmoid() - 1

    def extra_repr(self) -> str:
        return self.kind


class Fourier(nn.Module):
    r"""Vectors and waves of them: (B, d) -> (B, d + 2m), in which a perceptron learns fine detail as soon as coarse.

    .. math:: x \mapsto (x, a_j \sin f_j u_j^T x, a_j \cos f_j u_j^T x), \quad a_j = \max(1, f_j)^{-1/2}

    with random directions :math:`u_j` of length 1, and frequencies :math:`f_j` spread evenly, by their logarithm, from
    1/2 to the highest, in radians per unit of x.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020)

    Arguments:
        d: The coordinates of x.
        waves: m, the number of waves, 0 or more.
        highest: The highest frequency, above 1/2.

    Raises:
        ValueError: If a number is not that.
    """

    f: Tensor
    a: Tensor

    def __init__(self, d: int, waves: int, highest: float = 40.0) -> None:
        super().__init__()
        if waves < 0 or not 0.5 < highest < math.inf:
            raise ValueError(f"waves={waves}, highest={highest}: needed are 0 waves or more, and a frequency above 0.5")
        f, a = torch.empty(d, waves), torch.empty(2 * waves)
        if not f.is_meta:  # without numbers PyTorch imports its compiler, for most of a second, to compute none
            rates = 0.5 * (2 * highest) ** torch.linspace(0, 1, waves)  # (m,)
            f, a = rates * normalize(torch.randn(d, waves), dim=0), rates.clamp(min=1).rsqrt().repeat(2)
        self.register_buffer("f", f)  # (d, m)
        self.register_buffer("a", a)  # (2m,)

    def forward(self, x: Tensor) -> Tensor:
        with _exact(x):
            phase = x.to(self.f.dtype) @ self.f  # (B, m)
        return torch.cat([x, self.a * torch.cat([phase.sin(), phase.cos()], 1)], 1)


def _exact(x: Tensor) -> AbstractContextManager[None]:
    """Where x lies, products in x's own numbers, whatever autocast asks for."""
    kind = x.device.type
    asked = not x.is_meta and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if asked else nullcontext()


class SpectralConv2d(nn.Conv2d):
    """A convolution whose kernel, as a matrix (out, in h w), is divided by its largest singular value."""

    def __init__(self, channels: int, wider: int, kernel: int, padding: int = 0, gain: float = 1.0) -> None:
        super().__init__(channels, wider, kernel, padding=padding)
        glorot(self, gain)
        self.sigma = _LargestSingularValue(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight / self.sigma(self.weight), self.bias, padding=self.padding)

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        self.sigma.iterate(self.weight)


class SpectralLinear(nn.Linear):
    """A linear map whose matrix is divided by its largest singular value."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out)
        glorot(self)
        self.sigma = _LargestSingularValue(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight / self.sigma(self.weight), self.bias)

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        self.sigma.iterate(self.weight)


class _LargestSingularValue(nn.Module):
    r"""An estimate of the largest singular value of a weight W of (out, ...), read as a matrix.

    One power iteration, :math:`v \leftarrow W^T u / |W^T u|,\; u \leftarrow W v / |W v|`, follows each move, never a
    pass: so a pass is a pure function, the same on real and on fake, in any micro-batch and process, and for second
    derivatives.  :math:`\sigma = u^T W v` is differentiated with u and v held fixed, as in the paper.

    References:
        Spectral Normalization for Generative Adversarial Networks (Miyato, Kataoka, Koyama, Yoshida, 2018)
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", matrix.new_empty(len(matrix)))
        self.register_buffer("v", matrix.new_empty(matrix.shape[1]))
        if matrix.is_meta:  # as in Fourier
            return
        self.u = normalize(torch.randn(len(matrix), device=matrix.device), dim=0)
        for _ in range(10):  # the paper starts with one; a poor first estimate lets the first D be far too steep
            self.iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        with _exact(weight):
            return self.u @ (weight.flatten(1) @ self.v)

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        matrix = weight.flatten(1)
        # New tensors: the graph of a pass may still hold the old ones.
        self.v = normalize(matrix.T @ self.u, dim=0)
        self.u = normalize(matrix @ self.v, dim=0)


def glorot(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """Initialise a layer in place by Glorot's uniform law times a gain, its bias by 0, and return it."""
    nn.init.xavier_uniform_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def kept(include: float, name: str = "include") -> nn.Module:
    """Dropout by the probability to keep."""
    return Dropout(1 - include) if share(include, name) < 1 else nn.Identity()


def share(include: float, name: str = "include") -> float:
    """Return the probability to keep, if it is one."""
    if not 0 < include <= 1:
        raise ValueError(f"{name}={include}: the share of inputs that are kept must lie in (0, 1]")
    return include


@torch.no_grad()
def marginal(linear: nn.Linear, mean: Tensor) -> None:
    """Set the biases of a last layer under a sigmoid, if they are still 0, to the logits of a mean x in [-1, 1]."""
    if not linear.bias.any():
        # As the code of 2014: probabilities are kept away from 0 and 1, where the logit is infinite.
        linear.bias.copy_(((mean.flatten() + 1) / 2).clamp(1e-7, 1 - 1e-7).logit())


@torch.no_grad()
def uniform(network: nn.Module, irange: float, bias: float = 0.0, name: str = "irange") -> None:
    """Draw all weights in place from U(-irange, irange); biases become ``bias``."""
    if irange <= 0:
        raise ValueError(f"{name}={irange}: must be above 0")
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.uniform_(module.weight, -irange, irange)
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)


def activation(kind: str) -> nn.Module:
    """Return the activation: "relu", "leaky" (slope 0.2) or "tanh"."""
    known: dict[str, Callable[[], nn.Module]] = {
        "relu": Rectifier,
        "leaky": lambda: Rectifier(0.2),
        "tanh": nn.Tanh,
    }
    return known[one_of("hidden", kind, tuple(known))]()


@torch.no_grad()
def initialise(network: nn.Module, kind: str) -> None:
    r"""Initialise all weight matrices and kernels in place; biases become 0.

    Arguments:
        network: The network.
        kind: "glorot": :math:`U(-a, a)`, :math:`a = \sqrt{6 / (in + out)}` (Glorot and Bengio, 2010);
            "dcgan": :math:`N(0, 0.02^2)`, and the scale of batch norm :math:`N(1, 0.02^2)` (Radford et al., 2016).
    """
    one_of("init", kind, ("glorot", "dcgan"))
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if kind == "glorot":
                nn.init.xavier_uniform_(module.weight)
            else:
                normal(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and module.affine and kind == "dcgan":
            normal(module.weight, 1.0, 0.02)


def normal(weight: Tensor, mean: float, std: float) -> None:
    """Draw weights in place from N(mean, std^2); without numbers, on the meta device, there is nothing to draw."""
    if not weight.is_meta:  # as in Fourier
        nn.init.normal_(weight, mean, std)


def positive(**sizes: int) -> None:
    """Refuse the width of a layer, by its name, that is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: must be 1 or more")


def numel(shape: Sequence[int]) -> int:
    """Return the numbers in one example of this shape.

    Raises:
        ValueError: If the shape is empty or a side is below 1.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"shape={tuple(shape)}: every side must be 1 or more")
    return math.prod(shape)


def pyramid(shape: Sequence[int]) -> list[tuple[int, int]]:
    """Return the sides of an image's maps, smallest first: halved, odd ones upwards, while both are 8 or more.

    64 -> (4, 8, 16, 32, 64) as published, 28 -> (7, 14, 28), 33 x 50 -> (5 x 7, 9 x 13, 17 x 25, 33 x 50).  A map that
    is doubled is cropped at the far edge where the next side is odd.

    Raises:
        ValueError: If the shape is not (C, H, W) or a side is below 8.
    """
    _, height, width = image(shape, 8)
    return halves((height, width), 8)


def halves(size: tuple[int, int], least: int) -> list[tuple[int, int]]:
    """Return a map's sides and its halves', smallest first: odd ones upwards, while both are ``least`` or more."""
    sizes = [size]
    while min(sizes[0]) >= least:
        height, width = sizes[0]
        sizes.insert(0, ((height + 1) // 2, (width + 1) // 2))
    return sizes


def doubled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat each pixel in a square of four, and cut to a size at most one row and column smaller."""
    return interpolate(x, scale_factor=2)[..., : size[0], : size[1]]


def padded(x: Tensor, multiple: int, least: int = 0) -> tuple[Tensor, slice, slice]:
    """Repeat an image at its edges until both sides are multiples of a number, and at least another.

    Returns:
        The image, (B, C, H', W'), and the rows and columns of it where x is: half of what was added (rounded down)
        lies before.
    """
    height, width = x.shape[-2:]
    more = [-side % multiple if side >= least else least - side for side in (height, width)]
    top, left = (n // 2 for n in more)
    if any(more):
        x = pad(x, (left, more[1] - left, top, more[0] - top), mode="replicate")  # (B, C, H', W')
    return x, slice(top, top + height), slice(left, left + width)


def image(shape: Sequence[int], least: int) -> tuple[int, ...]:
    """Return the shape of an image, checked.

    Raises:
        ValueError: If it is not (C, H, W) or a side is below ``least``.
    """
    if len(shape) != 3 or min(shape) < 1 or min(shape[1:]) < least:
        raise ValueError(f"shape={tuple(shape)}: must be (channels, height, width) with sides of {least} or more")
    return tuple(shape)


def sides(shape: Sequence[int], condition: Sequence[int] | None = None) -> tuple[int, int]:
    """The sides of images of this shape and of their conditions, which must agree."""
    for name, of in (("shape", shape), ("condition", shape if condition is None else condition)):
        if len(of) != 3 or min(of) < 1:
            raise ValueError(f"{name}={tuple(of)}: must be (channels, height, width), each 1 or more")
    if condition is not None and tuple(condition[1:]) != tuple(shape[1:]):
        raise ValueError(f"condition={tuple(condition)}: must have the sides of shape={tuple(shape)}")
    return shape[1], shape[2]


def half(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one image of a joined pair."""
    if len(shape) != 3 or min(shape) < 1 or shape[0] % 2:
        raise ValueError(f"shape={tuple(shape)}: must be (2 channels, height, width), two images joined")
    return (shape[0] // 2, *shape[1:])


def crossed(a_from: nn.Module, b_from: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    """What two generators make of the other's half of a joined pair y = (a, b): :math:`(G_A(z, b), G_B(z, a))`."""
    a, b = y.chunk(2, 1)
    return torch.cat([a_from(z, b), b_from(z, a)], 1)  # (B, 2C, H, W)


def one_of(name: str, kind: str, known: tuple[str, ...]) -> str:
    """Return the kind, if it is known."""
    if kind not in known:
        raise ValueError(f"{name}={kind!r}: must be one of {', '.join(known)}")
    return kind
