"""Where the numbers live: the device, and its default random generators (of dropout and noise layers)."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import cache

import torch

__all__ = ["capacity", "full", "keep_freed", "memory", "pick_device", "seed_networks", "undisturbed"]


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device of that name; "auto" is the best there is.

    Raises:
        ValueError: If it is unknown or not to be had here.
    """
    name = str(name)
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if here[kind]))
    kind = name.split(":")[0]
    if kind not in here:
        close = get_close_matches(kind, ["auto", *here], 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"device={name!r}: must be auto, cpu, cuda or mps{hint}")
    if not here[kind]:
        kinds = ", ".join(kind for kind, there in here.items() if there)
        raise ValueError(f"device={name!r}: not available here; available: auto, {kinds}")
    number = name[len(kind) + 1 :]
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if name != kind and not (number.isdecimal() and int(number) < count):
        raise ValueError(f"device={name!r}: there {'is' if count == 1 else 'are'} {count} of {kind}, counted from 0")
    own = int(os.environ.get("LOCAL_RANK", "0")) % count if kind == "cuda" else 0  # of several processes on a machine
    if name != kind and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 and int(number) != own:
        raise ValueError(f"device={name!r}: of several processes each takes a GPU of its own; give cuda")
    return torch.device(name)


def memory() -> float:
    """The bytes of memory that this machine has, infinite if the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return math.inf
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


@cache
def keep_freed() -> None:
    """Let this process keep the memory that it frees, where the C library is glibc.

    A step's tensors come and go.  By default glibc hands the larger ones back, so that the system fills the pages of
    each new one with zeros: a tenth of a step on a CPU, and more.  Those of 256 MiB and above still go back.
    """
    trim_threshold, mmap_threshold = -1, -3  # of malloc.h
    with suppress(AttributeError, OSError, TypeError):  # another system
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(mmap_threshold, 2**28) or mallopt(mmap_threshold, 2**25):  # the most that older ones take
            mallopt(trim_threshold, 2**31 - 1)


def full(error: BaseException) -> bool:
    """Whether an error says that memory is not enough, as some of a CPU, MPS, cuBLAS and cuDNN do in words alone."""
    said = ("DefaultCPUAllocator", "MPS backend out of memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in said)


def capacity(device: torch.device) -> float:
    """Return the bytes there are: free on a GPU, in all on a CPU, infinite if the system does not say."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for what comes
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    return memory() if device.type == "cpu" else math.inf


def seed_networks(seed: int, device: torch.device) -> None:
    """Seed the default generators that networks draw from.

    On a CUDA build ``torch.manual_seed`` takes 200 times as long, too long for every micro-batch.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[
            torch.cuda.current_device() if device.index is None else device.index
        ].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def undisturbed(device: torch.device, threads: int = 0) -> Iterator[None]:
    """Leave the caller's default generators, and number of CPU threads, as they were found.

    Meanwhile cuDNN uses no kernel that adds up in any order, nor tries which is the fastest today, so that a run comes
    to the same bits again.  Freed memory is kept from here on (:func:`keep_freed`).

    Arguments:
        device: Whose generators.
        threads: The number of threads to compute with meanwhile; 0 leaves it.
    """
    keep_freed()
    before, cudnn = torch.get_num_threads(), torch.backends.cudnn
    anyhow, fastest = cudnn.deterministic, cudnn.benchmark
    drawn = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        torch.set_num_threads(threads or before)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = anyhow, fastest
        if drawn is not None:
            torch.mps.set_rng_state(drawn)
        torch.set_num_threads(before)
