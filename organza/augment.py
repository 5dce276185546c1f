r"""Differentiable augmentation: what D sees instead of x.

Shown few examples, D learns them by heart.  A random transform T of real and fake alike leaves it less to learn by
heart, and G still aims at the law of x, since D compares T(x) with T(G(z)) and G's gradient passes through T:

.. math:: V(D \circ T, G) = E_x[\log D(T(x))] + E_z[\log(1 - D(T(G(z))))]

Legend: B = examples in a micro-batch, C = channels, H, W = height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from organza.round import Draw

__all__ = ["DiffAugment", "Jitter"]

_KNOWN = ("color", "translation", "affine", "cutout")


class DiffAugment(nn.Module):
    r"""Changes the colours of each image, moves it, turns it or cuts a hole into it; all are affine in x.

    color: with m each pixel's mean over the channels and M the image's mean, the image is M + (m - M) + (x - m), a
    level, its shades of grey and its colours.  Brightness b, then saturation s, then contrast c make of it

    .. math:: M + b + c\,(m - M) + c\,s\,(x - m), \quad b \sim U(-.5, .5),\ s \sim U(0, 2),\ c \sim U(.5, 1.5)

    which is not clamped to [-1, 1] (nor is it in the paper's code).

    translation: :math:`x_{i-u,\,j-v}`, or ``fill`` where that lies outside, with integers u, v uniform up to
    ``shift`` of each side.

    affine: the image turned by up to 15 degrees and stretched to .8 to 1.25 of each side, about its middle, between
    pixels by the mean of the four nearest, weighted; no part of the paper.

    cutout: ``fill`` in a box with sides of ``cutout`` of the image's, around a centre that is uniform over the image:
    the border clips the box, at most to half its height and width.

    References:
        Differentiable Augmentation for Data-Efficient GAN Training (Zhao, Liu, Lin, Zhu, Han, 2020)

    Arguments:
        policy: Which of the four, in this order; none is the identity.
        shift: The largest translation as a share of each side, from 0 to 1, rounded to pixels.
        cutout: The side of the hole as a share of the image's, from 0 to 1, rounded to pixels.
        fill: What stands where there is no image; 0 is grey, -1 black.

    Raises:
        ValueError: If a name is unknown, a share is not one, or x is not (B, C, H, W).
    """

    def __init__(
        self,
        policy: Sequence[str] = ("color", "translation", "cutout"),
        shift: float = 0.125,
        cutout: float = 0.5,
        fill: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(policy, str):
            raise ValueError(f"DiffAugment(policy={policy!r}): must be a list of names, as {policy.split(',')}")
        for name in policy:
            if name not in _KNOWN:
                close = get_close_matches(str(name), _KNOWN, 1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_KNOWN)}"
                raise ValueError(f"DiffAugment(policy={list(policy)}): unknown {name!r}; {hint}")
        for name, share in (("shift", shift), ("cutout", cutout)):
            if not 0 <= share <= 1:
                raise ValueError(f"DiffAugment({name}={share}): must be a share of the side, from 0 to 1")
        self.policy = tuple(policy)
        self.shift = shift
        self.cutout = cutout
        self.fill = fill

    def forward(self, x: Tensor, y: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Return the images x, (B, C, H, W), each transformed by its own chance, and y as it is."""
        if x.ndim != 4:
            raise ValueError(f"DiffAugment: got x of shape {tuple(x.shape)}, needs images (B, C, H, W)")
        for name in self.policy:
            x = getattr(self, f"_{name}")(x, draw)  # (B, C, H, W)
        return x, y

    def _color(self, x: Tensor, draw: Draw) -> Tensor:
        u = draw(lambda n, g: torch.rand(n, 3, 1, 1, 1, generator=g, device=g.device)).to(x)
        b, s, c = u[:, 0] - 0.5, 2 * u[:, 1], u[:, 2] + 0.5  # (B, 1, 1, 1) each
        grey = x.mean(1, keepdim=True)  # (B, 1, H, W)
        level = grey.mean((2, 3), keepdim=True)  # (B, 1, 1, 1)
        if x.shape[1] > 1:  # one channel is its own grey
            x = torch.lerp(grey, x, s)  # (B, C, H, W)
        return torch.lerp(level, x, c) + b  # (B, C, H, W)

    def _translation(self, x: Tensor, draw: Draw) -> Tensor:
        (H, W), (down, right) = x.shape[2:], _pixels(x, self.shift)
        rows = _seen_from(x, 2, -down, down, draw)  # (B, 1, H, 1)
        columns = _seen_from(x, 3, -right, right, draw)  # (B, 1, 1, W)
        # Around the edges first: of a permutation the backward pass adds no two gradients into one pixel.
        index = (rows % H * W + columns % W).flatten(2)  # (B, 1, HW)
        moved = x.flatten(2).take_along_dim(index, 2).view_as(x)  # (B, C, H, W)
        return moved.where(_within(rows, columns, H, W), self.fill)

    def _affine(self, x: Tensor, draw: Draw) -> Tensor:
        u = 2 * draw(lambda n, g: torch.rand(n, 3, 1, 1, generator=g, device=g.device)).to(x) - 1  # (B, 3, 1, 1)
        turn, (tall, wide) = math.radians(15) * u[:, 0], (1.25 ** u[:, i] for i in (1, 2))  # (B, 1, 1) each
        H, W = x.shape[2:]
        v, w = (torch.arange(side, device=x.device).to(x) - (side - 1) / 2 for side in (H, W))
        v, w = v[:, None], w[None]  # seen from the middle
        rows = (turn.cos() * v - turn.sin() * w) / tall + (H - 1) / 2  # (B, H, W): where each pixel comes from
        columns = (turn.sin() * v + turn.cos() * w) / wide + (W - 1) / 2
        top, left = rows.floor(), columns.floor()
        # Of gathers, whose second derivatives exist, as those of torch's grid_sample do not.
        found = torch.zeros_like(x)
        for down in (0, 1):
            for right in (0, 1):
                r, c = top + down, left + right  # one of the four pixels around
                weight = (1 - (rows - r).abs()) * (1 - (columns - c).abs())
                index = r.clamp(0, H - 1).long() * W + c.clamp(0, W - 1).long()  # floats count to 2^24 alone
                index = index.flatten(1)[:, None]  # (B, 1, HW)
                near = x.flatten(2).take_along_dim(index, 2).view_as(x)
                inside = ((r >= 0) & (r < H) & (c >= 0) & (c < W))[:, None]
                found = found + weight[:, None] * near.where(inside, self.fill)
        return found

    def _cutout(self, x: Tensor, draw: Draw) -> Tensor:
        (H, W), (height, width) = x.shape[2:], _pixels(x, self.cutout)
        rows = _seen_from(x, 2, -(height // 2), H - (height + 1) // 2, draw)  # (B, 1, H, 1)
        columns = _seen_from(x, 3, -(width // 2), W - (width + 1) // 2, draw)  # (B, 1, 1, W)
        return x.masked_fill(_within(rows, columns, height, width), self.fill)  # (B, C, H, W)

    def extra_repr(self) -> str:
        return f"policy={list(self.policy)}, shift={self.shift}, cutout={self.cutout}, fill={self.fill}"


class Jitter(nn.Module):
    r"""Other views of examples: each mirrored or not, and moved by some pixels, y with x.

    As ``training.jitter`` both players are given other examples, and G learns their law.  As the ``augment`` of a game
    it is what D sees of real and fake, so that G cannot draw to the grid of D's strides.  A condition y that is an
    image with the sides of x goes with it, so that pairs stay pairs.  What is moved in from outside repeats the edge.
    (pix2pix enlarges 256 pixels to 286 and crops, which moves by up to .06 too; but that blurs small images.)

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola, Zhu, Zhou, Efros, 2017), appendix 6.2

    Arguments:
        mirror: Whether half of the examples, by chance, are mirrored left to right.
        shift: The largest move as a share of each side, from 0 to 1, rounded to pixels.

    Raises:
        ValueError: If the share is not one, or x is not (B, C, H, W).
    """

    def __init__(self, mirror: bool = True, shift: float = 0.0) -> None:
        super().__init__()
        if not 0 <= shift <= 1:
            raise ValueError(f"Jitter(shift={shift}): must be a share of the side, from 0 to 1")
        self.mirror, self.shift = mirror, shift

    def forward(self, x: Tensor, y: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Return the images x, (B, C, H, W), each changed by its own chance, and y, changed alike if it is an image."""
        if x.ndim != 4:
            raise ValueError(f"Jitter: got x of shape {tuple(x.shape)}, needs images (B, C, H, W)")
        (H, W), (down, right) = x.shape[2:], _pixels(x, self.shift)
        rows = _seen_from(x, 2, -down, down, draw).clamp(0, H - 1)  # (B, 1, H, 1): where each pixel comes from
        columns = _seen_from(x, 3, -right, right, draw).clamp(0, W - 1)  # (B, 1, 1, W)
        if self.mirror:
            turned = draw(lambda n, g: torch.rand(n, 1, 1, 1, generator=g, device=g.device)).to(x.device) < 0.5
            columns = columns.where(turned.logical_not(), W - 1 - columns)
        index = (rows * W + columns).flatten(2)  # (B, 1, HW)
        if y is not None and y.ndim == 4 and y.shape[2:] == x.shape[2:]:
            y = y.flatten(2).take_along_dim(index, 2).view_as(y)
        return x.flatten(2).take_along_dim(index, 2).view_as(x), y

    def extra_repr(self) -> str:
        return f"mirror={self.mirror}, shift={self.shift}"


def _pixels(x: Tensor, share: float) -> tuple[int, int]:
    """A share of the height and of the width, to the nearest pixel."""
    return int(x.shape[2] * share + 0.5), int(x.shape[3] * share + 0.5)


def _seen_from(x: Tensor, axis: int, low: int, high: int, draw: Draw) -> Tensor:
    """The coordinates along an axis of x as seen from a corner of each example's own, uniform on low ... high."""
    corner = draw(lambda n, g: torch.randint(low, high + 1, (n, 1, 1, 1), generator=g, device=g.device))
    coordinates = torch.arange(x.shape[axis], device=x.device).view([-1 if i == axis else 1 for i in range(4)])
    return coordinates - corner.to(x.device)


def _within(rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in a box of this size whose corner is the origin, (B, 1, H, W)."""
    return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
