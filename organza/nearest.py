"""The nearest example to each sample: whether G has learnt or only remembers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from organza.values import signed

__all__ = ["nearest"]

_NUMBERS = 2**22  # looked at at once: 32 MB in float64


def nearest(x: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the example nearest to each x, and its Euclidean distance over numbers in [-1, 1].

    Samples beside their nearest examples show whether G has learnt or only remembers; at distance 0 it copied.  The
    search is exact, in float64, a few examples at a time.

    Arguments:
        x: Samples, (n, ...), floats in [-1, 1] or uint8.
        examples: What to search, (N, ...), likewise.

    Returns:
        The indices, (n,) int64, and the distances, (n,) float32, where x is.

    Raises:
        ValueError: If there is no example, or the shapes differ.
    """
    if len(examples) == 0 or x.shape[1:] != examples.shape[1:]:
        given, searched = tuple(x.shape[1:]), tuple(examples.shape[1:])
        what = f"nearest: {len(examples)} examples of {searched} for samples of {given}"
        raise ValueError(f"{what}; give the data that the run was trained on")
    device = torch.device("cpu") if x.device.type == "mps" else x.device  # which has no float64
    rows = min(2048, max(1, _NUMBERS // max(1, math.prod(x.shape[1:]))))  # also bounds the (m, k) below
    index, distance = torch.zeros(len(x), dtype=torch.long, device=device), torch.zeros(len(x), device=device)
    for start in range(0, len(x), rows):
        a = _numbers(x[start : start + rows], device)  # (m, d)
        least, winner = torch.full((len(a),), math.inf, dtype=a.dtype, device=device), index[start : start + rows]
        for begin in range(0, len(examples), rows):
            b = _numbers(examples[begin : begin + rows], device)  # (k, d)
            # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, of which |a|^2 decides nothing
            value, place = torch.addmm(b.square().sum(1), a, b.mT, alpha=-2).min(1)  # (m, k) -> (m,)
            winner.copy_(torch.where(value < least, place + begin, winner))
            least = torch.minimum(value, least)
        # Of the winner itself, without the cancellation of that sum: a copy is at exactly 0.
        found = _numbers(examples[winner.to(examples.device)], device)  # (m, d)
        distance[start : start + rows] = (a - found).square().sum(1).sqrt()
    return index.to(x.device), distance.to(x.device)


def _numbers(x: Tensor, device: torch.device) -> Tensor:
    """Examples as rows of float64 in [-1, 1], (n, d)."""
    return signed(x.detach().to(device)).flatten(1).to(torch.float64)
