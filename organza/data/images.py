"""One image file: read exactly, or refused in one line that names it.

Formats, told by the contents: PNG, JPEG, BMP, GIF, WebP and TIFF.  Channels, of 8 bits or 16 if gray: gray 1, gray +
alpha 2, RGB 3, RGB + alpha 4.  An image of one bit a pixel is gray, one with a palette RGB; if it has transparent
colours, it has an alpha channel.  The camera's orientation (EXIF) is applied, colour profiles are not.  Of several
frames the first is read, CMYK becomes RGB, and of colours of 16 bits the upper 8 are read: each of these is said.

To another size (W, H) an image comes by its largest middle part of that shape, W : H, resampled with Pillow's bicubic
filter, which averages over what becomes one pixel (antialiasing), and weighs colours by alpha.  A JPEG much larger than
that is decoded at a half, quarter or eighth, but at least at twice the size.
"""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from .tree import Folder, Tree

__all__ = ["FORMATS", "SUFFIXES", "Header", "decode", "header", "read_image", "says", "shape_of"]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}
SUFFIXES |= {".tif": "TIFF", ".tiff": "TIFF"}
_CHANNELS = {"I;16": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_MODES = ("", "L", "LA", "RGB", "RGBA")  # by the number of channels
_DEEP = ("I;16", "I;16B")  # gray of 16 bits, in either order of bytes
# A file's mode -> what it becomes.
_OPAQUE = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}
_OPAQUE |= dict.fromkeys(_DEEP, "I;16")
_TRANSPARENT = {"L": "LA", "LA": "LA", "RGB": "RGBA", "RGBA": "RGBA"}
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")


class Header(NamedTuple):
    """What a file says of its image before it is decoded.

    Arguments:
        shape: (C, H, W) after rotation.
        bits: 8, or 16 of gray.
        lossy: Whether it is compressed with loss.
        said: What is unusual about it.
    """

    shape: tuple[int, ...]
    bits: int
    lossy: bool
    said: tuple[str, ...] = ()


def shape_of(path: Path) -> tuple[int, int, int]:
    """The (C, H, W) that `read_image` will give, without decoding it.

    Raises:
        ValueError: If the file is no image of the module's.
    """
    channels, height, width = header(Folder(path.parent), path.name).shape
    return channels, height, width


def read_image(path: Path) -> Tensor:
    """Read one image, (C, H, W), uint8 or uint16.

    Raises:
        ValueError: If the file is no image of the module's.
    """
    tree = Folder(path.parent)
    found = header(tree, path.name)
    x = np.empty(found.shape, np.uint16 if found.bits == 16 else np.uint8)
    decode(tree, path.name, x)
    return torch.from_numpy(x)


def header(tree: Tree, name: str) -> Header:
    """Read what a file says of its image.

    Raises:
        ValueError: If it is no image of the module's.
    """
    with (
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        _opened(tree, name) as (file, image),
    ):
        problem = _problem(image)
        if not problem:
            width, height = image.size
            if _is_turned(image):
                width, height = height, width
            mode = _mode(image)
            bits, lossy = 16 if mode == "I;16" else 8, _is_lossy(image, file)
            return Header((_CHANNELS[mode], height, width), bits, lossy, _said(image, name, (height, width)))
    raise ValueError(f"{tree.where(name)} {problem}")


def decode(tree: Tree, name: str, out: NDArray[Any], size: tuple[int, int] | None = None) -> None:
    """Read an image into its place.

    Arguments:
        tree: Where it lies.
        name: Its name there.
        out: Where to, (C, H, W), uint8 or uint16.  More channels than the image has are gray as colours, and an alpha
            of 255; of gray of 16 bits uint8 takes v / 257.
        size: (W, H) if it is to be resampled; otherwise it must have the size of ``out``.

    Raises:
        ValueError: If it is no image of the module's, or is damaged, or has another size.
    """
    with _opened(tree, name) as (_, image):
        mode = _mode(image)
        if size is not None and image.format == "JPEG":
            scale = 2 * max(size) / min(image.size)  # twice the size, whichever way it is turned
            image.draft(image.mode, (math.ceil(scale * image.width), math.ceil(scale * image.height)))
        turned = ImageOps.exif_transpose(image)
        turned = turned if mode == "I;16" else turned.convert(mode)
        if size is not None:
            turned = turned.resize(size, Image.Resampling.BICUBIC, _middle(turned.size, size))
        if mode == "I;16" and out.dtype == np.uint8:
            turned = Image.fromarray(((np.asarray(turned).astype(np.uint32) + 128) // 257).astype(np.uint8))
        if turned.mode in _MODES and _CHANNELS[turned.mode] < out.shape[0]:
            turned = turned.convert(_MODES[out.shape[0]])
        pixels = np.asarray(turned)  # (H, W) or (H, W, C)
        pixels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    if pixels.shape != out.shape:  # orientation told behind the pixels, or a file that has just changed
        said = f"has {says(pixels.shape)}, not {says(out.shape)} as announced: save it again"
        raise ValueError(f"{tree.where(name)} {said}")
    out[...] = pixels


def _middle(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest middle part of the shape that is wanted: left, top, right and bottom."""
    scale = min(size[0] / wanted[0], size[1] / wanted[1])
    width, height = (scale * each for each in wanted)
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, min(left + width, size[0]), min(top + height, size[1])


def _problem(image: ImageFile.ImageFile) -> str:
    """Why an image is not read; empty if it is."""
    if image.mode in _OPAQUE and not (image.mode in _DEEP and image.has_transparency_data):
        return ""
    what = f"{image.mode}, 16 bits" if _is_deep(image) else image.mode
    wanted = "save it with 8 bits a channel, as gray, RGB or RGBA, or as gray of 16"
    return f"has a pixel format that is not read ({what}): {wanted}"


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether its numbers have 16 bits: Pillow opens RGB of 16 as RGB and drops the lower 8, the raw mode tells."""
    return any(";16" in str(tile.args) for tile in image.tile)


def _said(image: ImageFile.ImageFile, name: str, size: tuple[int, int]) -> tuple[str, ...]:
    """What is unusual about it."""
    suffix = os.path.splitext(name)[1].lower()
    is_of = "JPEG" if image.format == "MPO" else image.format
    unusual = {
        "has several frames: the first is read": getattr(image, "n_frames", 1) != 1,
        "is CMYK: it becomes RGB": image.mode == "CMYK",
        "has colours of 16 bits: the upper 8 are read": image.mode not in _DEEP and _is_deep(image),
        "is called by another format than it has": SUFFIXES.get(suffix, is_of) != is_of,
        "is turned as the camera says": image.format != "TIFF" and size != (image.height, image.width),
    }
    return tuple(text for text, holds in unusual.items() if holds)


def _mode(image: ImageFile.ImageFile) -> str:
    """The mode to convert an image to."""
    mode = _OPAQUE[image.mode]
    return _TRANSPARENT[mode] if image.has_transparency_data else mode


def _is_turned(image: ImageFile.ImageFile) -> bool:
    """Whether the orientation swaps width and height."""
    if image.format == "TIFF":  # whose size Pillow has swapped already
        return False
    if image.format == "PNG" and not {"exif", "XML:com.adobe.xmp", "Raw profile type exif"} & image.info.keys():
        return False  # to look further, Pillow would decode it
    return image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def _is_lossy(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    if image.format == "WEBP":
        return _is_lossy_webp(file)
    tiff = image.format == "TIFF" and image.info.get("compression") in _LOSSY_TIFF
    return image.format in ("JPEG", "MPO") or tiff


def _is_lossy_webp(file: BinaryIO) -> bool:
    """Whether the first chunk of pixels in a WebP file, a RIFF file, is VP8 rather than VP8L, the lossless one."""
    file.seek(12)  # "RIFF", a size, "WEBP"
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8 "
        size = int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, os.SEEK_CUR)
    return True


def says(shape: tuple[int, ...], bits: int = 8) -> str:
    """A form in words."""
    channels, height, width = shape
    deep = f", {bits} bits" if bits != 8 else ""
    return f"{width} x {height} pixels of {channels} channel{'s' if channels > 1 else ''}{deep}"


@contextmanager
def _opened(tree: Tree, name: str) -> Iterator[tuple[BinaryIO, ImageFile.ImageFile]]:
    """Open an image; whatever goes wrong becomes one line that names the file."""
    try:
        with tree.open(name) as file:
            if not file.read(1):
                raise OSError("it is empty, 0 bytes")
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                yield file, image
    except UnidentifiedImageError as error:
        raise ValueError(f"{tree.where(name)} is no image of {', '.join(FORMATS)}, or is damaged: remove it") from error
    except Exception as error:  # broken files raise errors of many kinds in Pillow
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        said = f"cannot be read as an image ({' '.join(reason.split())}): replace it"
        raise ValueError(f"{tree.where(name)} {said}") from error
