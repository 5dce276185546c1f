"""Data sets in memory, and where they come from.

`open_data` takes what a user has, a built-in name, a file, a folder of images or an array, and gives a `Data`;
every other module sees only that.  What a built-in name means stands in `mnist` and `synthetic`, what an array
may be in `arrays`, what a folder may hold in `images`.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from organza.values import AS_THEY_ARE, Values, signed

from . import arrays, mnist, pairs, parts, synthetic
from .folder import ARCHIVES, How, read_folder, tree_at

__all__ = ["Data", "Source", "Spec", "held_out", "names", "open_data"]

SPLITS = ("train", "test")
_PART = re.compile(r"(?P<whole>.+)\[(?P<part>[^\[\]]*)\]")
_TOLD = 100  # files that were left out
_DIGITS = {"digits": mnist.digits, "mnist": mnist.mnist}


@dataclass(frozen=True)
class Spec:
    """What a recipe needs to know of a data set.

    Arguments:
        shape: One example's shape: (C, H, W) for images, (d,) for vectors.
        count: The number N of examples.
        classes: The number of classes; 0 if there are no labels.
        condition: The shape of the condition y where it is no label: (k,) for vectors, (C, H, W) for images.
        joined: Whether x is two images of unpaired sets joined along the channels, "A and B", and y the same.
    """

    shape: tuple[int, ...]
    count: int
    classes: int = 0
    condition: tuple[int, ...] = ()
    joined: bool = False

    def blank(self, n: int) -> Tensor | None:
        """Return n conditions without content, as a batch has them, or None where the data has none."""
        if self.condition:
            return torch.zeros(n, *self.condition)
        return torch.zeros(n, dtype=torch.int64) if self.classes else None


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """One data set in memory.  `open_data` makes it from what it has checked.

    Arguments:
        name: Where it comes from: a built-in name, the path of a file or folder, or "array".
        x: The examples, in the numbers of the data: images (N, C, H, W), uint8, uint16 or float32; signals (N, C, L) or
            vectors (N, d), float32.
        y: The conditions: labels, (N,), int64, 0 to classes - 1, -1 for unlabelled; vectors, (N, k), float32; images,
            (N, C, H, W), like x, or x itself for two unpaired sets that are joined; or None.
        labels: The names of the classes, in the order of their labels; empty where they have none.
        lossy: Whether any image is known to come from a file compressed with loss, such as JPEG; a measure of
            likeness to such images also sees the traces of the compression.
        files: The files of the examples, names relative to their folder or archive; empty where there are none.
        notes: What is unusual about the files, each with how many they are.
        left_out: The files that cannot be read and were left out, each with the reason.
        values: How x becomes numbers for networks; of floats, as they are.
    """

    name: str
    x: Tensor
    y: Tensor | None = None
    lossy: bool = False
    labels: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    values: Values = AS_THEY_ARE

    def __post_init__(self) -> None:
        if self.x.dtype in (torch.uint8, torch.uint16):  # for which there is one way
            object.__setattr__(self, "values", Values.integers(str(self.x.dtype).removeprefix("torch.")))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def nbytes(self) -> int:
        """How many bytes x and y take."""
        return self.x.nbytes + (0 if self.y is None or self.y is self.x else self.y.nbytes)

    @cached_property
    def spec(self) -> Spec:
        """Shape, count, and the number of classes (the highest label and 1) or the shape of other conditions."""
        classes, condition = len(self.labels), tuple[int, ...]()
        if self.y is not None and self.y.ndim > 1:
            condition = tuple(self.y.shape[1:])
        elif self.y is not None:
            classes = max(classes, int(self.y.max()) + 1)
        return Spec(tuple(self.x.shape[1:]), len(self), classes, condition, self.y is self.x)

    @cached_property
    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of type, shape and values of x and y: the same on every machine."""
        return arrays.digest(self.x, self.y)

    @cached_property
    def mean(self) -> Tensor:
        """The mean example, of one example's shape, float32; of images, in [-1, 1]."""
        total = torch.zeros(self.spec.shape, dtype=torch.float64)
        for index in torch.arange(len(self)).split(max(1, 2**22 // max(1, total.numel()))):
            total += self.gather(index)[0].cpu().double().sum(0)  # not every device has float64
        return (total / len(self)).float()

    def gather(self, index: Tensor, device: torch.device | None = None) -> tuple[Tensor, Tensor | None]:
        """The examples at some indices, as a batch for a network.

        They travel as they are kept, and become floats where they arrive: devices divide otherwise, in the last bit.

        Arguments:
            index: Integers from 0 to N - 1, (B,), on any device.
            device: Where the batch is wanted; where the data are if None.

        Returns:
            x, (B, *shape) float32, as networks see it (`organza.values`), images in [-1, 1]; and y, labels (B,)
            int64 or (B, ...) float32, images in [-1, 1], or None.  Both are new.
        """
        place = self.x.device if device is None else device
        x = self.values.inside(_sent(_taken(self.x, _sent(index, self.x.device)), place))
        if self.y is self.x:
            return x, x.clone()
        return x, None if self.y is None else signed(_sent(_taken(self.y, _sent(index, self.y.device)), place))

    def to(self, device: torch.device | str) -> "Data":
        """The same data on a device; shares memory if it is there already."""
        there = self._mapped(lambda each: each.to(device))
        return self.but(x=there.x, y=there.y)

    def counts(self) -> dict[str, int]:
        """How many examples each class has, by its name; empty where there are no classes."""
        classes = self.spec.classes
        if not classes or self.y is None:
            return {}
        found = self.y[self.y >= 0].cpu().bincount(minlength=classes).tolist()
        return dict(zip(self.labels or map(str, range(classes)), found, strict=True))

    def summary(self) -> dict[str, Any]:
        """What it is, as JSON: the numbers that describe it, what is unusual, and its digest."""
        counts = self.counts()
        return {
            "name": self.name,
            "count": len(self),
            "shape": list(self.spec.shape),
            "dtype": str(self.x.dtype).removeprefix("torch."),
            "classes": counts,
            "unlabelled": len(self) - sum(counts.values()) if counts else 0,
            "condition": list(self.spec.condition),
            "lossy": self.lossy,
            "notes": list(self.notes),
            "left_out": list(self.left_out[:_TOLD]),
            "left_out_count": len(self.left_out),
            "digest": self.digest,
        }

    def but(self, **fields: Any) -> "Data":
        """The same x and y with another name or other values, whose digest is known if this one's is."""
        same = replace(self, **fields)
        if "digest" in self.__dict__:
            same.__dict__["digest"] = self.digest
        return same

    def unscaled(self) -> "Data":
        """The same data, vectors and signals of which networks see as they are."""
        return self if self.x.ndim == 4 else replace(self, values=AS_THEY_ARE)

    def rows(self, index: Tensor) -> "Data":
        """Some of the examples, by index, (n,) int64."""
        files = tuple(self.files[i] for i in index.tolist()) if self.files else ()
        return replace(self._mapped(lambda each: _taken(each, index.to(each.device))), files=files)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Data":
        x = change(self.x)
        return replace(self, x=x, y=x if self.y is self.x else None if self.y is None else change(self.y))

    def __repr__(self) -> str:
        return f"Data({self.name!r}, {self.spec}, {str(self.x.dtype).removeprefix('torch.')})"


def _sent(x: Tensor, device: torch.device) -> Tensor:
    """The same on a device; CUDA has read it before this returns and is not waited for, MPS reads it later."""
    return x.to(device, non_blocking=device.type == "cuda")


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """Some rows, new.  torch selects no uint16: as bits they are an int16."""
    if x.dtype == torch.uint16:
        return x.view(torch.int16).index_select(0, index).view(torch.uint16)
    return x.index_select(0, index)


Source = str | os.PathLike[str] | NDArray[Any] | Tensor | tuple[Any, Any] | Data


def names() -> tuple[str, ...]:
    """The names of the built-in data sets."""
    return (*_DIGITS, *synthetic.NAMES)


def open_data(source: Source, split: str = "train") -> Data:
    """Open a data set.

    The built-in ones, with their number of training (and test) examples:

    - ``digits``: 10,000 (2,000) images of MNIST, 1 x 28 x 28, in 10 balanced classes; part of the package;
    - ``mnist``: all 60,000 (10,000) of them; looked for on this machine, else downloaded;
    - ``ring``, ``grid25``, ``grid100``, ``spiral``, ``moons``: 100,000 (10,000) points of a known law in
      the plane, see `organza.data.synthetic`.

    Arguments:
        source: A built-in name; the path of a ``.npy`` file, or of a ``.npz`` file with the keys x and
            optionally y; the path of a folder of images, or of one folder of images a class, or of a ``.zip``, ``.tar``
            or ``.parquet`` archive of them, or of a folder of such tar or parquet files; an array or tensor x, or a
            pair (x, y); or a `Data`, which is returned as it is.  What x may be stands in `organza.data.arrays`, what a
            folder may hold in `organza.data.folder`, what an image may be in `organza.data.images`, and how labels are
            given
            in `organza.data.labels`.  A built-in name comes before a file or folder of that name: write ``./digits``
            for the file.  A name or path may end in a part, as in ``mnist[:50000]``: see `organza.data.parts`.
            Two sources make pairs, ``X from Y`` and ``A and B``: see `organza.data.pairs`; a path is no pair.
            x shares memory with the array it was made from, where nothing had to be converted.
        split: "train" or "test".  Only built-in data sets have a test split, and pairs of them.

    Raises:
        ValueError: If there is no such data set or file, or what it holds cannot be used.
    """
    if split not in SPLITS:
        raise _unknown("split", split, SPLITS)
    return _opened(source, split, How())


def _opened(source: Source, split: str, how: How) -> Data:
    """Open it; ``how`` is what parts behind it have said of reading a folder."""
    if isinstance(source, Data):
        return source
    text = source.strip() if isinstance(source, str) and not pairs.exists(source) else ""
    two = pairs.two(text, names())
    if two is not None:
        left, word, right = two
        kind = pairs.kind(left, word, right)
        return pairs.together(open_data(left, split), word, kind or open_data(right, split))
    part = _PART.fullmatch(text)
    if part:
        reading = how.asked(part["part"])
        if reading is not None:
            data = _opened(part["whole"], split, reading)
            return data.but(name=f"{data.name}[{part['part']}]")
        return parts.part(_opened(part["whole"], split, how), part["part"])
    if isinstance(source, str) and source.strip().lower() in names():
        name = source.strip().lower()
        how.refuse(name)
        if name in _DIGITS:
            return Data(name, *_DIGITS[name](split), labels=tuple("0123456789"))
        x, y = synthetic.draw(name, split)
        train = x if split == "train" else synthetic.draw(name, "train")[0]  # both splits by its mean and scale
        return Data(name, x, y, values=Values.of(train, "float32"))
    path = _checked_path(source) if isinstance(source, str | os.PathLike) else None
    pair = isinstance(source, tuple) and len(source) == 2
    if path is None and not pair and not isinstance(source, np.ndarray | Tensor):
        raise ValueError(
            f"data of type {type(source).__name__} is not supported: give a built-in name "
            f"({', '.join(names())}), a path, a NumPy array, a torch tensor, or a pair (x, y)"
        )
    if split != "train":
        raise ValueError(f"split {split!r}: only built-in data sets have one; open the test data as data of its own")
    if path is None:
        return _checked("array", *(source if isinstance(source, tuple) else (source, None)))
    name = f".{os.sep}{path}" if str(path).lower() in names() else str(path)
    if path.is_dir() or path.suffix.lower() in ARCHIVES:
        found = read_folder(tree_at(path), how)._asdict()
        known = found.pop("digest")
        data = Data(name, **found)
        if known:
            data.__dict__["digest"] = known  # as it would be when first asked for
        return data
    how.refuse(str(path))
    given = arrays.read_arrays(path)
    try:
        return _checked(name, *given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def added(source: str, part: str) -> str:
    """The source with a part that is for files of images behind it; of two sources behind each that has such files."""
    two = pairs.two(source.strip(), names())
    if two is None or not part:
        return source + part

    def of_images(side: str) -> bool:
        whole = pairs.whole(side)
        return whole.lower() not in names() and not whole.lower().endswith(arrays.SUFFIXES)

    left, word, right = two
    sides = [of_images(left), of_images(right) and not pairs.kind(left, word, right)]
    if not any(sides):  # it is said of the first what it does not take
        sides[0] = True
    return f"{left}{part * sides[0]} {word} {right}{part * sides[1]}"


def held_out(source: object) -> str | None:
    """The source whose test split is the test data of this one; None if there is none.

    Parts that choose examples are left out, ``mnist`` of ``mnist[:100]``; those that make others of them stay.
    """
    if not isinstance(source, str):
        return None
    whole, exists = pairs.whole(source.strip()), pairs.exists(source)
    if whole.lower() in names() and not (exists and whole != source.strip()):  # which comes before a file of that name
        return whole + "".join(f"[{made}]" for made in re.findall(r"\[\s*(joint|stacked|weights\s*=[^\]]+)", source))
    two = None if exists else pairs.two(source.strip(), names())
    if two is None:
        return None
    left, word, right = two
    sides = (held_out(left), right if pairs.kind(left, word, right) else held_out(right))
    return None if None in sides else f" {word} ".join(map(str, sides))


def _checked(name: str, x: Any, y: Any, layout: str = "") -> Data:
    if not isinstance(x, np.ndarray | Tensor):
        raise ValueError(f"x of type {type(x).__name__} is not supported: give a NumPy array or a torch tensor")
    checked = arrays.examples(x, layout)
    y = None if y is None else arrays.labels(y, len(checked)).to(checked.device)
    dtype = str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else x.dtype.name
    return Data(name, checked, y, values=Values.of(checked, dtype))


def _checked_path(source: str | os.PathLike[str]) -> Path:
    """The path of a file of arrays, of an archive or of a folder, if there is one."""
    if not str(source).strip():
        raise ValueError(f"the data has no name: give a file, a folder (. for this one) or one of {', '.join(names())}")
    path = Path(os.path.expanduser(source))
    is_file = os.path.isfile(path)  # unlike Path.is_file, False for what cannot be a path
    if is_file and path.suffix.lower() not in (*arrays.SUFFIXES, *ARCHIVES):
        raise ValueError(
            f"{path}: needed is a file of arrays ({' or '.join(arrays.SUFFIXES)}), a folder of images or a "
            f".zip, .tar or .parquet archive of one; built-in are {', '.join(names())}"
        )
    if is_file or os.path.isdir(path):
        return path
    if len(path.parts) > 1 or path.suffix or str(source).rstrip().endswith(("/", os.sep)):
        raise ValueError(f"{path}: there is no such file or folder")
    raise _unknown("data set or file", str(source), names())


def _unknown(what: str, got: object, allowed: tuple[str, ...]) -> ValueError:
    close = get_close_matches(str(got).strip().lower(), allowed, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ValueError(f"unknown {what} {got!r}: there are {', '.join(allowed)}{hint}")
