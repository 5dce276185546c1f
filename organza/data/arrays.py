"""Arrays a user brings: NumPy arrays, torch tensors, ``.npy`` and ``.npz`` files, checked and in one form.

Layout, decided by shape alone:

- 2 axes, float: vectors (N, d);
- 3 axes, float, the second of a length of 1 to 4 and the third of 8 or more: signals (N, C, L);
- 3 axes, else: images (N, H, W) of one channel;
- 4 axes: images, (N, C, H, W) if only the second axis has a length of 1 to 4, (N, H, W, C) if only the last
  has.  If both have or neither, a torch tensor is (N, C, H, W), as everywhere in torch, and a NumPy array is
  refused.

An ``.npz`` file may say it instead, in a key ``layout``: "NCHW", "NHWC", "NHW", "NCL" or "ND", of any number of
channels.

Values: images are uint8, uint16 or float, all else is float.  Floats may have any range: what becomes of them stands in
`organza.values`.  NaN and infinity are refused, and so are Python objects, which cannot be read without running code.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LAYOUTS", "SUFFIXES", "digest", "digests", "examples", "labels", "read_arrays"]

SUFFIXES = (".npy", ".npz")
LAYOUTS = {"NCHW": 4, "NHWC": 4, "NHW": 3, "NCL": 3, "ND": 2}  # with their numbers of axes
_SHAPES = "images (N, H, W), (N, H, W, C) or (N, C, H, W), signals (N, C, L), or vectors (N, d)"
_MOST_CHANNELS = 4  # gray, gray + alpha, RGB, RGBA; of arrays that do not say more
_MOST_CLASSES = 1_000_000
_SHORTEST = 8  # of a signal
_IMAGES = (torch.uint8, torch.uint16)  # types of images alone


def read_arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, str]:
    """The arrays x and, if there is one, y of a ``.npy`` or ``.npz`` file, and the layout that it states, or "".

    Raises:
        ValueError: If the file cannot be read, holds Python objects, or has other keys than x, y and layout (a single
            array may have any key).
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None, ""
            keys = list(loaded)
            known = ("x" in keys and set(keys) <= {"x", "y", "layout"}) or len(keys) == 1
            found = {key: loaded[key] for key in keys} if known else {}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or 'it is damaged'}") from error
    except MemoryError as error:
        raise ValueError(f"{path} cannot be read: the array does not fit into memory") from error
    except Exception as error:  # whatever a damaged header leads NumPy to: it reads it as Python's own syntax
        raise ValueError(
            f"{path} cannot be read as NumPy arrays: it is damaged, or holds Python objects, which are never "
            "loaded; save it again with numpy.save or numpy.savez, from an array of uint8 or float"
        ) from error
    if not known:
        raise ValueError(
            f"{path} holds the arrays {', '.join(sorted(keys)) or '(none)'}: give x and, if there are labels, y"
        )
    x = found["x"] if "x" in found else found[keys[0]]
    return x, found.get("y"), str(found["layout"]) if "layout" in found else ""


def examples(x: NDArray[Any] | Tensor, layout: str = "") -> Tensor:
    """The checked data: uint8 or uint16 (N, C, H, W), or finite float32, (N, C, H, W), (N, C, L) or (N, d).

    Shares memory with ``x`` where nothing had to be converted.

    Arguments:
        x: The array.
        layout: One of LAYOUTS, or "" to decide by shape.

    Raises:
        ValueError: If type, shape or values are none of the module's.
    """
    data = _tensor(x)
    shape = tuple(data.shape)
    if data.dtype not in _IMAGES and not data.dtype.is_floating_point:
        raise ValueError(
            f"data of type {x.dtype} is not supported: give images as uint8, uint16 or float, and all else as float"
        )
    if not 2 <= data.ndim <= 4:
        raise ValueError(f"data of shape {shape} is not supported: give {_SHAPES}")
    if 0 in shape:
        raise ValueError(f"data of shape {shape} is empty: give at least one example")
    layout = _stated(layout, shape) if layout else _layout(data, isinstance(x, Tensor))
    if data.dtype in _IMAGES and layout in ("ND", "NCL"):
        what = str(data.dtype).removeprefix("torch.")
        raise ValueError(
            f"{what} data of shape {shape} is not images: reshape it to (N, H, W), or give vectors and signals as float"
        )
    if layout == "NHW":
        data = data.unsqueeze(1)
    elif layout == "NHWC":
        data = data.permute(0, 3, 1, 2)
    if data.dtype not in _IMAGES:
        data = data.to(torch.float32)
        _check_finite(data)
    return data.contiguous()


def labels(y: object, count: int) -> Tensor:
    """The checked labels or conditions of ``count`` examples.

    Labels are integers, (N,), at least 0, or -1 for unlabelled.  Conditions are floats, (N, k), or, of examples that
    have several labels, integers 0 and 1, (N, k).

    Returns:
        int64, (N,), or finite float32, (N, k).

    Raises:
        ValueError: If they are neither.
    """
    given = y if isinstance(y, Tensor) else _array(y)
    shape, vectors = tuple(given.shape), given.ndim == 2 and given.shape[0] == count and given.shape[1] > 0
    plain = given.dtype.kind in "iufb" if not isinstance(given, Tensor) else not given.is_complex()
    if vectors and plain:
        return _conditions(given)
    integers = _is_integer(given) if isinstance(given, Tensor) else given.dtype.kind in "iu"
    if not integers:
        raise ValueError(
            f"labels of type {given.dtype} are not supported: give integers, 0 to classes - 1, or floats ({count}, k)"
        )
    found = _tensor(given)
    if shape != (count,):
        raise ValueError(f"labels of shape {shape} for {count} examples: give one integer for each, shape ({count},)")
    found = found.to(torch.int64).contiguous()
    lowest = int(found.min())
    if lowest < -1:
        raise ValueError(f"labels must be 0 to classes - 1, or -1 for unlabelled; the lowest is {lowest}")
    if int(found.max()) >= _MOST_CLASSES:
        raise ValueError(f"labels must be 0 to classes - 1, fewer than {_MOST_CLASSES:,}; one is {int(found.max())}")
    return found


def _conditions(y: NDArray[Any] | Tensor) -> Tensor:
    found = _tensor(y)
    if not found.dtype.is_floating_point and not bool(((found == 0) | (found == 1)).all()):
        raise ValueError(
            f"labels of shape {tuple(found.shape)} are integers beyond 0 and 1: give floats, or one integer for each"
        )
    found = found.to(torch.float32).contiguous()
    if not bool(found.isfinite().all()):
        raise ValueError("conditions y hold NaN, infinity, or numbers beyond float32: remove or replace them")
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


def _stated(layout: str, shape: tuple[int, ...]) -> str:
    if LAYOUTS.get(layout) != len(shape):
        fitting = [name for name, axes in LAYOUTS.items() if axes == len(shape)]
        raise ValueError(f"layout {layout!r} for an array of shape {shape}: give {' or '.join(fitting)}")
    return layout


def _layout(data: Tensor, tensor: bool) -> str:
    """The layout by shape; see the module."""
    shape = tuple(data.shape)
    if len(shape) == 2:
        return "ND"
    if len(shape) == 3:
        signals = data.dtype.is_floating_point and shape[1] <= _MOST_CHANNELS and shape[2] >= _SHORTEST
        return "NCL" if signals else "NHW"
    first, last = shape[1] <= _MOST_CHANNELS, shape[3] <= _MOST_CHANNELS
    if first != last:
        return "NHWC" if last else "NCHW"
    if tensor:
        return "NCHW"
    which = "both the second and the last axis" if first else "neither the second nor the last axis"
    raise ValueError(
        f"array of shape {shape}: {which} could be the channels (1 to {_MOST_CHANNELS}); give a torch tensor, which is "
        "read as (N, C, H, W) in this case, or an .npz file with layout='NCHW' beside x"
    )


def _check_finite(x: Tensor) -> None:
    low, high = (float(end) for end in x.aminmax())  # NaN passes through both
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("data holds NaN, infinity, or numbers beyond float32: remove or replace them")


def digest(x: Tensor, y: Tensor | None) -> str:
    """The SHA-256, in hexadecimal, of type, shape and values of x and y: the same on every machine."""
    found = hashlib.sha256()
    for tensor in (x, y):
        if tensor is None:
            found.update(b"none\n")
            continue
        values = tensor.cpu().contiguous().numpy()
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        found.update(f"{values.dtype.name} {values.shape}\n".encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def digests(x: Tensor) -> Iterator[bytes]:
    """Of each example, (N, ...), 16 bytes that stand for its values: x itself may not fit into memory."""
    return (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x.cpu().numpy())
