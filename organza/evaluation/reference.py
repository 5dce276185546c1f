r"""What samples are compared with: real examples, those of the training, and those that give the floor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from organza.data import Data, held_out, open_data
from organza.data import names as builtin
from organza.data.arrays import digests
from organza.data.pairs import exists
from organza.metrics import lpips, pairs
from organza.values import Values

__all__ = ["Reference", "aligned", "comparable", "opened", "reference", "some"]

_PART = re.compile(r"\[[^\[\]]*\](?=$| from | and )")


@dataclass(frozen=True)
class Reference:
    """What samples are compared with.

    Arguments:
        real: The real examples.
        split: Which part of the data they are, in words.
        train: What the generator was trained on, where ``real`` was held out from it; else None.
        held: Where the floor's examples come from; None to halve ``real``.
    """

    real: Data
    split: str
    train: Data | None = None
    held: Data | None = None

    @property
    def answers(self) -> list[str]:
        """The metrics of images made from images: where there are pairs, an image has one answer rather than a law."""
        shape, names = self.real.spec.shape, ["frechet"]
        if self.real.spec.joined:
            return names
        if not lpips.missing(shape):
            names.insert(0, "lpips")
        if len(shape) == 3 and min(shape[1:]) >= pairs.WINDOW:
            names.insert(0, "pairs")
        return names


def reference(source: Any, split: str | None = None, data: Any = None, digest: str = "") -> Reference:
    """Return what samples of a generator are compared with.

    Arguments:
        source: The data that the generator was trained on, as :func:`~organza.data.open_data` takes it; None if that
            is not known.
        split: "train" or "test"; by default "test" where the data has one.
        data: Other real examples to compare with.  Those that the generator was trained on are counted: with more than
            one in a hundred of them, they are not held out, and memorisation cannot be measured by them.
        digest: The SHA-256 of the training data, where it is known.

    Raises:
        ValueError: If there is no such data or split, or the training data is no longer what it was.
    """
    if data is None:
        try:
            found = _own(source, split)
        except ValueError as error:
            raise ValueError(f"{error}; --data gives other real examples") from None
        _check_digest(found.train or (found.real if found.split != "test" else None), digest)
        return found
    other = _named(data, split)
    if source is None:
        return other
    try:
        train = open_data(source)
    except ValueError:  # arrays of a program that is gone, or a file that has moved: then nothing is known of it
        return replace(other, train=None, held=None)
    seen = _seen(other.real, train)
    if seen > len(other.real) / 100:
        return replace(other, split=f"{other.split}, {seen:,} of them training examples", train=None, held=None)
    if digest and train.digest != digest:  # nor of one that has changed
        return replace(other, train=None, held=None)
    return Reference(other.real, other.split, train, train)


def aligned(against: Reference, labels: Sequence[str]) -> Reference:
    """Return the reference with its classes numbered as the model numbers them, by their names.

    Arguments:
        against: The reference.
        labels: The names of the classes that the model knows, in its order; none if they are not known.

    Raises:
        ValueError: If it does not know one of them.
    """
    labels = tuple(labels)
    if not labels:
        return against
    held = against.held
    if held is not None and held is not against.train:  # whose numbers are the model's
        held = _renamed(held, labels)
    return replace(against, real=_renamed(against.real, labels), held=held)


def _renamed(data: Data, labels: tuple[str, ...]) -> Data:
    """The data with their classes numbered by their places among these labels."""
    if not data.labels or data.y is None or data.labels == labels:
        return data
    unknown = [name for name in data.labels if name not in labels]
    if unknown and labels == tuple(map(str, range(len(labels)))):  # no names: it was trained on numbers alone
        return data
    if unknown:
        raise ValueError(
            f"{data.name} has the classes {', '.join(unknown[:5])}, which the model does not know: it was trained on "
            f"{', '.join(labels[:20])}"
        )
    places = torch.tensor([labels.index(name) for name in data.labels], device=data.y.device)
    y = torch.where(data.y < 0, data.y, places[data.y.clamp(min=0)])
    data.digest  # noqa: B018  (kept, as the data are the same by other numbers)
    return data.but(y=y, labels=labels)


def _check_digest(train: Data | None, digest: str) -> None:
    if train is not None and digest and train.digest != digest:
        raise ValueError(
            f"{train.name} is no longer what the run was trained on (the digests differ): give real examples by --data"
        )


def _named(data: Any, split: str | None) -> Reference:
    """What a user names as real examples: a part of a data set that is written out is meant as it stands."""
    if split is None and isinstance(data, str) and _PART.search(data) and not exists(data):
        return Reference(open_data(data), "part")
    return _own(data, split)


def _own(source: Any, split: str | None) -> Reference:
    """What there is to compare with of one data set, by its parts."""
    base = held_out(source)
    if base is None:
        return Reference(open_data(source, split or "train"), "all")
    split = split or "test"
    train, test = open_data(source), open_data(base, "test")
    if split == "test":
        return Reference(test, "test", train, train)
    return Reference(open_data(source, split), split, None, test)


def _seen(real: Data, train: Data) -> int:
    """How many real examples the generator was trained on."""
    if real.spec.shape != train.spec.shape or real.x.dtype != train.x.dtype:
        return 0
    known = set(digests(train.x))
    return sum(each in known for each in digests(real.x))


def opened(fake: Any) -> Data:
    """Open samples that another program made: a folder of pictures, an .npz or .npy file, or an array.

    Raises:
        ValueError: If there are none, or they cannot be read.
    """
    if isinstance(fake, str) and not fake.strip():
        raise ValueError("--fake is empty: give a folder of pictures or an .npz file")
    if isinstance(fake, str) and _PART.sub("", fake.strip()).lower() in builtin():
        raise ValueError(f"--fake {fake}: a data set's name, not samples; give a folder, as ./{fake}, or an .npz file")
    return open_data(fake)


def comparable(data: Data, values: Values) -> Tensor:
    """Return examples as metrics compare them, on the CPU: bytes as they are, other images (N, C, H, W) in [-1, 1] by
    the values of the real data, vectors and signals in their own numbers, (N, d).
    """
    x = data.x.cpu()
    if x.ndim != 4:
        return x.flatten(1)
    return x if x.dtype == torch.uint8 else values.inside(x).clamp(-1, 1)


def some(data: Data, n: int, seed: int, first: int | None = None) -> Data:
    """Return at most n of the examples, or of the ``first`` ones, by chance."""
    count = len(data) if first is None else first
    if count <= n:
        return data if count == len(data) else data.rows(torch.arange(count))
    return data.rows(torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:n])
