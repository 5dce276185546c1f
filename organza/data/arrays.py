"""Arrays a user brings: NumPy arrays, torch tensors, ``.npy`` and ``.npz`` files, checked and in one form.

Layout, decided by shape alone:

- 2 axes, float: vectors (N, d);
- 3 axes: images (N, H, W) of one channel;
- 4 axes: images, (N, C, H, W) if only the second axis has a length of 1 to 4, (N, H, W, C) if only the last
  has.  If both have or neither, a torch tensor is (N, C, H, W), as everywhere in torch, and a NumPy array is
  refused.

Values: uint8 images are 0 to 255; float images must lie in [-1, 1]; float vectors are taken as they are.  NaN
and infinity are refused, and so are Python objects, which cannot be read without running code.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["SUFFIXES", "examples", "labels", "read_arrays"]

SUFFIXES = (".npy", ".npz")
_SHAPES = "images (N, H, W), (N, H, W, C) or (N, C, H, W), or vectors (N, d)"
_MOST_CHANNELS = 4  # gray, gray + alpha, RGB, RGBA


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The arrays x and, if there is one, y of a ``.npy`` or ``.npz`` file.

    Raises:
        ValueError: If the file cannot be read, holds Python objects, or has other keys than x and y (a single
            array may have any key).
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            keys = list(loaded)
            known = ("x" in keys and set(keys) <= {"x", "y"}) or len(keys) == 1
            arrays = [loaded[key] for key in ("x", "y") if key in keys] or [loaded[keys[0]]] if known else []
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or 'it is damaged'}") from error
    except MemoryError as error:
        raise ValueError(f"{path} cannot be read: the array does not fit into memory") from error
    except (ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as NumPy arrays: it is damaged, or holds Python objects, which are never "
            "loaded; save it again with numpy.save or numpy.savez, from an array of uint8 or float"
        ) from error
    if not known:
        raise ValueError(
            f"{path} holds the arrays {', '.join(sorted(keys)) or '(none)'}: give x and, if there are labels, y"
        )
    return arrays[0], arrays[1] if len(arrays) == 2 else None


def examples(x: NDArray[Any] | Tensor) -> Tensor:
    """The checked data: uint8 (N, C, H, W), or float32, (N, C, H, W) in [-1, 1] or (N, d).

    Shares memory with ``x`` where nothing had to be converted.

    Raises:
        ValueError: If type, shape or values are none of the module's.
    """
    data = _tensor(x)
    shape = tuple(data.shape)
    if data.dtype != torch.uint8 and not data.dtype.is_floating_point:
        raise ValueError(
            f"data of type {x.dtype} is not supported: give images as uint8 (0 to 255) or float (-1 to 1), "
            "vectors as float"
        )
    if not 2 <= data.ndim <= 4:
        raise ValueError(f"data of shape {shape} is not supported: give {_SHAPES}")
    if 0 in shape:
        raise ValueError(f"data of shape {shape} is empty: give at least one example")
    if data.ndim == 2 and data.dtype == torch.uint8:
        raise ValueError(
            f"uint8 data of shape {shape} is not images: reshape it to (N, H, W), or give vectors as float"
        )
    if data.ndim == 3:
        data = data.unsqueeze(1)
    elif data.ndim == 4 and _channels_last(shape, isinstance(x, Tensor)):
        data = data.permute(0, 3, 1, 2)
    if data.dtype != torch.uint8:
        data = data.to(torch.float32)
        _check_range(data)
    return data.contiguous()


def labels(y: object, count: int) -> Tensor:
    """The checked labels of ``count`` examples: int64, (N,), at least 0, or -1 for unlabelled.

    Raises:
        ValueError: If they are not that.
    """
    given = y if isinstance(y, Tensor) else _array(y)
    integers = _is_integer(given) if isinstance(given, Tensor) else given.dtype.kind in "iu"
    if not integers:
        raise ValueError(f"labels of type {given.dtype} are not supported: give integers, 0 to classes - 1")
    found = _tensor(given)
    if tuple(found.shape) != (count,):
        raise ValueError(
            f"labels of shape {tuple(found.shape)} for {count} examples: give one integer for each, shape ({count},)"
        )
    found = found.to(torch.int64).contiguous()
    lowest = int(found.min())
    if lowest < -1:
        raise ValueError(f"labels must be 0 to classes - 1, or -1 for unlabelled; the lowest is {lowest}")
    return found


def _array(y: object) -> NDArray[Any]:
    try:
        return np.asarray(y)
    except ValueError as error:
        raise ValueError("labels must be one list of integers, all of its entries of one kind") from error


def _is_integer(y: Tensor) -> bool:
    return not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)


def _tensor(x: NDArray[Any] | Tensor) -> Tensor:
    if isinstance(x, Tensor):
        return x.detach()
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
            x = x.astype(np.float32, copy=False)
    elif x.dtype.kind not in "biuc":
        raise ValueError(f"an array of type {x.dtype} is not supported: give uint8 or float, in one array")
    x = np.ascontiguousarray(x, x.dtype.newbyteorder("="))
    if not x.flags.writeable:  # torch warns of such memory
        x = x.copy()
    return torch.from_numpy(x)


def _channels_last(shape: tuple[int, ...], tensor: bool) -> bool:
    first, last = shape[1] <= _MOST_CHANNELS, shape[3] <= _MOST_CHANNELS
    if first != last:
        return last
    if tensor:
        return False
    which = "both the second and the last axis" if first else "neither the second nor the last axis"
    raise ValueError(
        f"array of shape {shape}: {which} could be the channels (1 to {_MOST_CHANNELS}); "
        "give a torch tensor, which is read as (N, C, H, W) in this case"
    )


def _check_range(x: Tensor) -> None:
    low, high = (float(end) for end in x.aminmax())  # NaN passes through both
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("data holds NaN, infinity, or numbers beyond float32: remove or replace them")
    if x.ndim == 4 and (low < -1 or high > 1):
        raise ValueError(
            f"float images must lie in [-1, 1], these lie in [{low:g}, {high:g}]: "
            "give uint8, or x / 127.5 - 1 for values from 0 to 255"
        )
