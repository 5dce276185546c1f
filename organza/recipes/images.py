"""What the convolutional recipes ask of the data."""

from __future__ import annotations

from organza.data import Spec

__all__ = ["are_pictures", "conditioned", "paired", "pictures"]


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


def conditioned(recipe: str, data: Spec) -> int:
    """Return the numbers of e(y), as :func:`organza.nn.condition.vector` makes it of the data's conditions.

    Raises:
        ValueError: If the data has none, or they are images.
    """
    if len(data.condition) == 3:
        raise ValueError(
            f"recipe {recipe} takes labels or numbers as conditions; for images there are pix2pix, cyclegan"
        )
    width = data.condition[0] if data.condition else data.classes
    if width < 1:
        raise ValueError(
            f"recipe {recipe} is conditional, and the data has no labels: give one folder a class, a labels file, or "
            "the key y in an .npz; quick does without"
        )
    return width


def paired(recipe: str, data: Spec, joined: bool = False) -> None:
    """Refuse data that are no images with an image each as condition or, if asked for so, no two sets joined.

    Raises:
        ValueError: If they are not.
    """
    pairs = len(data.condition) == 3
    wanted, other = ("pairs of images, 'X from Y', as in 'photos from maps'", "cyclegan")
    if joined:
        wanted, other = ("two sets of images, 'A and B', as in 'photos and maps'", "pix2pix")
    if pairs and data.joined == joined:
        return
    other += "-small" * recipe.endswith(("-small", "-perceptual"))
    given = "two unpaired sets" if data.joined else "pairs" if pairs else "single images"
    advice = f"; try --recipe {other}" if pairs else ""
    raise ValueError(f"recipe {recipe} is for {wanted}; the data are {given}{advice}")
