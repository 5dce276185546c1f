"""A folder of image files, or a zip archive of one, read strictly: what is doubtful is refused in one line, and nothing
is resized.

The images lie in the folder itself, or each in the sub-folder of its class; labels count the sub-folders.  Or a file of
labels lies in the folder, see `organza.data.labels`: then images may lie at any depth, and sub-folders are only places.
Names are in natural order, and what is hidden is skipped, see `organza.data.tree`; every other file must be an image.

Formats, told by the contents: PNG, JPEG, BMP, GIF, WebP and TIFF, of one frame and 8 bits a channel, or gray of 16.
Channels: gray 1, gray + alpha 2, RGB 3, RGB + alpha 4.  An image of one bit a pixel is gray, one with a palette RGB; if
it has transparent colours, it has an alpha channel.  The camera's orientation (EXIF) is applied, colour profiles are
not.  All images must then have one size, one number of channels and one number of bits; only gray among colours is
colour, too, as programs that make files small save a colour image that happens to be gray as such.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from .labels import is_labels, read_labels
from .tree import Folder, Tree

__all__ = ["FORMATS", "listed", "read_folder", "read_image", "shape_of"]

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
_CHANNELS = {"I;16": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_DEEP = ("I;16", "I;16B")  # gray of 16 bits, in either order of bytes
# A file's mode -> what it becomes.
_OPAQUE = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA", **dict.fromkeys(_DEEP, "I;16")}
_TRANSPARENT = {"L": "LA", "LA": "LA", "RGB": "RGBA", "RGBA": "RGBA"}
_COLOURED = {"L": "RGB", "LA": "RGBA"}
_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")


class _Header(NamedTuple):
    """What a file says of its image before it is decoded: (C, H, W) after rotation, bits, and whether it is lossy."""

    shape: tuple[int, ...]
    bits: int
    lossy: bool


class Images(NamedTuple):
    """What a folder holds, see `organza.data.Data`."""

    x: Tensor
    y: Tensor | None
    lossy: bool
    labels: tuple[str, ...]
    files: tuple[str, ...]


def read_folder(tree: Tree) -> Images:
    """Read a folder or archive of images, or of one folder of images a class.

    Returns:
        x, (N, C, H, W) uint8 or uint16; y, labels (N,) int64 or conditions (N, k) float32, or None where there are
        none; whether any file was compressed with loss (JPEG, or WebP and TIFF where they are); the names of the
        classes; and those of the files.

    Raises:
        ValueError: If a file is no image or none of the module's, if images differ in size, channels or bits, if there
            are none, or if labels do not fit them; it names the first such file.
    """
    files, y, labels = _listed(tree)
    headers = _coloured([_header(tree, name) for name in files])
    _agreeing(tree, files, headers)
    try:
        x = np.empty((len(files), *headers[0].shape), np.uint16 if headers[0].bits == 16 else np.uint8)
    except MemoryError as error:
        said = f"{len(files)} images, {_says(headers[0].shape)}, do not fit into memory"
        raise ValueError(f"{tree.where('')}: {said}") from error
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        for _ in pool.map(partial(_decode, tree), files, x):
            pass
    return Images(torch.from_numpy(x), y, any(header.lossy for header in headers), labels, tuple(files))


def listed(path: Path) -> list[Path]:
    """The image files at a path, in order: that of a file, or those of a folder or of its sub-folders.

    Raises:
        ValueError: If there are none, or what lies there is doubtful.
    """
    return [path / name for name in _listed(Folder(path))[0]] if path.is_dir() else [path]


def shape_of(path: Path) -> tuple[int, int, int]:
    """The (C, H, W) that `read_image` will give, without decoding it.

    Raises:
        ValueError: If the file is no image of the module's.
    """
    channels, height, width = _header(Folder(path.parent), path.name).shape
    return channels, height, width


def read_image(path: Path) -> Tensor:
    """Read one image, (C, H, W), uint8 or uint16.

    Raises:
        ValueError: If the file is no image of the module's.
    """
    tree = Folder(path.parent)
    header = _header(tree, path.name)
    x = np.empty(header.shape, np.uint16 if header.bits == 16 else np.uint8)
    _decode(tree, path.name, x)
    return torch.from_numpy(x)


def _listed(tree: Tree) -> tuple[list[str], Tensor | None, tuple[str, ...]]:
    """The images in order, their labels, and the names of the classes."""
    files, folders = tree.scan()
    where, sheets = tree.where(""), [name for name in files if is_labels(name)]
    if len(sheets) > 1:
        raise ValueError(f"{where} holds {len(sheets)} files of labels ({', '.join(sheets)}): leave one")
    if sheets:
        images = [name for name in _walked(tree) if name != sheets[0]]
        if not images:
            raise ValueError(f"{where} holds no images beside {sheets[0]}: put image files in it")
        return (images, *read_labels(tree, sheets[0], images))
    if files and folders:
        raise ValueError(
            f"{where} holds files ({files[0]}) beside folders ({folders[0]}): give either images alone, "
            "one folder of images a class, or a labels.csv that names them"
        )
    if not folders:
        if not files:
            raise ValueError(f"{where} holds no images: put image files in it, or one folder of them a class")
        return files, None, ()
    labels: list[int] = []
    for label, inner in enumerate(folders):
        found, deeper = tree.scan(inner)
        if deeper:
            said = f"is a folder in a folder of a class, {inner}: only images may lie there"
            raise ValueError(f"{tree.where(deeper[0])} {said}")
        if not found:
            raise ValueError(f"{tree.where(inner)} holds no images: remove it, or give the class at least one")
        files += found
        labels += [label] * len(found)
    return files, torch.tensor(labels), tuple(folders)


def _walked(tree: Tree, folder: str = "") -> Iterator[str]:
    """All files, at any depth."""
    files, folders = tree.scan(folder)
    yield from files
    for inner in folders:
        yield from _walked(tree, inner)


def _header(tree: Tree, name: str) -> _Header:
    problem, found = "", None
    with (
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        _opened(tree, name) as opened,
    ):
        file, image = opened
        problem = _problem(image)
        if not problem:
            width, height = image.size
            if _is_turned(image):
                width, height = height, width
            mode = _mode(image)
            bits = 16 if mode == "I;16" else 8
            found = _Header((_CHANNELS[mode], height, width), bits, _is_lossy(image, file))
    if found is None:
        raise ValueError(f"{tree.where(name)} {problem}")
    return found


def _problem(image: ImageFile.ImageFile) -> str:
    """Why an image is not read; empty if it is."""
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        return f"holds {frames} frames: give one image a file"
    # Pillow would open 16-bit RGB as RGB and drop the lower bits; the raw mode tells.
    deep = any(";16" in str(tile.args) for tile in image.tile)
    wrong = deep and (image.mode not in _DEEP or image.has_transparency_data)
    if wrong or image.mode not in _OPAQUE:
        what = f"{image.mode}, 16 bits" if deep else image.mode
        wanted = "save it with 8 bits a channel, as gray, RGB or RGBA, or as gray of 16"
        return f"has a pixel format that is not read ({what}): {wanted}"
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


def _is_lossy(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    if image.format == "WEBP":
        return _is_lossy_webp(file)
    return image.format == "JPEG" or (image.format == "TIFF" and image.info.get("compression") in _LOSSY_TIFF)


def _is_lossy_webp(file: BinaryIO) -> bool:
    """Whether the first chunk of pixels in a WebP file, a RIFF file, is VP8 rather than VP8L, the lossless one."""
    file.seek(12)  # "RIFF", a size, "WEBP"
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8 "
        size = int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, os.SEEK_CUR)
    return True


def _coloured(headers: list[_Header]) -> list[_Header]:
    """Gray images, with alpha or without, as colour where there is any."""
    if all(header.shape[0] < 3 for header in headers):
        return headers
    return [
        header._replace(shape=(header.shape[0] + 2, *header.shape[1:]))
        if header.shape[0] < 3 and header.bits == 8
        else header
        for header in headers
    ]


def _agreeing(tree: Tree, files: Sequence[str], headers: list[_Header]) -> None:
    """Refuse images that differ in size, channels or bits from the first."""
    forms = [(header.shape, header.bits) for header in headers]
    differing = [place for place, form in enumerate(forms) if form != forms[0]]
    if differing:
        first, other = (_says(*form) for form in (forms[0], forms[differing[0]]))
        name = files[0].rpartition("/")[2]
        raise ValueError(
            f"{tree.where(files[differing[0]])} has {other}, but {name} {first}; "
            f"{len(differing)} of {len(files)} images differ from it, and all must be alike"
        )


def _decode(tree: Tree, name: str, out: NDArray[Any]) -> None:
    """Read an image into its place, (C, H, W)."""
    with _opened(tree, name) as (_, image):
        turned, mode = ImageOps.exif_transpose(image), _mode(image)
        if out.shape[0] == _CHANNELS[mode] + 2:
            mode = _COLOURED.get(mode, mode)
        pixels = np.asarray(turned if mode == "I;16" else turned.convert(mode))  # (H, W) or (H, W, C)
        pixels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    if pixels.shape != out.shape:  # orientation told behind the pixels, or a file that has just changed
        said = f"has {_says(pixels.shape)}, not {_says(out.shape)} as announced: save it again"
        raise ValueError(f"{tree.where(name)} {said}")
    out[...] = pixels


def _says(shape: tuple[int, ...], bits: int = 8) -> str:
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
