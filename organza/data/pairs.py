r"""Pairs of images: a condition y for each x ("X from Y"), and two sets without any correspondence ("A and B").

"X from Y": x is an example of the data X and y the condition that it is to be made from: the image of the same name in
another data set, or one that is computed from x itself:

- ``gray``: the luma, :math:`0.299 R + 0.587 G + 0.114 B`; with alpha, of the image on white;
- ``edges``: dark lines on white, :math:`1 - \min(1, |\nabla|)` with Sobel's gradient of the gray image in [0, 1] (a
  quarter of its sums, so that a step from black to white has length 1), edges repeated;
- ``small``: the mean of each 4 x 4 pixels, in all of them;
- ``masked``: the image with gray, 0 in [-1, 1], in the central square of half the smaller side;
- ``left``, ``right``: x holds two images side by side; y is that half, x the other.

"A and B": example i is :math:`(a_i, b_{j(i)})` joined along the channels, for games without pairs (CycleGAN).  j is a
fixed random order, which hides whatever correspondence there is; the smaller set is repeated to the size of the larger.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from organza.values import Values

if TYPE_CHECKING:
    from .source import Data

__all__ = ["MADE", "cut", "exists", "joined", "kind", "made", "matched", "together", "two", "whole"]

_WORDS = ("from", "and")
_SIDES = ("left", "right")
_AT_ONCE = 1024  # examples, of which conditions are computed


def exists(path: str) -> bool:
    """Whether a path is there, in which ~ is the user's home."""
    return os.path.exists(os.path.expanduser(path))


def two(text: str, names: Sequence[str]) -> tuple[str, str, str] | None:
    """A source as two, (left, word, right): at the last word beside which both are known, else at the last word.

    Arguments:
        text: The source.
        names: Those of the built-in data sets.

    Returns:
        None if it is one: has no such word, or is a path.
    """
    if exists(whole(text)):
        return None
    words = [*re.finditer(rf"\s+({'|'.join(_WORDS)})\s+", text)]
    found = [(text[: word.start()], word[1], text[word.end() :]) for word in reversed(words)]
    known = (*names, *MADE, *_SIDES)
    sides = [[whole(each) for each in (left, right)] for left, _, right in found]
    both = [all(each.lower() in known or exists(each) for each in side) for side in sides]
    return found[both.index(True)] if True in both else found[0] if found else None


def whole(text: str) -> str:
    """A source without its parts."""
    return re.sub(r"(\[[^\[\]]*\]\s*)+$", "", text) or text


def kind(left: str, word: str, right: str) -> str:
    """What is computed from the images themselves, if the right side names that; else empty.

    Raises:
        ValueError: If it has a part, which is the data's to have.
    """
    name = whole(right)
    if word != "from" or name not in (*MADE, *_SIDES) or os.path.exists(name):
        return ""
    if name != right:
        part = right.removeprefix(name)
        raise ValueError(f"{left} from {right}: the part is one of the data's: {left}{part} from {name}")
    return name


def together(x: Data, word: str, y: Data | str) -> Data:
    """The data set of two: "X from Y", where Y may be what is computed from X, or "A and B".

    Raises:
        ValueError: If they do not fit each other.
    """
    name = f"{x.name} {word} {y if isinstance(y, str) else y.name}"
    for each in (x, *(() if isinstance(y, str) else (y,))):
        if each.x.ndim != 4:
            raise ValueError(f"{name}: {each.name} holds examples of {each.spec.shape}; both must be images")
    if isinstance(y, str):
        pixels = _pixels(x)
        if y not in _SIDES:
            return replace(x, name=name, y=made(y, pixels), labels=())
        return replace(x, name=name, x=cut(y, x.x)[0], y=cut(y, pixels)[1], labels=())
    if word == "and":
        if x.spec.shape != y.spec.shape or x.x.dtype != y.x.dtype:
            given = " and ".join(f"{each.spec.shape} of {each.x.dtype}" for each in (x, y))
            raise ValueError(f"{name}: the two hold images {given}; they must be alike")
        both = joined(x.x, y.x)
        values = Values.of(both, x.values.dtype)  # one scale for both, so that it must suit both
        scales = [float(torch.tensor(each.scale)) for each in (x.values, y.values, values)]
        if min(scales) < scales[2] / 4:
            narrow = x.name if scales[0] < scales[1] else y.name
            raise ValueError(f"{name}: the numbers of {narrow} span less than a quarter of what both span together")
        return replace(x, name=name, x=both, y=both, values=values, lossy=x.lossy or y.lossy, labels=(), files=())
    if x.spec.shape[1:] != y.spec.shape[1:]:
        raise ValueError(f"{name}: images of {x.spec.shape} from {y.spec.shape}: height and width must agree")
    if x.files and y.files:
        y = y.rows(torch.tensor(matched(x.files, y.files, (x.name, y.name))))
    elif x.files or y.files or len(x) != len(y):
        raise ValueError(f"{name}: pairs go by the names of files, or are as many arrays, got {len(x)} and {len(y)}")
    return replace(x, name=name, y=_pixels(y), labels=())


def _pixels(data: Data) -> Tensor:
    """Images as bytes where they are, else in [-1, 1]."""
    return data.x if data.x.dtype == torch.uint8 else data.values.inside(data.x)


def matched(x: tuple[str, ...], y: tuple[str, ...], names: tuple[str, str]) -> list[int]:
    """For each x the place of the y whose file has the same name, folders included and the ending left out.

    Raises:
        ValueError: If a name is missing on either side, or comes twice.
    """
    keys = [[PurePath(file).with_suffix("").as_posix() for file in files] for files in (x, y)]
    places = [dict(zip(files, range(len(files)), strict=True)) for files in keys]
    for files, found, name in zip(keys, places, names, strict=True):
        twice = next((key for place, key in enumerate(files) if found[key] != place), None)
        if twice is not None:
            raise ValueError(f"{name} holds two files named {twice}: a pair needs names of which each comes once")
    for mine, other, lacks in ((0, 1, names[1]), (1, 0, names[0])):
        alone = [file for file in keys[mine] if file not in places[other]]
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise ValueError(f"{lacks} has no {alone[0]}{more}, which {names[mine]} has: pairs are files of one name")
    return [places[1][key] for key in keys[0]]


def made(kind: str, x: Tensor) -> Tensor:
    """The condition of this kind of each image, computed from it.

    Arguments:
        kind: A key of ``MADE``.
        x: Images (N, C, H, W), as bytes or in [-1, 1].

    Returns:
        Conditions (N, C', H, W), of x's type.
    """
    parts = [_typed(MADE[kind](_unit(part)), x.dtype) for part in x.split(_AT_ONCE)]
    return torch.cat(parts)


def cut(side: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Images side by side as x and their condition y, the half on this side.

    Raises:
        ValueError: If the width is odd.
    """
    if x.shape[3] % 2:
        raise ValueError(f"images of {x.shape[3]} pixels in width have no two halves: give images side by side")
    left, right = (half.contiguous() for half in x.chunk(2, 3))
    return (right, left) if side == "left" else (left, right)


def joined(a: Tensor, b: Tensor) -> Tensor:
    """Two sets as one, (max(N, M), 2C, H, W): a in its order, b in one of its own."""
    if a.dtype == torch.uint16:  # which torch does not select from; as bits it is an int16
        return joined(a.view(torch.int16), b.view(torch.int16)).view(torch.uint16)
    n = max(len(a), len(b))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    index = torch.arange(n)
    return torch.cat([a[index % len(a)], b[order % len(b)]], 1)


def _unit(x: Tensor) -> Tensor:
    """Images in [0, 1]."""
    return x.float() / 255 if x.dtype == torch.uint8 else (x + 1) / 2


def _typed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The reverse of `_unit`, for what a mean of images is."""
    return (x * 255).round().clamp(0, 255).to(dtype) if dtype == torch.uint8 else (2 * x - 1).clamp(-1, 1)


def _gray(x: Tensor) -> Tensor:
    channels = x.shape[1]
    luma = x[:, :1] if channels <= 2 else (x[:, :3] * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, True)
    return luma if channels in (1, 3) else 1 - (1 - luma) * x[:, -1:]  # alpha, on white


def _edges(x: Tensor) -> Tensor:
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 4
    kernels = torch.stack([across, across.T]).unsqueeze(1).to(x)  # (2, 1, 3, 3)
    slopes = conv2d(pad(_gray(x), (1, 1, 1, 1), mode="replicate"), kernels)  # (N, 2, H, W)
    return 1 - slopes.square().sum(1, keepdim=True).sqrt().clamp(max=1)


def _small(x: Tensor) -> Tensor:
    means = avg_pool2d(x, 4, ceil_mode=True)  # at the far edge of fewer pixels
    return means.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., : x.shape[2], : x.shape[3]]


def _masked(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    side = min(height, width) // 2
    top, left = (height - side) // 2, (width - side) // 2
    x = x.clone()
    x[..., top : top + side, left : left + side] = 0.5
    return x


MADE: dict[str, Callable[[Tensor], Tensor]] = {
    "gray": _gray, "edges": _edges, "small": _small, "masked": _masked
}  # fmt: skip
