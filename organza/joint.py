r"""The joint law of an example and its label, p(x, y), as one example that any network can judge.

Images (C, H, W) get ``ROWS`` more rows below: a dark one, and K cells of which the label's is light, so that a grid of
them shows the labels.  Vectors (d,) get K numbers more, 1 for the label's and -1 for the others.  The label of such an
example is its lightest cell, so that a G which emits both x and y needs no other output.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ROWS", "grown", "join", "split"]

ROWS = 4  # below an image: one dark, and three of cells


def grown(shape: tuple[int, ...], classes: int) -> tuple[int, ...]:
    """Return the shape of an example with its label.

    Raises:
        ValueError: If an image is narrower than there are classes, or the shape is neither of an image nor of a vector.
    """
    if len(shape) == 1:
        return (shape[0] + classes,)
    if len(shape) != 3 or not 1 <= classes <= shape[2]:
        raise ValueError(f"examples of shape {shape} have no room for a cell for each of {classes} classes")
    return (shape[0], shape[1] + ROWS, shape[2])


def join(x: Tensor, e: Tensor) -> Tensor:
    """Return x with e(y) in it, (B, *grown), differentiable in both.

    Arguments:
        x: Examples in [-1, 1], (B, C, H, W), or vectors (B, d).
        e: e(y), or how much of each label, in [0, 1], (B, K).
    """
    light = 2 * e.to(x.dtype) - 1
    if x.ndim == 2:
        return torch.cat([x, light], 1)
    cell, width = x.shape[3] // e.shape[1], x.shape[3]
    cells = light.repeat_interleave(cell, 1)  # (B, K cell)
    row = torch.nn.functional.pad(cells, (0, width - cells.shape[1]), value=-1.0)  # (B, W)
    strip = row[:, None, None, :].expand(-1, x.shape[1], ROWS - 1, -1)  # (B, C, 3, W)
    return torch.cat([x, torch.full_like(strip[:, :, :1], -1.0), strip], 2)  # (B, C, H + 4, W)


def split(x: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the examples alone, and the label of each, (B,): the inverse of :func:`join` for labels."""
    if x.ndim == 2:
        return x[:, :-classes], x[:, -classes:].argmax(1)
    cell = x.shape[3] // classes
    cells = x[:, :, 1 - ROWS :, : classes * cell].to(torch.float32).mean((1, 2)).unflatten(1, (classes, cell))
    return x[:, :, :-ROWS], cells.mean(2).argmax(1)
