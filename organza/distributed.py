"""Several processes at one task, started by torchrun: who this one is, and what the others have.

Without torchrun there is one process, of rank 0, and everything here is the identity.  Rank 0 alone writes, and what it
decides holds for all: see :func:`first`.  Every function that speaks with the others must be called by all of them,
in the same order.

Tensors on the CPU travel by gloo and those on a GPU by nccl; nothing that is received is ever executed.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as group

__all__ = ["add", "agreed", "first", "gather", "join", "rank", "restarts", "share", "spread", "world"]

T = TypeVar("T")


def _together() -> bool:
    return group.is_available() and group.is_initialized()


def join() -> None:
    """Join the processes that torchrun started beside this one, if it did and they have not joined yet."""
    if _together() or int(os.environ.get("WORLD_SIZE", "1")) == 1 or "MASTER_ADDR" not in os.environ:
        return
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % gpus)  # each process has a GPU of its machine
    if (
        int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
        and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    ):
        warnings.warn(  # pytorch keeps addresses of the dead in that store
            "processes started anew may wait for ever for dead ones: export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 first",
            stacklevel=2,
        )
    # Imported first while there is a group, as an optimizer does it, this module keeps that group as its functions'
    # default: its threads then outlive it, and one that wants the interpreter as that goes ends the process by SIGABRT.
    importlib.import_module("torch.distributed.nn.functional")
    # NCCL refuses two processes on one GPU, and Windows has none.
    enough = gpus >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")) and group.is_nccl_available()
    group.init_process_group("cpu:gloo,cuda:nccl" if enough else "gloo")
    atexit.register(group.destroy_process_group)


def rank() -> int:
    """Return the number of this process, from 0."""
    return group.get_rank() if _together() else 0


def world() -> int:
    """Return the number of processes."""
    return group.get_world_size() if _together() else 1


def restarts() -> tuple[bool, ...]:
    """Return whether torchrun has started these processes anew because one had died, and whether it would.

    A machine whose own processes were well counts no restart when another's died: what any has counted, all have.
    """
    names = ("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS")
    return agreed(*(int(os.environ.get(name, "0")) > 0 for name in names))


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
    # As bytes, since gloo knows no integers of 16 bits.
    group.all_gather([part.view(-1).view(torch.uint8) for part in parts], padded.view(-1).view(torch.uint8))
    return [part[: int(count)] for part, count in zip(parts, counts, strict=True)]


@torch.no_grad()
def add(tensors: Sequence[Tensor]) -> None:
    """Put in the place of each tensor the sum of all processes' tensors: one message, of one flat tensor."""
    if world() == 1 or not tensors:
        return
    flat = torch.cat([x.reshape(-1).to(tensors[0]) for x in tensors])
    group.all_reduce(flat)
    parts = flat.split([x.numel() for x in tensors])
    torch._foreach_copy_(list(tensors), [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)])


def agreed(*flags: bool) -> tuple[bool, ...]:
    """Return of each flag whether it is true in any process."""
    if world() == 1:
        return flags
    found = torch.tensor(flags, dtype=torch.int32)
    group.all_reduce(found, group.ReduceOp.MAX)
    return tuple(bool(flag) for flag in found)


def first(make: Callable[[], T]) -> T:
    """Return what ``make()`` returns in the process of rank 0, where alone it is called; it must be JSON.

    Raises:
        ValueError: In every process, if it is raised there; so is OSError, as one of these elsewhere.
    """
    if world() == 1:
        return make()
    said, mistake = b"", None
    if rank() == 0:
        try:
            said = b"+" + json.dumps(make()).encode()
        except (ValueError, OSError) as error:
            said, mistake = b"-" + str(error).encode(), error
    size = torch.tensor([len(said)])
    group.broadcast(size, 0)
    letters = (
        torch.frombuffer(bytearray(said), dtype=torch.uint8) if said else torch.empty(int(size), dtype=torch.uint8)
    )
    group.broadcast(letters, 0)
    said = letters.numpy().tobytes()
    if said[:1] == b"-":
        raise mistake or ValueError(said[1:].decode())
    found: T = json.loads(said[1:])
    return found


def spread(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of rank 0, by name; what the others give is left aside."""
    if world() == 1:
        return dict(tensors)
    known = {name: (str(x.dtype).removeprefix("torch."), list(x.shape)) for name, x in tensors.items()}
    found = {}
    for name, (dtype, shape) in first(lambda: known).items():
        like = torch.empty(shape, dtype=getattr(torch, dtype))
        found[name] = like if rank() else tensors[name].cpu().contiguous()
        group.broadcast(found[name].reshape(-1).view(torch.uint8), 0)
    return found
