r"""Linear maps and convolutions with derivatives of every order as fast as the layer itself.

A layer y = F(x, w) that is linear in x and in w is a trilinear form

.. math:: T(x, w, y) = \langle y, F(x, w) \rangle

with three places.  With one place open, the two others filled, it gives a tensor of that place: y open is the layer,
x open its gradient in x, w open that in w.  The derivative of any of these is the form again with other places filled,
so penalties on slopes (R1, R2, Wasserstein's) cost their arithmetic and no more.  PyTorch's own second derivative of a
convolution goes over groups one by one and transposes batch and channels, at 2 to 20 times the cost.

A transposed convolution is the form of a convolution with x open.

Autograd has a node written in Python compute all its gradients, needed or not.  Here the engine is asked which are, so
that the others (D's weights in G's move, or in a slope) cost nothing.

PyTorch's own linear layer needs none of this, and its nodes are quicker to build.  It is left only where oneDNN
multiplies matrices faster (see :func:`native`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Conv2d", "ConvTranspose2d", "Linear", "conv2d", "conv_transpose2d", "linear", "transformed"]

X, W, Y = range(3)  # the places
_OTHERS = ((W, Y), (X, Y), (X, W))  # of each place the two that are filled where it is open


class Form(Protocol):
    """A trilinear form."""

    def shape(self, place: int) -> tuple[int, ...]:
        """The shape of a tensor at this place."""

    def solve(self, place: int, filled: dict[int, Tensor], bias: Tensor | None) -> Tensor:
        """The tensor at the open place, for those at the two others; y with a bias for each channel."""


class Matrix(NamedTuple):
    """y = x w^T of x (B, in), w (out, in), y (B, out)."""

    batch: int
    fan_in: int
    fan_out: int

    def shape(self, place: int) -> tuple[int, ...]:
        return ((self.batch, self.fan_in), (self.fan_out, self.fan_in), (self.batch, self.fan_out))[place]

    def solve(self, place: int, filled: dict[int, Tensor], bias: Tensor | None) -> Tensor:
        if place == Y:
            return _product(filled[X], filled[W], bias)
        if place == X:
            return _product(filled[Y], filled[W].t(), None)
        return _product(filled[Y].t(), filled[X].t(), None)


class Convolution(NamedTuple):
    """y = x * w of x (B, C, H, W), w (C', C / groups, h, w), y (B, C', H', W')."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int

    def shape(self, place: int) -> tuple[int, ...]:
        if place != Y:
            return (self.x, self.w)[place]
        sides = zip(self.x[2:], self.w[2:], self.stride, self.padding, strict=True)
        return (self.x[0], self.w[0], *((x + 2 * p - w) // s + 1 for x, w, s, p in sides))

    def solve(self, place: int, filled: dict[int, Tensor], bias: Tensor | None) -> Tensor:
        layout = _layout(*filled.values())
        filled = {at: tensor.contiguous(memory_format=layout) for at, tensor in filled.items()}
        if self._by_windows(place, filled, bias):
            return self._of_windows(place, filled, bias)
        if place == Y:
            return functional.conv2d(filled[X], filled[W], bias, self.stride, self.padding, 1, self.groups)
        y = filled[Y]
        # Of the open place only shape and layout are read.
        open_ = torch.empty(self.shape(place), dtype=y.dtype, device=y.device, memory_format=layout)
        x, w = (open_, filled[W]) if place == X else (filled[X], open_)
        wanted = [place == X, place == W, False]
        solve: Callable[..., tuple[Tensor, ...]] = torch.ops.aten.convolution_backward
        every = solve(y, x, w, None, self.stride, self.padding, [1, 1], False, [0, 0], self.groups, wanted)
        found = every[place]
        return found if bias is None else found.add_(bias[:, None, None])

    def _by_windows(self, place: int, filled: dict[int, Tensor], bias: Tensor | None) -> bool:
        """Whether a product of w with all windows of x is faster, in float32 on a CPU, and all fits together."""
        if self.groups > 1 or any(t.dtype != torch.float32 or t.device.type != "cpu" for t in filled.values()):
            return False
        if place == Y and bias is not None and bias.shape != self.w[:1]:
            return False
        return _worth_windows(self, place)

    def _of_windows(self, place: int, filled: dict[int, Tensor], bias: Tensor | None) -> Tensor:
        """The tensor at the open place by a product; its rows are a window (h w C), weights and a pixel of y (C')."""
        if place == X:
            return self._overlapping(filled[W], filled[Y], bias)
        (_, channels, h, w), (size, outputs, *sides) = self.w, self.shape(Y)
        (down, right), (top, left) = self.stride, self.padding
        x = functional.pad(filled[X].permute(0, 2, 3, 1), (0, 0, left, left, top, top)).contiguous()
        b, i, j, _ = x.stride()
        windows = x.as_strided((size, *sides, h, w, channels), (b, down * i, right * j, i, j, 1))
        windows = windows.reshape(-1, h * w * channels)
        if place == W:
            slopes = _product(filled[Y].permute(1, 0, 2, 3).flatten(1), windows.t(), None)
            return slopes.view(outputs, h, w, channels).permute(0, 3, 1, 2)
        y = _product(windows, filled[W].permute(0, 2, 3, 1).reshape(outputs, -1), bias)
        return y.view(size, *sides, outputs).permute(0, 3, 1, 2)

    def _overlapping(self, weights: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        """x as the sum of the windows that each pixel of y fills."""
        outputs, channels, h, w = self.w
        (down, right), (top, left), (size, _, up, across) = self.stride, self.padding, self.shape(Y)
        if channels <= 2:
            windows = weights.flatten(1).t() @ y.flatten(2)  # (B, h w, H' W')
            x = functional.fold(windows, self.x[2:], (h, w), 1, self.padding, self.stride)
        else:
            weights = functional.pad(weights, (0, -w % right, 0, -h % down))  # to whole strides, of which a window
            high, wide = weights.shape[2] // down, weights.shape[3] // right  # spans so many
            rows = y.permute(0, 2, 3, 1).reshape(-1, outputs)
            windows = _product(rows, weights.permute(0, 2, 3, 1).reshape(outputs, -1).t(), None)
            windows = windows.view(size, up, across, high, down, wide, right, channels)
            # In strides and the pixels within each, so that what overlaps are whole strides.
            tall, long = -(-(self.x[2] + 2 * top) // down), -(-(self.x[3] + 2 * left) // right)
            x = windows[:, :, :, 0, :, 0].transpose(2, 3)
            if (tall, long, high, wide) != (up, across, 1, 1):  # or they lie side by side
                x = y.new_zeros(size, tall, down, long, right, channels)
                for i in range(high):
                    for j in range(wide):
                        x[:, i : i + up, :, j : j + across] += windows[:, :, :, i, :, j].transpose(2, 3)
            x = x.reshape(size, tall * down, long * right, channels)
            x = x[:, top : top + self.x[2], left : left + self.x[3]].contiguous().permute(0, 3, 1, 2)
        return x if bias is None else x.add_(bias[:, None, None])


@lru_cache(maxsize=1024)
def _worth_windows(form: Convolution, place: int) -> bool:
    """Whether windows are faster for these shapes.

    oneDNN goes through all weights for each few pixels, which takes the longer the more weights and the fewer pixels
    there are, and makes an x of few channels in vectors of many.  A rule, as in :func:`_by_onednn`.
    """
    size, outputs, *sides = form.shape(Y)
    fits = form.x[1] == form.w[1] and min(size, *sides, *form.x[1:], *form.w) > 0 and min(form.padding) >= 0
    if not fits:
        return False
    weights, pixels, window = math.prod(form.w), size * math.prod(sides), math.prod(form.w[1:])
    few = place == X and window <= outputs  # the windows take no more memory than y
    many = weights >= pixels * (256 if place == W else 8192)
    return (few or many) and pixels * window <= 2**24


def contract(form: Form, place: int, filled: dict[int, Tensor], bias: Tensor | None = None) -> Tensor:
    """Return the tensor at the open place, a differentiable function of the others and of the bias."""
    given = (*filled.values(), bias)
    if not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)):
        return form.solve(place, filled, bias)
    a, b = (filled[at] for at in _OTHERS[place])
    y: Tensor = _Contraction.apply(form, place, a, b, bias)  # type: ignore[no-untyped-call]
    return y


class _Contraction(torch.autograd.Function):
    """The tensor at the open place, for those at the two others in their order."""

    @staticmethod
    def forward(ctx: Any, form: Form, place: int, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
        ctx.form, ctx.place = form, place
        ctx.set_materialize_grads(False)
        by_a, by_b = ctx.needs_input_grad[2:4]
        ctx.save_for_backward(a if by_b else None, b if by_a else None)
        return form.solve(place, dict(zip(_OTHERS[place], (a, b), strict=True)), bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        slopes: list[Tensor | None] = [None] * 5
        if g is None:
            return tuple(slopes)
        a, b = ctx.saved_tensors
        first, second = _OTHERS[ctx.place]
        by_a, by_b, by_bias = _wanted(ctx)
        if by_b:  # of a layer that of w, before that of x is there to be kept
            slopes[3] = contract(ctx.form, second, {ctx.place: g, first: a})
        if by_a:
            slopes[2] = contract(ctx.form, first, {ctx.place: g, second: b})
        if by_bias:
            slopes[4] = g.sum([i for i in range(g.ndim) if i != 1])
        return tuple(slopes)


def _wanted(ctx: Any) -> list[bool]:
    """Which gradients, of the two tensors and the bias, the backward pass now on its way needs."""
    needs = list(ctx.needs_input_grad[2:])
    wanted = [need and _reached(ctx.next_functions[i][0]) for i, need in enumerate(needs)]
    return wanted if any(wanted) else needs  # an engine that came here wants one: that of RPC does not say which


def _reached(node: Any) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # it refuses to answer of a leaf that autograd.grad asks for
        return True


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x w^T + bias: (..., in), (out, in), (out,) -> (..., out)."""
    fits = bias is None or bias.shape == w.shape[:1]  # or is to be spread, or refused
    if native(x, w) or not fits:
        return functional.linear(x, w, bias)
    x, w, bias = _lowered(x, w, bias)
    if x.ndim != 2:
        return linear(x.reshape(-1, w.shape[1]), w, bias).view(*x.shape[:-1], w.shape[0])
    return contract(Matrix(len(x), w.shape[1], w.shape[0]), Y, {X: x, W: w}, bias)


def conv2d(
    x: Tensor, w: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, groups: int = 1
) -> Tensor:
    """Return x * w + bias, as :func:`torch.nn.functional.conv2d` does."""
    if transformed():
        return functional.conv2d(x, w, bias, stride, padding, 1, groups)
    x, w, bias = _lowered(x, w, bias)
    if x.ndim == 3:  # one example
        return conv2d(x[None], w, bias, stride, padding, groups)[0]
    form = Convolution(tuple(x.shape), tuple(w.shape), _pair(stride), _pair(padding), groups)
    if _by_product(x, form):
        return functional.linear(x.permute(0, 2, 3, 1), w.flatten(1), bias).permute(0, 3, 1, 2)
    return contract(form, Y, {X: x, W: w}, bias)


def conv_transpose2d(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
) -> Tensor:
    """Return the transposed convolution, as :func:`torch.nn.functional.conv_transpose2d` does."""
    stride, padding, more = _pair(stride), _pair(padding), _pair(output_padding)
    fits = x.shape[-3] == w.shape[0] and all(m < s for m, s in zip(more, stride, strict=True))
    if transformed() or not fits:  # PyTorch says better what does not fit
        return functional.conv_transpose2d(x, w, bias, stride, padding, output_padding, groups)
    x, w, bias = _lowered(x, w, bias)
    if x.ndim == 3:
        return conv_transpose2d(x[None], w, bias, stride, padding, output_padding, groups)[0]
    sides = zip(x.shape[2:], w.shape[2:], stride, padding, more, strict=True)
    size = (len(x), w.shape[1] * groups, *((n - 1) * s - 2 * p + k + o for n, k, s, p, o in sides))
    return contract(Convolution(size, tuple(w.shape), stride, padding, groups), X, {W: w, Y: x}, bias)


class Linear(nn.Linear):
    """:class:`torch.nn.Linear` with the derivatives of this module."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` with the derivatives of this module where undilated and padded with zeros."""

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or self.dilation != (1, 1):
            return super().forward(x)
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups)


class ConvTranspose2d(nn.ConvTranspose2d):
    """:class:`torch.nn.ConvTranspose2d` with the derivatives of this module where undilated and of its own size."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or self.dilation != (1, 1):
            return super().forward(x, output_size)
        return conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups)


def native(x: Tensor, w: Tensor) -> bool:
    """Whether PyTorch's own linear layer serves as well, or better.

    So it does but for float32 on a CPU where oneDNN is faster, if the product is large enough for that to pay for
    slower nodes (a guess: 4 million multiplications), and if it fits at all: what does not, PyTorch says better.
    """
    if x.device.type != "cpu" or not x.dtype == w.dtype == torch.float32 or not _by_onednn() or transformed():
        return True
    if torch.is_autocast_enabled("cpu") or x.shape[-1] != w.shape[1]:
        return True
    rows = math.prod(x.shape[:-1])
    return rows * w.numel() < 2**22


def transformed() -> bool:
    """Whether torch.compile, torch.export or a transform of torch.func looks on: they know PyTorch's own layers."""
    return bool(torch._C._are_functorch_transforms_active()) or torch.compiler.is_compiling()


def _lowered(*tensors: Tensor | None) -> Any:
    """The tensors in the numbers that autocast asks for; their gradients come back in their own."""
    kind = next(t.device.type for t in tensors if t is not None)
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(t.to(dtype) if t is not None and t.dtype == torch.float32 else t for t in tensors)


def _by_product(x: Tensor, form: Convolution) -> bool:
    """Whether a convolution is computed as a product of matrices, the same at every pixel: on a GPU in bfloat16.

    The bias then costs no pass of its own.  In float32 cuDNN convolves in TF32, in which PyTorch's products are not.
    """
    if x.dtype != torch.bfloat16 or x.device.type not in ("cuda", "mps"):
        return False
    if not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return form.groups == 1 and (*form.w[2:], *form.stride, *form.padding) == (1, 1, 1, 1, 0, 0)


def _pair(sides: Any) -> tuple[int, ...]:
    return (sides, sides) if isinstance(sides, int) else tuple(sides)


def _layout(*tensors: Tensor) -> torch.memory_format:
    """Channels last if one of them is, and always on a CPU but for float64: all of oneDNN's kernels like it best.

    (A map of one channel or one pixel is both, so that it cannot say.)
    """
    if tensors[0].device.type == "cpu" and tensors[0].dtype in (torch.float32, torch.bfloat16):
        return torch.channels_last
    last = any(t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous() for t in tensors)
    return torch.channels_last if last else torch.contiguous_format


def _product(a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """Return a b^T + bias of a (m, k) and b (n, k), whatever their strides."""
    few = min(a.shape[0], b.shape[0], a.shape[1]) < 16
    if few or not (_by_onednn() and a.dtype == b.dtype == torch.float32 and a.device.type == "cpu"):
        return functional.linear(a, b, bias)
    if not (b.is_contiguous() or b.t().is_contiguous()):
        b = b.contiguous()  # for rows with gaps between them oneDNN has a loop a thousand times slower
    y: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return y


@cache
def _by_onednn() -> bool:
    """Whether oneDNN multiplies matrices of float32 faster than PyTorch's usual MKL.

    On AMD's processors MKL leaves AVX-512 unused, and oneDNN, which PyTorch has beside it for convolutions, is more
    than twice as fast; others were not measured.  A rule, not a measurement: a resumed run must choose as before.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    try:
        known = Path("/proc/cpuinfo").read_bytes()
    except OSError:  # no Linux
        return False
    return b"AuthenticAMD" in known and hasattr(torch.ops.mkldnn, "_linear_pointwise")
