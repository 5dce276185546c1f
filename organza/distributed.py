"""Several processes at one task, started by torchrun: who this one is, and what the others have.

Without torchrun, or before ``torch.distributed.init_process_group``, there is one process, of rank 0, and
everything here is the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as group

__all__ = ["gather", "rank", "share", "world"]


def _together() -> bool:
    return group.is_available() and group.is_initialized()


def rank() -> int:
    """Return the number of this process, from 0."""
    return group.get_rank() if _together() else 0


def world() -> int:
    """Return the number of processes."""
    return group.get_world_size() if _together() else 1


def share(n: int) -> range:
    """Return this process's part of n things: parts follow each other by rank, and differ by one at most."""
    return range(n * rank() // world(), n * (rank() + 1) // world())


def gather(x: Tensor) -> list[Tensor]:
    """Return every process's tensor, by rank; they may differ in their first dimension alone, (n_r, ...).

    Every process must call it, and gets the same.
    """
    if world() == 1:
        return [x]
    counts = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(world())]
    group.all_gather(counts, torch.tensor([len(x)], device=x.device))
    most = max(int(count) for count in counts)
    padded = x.new_zeros((most, *x.shape[1:]))
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in range(world())]
    group.all_gather(parts, padded.contiguous())
    return [part[: int(count)] for part, count in zip(parts, counts, strict=True)]
