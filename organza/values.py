r"""Values: the border between the numbers of the data and those that networks see.

Inside, images lie in [-1, 1], and each coordinate of other data has mean 0 and standard deviation 1:

.. math:: x_{inside} = (x - offset) / scale, \qquad x = offset + scale \, x_{inside}

- integers of b bits: offset = scale = :math:`(2^b - 1) / 2`; on the way back they are rounded and clamped to 0 ...
  :math:`2^b - 1`;
- floats of images: as they are where they lie in [-1, 1] and some are below 0; else the data's own lowest value becomes
  -1 and its highest 1;
- floats of vectors (N, d): mean and standard deviation of each coordinate; of signals (N, C, L), of each channel, so
  that a signal keeps its form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

__all__ = ["AS_THEY_ARE", "BYTES", "Values", "over", "signed"]

_INTEGERS = {"uint8": 255, "uint16": 65535}
_DIGIT = 2.0**-24
_FLOATS = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Values:
    """How numbers of the data become numbers for networks, and back.

    Arguments:
        dtype: The data's own type: uint8, uint16, float16, float32 or float64.
        offset: What becomes 0: a number, or one for each coordinate of a vector or channel of a signal.
        scale: What becomes 1 beyond it, likewise; not 0.

    Raises:
        ValueError: If the type is none of these, or a number is not finite or a scale 0.
    """

    dtype: str = "float32"
    offset: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name in ("offset", "scale"):
            if isinstance(getattr(self, name), list):  # as JSON has it
                object.__setattr__(self, name, tuple(getattr(self, name)))
        numbers = [each for end in (self.offset, self.scale) for each in (end if isinstance(end, tuple) else (end,))]
        known = [*_INTEGERS, *_FLOATS]
        if self.dtype not in known or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise ValueError(f"values {asdict(self)}: needed are a dtype ({', '.join(known)}) and finite numbers")
        if self.scale == 0 or (isinstance(self.scale, tuple) and 0 in self.scale):
            raise ValueError(f"values {asdict(self)}: a scale must not be 0")

    @classmethod
    def integers(cls, dtype: str) -> Values:
        """Those of "uint8" or "uint16"."""
        return cls(dtype, _INTEGERS[dtype] / 2, _INTEGERS[dtype] / 2)

    @classmethod
    def of(cls, x: Tensor, dtype: str = "") -> Values:
        """Measure data.

        Arguments:
            x: Images (N, C, H, W), signals (N, C, L) or vectors (N, d), uint8, uint16 or finite floats.
            dtype: The type that floats had before they became float32, where that is known.
        """
        own = str(x.dtype).removeprefix("torch.")
        if own in _INTEGERS:
            return cls.integers(own)
        dtype = dtype if dtype in _FLOATS else "float32"
        if x.ndim == 4:
            low, high = (float(end) for end in x.aminmax())
            if -1 <= low < 0 and high <= 1:
                return cls(dtype)
            return cls(dtype, low / 2 + high / 2, high / 2 - low / 2 or 1.0)
        rows = x.cpu().transpose(0, 1).flatten(1).double()  # not every device has float64
        mean = rows.mean(1)  # (d,), or (C,) of signals
        # What is constant to the digits of a float32 has a deviation below the last of them, so that it stays so.
        last = _DIGIT * mean.abs().where(mean != 0, torch.ones_like(mean))
        return cls(dtype, tuple(mean.tolist()), tuple(rows.std(1, correction=0).maximum(last).tolist()))

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> Values | None:
        """Read what :meth:`json` wrote; None of None.

        Raises:
            ValueError: If it is something else.
        """
        if values is None:
            return None
        try:
            return cls(**values)
        except TypeError:
            raise ValueError(f"values {values!r}: needed are dtype, offset and scale") from None

    def json(self) -> dict[str, Any]:
        """Return them as plain JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @property
    def most(self) -> int:
        """The highest integer; 0 of floats, which have none."""
        return _INTEGERS.get(self.dtype, 0)

    def inside(self, x: Tensor) -> Tensor:
        """Numbers of the data, (N, ...), as networks see them, float32."""
        if self.most:
            return x.to(torch.float32).div_(self.most / 2).sub_(1)
        if self.offset == 0 and self.scale == 1:
            return x
        offset, scale = self._ends(x)
        # In float64, as a mean that is large beside the deviation would cost the digits that tell examples apart.
        return ((x.to(offset) - offset) / scale).float()

    def restore(self, x: Tensor) -> Tensor:
        """What networks made, (N, ...), as numbers of the data, in their own type; NaN of integers becomes 0."""
        if self.most:
            bounded = ((x.float() + 1) * (self.most / 2)).round().clamp(0, self.most)
            return bounded.nan_to_num(nan=0).to(getattr(torch, self.dtype))
        x = x.cpu() if self.dtype == "float64" and x.device.type == "mps" else x  # which has none
        if self.offset == 0 and self.scale == 1:
            return x.to(_FLOATS[self.dtype])
        offset, scale = self._ends(x)
        return (x.to(offset) * scale + offset).to(_FLOATS[self.dtype])

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Offset and scale, in the form in which they meet x (N, ...)."""
        place = (x.device, x.ndim)
        if place not in self._made:  # made anew for each batch they would cost more than what they are for
            kind = torch.float32 if x.device.type == "mps" else torch.float64
            shape = (-1, *[1] * (x.ndim - 2)) if isinstance(self.offset, tuple) else ()
            with torch.inference_mode(False):  # training shall be able to use them too
                self._made[place] = tuple(
                    torch.tensor(end, dtype=kind, device=x.device).reshape(shape) for end in (self.offset, self.scale)
                )
        offset, scale = self._made[place]
        return offset, scale

    @cached_property
    def _made(self) -> dict[tuple[torch.device, int], tuple[Tensor, ...]]:
        return {}


AS_THEY_ARE = Values()


BYTES = Values.integers("uint8")


def signed(x: Tensor) -> Tensor:
    """Integers of 8 and 16 bits as what networks are shown, float32 in [-1, 1]; floats as they are."""
    own = str(x.dtype).removeprefix("torch.")
    return Values.integers(own).inside(x) if own in _INTEGERS else x


def over(x: Tensor, base: Tensor | int) -> Tensor:
    r"""Lay images whose last channel is alpha on a background, (N, C, H, W) -> (N, C - 1, H, W), bytes.

    .. math:: \lfloor (\alpha x + (255 - \alpha) b) / 255 + 1/2 \rfloor

    Arguments:
        x: Images, uint8.
        base: The background b, from 0 to 255: a number, or one for each channel, (C - 1, 1, 1) int32.
    """
    x = x.to(torch.int32)
    alpha = x[:, -1:]  # (N, 1, H, W)
    return ((x[:, :-1] * alpha + base * (255 - alpha) + 127) // 255).to(torch.uint8)
