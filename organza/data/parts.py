r"""Parts: what stands in brackets behind a data set's name, DATA[part], and makes another data set of it.

- ``[start:stop]``: the examples from start to before stop, either of which may be empty for the end: mnist[:50000];
- ``[labels=n]``, ``[labels=n,seed=s]``: all labels forgotten but n, chosen by chance, as many of each class;
- ``[background=white]``, black or r,g,b: images with alpha laid on a background;
- ``[joint]``: each example together with its label as one example, see `organza.joint`.

Several may follow each other.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from organza.joint import grown, join
from organza.values import Values

from .backgrounds import composed

if TYPE_CHECKING:
    from .source import Data

__all__ = ["part"]


def part(data: Data, text: str) -> Data:
    """Return the part of the data that a text in brackets names.

    Raises:
        ValueError: If it names none.
    """
    asked = "".join(text.split())
    few = re.fullmatch(r"labels=(\d+)(?:,seed=(\d+))?", asked)
    if few:
        return _few_labels(data, int(few[1]), int(few[2] or 0))
    if asked == "joint":
        return _joined(data)
    return composed(data, text) if "=" in asked else _sliced(data, asked)


def _sliced(data: Data, part: str) -> Data:
    """The examples of "start:stop", from start to before stop, either of which may be empty for the end."""
    name = f"{data.name}[{part}]"
    found = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", part)
    if found is None:
        raise ValueError(f"{name}: a part is [start:stop], two numbers from 0, as in {data.name}[:{len(data) // 2}]")
    first, last = int(found[1] or 0), int(found[2] or len(data))
    if not first < last <= len(data):
        raise ValueError(f"{name}: there are {len(data)} examples; needed is start < stop <= {len(data)}")
    y = None if data.y is None else data.y[first:last]
    return replace(data, name=name, x=data.x[first:last], y=y, files=data.files[first:last])


def _few_labels(data: Data, n: int, seed: int) -> Data:
    """The data with all labels forgotten but n, as many of each class."""
    name = f"{data.name}[labels={n}{f',seed={seed}' if seed else ''}]"
    if data.y is None or data.y.ndim > 1:
        raise ValueError(f"{name}: the data has no labels of classes")
    classes = data.spec.classes
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    rows = [order[data.y[order] == k] for k in range(classes)]
    least = min(map(len, rows))
    if n < classes or n % classes or n // classes > least:
        raise ValueError(f"{name}: must be a multiple of the {classes} classes, and at most {classes * least} here")
    kept = torch.cat([each[: n // classes] for each in rows])
    y = torch.full_like(data.y, -1)
    y[kept] = data.y[kept]
    return replace(data, name=name, y=y)


def _joined(data: Data) -> Data:
    """The joint law of example and label as one law without labels."""
    name, classes = f"{data.name}[joint]", data.spec.classes
    if data.y is None or not classes or int(data.y.min()) < 0:
        raise ValueError(f"{name}: every example needs a label of a class")
    shape = grown(data.spec.shape, classes)
    e = torch.eye(classes)
    if len(shape) == 3 and data.x.dtype == torch.uint8:
        x = data.x.new_zeros(len(data), *shape)
        x[:, :, : data.spec.shape[1]] = data.x
        below = join(torch.zeros(classes, *data.spec.shape), e)[:, :, data.spec.shape[1] :]  # (K, C, 4, W)
        x[:, :, data.spec.shape[1] :] = (below > 0).to(torch.uint8).mul(255)[data.y]
        return replace(data, name=name, x=x, y=None, labels=())
    if len(shape) == 1:
        offset, scale = (
            tuple(end if isinstance(end, tuple) else (end,) * data.spec.shape[0])
            for end in (data.values.offset, data.values.scale)
        )
        values = Values(data.values.dtype, (*offset, *(0.0,) * classes), (*scale, *(1.0,) * classes))
        return replace(data, name=name, x=join(data.x, e[data.y]), y=None, labels=(), values=values)
    raise ValueError(f"{name}: this is for images of bytes and for vectors, these are {data!r}")
