r"""Networks from image to image after pix2pix: a U-Net for G, and a D that judges every patch on its own.

References:
    Image-to-Image Translation with Conditional Adversarial Networks (Isola, Zhu, Zhou, Efros, 2017)
    Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu, Park, Isola, Efros, 2017)
    U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger, Fischer, Brox, 2015)
    View Synthesis by Appearance Flow (Zhou, Tulsiani, Sun, Malik, Efros, 2016)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from organza.nn.bilinear import Conv2d, ConvTranspose2d, Linear
from organza.nn.layers import activation, crossed, half, initialise, one_of, padded, positive, sides

__all__ = ["Drawing", "PatchDiscriminator", "PatchPair", "UNetGenerator", "UNetPair"]


class UNetGenerator(nn.Module):
    r"""y -> halved again and again -> doubled again beside what was seen on the way down -> x in [-1, 1].

    Each halving is a 4x4 convolution of stride 2, batch norm (not on the first and the innermost) and LeakyReLU 0.2;
    each doubling ReLU, a 4x4 transposed convolution of stride 2, batch norm and, in the inner ones, dropout; the last
    is followed by tanh alone.  The map halved i times has width * min(2^(i-1), 8) channels.

    Images of any size are repeated at their edges until both sides are multiples of 2^depth, half of it before and
    half (rounded up) after, and the output is cropped to where y was.

    z is ignored: the only chance is dropout, in at most three of the inner doublings, those whose output has 8 width
    channels, as the paper prints them (its later PyTorch code leaves the innermost out and takes the next three).
    There are ``depth`` - 4 of these, so that up to a depth of 4 (sides below 32) x is a function of y; so it is in
    evaluation, where dropout is off and batch norm takes its running statistics: the paper keeps dropout on and takes
    the test batch's, ``G.train()``.  ``Normal(0)`` is a prior for an empty z.

    Arguments:
        condition: (channels, height, width) of the condition y.
        shape: (channels, height, width) of an image x, with the sides of y.
        width: The channels after the first layer.
        depth: The number of halvings, at most 8; 0 for as many as bring the smaller side of a power of two to 1.
        dropout: The share of units dropped, in [0, 1).
        refine: 0 for the published network, which ends in the last doubling.  Else the channels of two 3x3 convolutions
            that follow it and see y beside it, so that edges need not be drawn anew; and each doubling is then a 3x3
            convolution and a bilinear enlargement, for 9 / 16 of the work, from which no grid of dots can come.
        residual: r >= 0 in :math:`x = \tanh(f(y) + r y)`: 0 for the published network; with 1.5 G begins near the
            identity, and need only learn what changes.
        norm: "batch"; "instance", without scale and shift, by which images do not change each other; or "none".
        colours: 0 for the published network.  Else the last layer is a :class:`Drawing` in so many colours, which
            needs ``refine``.
        reach: How far, in pixels, that looks for what y shows.
        sharpen: How many times it takes its logits in evaluation, above 0.

    Raises:
        ValueError: If a shape is not (C, H, W), the sides differ or are below 2, a number is not allowed, or y is to
            be added to x without having its channels.
    """

    def __init__(
        self,
        condition: Sequence[int],
        shape: Sequence[int],
        width: int = 64,
        depth: int = 0,
        dropout: float = 0.5,
        refine: int = 0,
        residual: float = 0.0,
        norm: str = "batch",
        colours: int = 0,
        reach: float = 0.0,
        sharpen: float = 1.0,
    ) -> None:
        super().__init__()
        positive(width=width)
        side = min(sides(shape, condition))
        deepest = min(8, (side - 1).bit_length())  # what more halvings would see is mostly repeated edges
        if side < 2:
            raise ValueError(f"shape={tuple(shape)}: both sides must be 2 or more")
        if not 0 <= depth <= deepest:
            raise ValueError(f"depth={depth}: must be from 1 to {deepest} for {shape[1]} x {shape[2]}, or 0 to choose")
        one_of("norm", norm, tuple(_NORMS))
        if refine < 0:
            raise ValueError(f"refine={refine}: must be 0 or more")
        if not 0 <= residual < math.inf:
            raise ValueError(f"residual={residual}: must be 0 or more")
        if residual and condition[0] != shape[0]:
            raise ValueError(f"residual={residual}: y has {condition[0]} channels and x {shape[0]}; must be 0")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        if colours and (not refine or residual):
            raise ValueError(f"colours={colours}: needs refine above 0 and residual=0, got {refine} and {residual}")
        self.condition = tuple(condition)
        self.depth = depth or min(8, side.bit_length() - 1)
        self.residual = residual
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        wide = [width * min(2**i, 8) for i in range(self.depth)]
        for i, (before, after) in enumerate(zip([condition[0], *wide], wide, strict=False)):
            down: list[nn.Module] = [Conv2d(before, after, 4, 2, 1, bias=norm == "none")]
            if i < self.depth - 1:  # the innermost map may be 1x1, without statistics, and meets the ReLU next
                down += [_NORMS[norm if i > 0 else "none"](after), activation("leaky")]
            self.downs.append(nn.Sequential(*down))
        for i in reversed(range(1, self.depth)):
            beside = 1 if i == self.depth - 1 else 2  # how many maps are joined
            up = [*_doubling(beside * wide[i], wide[i - 1], bool(refine), norm == "none"), _NORMS[norm](wide[i - 1])]
            if dropout and self.depth - i <= 3 and wide[i - 1] == 8 * width:
                up.append(nn.Dropout(dropout))
            self.ups.append(nn.Sequential(activation("relu"), *up))
        bias = not refine or norm == "none"
        last = _doubling(min(self.depth, 2) * width, refine or shape[0], bool(refine), bias)
        end = (_NORMS[norm](refine), activation("relu")) if refine else ()
        self.ups.append(nn.Sequential(activation("relu"), *last, *end))
        self.refine: nn.Module | None = None
        self.drawing: Drawing | None = None
        if refine:
            layers = [Conv2d(refine + condition[0], refine, 3, 1, 1), activation("leaky")]
            self.refine = nn.Sequential(*layers, *([] if colours else [Conv2d(refine, shape[0], 3, 1, 1)]))
        initialise(self, "dcgan")
        if colours:
            self.drawing = Drawing(refine, wide[-1], shape[0], condition[0], colours, reach, sharpen)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        y, rows, columns = padded(y, 2**self.depth)  # (B, C', H, W)
        skips = [y]
        for down in self.downs:
            skips.append(down(skips[-1]))  # (B, C, h, w) -> (B, 2C, h / 2, w / 2)
        x: Tensor = self.ups[0](skips[-1])
        for up, skip in zip(self.ups[1:], skips[-2:0:-1], strict=True):
            # LeakyReLU has gone over the skip already, as in the published code; this ReLU's value is the same.
            x = up(torch.cat([skip, x], 1))  # (B, 2C, h, w) -> (B, C / 2, 2h, 2w)
        if self.refine is not None:
            x = self.refine(torch.cat([x, y], 1))  # (B, C, H, W)
        if self.drawing is not None:
            x = self.drawing(x, skips[-1].relu().mean((2, 3)), y)
        else:
            x = (x + self.residual * y if self.residual else x).tanh()
        return x[..., rows, columns]  # (B, C, height, width)


class Drawing(nn.Module):
    r"""Pixels mixed of a few flat colours and of what y shows near by, which is what drawings are made of.

    .. math:: x_i = p_{i0} \mathrm{clip}(A y_{i + f_i} + b) + \sum_{k=1}^K p_{ik} \tanh c_k, \qquad
        p_i = \mathrm{softmax}(h_i), \quad f_i = \mathrm{reach} \tanh v_i

    The logits h and the v of the flow f, in pixels, are a 3x3 convolution's at each pixel i; y is taken bilinearly
    between pixels, and its new colours are cut at -1 and 1.  The colours c and the map A, b are linear in a summary of
    the image.  A begins as the identity (as the mean, if x has other channels), b and f near 0, p even, c anywhere.  y
    lends x edges and details that G need not learn to draw.

    References:
        View Synthesis by Appearance Flow (Zhou, Tulsiani, Sun, Malik, Efros, 2016), for f

    Arguments:
        features: The channels of the features.
        summary: The numbers of the summary.
        channels: C of an image x.
        condition: C' of y.
        colours: K >= 1.
        reach: The largest flow along either axis, in pixels, at least 0.
        sharpen: Above 0; in evaluation the softmax is of so many times h, since L1 prefers an even mixture to a wrong
            choice, and drawings are sharp.

    Raises:
        ValueError: If K, the reach or ``sharpen`` is below that.
    """

    def __init__(
        self,
        features: int,
        summary: int,
        channels: int,
        condition: int,
        colours: int,
        reach: float = 0.0,
        sharpen: float = 1.0,
    ) -> None:
        super().__init__()
        if colours < 1:
            raise ValueError(f"colours={colours}: must be 1 or more, or 0 for none")
        if not 0 <= reach < math.inf:
            raise ValueError(f"reach={reach}: must be 0 or more pixels")
        if not 0 < sharpen < math.inf:
            raise ValueError(f"sharpen={sharpen}: must be above 0")
        self.reach, self.sharpen = reach, sharpen
        self.sizes = (condition, 1, colours)
        self.places = Conv2d(features, 1 + colours + 2, 3, 1, 1)
        self.colours = Linear(summary, channels * sum(self.sizes))
        initialise(self, "dcgan")
        if self.colours.weight.is_meta:  # as in layers.Fourier
            return
        same = torch.eye(channels) if channels == condition else torch.full((channels, condition), 1 / condition)
        first = [same, torch.zeros(channels, 1), torch.randn(channels, colours)]
        with torch.no_grad():
            self.colours.weight.zero_()
            self.colours.bias.copy_(torch.cat(first, 1).flatten())

    def forward(self, x: Tensor, summary: Tensor, y: Tensor) -> Tensor:
        """Features (B, c, H, W), a summary (B, s) and the condition y (B, C', H, W) -> (B, C, H, W)."""
        places = self.places(x)
        h, flow = places[:, :-2], self.reach * places[:, -2:].tanh()
        p = (h if self.training else self.sharpen * h).softmax(1).flatten(2)
        A, b, c = self.colours(summary).unflatten(1, (-1, sum(self.sizes))).split(self.sizes, 2)
        seen = (A @ _moved(y, flow) + b).clamp(-1, 1)  # (B, C, HW)
        drawn: Tensor = (p[:, :1] * seen + c.tanh() @ p[:, 1:]).unflatten(2, y.shape[2:])
        return drawn


class UNetPair(nn.Module):
    r"""Both directions as one G: from y = (a, b), joined along the channels, :math:`(G_A(b), G_B(a))`.

    No dropout: there is no chance in either :class:`UNetGenerator`.

    Arguments:
        shape: (channels, height, width) of the joined pair: an even number of channels.
        width: The channels after the first layer of either.
        depth: The halvings of either; 0 for as many as the image allows.
        refine: The channels of the two last layers of either, which see y once more; 0 for none.
        residual: How much of y enters the last tanh of either.
        norm: "batch", "instance" or "none".

    Raises:
        ValueError: If the shape is not (2 C, H, W), or a number is not allowed.
    """

    directions = 2

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 64,
        depth: int = 0,
        refine: int = 0,
        residual: float = 0.0,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.condition = one = half(shape)
        self.a, self.b = (UNetGenerator(one, one, width, depth, 0.0, refine, residual, norm) for _ in "ab")

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return crossed(self.a, self.b, z, y)


class PatchDiscriminator(nn.Module):
    r"""(x, y) -> one logit for each patch of side 9 * 2^layers - 2, at steps of 2^layers.

    ``layers`` 4x4 convolutions of stride 2, one of stride 1 and one to the logits, with a norm (not on the first)
    and LeakyReLU 0.2 between them; the map after the i-th has width * min(2^(i-1), 8) channels.  With layers = 1, 3
    and 5 these are the published patches of 16, 70 and 286; layers = 0 stands for three 1x1 convolutions, which judge
    each pixel.  All this is exact with norm "none": statistics of the batch or of the image let patches see each other.

    A condition y is joined to x along the channels.

    Arguments:
        shape: (channels, height, width) of an image x.
        condition: (channels, height, width) of the condition y, with the sides of x; None if D sees x alone.
        width: The channels after the first layer.
        layers: The number of halvings.
        norm: "batch", of pix2pix; not with penalties on the slope of single examples; "instance", of CycleGAN, without
            scale and shift; or "none".

    Raises:
        ValueError: If a shape is not (C, H, W), the sides differ or are below 3 * 2^layers, or y is missing.
    """

    def __init__(
        self,
        shape: Sequence[int],
        condition: Sequence[int] | None = None,
        width: int = 64,
        layers: int = 3,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        positive(width=width)
        side = min(sides(shape, condition))
        one_of("norm", norm, tuple(_NORMS))
        if layers < 0:
            raise ValueError(f"layers={layers}: must be 0 or more")
        least = 3 * 2**layers if layers else 1
        if side < least:
            raise ValueError(f"shape={tuple(shape)}: with layers={layers} both sides must be {least} or more")
        self.condition = None if condition is None else tuple(condition)
        channels = shape[0] + (self.condition[0] if self.condition else 0)
        kernel, padding = (4, 1) if layers else (1, 0)
        parts: list[nn.Module] = []
        for i in range(max(layers, 1) + 1):
            wider, stride, normed = width * min(2**i, 8), 2 if i < layers else 1, norm if i > 0 else "none"
            parts.append(Conv2d(channels, wider, kernel, stride, padding, bias=normed != "batch"))
            parts += [_NORMS[normed](wider), activation("leaky")]
            channels = wider
        self.layers = nn.Sequential(*parts, Conv2d(channels, 1, kernel, 1, padding))
        initialise(self, "dcgan")

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        if self.condition is not None:
            if y is None:
                raise ValueError(f"D(x) without y: this D needs a condition of shape {self.condition}; call D(x, y)")
            x = torch.cat([x, y], 1)  # (B, C + C', H, W)
        logits: Tensor = self.layers(x)  # (B, 1, h, w)
        return logits.squeeze(1)  # (B, h, w)


class PatchPair(nn.Module):
    r"""CycleGAN's D of both domains: a joined pair (a, b) -> the logits :math:`D_A(a), D_B(b)`, (B, 2, h, w).

    Arguments:
        shape: (channels, height, width) of the joined pair: an even number of channels.
        width: The channels after the first layer of either :class:`PatchDiscriminator`.
        layers: The number of halvings of either.
        norm: "batch", "instance" or "none".

    Raises:
        ValueError: If the shape is not (2 C, H, W), or not one that either takes.
    """

    def __init__(self, shape: Sequence[int], width: int = 64, layers: int = 3, norm: str = "instance") -> None:
        super().__init__()
        one = half(shape)
        self.a, self.b = (PatchDiscriminator(one, None, width, layers, norm) for _ in "ab")

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.stack([self.a(a), self.b(b)], 1)  # (B, 2, h, w)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "none": nn.Identity,
}


def _moved(y: Tensor, flow: Tensor) -> Tensor:
    """y, (B, C, H, W), at each pixel as it is ``flow`` further, (B, 2, H, W) in pixels, right and down."""
    height, width = y.shape[2:]
    places = torch.promote_types(y.dtype, torch.float32)  # bfloat16 counts to 256 alone
    right, down = flow.to(places).unbind(1)  # (B, H, W)
    columns = (torch.arange(width, device=y.device) + right).clamp(0, width - 1)
    rows = (torch.arange(height, device=y.device)[:, None] + down).clamp(0, height - 1)
    left, top = columns.detach().floor(), rows.detach().floor()
    # Of gathers, whose second derivatives exist, as those of torch's grid_sample do not; and take_along_dim would hold
    # what is exported to one size of batch.
    seen = y.flatten(2)  # (B, C, HW)
    moved = torch.zeros_like(seen, dtype=places)
    for r in (top, top + 1):
        for c in (left, left + 1):  # one of the four pixels around
            weight = (1 - (rows - r).abs()) * (1 - (columns - c).abs())
            index = r.clamp(max=height - 1).long() * width + c.clamp(max=width - 1).long()
            moved = moved + weight.flatten(1)[:, None] * seen.gather(2, index.flatten(1)[:, None].expand_as(seen))
    return moved.to(y.dtype)  # (B, C, HW)


def _doubling(before: int, after: int, bilinear: bool, bias: bool = False) -> list[nn.Module]:
    """(B, before, h, w) -> (B, after, 2h, 2w), as published or smoothly."""
    if bilinear:
        return [Conv2d(before, after, 3, 1, 1, bias=bias), nn.Upsample(scale_factor=2, mode="bilinear")]
    return [ConvTranspose2d(before, after, 4, 2, 1, bias=bias)]
