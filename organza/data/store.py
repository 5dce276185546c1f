"""Decoded images, kept on disk: a large set of image files is decoded once, and from then on its numbers are mapped
into memory, so that opening it costs little time and memory whatever its size, and the system reads what is looked at.

They lie in $ORGANZA_CACHE/data (~/.cache/organza/data where that is not set), a folder for each source and way of
reading it: ``x``, the numbers of all images one after the other; ``y.npy``; and ``about.json``, with the stamp of the
source (the sizes and times of its files).  When that has changed, they are made anew.  Any of these folders may be
removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from organza import cache
from organza.lock import held

from .arrays import digest

__all__ = ["LEAST", "find", "keep", "place"]

LEAST = 2**26  # bytes: fewer are decoded within a second or a few, each time
_VERSION = 1  # of how files are read
_TEXTS = ("labels", "files", "notes", "left_out")


def place(name: str, size: tuple[int, int] | None) -> Path:
    """The folder for a source, by its path and the size of its images."""
    text = f"{_VERSION} {sys.byteorder} {os.path.realpath(name)} {size}"
    return cache.place("data") / hashlib.blake2b(os.fsencode(text), digest_size=12).hexdigest()


def find(folder: Path, stamp: str) -> tuple[Any, ...] | None:
    """What was kept of a source, the fields of `organza.data.folder.Images`, if it is whole and has this stamp.

    x is mapped: it takes memory only while it is looked at, and a change to it stays in this process.
    """
    try:
        about = json.loads((folder / "about.json").read_text("utf-8"))
        file = (folder / "x").stat()
        if about["stamp"] != stamp or about["file"] != [file.st_size, file.st_mtime_ns]:
            return None
        x = np.memmap(folder / "x", about["dtype"], "c", shape=tuple(about["shape"]))
        y = torch.from_numpy(np.load(folder / "y.npy", allow_pickle=False)) if about["labelled"] else None
        if y is not None and len(y) != len(x):
            return None
        texts = (tuple(about[name]) for name in _TEXTS)
        return (torch.from_numpy(x), y, about["lossy"], *texts, about["digest"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):  # none is there, or it is damaged
        return None


def keep(
    folder: Path,
    stamp: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: Callable[[dict[int, str]], Iterator[NDArray[Any]]],
    together: Callable[[Tensor, dict[int, str]], Any],
) -> tuple[Any, ...] | None:
    """Decode a source into its folder, unless another process does or has: then wait for that.

    Arguments:
        folder: Its folder, from :func:`place`.
        stamp: The stamp of the source.
        shape: (N, C, H, W), if none fails.
        dtype: Of the numbers.
        chunks: Called with a dictionary for those that fail; yields images, (n, C, H, W).
        together: Called with all of them; returns an `organza.data.folder.Images`.

    Returns:
        What :func:`find` finds then; None if the disk has no room for it, or cannot be written.
    """
    making = folder.with_name(f".{folder.name}")
    try:
        making.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(making).free < prod(shape) * dtype.itemsize + 2**28 or not os.access(making, os.W_OK):
            return None
        with held(making, wait=True):
            if find(folder, stamp) is None:
                try:
                    _decode(making / "x", chunks, failed := dict[int, str]())
                    _shelve(making / "x", folder, stamp, (dtype, shape[1:]), lambda x: together(x, failed))
                finally:
                    with suppress(OSError):  # Windows keeps what an error still maps; the next one overwrites it
                        (making / "x").unlink(missing_ok=True)
            return find(folder, stamp)
    except OSError:
        return None


def _decode(file: Path, chunks: Callable[[dict[int, str]], Iterator[NDArray[Any]]], failed: dict[int, str]) -> None:
    with open(file, "wb") as out:
        for chunk in chunks(failed):
            out.write(chunk.data)
        out.flush()
        os.fsync(out.fileno())


def _shelve(
    file: Path, folder: Path, stamp: str, of: tuple[np.dtype[Any], tuple[int, ...]], together: Callable[[Tensor], Any]
) -> None:
    """Put decoded images into their folder, and what is known of them last, so that a kill leaves nothing that lies."""
    dtype, form = of
    count = file.stat().st_size // (prod(form) * dtype.itemsize)
    x = np.memmap(file, dtype, "c", shape=(count, *form)) if count else np.empty((0, *form), dtype)
    images = together(torch.from_numpy(x))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if images.y is not None:
        with open(folder / "y.npy", "wb") as out:
            np.save(out, images.y.numpy())
            out.flush()
            os.fsync(out.fileno())
    about: dict[str, Any] = {
        "stamp": stamp,
        "dtype": str(images.x.dtype).removeprefix("torch."),
        "shape": [*images.x.shape],
        "labelled": images.y is not None,
        "lossy": images.lossy,
        **{name: getattr(images, name) for name in _TEXTS},
        "digest": digest(images.x, images.y),
    }
    del images, x  # Windows renames no file that is mapped
    os.replace(file, folder / "x")
    status = (folder / "x").stat()
    about["file"] = [status.st_size, status.st_mtime_ns]
    (folder / "about.tmp").write_text(json.dumps(about), "utf-8")
    os.replace(folder / "about.tmp", folder / "about.json")
