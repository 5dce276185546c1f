r"""A side of a comparison: a finite sample with its features, which are extracted once, if any metric asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .features import Extractor, Features
from .frechet import Moments

__all__ = ["Context", "Side", "constant", "unit"]


@dataclass
class Side:
    """One of the two samples.

    Arguments:
        x: Images (N, C, H, W), uint8 or float32 in [-1, 1], or vectors and signals as rows (N, d), float32.
        see: Makes what the extractor says of them.
        y: Their conditions: labels (N,), vectors (N, k) or images (N, C, H, W), or None.
        lossy: Whether they come from files that are not exact (JPEG).
    """

    x: Tensor
    see: Callable[[], Features]
    y: Tensor | None = None
    lossy: bool = False

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def features(self) -> Features:
        """What the extractor says of them."""
        return self.see()

    def look(self) -> None:
        """Make the features now."""
        _ = self.features

    @property
    def embeddings(self) -> Tensor:
        """The features, (N, d)."""
        return self.features.embeddings

    @cached_property
    def gaussian(self) -> Moments:
        """The mean and covariance of the features."""
        return Moments.of(self.embeddings)

    @property
    def labels(self) -> Tensor:
        """The class of each, by the extractor's own classifier, (N,)."""
        assert self.features.logits is not None
        return self.features.logits.argmax(1)


def constant(x: Tensor) -> bool:
    """Whether all rows are equal, but for rounding."""
    first = x[:1].flatten(1).double()
    least = 1e-12 * (1 + float(first.square().sum()))
    return all(float((part.flatten(1) - first).square().sum(1).max()) <= least for part in x.split(100))


def unit(x: Tensor) -> Tensor:
    """The values of a side's x as rows: images in [0, 1], vectors as they are, (N, d)."""
    rows = x.flatten(1)
    if x.dtype == torch.uint8:
        return rows.float() / 255
    return (rows + 1) / 2 if x.ndim == 4 else rows


@dataclass(frozen=True)
class Context:
    """What metrics may know besides the two sides.

    Arguments:
        extractor: What the features are.
        seed: Of all chance in a metric.
        train: What the generator was trained on, as a side's x; None where that is not known or is the real side.
        train_name: Its name and digest, for the protocol.
        valid: Further real examples, to choose a metric's own settings by.
        mixture: The centres (K, d), the standard deviation and the weights (K,) (None if equal) of the law, where it
            is a known mixture.
        conditional: Whether labels were given to the generator.
    """

    extractor: Extractor
    seed: int = 0
    train: Tensor | None = None
    train_name: str = ""
    valid: Tensor | None = None
    mixture: tuple[Tensor, float, Tensor | None] | None = None
    conditional: bool = False
