r"""Layers that multiply by a mask: rectifiers, maxout and dropout.

.. math:: y = x \odot m, \qquad \frac{\partial}{\partial x} \langle g, y \rangle = g \odot m

(of maxout y is the sum of this over the pieces).  The mask is constant almost everywhere, so that second derivatives
end here.  PyTorch's rectifiers hand on a tensor of zeros instead, which then goes back through the network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from organza.nn.bilinear import transformed

__all__ = ["Dropout", "Largest", "Rectifier", "rectify"]


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


class Largest(nn.Module):
    """Maxout: the largest of each unit's pieces, (B, pieces units, ...) -> (B, units, ...).

    References:
        Maxout Networks (Goodfellow, Warde-Farley, Mirza, Courville, Bengio, 2013)

    Arguments:
        pieces: The pieces of each unit; piece i of unit j is channel i units + j.

    Raises:
        RuntimeError: If the channels of x are no multiple of the pieces.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (self.pieces, -1))
        if transformed() or not (torch.is_grad_enabled() and x.requires_grad):
            return x.amax(1)
        y: Tensor = _Largest.apply(x)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


class _Largest(torch.autograd.Function):
    """amax(1), whose own gradient, the same, is made by comparisons, number by number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.amax(1)
        ctx.save_for_backward(x, y)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> Tensor | None:
        if g is None:
            return None
        x, y = (saved.detach() for saved in ctx.saved_tensors)
        mask = (x - y.unsqueeze(1)).sign_().add_(1)  # -1 or 0, plus 1
        slope: Tensor = g.unsqueeze(1) / mask.sum(1, keepdim=True) * mask  # pieces that are equal share
        return slope


class Dropout(nn.Dropout):
    r"""Each unit is 0 with probability p, while training, and the others grow by 1 / (1 - p).

    On a CPU a unit is 0 if its random byte is below a threshold, one of the two that are next to 256 p: each call draws
    which, so that the probability is p.  The units of a call share it: of a p below 1/256 many calls drop none.  This
    is several times faster than PyTorch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and 0 < self.p < 1 and x.device.type == "cpu") or transformed():
            return functional.dropout(x, self.p, self.training)
        words = torch.empty(1 + -(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        threshold = (round(self.p * 2**64) + (int(words[-1]) & 2**56 - 1)) >> 56
        numbers = words.view(torch.uint8)[: x.numel()].view(x.shape).to(x.dtype)
        # PyTorch makes booleans, and numbers of them, one by one, and does arithmetic in vectors.
        return x * numbers.sub_(threshold - 1).clamp_(0, 1).mul_(1 / (1 - self.p))
