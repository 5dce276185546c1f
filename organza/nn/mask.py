r"""Layers that multiply by a mask: rectifiers and dropout.

.. math:: y = x \odot m, \qquad \frac{\partial}{\partial x} \langle g, y \rangle = g \odot m

The mask is constant almost everywhere, so that second derivatives end here.  PyTorch's rectifiers hand on a tensor of
zeros instead, which then goes back through the network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from organza.nn.bilinear import transformed

__all__ = ["Dropout", "Rectifier", "rectify"]


def rectify(x: Tensor, slope: float = 0.0, inplace: bool = False) -> Tensor:
    """Return max(x, 0) + slope min(x, 0), for a slope from 0 to below 1; in the memory of x if ``inplace``."""
    if transformed() or not (torch.is_grad_enabled() and x.requires_grad):
        return functional.leaky_relu(x, slope, inplace)
    y: Tensor = _Rectify.apply(x, slope, inplace and not x._is_view())  # type: ignore[no-untyped-call]
    return y


class Rectifier(nn.Module):
    """The rectifier as a layer, in place: what is before it must not need its own output.

    Arguments:
        slope: The slope below 0: 0 for ReLU, 0.2 for the LeakyReLU of DCGAN.
    """

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return rectify(x, self.slope, inplace=True)

    def extra_repr(self) -> str:
        return f"slope={self.slope:g}"


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, inplace: bool) -> Tensor:
        y = functional.leaky_relu(x, slope, inplace)
        if inplace:
            ctx.mark_dirty(x)
        ctx.slope = slope
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Any, ...]:
        (y,) = ctx.saved_tensors
        if g is None:
            return None, None, None
        masked = _Masked.apply if torch.is_grad_enabled() else _masked  # a node only where somebody will go on from it
        return masked(g, y.detach(), ctx.slope), None, None


class _Masked(torch.autograd.Function):
    """The rectifier's gradient, linear in g."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.slope = slope
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        return _masked(g, y, slope)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Any, ...]:
        (y,) = ctx.saved_tensors
        return None if g is None else _Masked.apply(g, y, ctx.slope), None, None  # type: ignore[no-untyped-call]


def _masked(g: Tensor, y: Tensor, slope: float) -> Tensor:
    """g by the rectifier's mask, which y tells; laid out in memory as y is."""
    if g.stride() != y.stride():  # after a flatten: two layouts at once would be 10 times slower
        g = torch.empty_like(y).copy_(g)
    masked: Tensor = torch.ops.aten.leaky_relu_backward(g, y, slope, True)
    return masked


class Dropout(nn.Dropout):
    r"""Each unit is 0 with probability p, while training, and the others grow by 1 / (1 - p).

    On a CPU the mask is cut from random words of 64 bits, four units from each, which is several times faster than
    PyTorch's; p is rounded to a multiple of :math:`2^{-16}`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return functional.dropout(x, self.p, self.training)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: x.numel()] >= round(self.p * 2**16) - 2**15
        # A product, as masked_fill goes through memory one by one.
        return x * kept.view(x.shape).to(x.dtype).mul_(1 / (1 - self.p))
