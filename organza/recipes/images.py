"""What the convolutional recipes ask of the data."""

from __future__ import annotations

from organza.data import Spec

__all__ = ["pictures"]


def pictures(recipe: str, data: Spec) -> None:
    """Refuse data that are no images of 8 x 8 pixels or more.

    Raises:
        ValueError: If they are not.
    """
    if len(data.shape) != 3 or min(data.shape[1:]) < 8:
        raise ValueError(
            f"recipe {recipe} is for images (channels, height, width) of 8 x 8 or more, the data are {data.shape}; "
            "try --recipe quick or mlp"
        )
