"""Images with alpha laid on a background of one colour: DATA[background=white], black, or r,g,b of 0 to 255.

Gray + alpha becomes gray, RGB + alpha RGB (:func:`organza.values.over`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from organza.values import over

if TYPE_CHECKING:
    from .source import Data

__all__ = ["composed"]

_NAMES = {"white": (255, 255, 255), "black": (0, 0, 0)}


def composed(data: Data, part: str) -> Data:
    """Lay images on a background.

    Arguments:
        data: Images of 2 or 4 channels, the last of them alpha, uint8.
        part: "background=COLOUR".

    Raises:
        ValueError: If the part or the colour is none of the module's, or the images have no alpha of 8 bits.
    """
    name = f"{data.name}[{''.join(part.split())}]"
    found = re.fullmatch(r"\s*background\s*=\s*(\w+|\d+\s*,\s*\d+\s*,\s*\d+)\s*", part)
    colour = None if found is None else _colour(found[1].lower())
    if colour is None:
        raise ValueError(f"{name}: a background is white, black or r,g,b of 0 to 255, as in [background=255,255,255]")
    shape = data.spec.shape
    if data.x.dtype != torch.uint8 or len(shape) != 3 or shape[0] not in (2, 4):
        what = f"{shape} of {str(data.x.dtype).removeprefix('torch.')}"
        raise ValueError(f"{name}: a background is for images with alpha, 2 or 4 channels of uint8; these are {what}")
    if shape[0] == 2 and len({*colour}) > 1:
        raise ValueError(f"{name}: these images are gray; give a gray background, three equal numbers")
    base = torch.tensor(colour[: shape[0] - 1], dtype=torch.int32, device=data.x.device).view(-1, 1, 1)
    x = data.x.new_empty(len(data), shape[0] - 1, *shape[1:])
    for whole, out in zip(data.x.split(256), x.split(256), strict=True):  # int32 of a few at a time
        out.copy_(over(whole, base))
    return replace(data, name=name, x=x)


def _colour(said: str) -> tuple[int, ...] | None:
    if said in _NAMES:
        return _NAMES[said]
    numbers = tuple(int(each) for each in said.split(",")) if "," in said else ()
    return numbers if len(numbers) == 3 and max(numbers) <= 255 else None
