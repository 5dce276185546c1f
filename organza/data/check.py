"""What a data set holds and what may be wrong with it, in numbers and words, before anyone trains on it."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from organza.values import Values

from . import pairs
from .arrays import digests
from .folder import ARCHIVES, side, sizes, tree_at
from .source import Data, names, open_data

__all__ = ["Check", "check"]

_FEW, _PER_CLASS, _UNEVEN = 5_000, 100, 5.0
_THUMBNAIL, _NEAR = 16, 3.0  # pixels of a side; grey levels of 255, root mean square
_MOST = 20_000  # examples that are compared with each other
_PAIRS = 10_000  # that are near, and no more are looked for
_NAMED = 10  # groups


@dataclass(frozen=True)
class Check:
    """What was found.

    Arguments:
        data: The source to train on: the given one, with what it takes to read it, as [resize=64].
        shape: Of an example.
        dtype: Of its numbers.
        count: How many examples there are.
        classes: How many each class has, by its name.
        unlabelled: How many have no label.
        sizes: How many files have which width x height, before any resizing; most frequent first.
        lossy: Whether any is compressed with loss.
        notes: What is unusual about files, each with how many they are.
        left_out: Files that cannot be read, each with the reason.
        same: Groups of equal examples: their files, or their places if they come from none.
        near: Pairs that differ by less than 3 of 255 grey levels (root mean square) when seen 16 x 16 pixels small, and
            are not equal; looked for among the first 20,000, of equal ones the first, until there are 10,000.
        warnings: What to think of before training, in words.
    """

    data: str
    shape: tuple[int, ...]
    dtype: str
    count: int
    classes: dict[str, int]
    unlabelled: int
    sizes: dict[str, int]
    lossy: bool
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    same: list[list[str]]
    near: list[list[str]]
    warnings: list[str] = field(default_factory=list)

    @property
    def cut(self) -> bool:
        """Whether there may be more pairs than ``near``."""
        return len(self.near) >= _PAIRS or self.count > _MOST

    def record(self) -> dict[str, Any]:
        """As JSON; of groups and pairs the first ten, and how many there are."""
        found = asdict(self) | {"same": self.same[:_NAMED], "near": self.near[:_NAMED]}
        return found | {
            "copies": sum(len(group) - 1 for group in self.same),
            "near_pairs": len(self.near),
            "near_cut": self.cut,
        }


def check(source: str) -> tuple[Check, Data]:
    """Check a data set; of a folder or an archive, files that cannot be read are found, not refused, and images of
    several sizes made alike.

    Arguments:
        source: As :func:`~organza.data.open_data` takes it.

    Raises:
        ValueError: If there is no such data set, or nothing in it can be read.
    """
    whole = pairs.whole(source.strip())
    path, built_in = Path(os.path.expanduser(whole)), whole.lower() in names()  # which comes before a folder
    seen = dict[str, int]()
    if not built_in and (path.is_dir() or (path.is_file() and path.suffix.lower() in ARCHIVES)):
        found = sizes(tree_at(path))
        seen = {f"{width} x {height}": n for (width, height), n in found.most_common()}
        source += f"[resize={side(found)}]" if len(seen) > 1 and "[resize=" not in source else ""
    skip = "[bad=skip]" if seen and "[bad=" not in source else ""
    data = open_data(source + skip)
    if skip and not data.left_out:  # nobody needs to say so
        data = data.but(name=data.name.removesuffix(skip))
    counts = data.counts()
    unlabelled = len(data) - sum(counts.values()) if counts else 0
    called = data.files or tuple(map(str, range(len(data))))
    groups = _equal(data.x)
    same = [[called[i] for i in group] for group in groups]
    again = {i for group in groups for i in group[1:]}  # of equal ones the first stands for all
    alike = ([called[i], called[j]] for i, j in _alike(data.x, again)) if data.x.ndim == 4 else iter(())
    near = list(itertools.islice(alike, _PAIRS))
    dtype = str(data.x.dtype).removeprefix("torch.")
    about = (data.name, data.spec.shape, dtype, len(data), counts, unlabelled, seen, data.lossy)
    made = Check(*about, data.notes, data.left_out, same, near)
    made.warnings.extend(_warnings(made))
    return made, data


def _equal(x: Tensor) -> list[list[int]]:
    """The groups of equal examples."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for i, each in enumerate(digests(x)):
        found[each].append(i)
    return [group for group in found.values() if len(group) > 1]


def _alike(x: Tensor, again: set[int]) -> Iterator[tuple[int, int]]:
    """The pairs of images that look the same from afar, without those that are there ``again``."""
    x, values = x[:_MOST], Values.of(x)
    small = min(_THUMBNAIL, *x.shape[2:])
    at_once = max(1, 2**22 // x[0].numel())
    levels = (127.5 * values.inside(part) for part in x.split(at_once))  # 255 from the darkest to the brightest
    seen = torch.cat([functional.adaptive_avg_pool2d(part, small).flatten(1) for part in levels])
    places = torch.tensor([i for i in range(len(x)) if i not in again])
    seen = seen[places]
    norms, limit = seen.square().sum(1), seen.shape[1] * _NEAR**2
    for start in range(0, len(seen), 1024):
        rows = seen[start : start + 1024]
        distance = norms[start : start + 1024, None] + norms[None, start:] - 2 * rows @ seen[start:].T
        for some in (distance < limit).triu(1).nonzero().split(4096):
            i, j = (some + start).T
            # Of bright images the difference of large numbers is coarse: once more from the differences themselves.
            close = (seen[i] - seen[j]).square().sum(1) < limit
            yield from zip(places[i[close]].tolist(), places[j[close]].tolist(), strict=True)


def _warnings(found: Check) -> list[str]:
    lines, few = [], [(name, n) for name, n in found.classes.items() if 0 < n < _PER_CLASS]
    if len(found.shape) == 3 and found.count < _FEW:
        lines.append(
            f"{found.count:,} images are few: in a long run D learns them by heart, unless it sees them augmented"
        )
    if few:
        said = ", ".join(f"{n} of {name}" for name, n in few[:3]) + (
            f" and {len(few) - 3} more" if len(few) > 3 else ""
        )
        lines.append(
            f"classes with fewer than {_PER_CLASS} examples ({said}): expect copies of them; merge or add some"
        )
    most, least = max(found.classes.values(), default=0), min(found.classes.values(), default=0)
    if least and most > _UNEVEN * least:
        lines.append(
            f"the largest class has {most / least:.0f} times the examples of the smallest: rare ones come out rarely"
        )
    empty = [name for name, n in found.classes.items() if not n]
    if empty:
        lines.append(f"no example of {len(empty)} classes: {', '.join(empty[:5])}")
    if len(found.sizes) > 1:
        usual, n = next(iter(found.sizes.items()))
        lines.append(
            f"{len(found.sizes)} sizes, {n} of {sum(found.sizes.values())} of {usual}: train with --resize SIDE"
        )
    if found.left_out:
        lines.append(f"{len(found.left_out)} files cannot be read: train with --bad-images skip, or repair them")
    copies = sum(len(group) - 1 for group in found.same)
    if copies:
        lines.append(f"copies of other examples: {copies:,}; a split into train and test would share them")
    if found.lossy:
        lines.append("some are compressed with loss: a score against them also measures the traces of that")
    return lines
