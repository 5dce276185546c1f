r"""The style of strokes: how thick and how slanted they are, by moments of an image's light I.

With the centre of mass as the origin, u to the right and v downwards,

.. math:: \text{slant} = -\frac{\sum I\, u v}{\sum I\, v^2}, \qquad
    \text{width} = \frac{2 \sum I}{\sum |\nabla I|}

The slant is how far a stroke leans to the right, in pixels for each pixel upwards; the width is twice the area over the
length of the outline, in pixels, exact for a long straight stroke.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["slant", "spearman", "width"]


def slant(x: Tensor) -> Tensor:
    """Return the slant of each image, (N,).

    Arguments:
        x: Images (N, C, H, W) of light strokes on a dark ground, uint8 or in [-1, 1].
    """
    light = _light(x)
    total = light.sum((1, 2)).clamp(min=1e-12)
    v, u = (torch.arange(side, dtype=light.dtype) for side in light.shape[1:])
    v, u = v[:, None].expand(light.shape[1:]), u.expand(light.shape[1:])  # (H, W)
    down, right = ((light * axis).sum((1, 2)) / total for axis in (v, u))
    dv, du = v - down[:, None, None], u - right[:, None, None]  # (N, H, W)
    return -(light * du * dv).sum((1, 2)) / (light * dv.square()).sum((1, 2)).clamp(min=1e-12)


def width(x: Tensor) -> Tensor:
    """Return the mean width of the strokes of each image in pixels, (N,).

    Arguments:
        x: Images (N, C, H, W) of light strokes on a dark ground, uint8 or in [-1, 1].
    """
    light = torch.nn.functional.pad(_light(x), (1, 1, 1, 1))
    down = light[:, 1:, :-1] - light[:, :-1, :-1]
    right = light[:, :-1, 1:] - light[:, :-1, :-1]
    outline = (down.square() + right.square()).sqrt().sum((1, 2)).clamp(min=1e-12)
    return 2 * light.sum((1, 2)) / outline


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation of the last axes of a and b, (..., N); equal values share their mean rank."""
    ranks = []
    for values in (a, b):
        values = values.double()
        ordered = values.sort(-1).values.contiguous()
        below, above = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
        rank = (below + above).double()
        ranks.append(rank - rank.mean(-1, keepdim=True))
    x, y = ranks
    correlation: Tensor = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
    return correlation


def _light(x: Tensor) -> Tensor:
    """The light of each pixel in [0, 1], (N, H, W), float64."""
    x = x.cpu()
    light = x.double() / 255 if x.dtype == torch.uint8 else (x.double() + 1) / 2
    return light.clamp(0, 1).mean(1)
