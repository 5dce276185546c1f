"""A folder of image files, or an archive of one, read strictly: what is doubtful is refused in one line.

The images lie in the folder itself, or each in the sub-folder of its class; labels count the sub-folders.  Or a file of
labels lies in the folder, or one beside each image of a tar archive, see `organza.data.labels`: then images may lie at
any depth, and sub-folders are only places.  Names are in natural order, and what is hidden is skipped, see
`organza.data.tree`; every other file must be an image, see `organza.data.images`.

All images must have one size, unless they are to be resized.  They get the channels that any of them has: among colours
gray is colour, too, as programs that make files small save a colour image that happens to be gray as such, and what has
no alpha among others that have is opaque.  Gray of 16 bits stays so if all is, and becomes 8 otherwise.

Large sets are decoded once, and kept: see `organza.data.store`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from organza.device import memory

from . import store
from .images import Header, decode, header, says
from .labels import is_labels, read_beside, read_labels, read_rows
from .parquet import Parquet
from .tree import Folder, Packed, Tar, Tree, Zip

__all__ = ["ARCHIVES", "How", "Images", "listed", "read_folder", "side", "sizes", "tree_at"]

ARCHIVES: dict[str, type[Packed]] = {".zip": Zip, ".tar": Tar, ".parquet": Parquet}
_WIDEST = 4096  # pixels of a side
_LARGE = 2**14  # pixels of an image that threads decode faster than one
_AT_ONCE, _BYTES = 2048, 2**27  # images, and what they take, that are decoded before they are put away


class How(NamedTuple):
    """How a folder is read.

    Arguments:
        size: (W, H) to resize all images to, as `organza.data.images` says; None if they have one size.
        skip: Whether to leave out files that cannot be read, and say which; otherwise they are an error.
    """

    size: tuple[int, int] | None = None
    skip: bool = False

    def asked(self, part: str) -> How | None:
        """The same with what a part in brackets asks for: resize=64, resize=96x64 (W x H), bad=skip or bad=stop; None
        if it asks for something else.

        Raises:
            ValueError: If it asks for what there is not.
        """
        key, _, value = "".join(part.split()).partition("=")
        if key == "bad":
            if value not in ("skip", "stop"):
                raise ValueError(
                    f"[{part}]: of files that are bad, [bad=skip] leaves them out, [bad=stop] refuses them"
                )
            return self._replace(skip=value == "skip")
        if key == "resize":
            found = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
            width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
            if not (1 <= width <= _WIDEST and 1 <= height <= _WIDEST):
                said = f"give a side in pixels, 1 to {_WIDEST}, or width x height"
                raise ValueError(f"[{part}]: {said}, as in [resize=64] or [resize=96x64]")
            return self._replace(size=(width, height))
        return None

    def refuse(self, name: str) -> None:
        """Refuse to be asked of data that is no folder.

        Raises:
            ValueError: If anything is asked for.
        """
        if self != How():
            raise ValueError(f"{name}: [resize=...] and [bad=...] are for folders and archives of images")


class Images(NamedTuple):
    """What a folder holds, see `organza.data.Data`."""

    x: Tensor
    y: Tensor | None
    lossy: bool
    labels: tuple[str, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    digest: str = ""


class _Listing(NamedTuple):
    """Files that may be images, what is known of their labels, what was left out, why, and what was not looked at."""

    files: list[str]
    y: Tensor | None
    labels: tuple[str, ...]
    left_out: list[str]
    notes: tuple[str, ...] = ()


def read_folder(tree: Tree, how: How) -> Images:
    """Read a folder or archive of images, or of one folder of images a class.

    Returns:
        x, (N, C, H, W) uint8 or uint16; y, labels (N,) int64 or conditions (N, k) float32, or None where there are
        none; whether any file was compressed with loss (JPEG, or WebP and TIFF where they are); the names of the
        classes; those of the files; what is unusual about them; which were left out, why; and their digest, if known.

    Raises:
        ValueError: If a file is no image or none of the module's, if images differ in size, if there are none, or if
            labels do not fit them; it names the first such file.
    """
    place, stamp = store.place(tree.where(""), how.size), tree.stamp()
    known = store.find(place, stamp)
    found = Images(*known) if known is not None else _read(tree, how, place, stamp)
    if found.left_out and not how.skip:  # kept when they might be left out
        raise ValueError(
            f"{found.left_out[0]} ({len(found.left_out)} files; --bad-images skip, or [bad=skip] leaves them out)"
        )
    return found


def _read(tree: Tree, how: How, place: Path, stamp: str) -> Images:
    """Read it from its files, into the store if it is large."""
    listing = _listed(tree, how.skip)
    headers, refused = _headers(tree, listing.files, how.skip)
    form = _alike(tree, listing.files, headers, how)
    good = [i for i, header in enumerate(headers) if header is not None]
    notes = (*_notes([header for header in headers if header is not None], how), *listing.notes)

    def together(x: Tensor, failed: dict[int, str]) -> Images:
        kept = [i for number, i in enumerate(good) if number not in failed]
        if not kept:
            raise ValueError(f"{tree.where('')}: none of its images can be read; the first: {failed[0]}")
        y = None if listing.y is None else listing.y[kept]
        _check_classes(tree, listing, y)
        lossy = any(headers[i].lossy for i in kept)  # type: ignore[union-attr]
        left_out = (*listing.left_out, *refused, *failed.values())
        return Images(x, y, lossy, listing.labels, tuple(listing.files[i] for i in kept), notes, left_out)

    shape, dtype = (len(good), *form.shape), np.dtype(np.uint16 if form.bits == 16 else np.uint8)
    chunks = partial(_decoded, tree, [listing.files[i] for i in good], form.shape, dtype, how)
    size = prod(shape) * dtype.itemsize
    kept = store.keep(place, stamp, shape, dtype, chunks, together) if size >= store.LEAST else None
    if kept is not None:
        return Images(*kept)
    said = f"{shape[0]:,} images, {says(form.shape)}, do not fit into memory"
    advice = f"free {size / 1e9:.1f} GB of disk for them, set ORGANZA_CACHE to another, or resize them"
    if size > 0.8 * memory():
        raise ValueError(f"{tree.where('')}: {said}: {advice}")
    try:
        x = np.empty(shape, dtype)
    except MemoryError as error:
        raise ValueError(f"{tree.where('')}: {said}: {advice}") from error
    failed, end = dict[int, str](), 0
    for chunk in chunks(failed):
        x[end : end + len(chunk)] = chunk
        end += len(chunk)
    return together(torch.from_numpy(x[:end]), failed)


def tree_at(path: Path) -> Tree:
    """The tree at a path: of a folder, of an archive, or of a folder that holds nothing but shards of one kind."""
    if not path.is_dir():
        return ARCHIVES[path.suffix.lower()](path)
    folder = Folder(path)
    files, folders = folder.scan()
    suffixes = {Path(name).suffix.lower() for name in files}
    if len(suffixes) == 1 and suffixes < {".tar", ".parquet"} and not folders:
        return ARCHIVES[suffixes.pop()](*(path / name for name in files))
    return folder


def listed(path: Path) -> list[Path]:
    """The image files at a path, in order: that of a file, or those of a folder or of its sub-folders.

    Raises:
        ValueError: If there are none, or what lies there is doubtful.
    """
    return [path / name for name in _listed(Folder(path)).files] if path.is_dir() else [path]


def sizes(tree: Tree) -> Counter[tuple[int, int]]:
    """Count how many images of a folder or archive have which (W, H), by their headers.

    Raises:
        ValueError: If there are none, or none is an image.
    """
    headers, _ = _headers(tree, _listed(tree, skip=True).files, skip=True)
    return Counter((found.shape[2], found.shape[1]) for found in headers if found is not None)


def side(sizes: Counter[tuple[int, int]]) -> int:
    """A side to resize images of such (W, H) to: the power of two up to that of half of them, 8 to 64."""
    sides = sorted(min(size) for size in sizes.elements())
    return min(64, max(8, 1 << sides[len(sides) // 2].bit_length() - 1))


def _headers(tree: Tree, files: Sequence[str], skip: bool) -> tuple[list[Header | None], list[str]]:
    """What each file says of its image; None where it cannot be read, and why."""
    found, refused = list[Header | None](), list[str]()
    for name in files:
        try:
            found.append(header(tree, name))
        except ValueError as error:
            found.append(None)
            refused.append(str(error))
    if refused and not skip:
        many = (
            f" ({len(refused)} of {len(files)} files cannot be read; --bad-images skip, or [bad=skip] leaves them out)"
        )
        raise ValueError(refused[0] + (many if len(refused) > 1 else ""))
    if len(refused) == len(files):
        raise ValueError(f"{tree.where('')}: none of its {len(files)} files is an image; the first: {refused[0]}")
    return found, refused


def _alike(tree: Tree, files: Sequence[str], headers: Sequence[Header | None], how: How) -> Header:
    """The form that all images get."""
    known = {name: found for name, found in zip(files, headers, strict=True) if found is not None}
    counts = Counter((found.shape[2], found.shape[1]) for found in known.values())
    colour = any(found.shape[0] > 2 for found in known.values())
    alpha = any(found.shape[0] % 2 == 0 for found in known.values())
    channels, bits = (3 if colour else 1) + alpha, min(found.bits for found in known.values())
    usual = max(counts, key=lambda size: counts[size])
    if how.size is None and len(counts) > 1:
        name, (width, height) = next(
            (name, found.shape[:0:-1]) for name, found in known.items() if found.shape[:0:-1] != usual
        )
        raise ValueError(
            f"{tree.where(name)} has {width} x {height} pixels, but most have {usual[0]} x {usual[1]}; there are "
            f"{len(counts)} sizes among {len(known)} images, and all must be alike: "
            f"resize them by train's --resize {side(counts)}, or [resize={side(counts)}] behind the name"
        )
    width, height = how.size or usual
    return Header((channels, height, width), bits if channels == 1 else 8, False)


def _notes(headers: Sequence[Header], how: How) -> tuple[str, ...]:
    """What is unusual about the images, each with how many they are."""
    counts = Counter(text for found in headers for text in found.said)
    if how.size is not None:
        width, height = how.size
        counts["is smaller and was enlarged"] = sum(h < height or w < width for (_, h, w), *_ in headers)
    kinds = Counter((found.shape[0], found.bits) for found in headers)
    if len(kinds) > 1:
        said = " and ".join(
            f"{n} of {says((c, 0, 0), bits).split(' of ')[1]}" for (c, bits), n in sorted(kinds.items())
        )
        counts[f"is made like the others: there are {said}"] = len(headers) - max(kinds.values())
    return tuple(f"{n} of {len(headers)}: {text}" for text, n in counts.items() if n)


def _decoded(
    tree: Tree, files: Sequence[str], shape: tuple[int, ...], dtype: np.dtype[Any], how: How, failed: dict[int, str]
) -> Iterator[NDArray[Any]]:
    """The images, some at once, (n, C, H, W); those that fail are left out, and said, if they may be."""

    def one(out: NDArray[Any], name: str) -> str:
        try:
            decode(tree, name, out, how.size)
        except ValueError as error:
            if not how.skip:
                raise
            return str(error)
        return ""

    # Pillow decodes outside the interpreter's lock, but of small images all else takes longer.
    threads = os.cpu_count() or 1
    step = max(threads, min(_AT_ONCE, _BYTES // (prod(shape) * dtype.itemsize)))
    with ThreadPoolExecutor(threads) as pool:
        mapped = pool.map if how.size or prod(shape[1:]) >= _LARGE else map
        for start in range(0, len(files), step):
            names = files[start : start + step]
            chunk = np.empty((len(names), *shape), dtype)
            reasons = [*mapped(one, chunk, names)]
            failed.update({start + i: reason for i, reason in enumerate(reasons) if reason})
            yield chunk[[not reason for reason in reasons]] if any(reasons) else chunk


def _check_classes(tree: Tree, listing: _Listing, y: Tensor | None) -> None:
    """Refuse classes of which nothing is left."""
    if listing.y is not None and y is not None and y.ndim == 1:
        gone = {*listing.y.tolist()} - {*y.tolist(), -1}
        if gone:
            name = (*listing.labels, *map(str, range(len(listing.labels), max(gone) + 1)))[min(gone)]
            raise ValueError(f"{tree.where('')}: no image of the class {name} can be read: add some, or remove it")


def _listed(tree: Tree, skip: bool = False) -> _Listing:
    """The files that may be images, in order, with their labels; what lies astray is left out if it may be."""
    files, folders = tree.scan()
    where, sheets = tree.where(""), [name for name in files if is_labels(name)]
    if len(sheets) > 1:
        raise ValueError(f"{where} holds {len(sheets)} files of labels ({', '.join(sheets)}): leave one")
    if sheets:
        images = [name for name in _walked(tree) if name != sheets[0]]
        if not images:
            raise ValueError(f"{where} holds no images beside {sheets[0]}: put image files in it")
        return _Listing(images, *read_labels(tree, sheets[0], images), [])
    if isinstance(tree, Parquet) and (known := tree.labels()) is not None:
        y, names = read_rows(tree.where(""), files, known[0])
        return _Listing(files, y, names or known[1], [])
    if isinstance(tree, Tar):
        beside = read_beside(tree, [*_walked(tree)])
        if beside is not None:
            return _Listing(beside[0], beside[1], (), [], beside[2])
    if not folders:
        if not files:
            raise ValueError(f"{where} holds no images: put image files in it, or one folder of them a class")
        return _Listing(files, None, (), [])
    astray = []
    if files:
        astray.append(
            f"{where} holds files ({files[0]}) beside folders ({folders[0]}): give either images alone, "
            "one folder of images a class, or a labels.csv that names them"
        )
    inside = {inner: tree.scan(inner) for inner in folders}
    for inner, (found, deeper) in inside.items():
        if deeper:
            said = f"is a folder in a folder of a class, {inner}: only images may lie there"
            astray.append(f"{tree.where(deeper[0])} {said}")
        if not found:
            astray.append(f"{tree.where(inner)} holds no images: remove it, or give the class at least one")
    classes = [inner for inner, (found, _) in inside.items() if found]
    if astray and (not skip or not classes):
        raise ValueError(astray[0])
    images = [name for inner in classes for name in inside[inner][0]]
    labels = [label for label, inner in enumerate(classes) for _ in inside[inner][0]]
    return _Listing(images, torch.tensor(labels), tuple(classes), astray)


def _walked(tree: Tree, folder: str = "") -> Iterator[str]:
    """All files, at any depth."""
    files, folders = tree.scan(folder)
    yield from files
    for inner in folders:
        yield from _walked(tree, inner)
