"""A folder of image files, read strictly: what is doubtful is refused in one line, and nothing is resized.

The images lie in the folder itself, or each in the sub-folder of its class; labels count the sub-folders.  Names are in
natural order, in which digits compare as a number and all else by code point: img2 comes before img10, on every system.
What is hidden (its name begins with a dot) is skipped; every other file must be an image.

Formats, told by the contents: PNG, JPEG, BMP, GIF, WebP and TIFF, of one frame and at most 8 bits a channel.
Channels: gray 1, gray + alpha 2, RGB 3, RGB + alpha 4.  An image of one bit a pixel is gray, one with a palette RGB; if
it has transparent colours, it has an alpha channel.  The camera's orientation (EXIF) is applied, colour profiles are
not.  All images must then have one size and one number of channels.
"""

import os
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = ["FORMATS", "read_folder"]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_OPAQUE = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}  # a file's mode -> what it becomes
_TRANSPARENT = {"L": "LA", "LA": "LA", "RGB": "RGBA", "RGBA": "RGBA"}
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")


class _Header(NamedTuple):
    """What a file says of its image before it is decoded: (C, H, W) after rotation, and whether pixels were changed."""

    shape: tuple[int, int, int]
    lossy: bool


def read_folder(folder: Path) -> tuple[Tensor, Tensor | None, bool]:
    """Read a folder of images, or of one folder of images a class.

    Returns:
        x, (N, C, H, W) uint8; y, (N,) int64, or None for a folder without sub-folders; and whether any file was
        compressed with loss (JPEG, or WebP and TIFF where they are).

    Raises:
        ValueError: If a file is no image or none of the module's, if images differ in size or channels, or if there
            are none; it names the first such file.
    """
    files, labels = _listed(folder)
    headers = [_header(file) for file in files]
    _agreeing(files, headers)
    try:
        x = np.empty((len(files), *headers[0].shape), np.uint8)
    except MemoryError as error:
        raise ValueError(f"{folder}: {len(files)} images, {_says(headers[0].shape)}, do not fit into memory") from error
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        for _ in pool.map(_decode, files, x):
            pass
    y = None if labels is None else torch.tensor(labels)
    return torch.from_numpy(x), y, any(header.lossy for header in headers)


def _listed(folder: Path) -> tuple[list[Path], list[int] | None]:
    """The files in order and, if they lie in sub-folders, the label of each."""
    files, folders = _visible(folder)
    if files and folders:
        raise ValueError(
            f"{folder} holds files ({files[0].name}) beside folders ({folders[0].name}): give either images alone, "
            "or one folder of images a class"
        )
    if not folders:
        if not files:
            raise ValueError(f"{folder} holds no images: put image files in it, or one folder of them a class")
        return files, None
    labels = []
    for label, inner in enumerate(folders):
        found, deeper = _visible(inner)
        if deeper:
            raise ValueError(f"{deeper[0]} is a folder in a folder of a class, {inner.name}: only images may lie there")
        if not found:
            raise ValueError(f"{inner} holds no images: remove it, or give the class at least one")
        files += found
        labels += [label] * len(found)
    return files, labels


def _visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files and the folders in a folder that are not hidden, each in natural order."""
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror}") from error
    files: list[Path] = []
    folders: list[Path] = []
    for entry in sorted(entries, key=lambda entry: _natural(entry.name)):
        if not (entry.is_dir() or entry.is_file()):
            raise ValueError(f"{entry.path} is neither a file nor a folder: remove it")
        (folders if entry.is_dir() else files).append(Path(entry.path))
    return files, folders


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", name)  # text and digits by turns, text first
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _header(path: Path) -> _Header:
    problem, found = "", None
    with _naming(path), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as image:
            problem = _problem(image)
            if not problem:
                width, height = image.size
                if _is_turned(image):
                    width, height = height, width
                found = _Header((_CHANNELS[_mode(image)], height, width), _is_lossy(image, path))
    if found is None:
        raise ValueError(f"{path} {problem}")
    return found


def _problem(image: ImageFile.ImageFile) -> str:
    """Why an image is not read; empty if it is."""
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        return f"holds {frames} frames: give one image a file"
    # Pillow would open 16-bit RGB as RGB and drop the lower bits; the raw mode tells.
    deep = any(";16" in str(tile.args) for tile in image.tile)
    if deep or image.mode not in _OPAQUE:
        what = f"{image.mode}, 16 bits" if deep else image.mode
        return f"has a pixel format that is not read ({what}): save it with 8 bits a channel, as gray, RGB or RGBA"
    return ""


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


def _is_lossy(image: ImageFile.ImageFile, path: Path) -> bool:
    if image.format == "WEBP":
        return _is_lossy_webp(path)
    return image.format == "JPEG" or (image.format == "TIFF" and image.info.get("compression") in _LOSSY_TIFF)


def _is_lossy_webp(path: Path) -> bool:
    """Whether the first chunk of pixels in a WebP file, a RIFF file, is VP8 rather than VP8L, the lossless one."""
    with path.open("rb") as file:
        file.seek(12)  # "RIFF", a size, "WEBP"
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8 "
            size = int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, os.SEEK_CUR)
    return True


def _agreeing(files: list[Path], headers: list[_Header]) -> None:
    """Refuse images that differ in size or channels from the first."""
    shapes = [header.shape for header in headers]
    differing = [place for place, shape in enumerate(shapes) if shape != shapes[0]]
    if differing:
        raise ValueError(
            f"{files[differing[0]]} has {_says(shapes[differing[0]])}, but {files[0].name} {_says(shapes[0])}; "
            f"{len(differing)} of {len(files)} images differ from it, and all must be alike"
        )


def _decode(path: Path, out: NDArray[np.uint8]) -> None:
    """Read an image into its place, (C, H, W)."""
    with _naming(path), Image.open(path, formats=FORMATS) as image:
        mode = _mode(image)
        pixels = np.asarray(ImageOps.exif_transpose(image).convert(mode))  # (H, W) or (H, W, C)
        pixels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    if pixels.shape != out.shape:  # orientation told behind the pixels, or a file that has just changed
        raise ValueError(f"{path} has {_says(pixels.shape)}, not {_says(out.shape)} as announced: save it again")
    out[...] = pixels


def _says(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels of {channels} channel{'s' if channels > 1 else ''}"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong in reading an image into one line that names the file."""
    try:
        if not path.stat().st_size:
            raise OSError("it is empty, 0 bytes")
        yield
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image of {', '.join(FORMATS)}, or is damaged: remove it") from error
    except Exception as error:  # broken files raise errors of many kinds in Pillow
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image ({' '.join(reason.split())}): replace it") from error
