"""Pictures inside the page: G's newest samples, the film of how they came about, and samples beside training images."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from organza import picture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["nearest", "samples"]

T = TypeVar("T")

# At most so many, that a page stays below 3 MB; a third is added when bytes become text.
FRAMES, SIDE, GRID_BYTES, FILM_BYTES, NEAREST_BYTES = 40, 512, 550_000, 1_080_000, 200_000


def samples(folder: Path) -> str:
    """Return the pictures of a run folder; two or more become progress.gif too, which it writes."""
    paths = sorted((int(path.stem), path) for path in (folder / "samples").glob("*.png") if path.stem.isdecimal())
    opened = [(images, image) for images, path in _evenly(paths, FRAMES) if (image := _open(path)) is not None]
    if not opened:
        return '<p class="note">There are no pictures of samples in this run.</p>'
    newest, grid = opened[-1][0], opened[-1][1].copy()
    film = [(images, image) for images, image in opened if image.size == grid.size]
    uri = _embedded(grid, GRID_BYTES)
    figures = _figure(uri, grid, f"G’s samples after {newest:,} images.")
    if len(film) > 1:
        path = folder / "progress.gif"
        count, frame = _film([image for _, image in film], path)
        uri = "data:image/gif;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        text = f"The same z in {count} pictures, from {film[0][0]:,} to {newest:,} images (progress.gif)."
        figures += _figure(uri, frame, text, film=True)
    return f'<div class="pictures">{figures}</div>'


def nearest(path: Path, text: str) -> str:
    """Return a picture of small pairs, larger than it is, with a caption; empty if there is none."""
    image = _open(path)
    return "" if image is None else _figure(_embedded(image, NEAREST_BYTES), image, text, 2 * SIDE)


def _embedded(image: Image, most: int) -> str:
    """The picture as a data URI; it is made smaller, in place, until it has so many bytes at most."""
    while (over := len(uri := picture.data_uri(image)) * 3 / 4 / most) > 1:
        image.thumbnail((int(image.width / over**0.5), int(image.height / over**0.5)))
    return uri


def _figure(uri: str, image: Image, text: str, side: int = SIDE, film: bool = False) -> str:
    scale = max(1, side // max(image.size))  # whole, so that all pixels are of one size
    size = f'class="{"small" * (scale > 1)}" width="{scale * image.width}" height="{scale * image.height}"'
    kind = ' class="film"' if film else ""  # which the page does not show to who wants no motion
    return f'<figure{kind}><img src="{uri}" alt="{text}" {size}><figcaption>{text}</figcaption></figure>'


def _open(path: Path) -> Image | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert(image.mode if image.mode in ("L", "RGB", "RGBA") else "RGBA")
    except (OSError, Image.DecompressionBombError):  # no picture, or one too large; no reason to go without a report
        return None


def _film(images: list[Image], path: Path) -> tuple[int, Image]:
    """Writes a film of FILM_BYTES at most, with fewer frames or else smaller ones; how many, and the last one."""
    count, side = len(images), min(SIDE, max(images[0].size))
    while True:
        frames = [image.copy() for image in _evenly(images, count)]
        for frame in frames:
            frame.thumbnail((side, side))
        picture.gif(frames, path)
        over = path.stat().st_size / FILM_BYTES
        if over <= 1 or side <= 64:
            return count, frames[-1]
        count, side = (max(12, int(count / over)), side) if count > 12 else (count, int(side / over**0.5))


def _evenly(items: list[T], most: int) -> list[T]:
    """At most so many of the items, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[i] for i in chosen]
