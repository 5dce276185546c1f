"""Handwritten digits: MNIST in its four IDX files, and the built-in digits that were cut from it.

An IDX file is a header in big-endian integers, two zero bytes, the type (8: uint8), the number of axes and
the length of each axis in four bytes, and then the values, the last axis fastest.

MNIST: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998: 60,000 training and 10,000
test images, 28 x 28, uint8, 10 classes.  ``digits`` holds the first 1,000 training images of
each class, and 200 test images of each, evenly spread, since the two halves of the test part are of different writers,
in the order of the original files; ``scripts/make_digits.py`` wrote it.
"""

import hashlib
import http.client
import math
import os
import urllib.request
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from organza import cache

__all__ = ["DIGITS", "FILES", "MIRRORS", "digits", "find", "mnist", "read", "read_idx"]

DIGITS = Path(__file__).with_name("digits.npz")

# Of the contents, not of the gzip files: these are in circulation from several compressors.
FILES = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_PREFIX = {"train": "train", "test": "t10k"}
_TIMEOUT = 30.0  # seconds
_LIMIT = 64 * 2**20  # bytes: no file of MNIST is larger, even unpacked (47,040,016)


def digits(split: str) -> tuple[Tensor, Tensor]:
    """The built-in digits: x, (10,000 | 2,000, 1, 28, 28) uint8, and y, int64, by ``split``, train | test."""
    with np.load(DIGITS, allow_pickle=False) as file:
        return _tensors(file[f"{split}_x"], file[f"{split}_y"])


def mnist(split: str) -> tuple[Tensor, Tensor]:
    """MNIST: x, (60,000 | 10,000, 1, 28, 28) uint8, and y, int64, for ``split`` "train" | "test".

    Raises:
        ValueError: If a file is nowhere to be found and cannot be downloaded, or is not the original.
    """
    images, labels = find([f"{_PREFIX[split]}-images-idx3-ubyte.gz", f"{_PREFIX[split]}-labels-idx1-ubyte.gz"])
    return _tensors(read_idx(images), read_idx(labels))


def find(files: list[str]) -> list[bytes]:
    """The contents, unpacked and checked, of some of the four `FILES`.

    Each is looked for in the folder ``mnist`` of $ORGANZA_DATA, then of $ORGANZA_CACHE (~/.cache/organza
    where that is not set), and else downloaded to the second of these.

    Raises:
        ValueError: If one cannot be had, or is not the original.
    """
    kept = cache.place("mnist")
    folders = [Path(os.environ["ORGANZA_DATA"]) / "mnist"] if os.environ.get("ORGANZA_DATA") else []
    folders.append(kept)
    found: dict[str, bytes] = {}
    for name in files:
        path = next((folder / name for folder in folders if os.path.isfile(folder / name)), None)
        if path is not None:
            found[name] = read(path)
    missing = [name for name in files if name not in found]
    for name in missing:
        try:
            found[name] = _download(name, kept)
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(
                f"MNIST is not on this machine and could not be downloaded ({_reason(error)}): put "
                f"{' and '.join(missing)} into {kept}, or use the built-in 'digits'"
            ) from error
    return [found[name] for name in files]


def read(path: Path) -> bytes:
    """The contents, unpacked and checked, of one of the four `FILES`.

    Raises:
        ValueError: If the file is not the original.
    """
    contents = _unpack(path.read_bytes())
    if not _original(path.name, contents):
        raise ValueError(f"{path} is not the original file of MNIST, or is damaged: delete or replace it")
    return contents


def read_idx(contents: bytes) -> NDArray[np.uint8]:
    """The array in the contents of an IDX file of uint8.

    Raises:
        ValueError: If they are not such a file.
    """
    axes = contents[3] if contents[:3] == b"\x00\x00\x08" and len(contents) > 3 else 0
    shape = [int.from_bytes(contents[start : start + 4], "big") for start in range(4, 4 + 4 * axes, 4)]
    if not axes or len(contents) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"not an IDX file of uint8: {len(contents)} bytes, the first of them {contents[:8].hex(' ')}")
    return np.frombuffer(contents, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _tensors(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    # Copied, because torch warns of arrays that lie in memory that cannot be written to.
    return torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def _unpack(packed: bytes) -> bytes:
    """The contents of a gzip file; of one that is damaged or too large, nothing."""
    unpacker = zlib.decompressobj(wbits=31)  # 31: a gzip header, a window of any size
    try:
        contents = unpacker.decompress(packed, _LIMIT)
    except zlib.error:
        return b""
    return contents if unpacker.eof else b""


def _original(name: str, contents: bytes) -> bool:
    return hashlib.sha256(contents).hexdigest() == FILES[name]


def _download(name: str, folder: Path) -> bytes:
    """Fetch a file from the first mirror that has the original; OSError or HTTPException if none does."""
    problem: Exception = OSError("no mirror")
    for mirror in MIRRORS:
        try:
            with urllib.request.urlopen(mirror + name, timeout=_TIMEOUT) as response:
                packed: bytes = response.read(_LIMIT)
        except (OSError, http.client.HTTPException) as error:
            problem = error
            continue
        contents = _unpack(packed)
        if _original(name, contents):
            with suppress(OSError):  # a cache that cannot be written is no reason to fail
                cache.write(folder / name, packed)
            return contents
        problem = OSError(f"{mirror}{name} is not the original file")
    raise problem


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    reason = getattr(error, "reason", None) or error  # a URLError keeps what the system said in `reason`
    return " ".join(str(reason).split()) or type(error).__name__
