"""What the convolutional recipes ask of the data."""

from __future__ import annotations

from organza.data import Spec

__all__ = ["are_pictures", "pictures"]


def are_pictures(data: Spec) -> bool:
    """Whether the data are images of 8 x 8 pixels or more, which convolutional networks ask for."""
    return len(data.shape) == 3 and min(data.shape[1:]) >= 8


def pictures(recipe: str, data: Spec) -> None:
    """Refuse data that are no images of 8 x 8 pixels or more.

    Raises:
        ValueError: If they are not.
    """
    if not are_pictures(data):
        raise ValueError(
            f"recipe {recipe} is for images (channels, height, width) of 8 x 8 or more, the data are {data.shape}; "
            "try --recipe quick or mlp"
        )
