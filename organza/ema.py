r"""The moving average of G's weights, by half-life in images.

After n more images shown to D, :math:`\bar\theta \leftarrow \beta \bar\theta + (1 - \beta) \theta` with
:math:`\beta = 2^{-n / h}`.  Measured so, the average means the same for every batch size and number of processes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

__all__ = ["average", "averaged"]


def averaged(network: nn.Module) -> nn.Module:
    """Return a copy of the network to hold the average: in evaluation mode, without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def average(mean: nn.Module, network: nn.Module, images: int, half_life: float) -> None:
    """Move ``mean`` towards ``network`` in place, after ``images`` more images; buffers are copied.

    Arguments:
        mean: The network made by :func:`averaged`.
        network: The network that was just moved.
        images: The images shown since the last call.
        half_life: The images after which an old weight counts half; 0 copies the network.
    """
    beta = 0.5 ** (images / half_life) if half_life > 0 else 0.0
    old: list[Tensor] = list(mean.parameters())
    new: list[Tensor] = list(network.parameters())
    torch._foreach_lerp_(old, new, 1.0 - beta)
    for mean_buffer, buffer in zip(mean.buffers(), network.buffers(), strict=True):
        mean_buffer.copy_(buffer)
