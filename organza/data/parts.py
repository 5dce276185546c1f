r"""Parts: what stands in brackets behind a data set's name, DATA[part], and makes another data set of it.

- ``[start:stop]``: the examples from start to before stop, either of which may be empty for the end: mnist[:50000];
- ``[fold%10=0]``: a tenth of a folder's images, and ``[fold%10!=0]``, the others.  The fold of an image is a hash of
  its file's name before the first "-": siblings, 1f468-1f3fb.png and 1f468-1f469.png, fall on one side, and so does the
  same name in any folder;
- ``[labels=n]``, ``[labels=n,seed=s]``: all labels forgotten but n, chosen by chance, as many of each class;
- ``[weights=a:b]``: classes more and less frequent: of class y = k of K, examples chosen by chance, each with chance
  :math:`w_k / \max_j w_j`, where :math:`w_k = a + (b - a) k / (K - 1)`; [weights=1:4] leaves about 5/8 of balanced
  classes;
- ``[background=white]``, black or r,g,b: images with alpha laid on a background;
- ``[joint]``: each example together with its label as one example, see `organza.joint`;
- ``[stacked]``, ``[stacked=n]``: three grey images, chosen by chance, as the colours of one, as many as there are or n;
  of digits these are the 1,000 modes of stacked MNIST, without labels.

Several may follow each other.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from organza.joint import grown, join
from organza.values import Values

from .backgrounds import composed

if TYPE_CHECKING:
    from .source import Data

__all__ = ["part", "weights"]

_MOST = 2**36  # numbers of a set that is made here
_WEIGHTS = re.compile(r"weights=(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)")


def part(data: Data, text: str) -> Data:
    """Return the part of the data that a text in brackets names.

    Raises:
        ValueError: If it names none.
    """
    asked = "".join(text.split())
    few = re.fullmatch(r"labels=(\d+)(?:,seed=(\d+))?", asked)
    if few:
        return _few_labels(data, int(few[1]), int(few[2] or 0))
    fold = re.fullmatch(r"fold%(\d+)(!?=)(\d+)", asked)
    if fold:
        return _fold(data, asked, int(fold[1]), int(fold[3]), fold[2] == "=")
    if asked.startswith("weights="):
        return _weighted(data, asked)
    if asked == "joint":
        return _joined(data)
    stack = re.fullmatch(r"stacked(?:=(\d+))?", asked)
    if stack:
        return _stacked(data, asked, len(data) if stack[1] is None else int(stack[1]))
    return composed(data, text) if asked.startswith("background=") else _sliced(data, asked)


def _sliced(data: Data, part: str) -> Data:
    """The examples of "start:stop", from start to before stop, either of which may be empty for the end."""
    name = f"{data.name}[{part}]"
    found = re.fullmatch(r"\s*(\d*)\s*:\s*(\d*)\s*", part)
    if found is None:
        known = (
            f"[:{len(data) // 2}], [fold%10=0], [fold%10!=0], [labels=100], [weights=1:4], "
            "[background=white], [joint] or [stacked]"
        )
        raise ValueError(f"{name}: a part is [start:stop], two numbers from 0, or another, as in {data.name}{known}")
    first, last = int(found[1] or 0), int(found[2] or len(data))
    if not first < last <= len(data):
        raise ValueError(f"{name}: there are {len(data)} examples; needed is start < stop <= {len(data)}")
    y = None if data.y is None else data.y[first:last]
    return replace(data, name=name, x=data.x[first:last], y=y, files=data.files[first:last])


def _fold(data: Data, part: str, folds: int, fold: int, inside: bool) -> Data:
    """The examples whose file names fall into one of so many folds, or those that do not."""
    name = f"{data.name}[{part}]"
    if not data.files:
        raise ValueError(f"{name}: folds go by the names of files, and {data.name} has no files; use [start:stop]")
    if folds < 2 or not fold < folds:
        raise ValueError(f"{name}: needs 2 folds or more; with {folds} they are numbered from 0 to {max(0, folds - 1)}")
    groups = (PurePath(file).stem.partition("-")[0] for file in data.files)
    hashes = (int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "little") for group in groups)
    index = [i for i, number in enumerate(hashes) if (number % folds == fold) == inside]
    if not index:
        raise ValueError(f"{name}: none of the {len(data)} examples falls there; take another fold or number of folds")
    return replace(data.rows(torch.tensor(index)), name=name)


def _few_labels(data: Data, n: int, seed: int) -> Data:
    """The data with all labels forgotten but n, as many of each class."""
    name = f"{data.name}[labels={n}{f',seed={seed}' if seed else ''}]"
    if data.y is None or data.y.ndim > 1:
        raise ValueError(f"{name}: the data has no labels of classes")
    classes = data.spec.classes
    if not classes:
        raise ValueError(f"{name}: none of the examples has a label")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    rows = [order[data.y[order] == k] for k in range(classes)]
    least = min(map(len, rows))
    if n < classes or n % classes or n // classes > least:
        most = classes * least
        raise ValueError(f"{name}: {n} labels must be a multiple of the {classes} classes, and at most {most} here")
    kept = torch.cat([each[: n // classes] for each in rows])
    y = torch.full_like(data.y, -1)
    y[kept] = data.y[kept]
    return replace(data, name=name, y=y)


def weights(asked: str, classes: int) -> Tensor:
    """How frequent ``weights=a:b`` makes each of K balanced classes, (K,) float64: evenly from a to b, of sum 1.

    Raises:
        ValueError: If it is not that, with a and b above 0.
    """
    found = _WEIGHTS.fullmatch(asked)
    first, last = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    if not (first > 0 and last > 0):
        raise ValueError(f"[{asked}]: needed are the first and the last class's weight, above 0, as in [weights=1:4]")
    w = torch.linspace(first, last, classes, dtype=torch.float64)
    return w / w.sum()


def _weighted(data: Data, part: str) -> Data:
    """The data with classes from rare to frequent."""
    name = f"{data.name}[{part}]"
    y, classes = _labelled(data, name)
    w = weights(part, classes)
    u = torch.rand(len(data), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return replace(data.rows((u < (w / w.max())[y]).nonzero()[:, 0]), name=name)


def _labelled(data: Data, name: str) -> tuple[Tensor, int]:
    """The labels, and the number of classes; every example must have one."""
    classes = data.spec.classes
    if data.y is None or not classes or int(data.y.min()) < 0:
        raise ValueError(f"{name}: every example needs a label of a class")
    return data.y, classes


def _joined(data: Data) -> Data:
    """The joint law of example and label as one law without labels."""
    name = f"{data.name}[joint]"
    y, classes = _labelled(data, name)
    shape = grown(data.spec.shape, classes)
    e = torch.eye(classes)
    if len(shape) == 3 and data.x.dtype == torch.uint8:
        x = data.x.new_zeros(len(data), *shape)
        x[:, :, : data.spec.shape[1]] = data.x
        below = join(torch.zeros(classes, *data.spec.shape), e)[:, :, data.spec.shape[1] :]  # (K, C, 4, W)
        x[:, :, data.spec.shape[1] :] = (below > 0).to(torch.uint8).mul(255)[y]
        return replace(data, name=name, x=x, y=None, labels=())
    if len(shape) == 1:
        offset, scale = (
            tuple(end if isinstance(end, tuple) else (end,) * data.spec.shape[0])
            for end in (data.values.offset, data.values.scale)
        )
        values = Values(data.values.dtype, (*offset, *(0.0,) * classes), (*scale, *(1.0,) * classes))
        return replace(data, name=name, x=join(data.x, e[y]), y=None, labels=(), values=values)
    raise ValueError(f"{name}: this is for images of bytes and for vectors, these are {data.spec.shape} {data.x.dtype}")


def _stacked(data: Data, part: str, n: int) -> Data:
    """Three grey images as the colours of one, n times."""
    name = f"{data.name}[{part}]"
    if data.x.ndim != 4 or data.x.shape[1] != 1 or n < 1:
        raise ValueError(f"{name}: this is for grey images, and a number from 1; these are {data.spec.shape}")
    if n * (size := 3 * math.prod(data.spec.shape)) > _MOST:
        raise ValueError(f"{name}: these would be {n:,} images of {size:,} numbers; take fewer")
    index = torch.randint(len(data), (3 * n,), generator=torch.Generator().manual_seed(0))
    x = data.rows(index).x.view(n, 3, *data.x.shape[2:])
    return replace(data, name=name, x=x, y=None, labels=(), files=())
