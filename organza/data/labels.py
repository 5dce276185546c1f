"""Labels of images from a file beside them, in a folder or archive: a ``.csv``, or StyleGAN's ``dataset.json``.

A CSV file has a row for each image: its name, relative to the file, and

- an integer: the class, 0 to classes - 1, or -1 for unlabelled;
- or a text: the name of the class; classes count in natural order;
- or numbers in one column or several, k of them: a condition y of shape (k,).

A first row that names no image, such as ``file,label``, is a header.  In JSON, ``{"labels": [[name, label], ...]}``, a
label is an integer, a text, a list of numbers, or null for unlabelled; ``{"labels": null}`` says that there are none.

Every name must be an image that is there, and every image must be named once.  Only where labels are integers, those
that are not named are unlabelled, -1.

In a tar archive, as WebDataset lays them out, files whose names agree before the first dot belong together:
``000123.jpg`` and ``000123.cls``, the class of that image, an integer as text.  Whatever else lies beside an image
(``.json``, ``.txt``, ``.pyd``, ``.pickle``) is not read.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from torch import Tensor

from .arrays import labels as checked
from .images import SUFFIXES
from .tree import Tree, natural

__all__ = ["JSON", "is_labels", "read_beside", "read_labels", "read_rows"]

JSON = "dataset.json"
_Label = int | str | tuple[float, ...] | None
_Row = tuple[str, _Label]


def is_labels(name: str) -> bool:
    """Whether a file of this name beside images holds their labels."""
    return name == JSON or name.lower().endswith(".csv")


def read_labels(tree: Tree, name: str, files: Sequence[str]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Read the labels of images.

    Arguments:
        tree: The folder or archive.
        name: The file of labels in it.
        files: The names of the images, N of them.

    Returns:
        y, labels (N,) int64 or conditions (N, k) float32, or None if the file says that there are none; and the names
        of the classes, empty where they have none.

    Raises:
        ValueError: If the file is none of the module's, or does not fit the images; it names the first mistake.
    """
    where = tree.where(name)
    try:
        with tree.open(name) as file:
            text = file.read().decode("utf-8-sig")
        rows = _from_json(where, text) if name == JSON else _from_csv(where, text, {*files})
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is no text in UTF-8: save it so") from error
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror or error}") from error
    if rows is None:
        return None, ()
    found = _by_name(where, rows, files)
    return _together(where, found, files)


def read_beside(tree: Tree, files: Sequence[str]) -> tuple[list[str], Tensor | None, tuple[str, ...]] | None:
    """Read labels that lie beside each image.

    Arguments:
        tree: The archive.
        files: The names of all files in it.

    Returns:
        The names of the images, their labels (N,) int64 or None, and what is not read; None if there is nothing but
        images.

    Raises:
        ValueError: If a label is none, or lies beside no image or several.
    """
    images = [name for name in files if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if len(images) == len(files) or not images:
        return None
    places = {key: i for i, key in enumerate(map(_key, images))}
    if len(places) < len(images):
        twice = Counter(map(_key, images)).most_common(1)[0][0]
        raise ValueError(f"{tree.where(twice)} is the name of several images: give each its own before the first dot")
    y, others = [-1] * len(images), Counter[str]()
    for name in files:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix != ".cls":
            others[suffix] += suffix not in SUFFIXES
            continue
        with tree.open(name) as file:
            text = file.read(20).decode("ascii", "replace").strip()
        if _key(name) not in places or not re.fullmatch(r"\d{1,18}", text):
            wrong = f"holds {text!r}: give an integer from 0" if _key(name) in places else "lies beside no image"
            raise ValueError(f"{tree.where(name)} {wrong}")
        y[places[_key(name)]] = int(text)
    unread = tuple(f"not read: {n} of {suffix or 'no suffix'}" for suffix, n in others.items() if n)
    labelled = any(label >= 0 for label in y)
    return images, _checked(tree.where(""), y, len(images)) if labelled else None, unread


def read_rows(where: str, files: Sequence[str], labels: Sequence[_Label]) -> tuple[Tensor, tuple[str, ...]]:
    """The labels that stand beside each image in a table.

    Returns:
        y, labels (N,) int64; and the names of the classes, empty where labels are integers.

    Raises:
        ValueError: If they are of several kinds, or texts of which some are missing.
    """
    return _together(where, dict(zip(files, labels, strict=True)), files)


def _key(name: str) -> str:
    """A name before the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _from_csv(where: str, text: str, files: set[str]) -> list[_Row]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{where} is no CSV file ({error})") from error
    if rows and _plain(rows[0][0]) not in files and "." not in rows[0][0]:
        del rows[0]
    for row in rows:
        if len(row) < 2 or len(row) != len(rows[0]) or not all(cell.strip() for cell in row):
            wanted = f"{len(rows[0])} columns, as the first row" if len(row) > 1 else "a file name, a comma and a label"
            raise ValueError(f"{where}: the row {','.join(row)!r} must have {wanted}, and no empty ones")
    cells = [[cell.strip() for cell in row[1:]] for row in rows]
    if all(len(each) == 1 and re.fullmatch(r"[+-]?\d+", each[0]) for each in cells):
        return [(row[0], int(each[0])) for row, each in zip(rows, cells, strict=True)]
    numbers = [_numbers(each) for each in cells]
    several = bool(cells) and len(cells[0]) > 1
    several |= any(each is not None for each in numbers) and all(
        map(_is_number, [cell for each in cells for cell in each])
    )
    if not several and any(each is None for each in numbers):
        return [(row[0], each[0]) for row, each in zip(rows, cells, strict=True)]
    for row, each in zip(rows, numbers, strict=True):
        if each is None:
            raise ValueError(f"{where}: {','.join(row)!r}: the columns behind the name must be finite numbers")
    return [(row[0], each) for row, each in zip(rows, numbers, strict=True)]


def _from_json(where: str, text: str) -> list[_Row] | None:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON ({error})") from error
    if not isinstance(given, dict) or "labels" not in given:
        raise ValueError(f'{where} must be {{"labels": [["name.png", label], ...]}}')
    if given["labels"] is None:
        return None
    rows: list[_Row] = []
    for row in given["labels"] if isinstance(given["labels"], list) else [given["labels"]]:
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
            raise ValueError(f'{where}: {str(row)[:60]} must be a pair ["name.png", label]')
        label = row[1]
        if isinstance(label, list):
            label = _numbers(label)
        elif isinstance(label, bool) or not (label is None or isinstance(label, int | str)):
            label = _numbers([label])
        if label is None and row[1] is not None:
            raise ValueError(f"{where}: the label of {row[0]} must be an integer, a text, a list of numbers, or null")
        rows.append((row[0], label))
    return rows if any(label is not None for _, label in rows) else None


def _numbers(values: Sequence[Any]) -> tuple[float, ...] | None:
    """The values as finite numbers; None if one is not."""
    try:
        found = tuple(float(value) for value in values if not isinstance(value, bool))
    except (TypeError, ValueError):
        return None
    return found if found and len(found) == len(values) and all(map(math.isfinite, found)) else None


def _is_number(text: str) -> bool:
    """Whether it reads as a number, if only as NaN or infinity."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _plain(name: str) -> str:
    """A name as a tree has it."""
    return name.strip().replace("\\", "/").removeprefix("./")


def _by_name(where: str, rows: list[_Row], files: Sequence[str]) -> dict[str, _Label]:
    known, found = {*files}, dict[str, _Label]()
    for given, label in rows:
        name = _plain(given)
        if name in found:
            raise ValueError(f"{where} names {name} twice: leave one label for each image")
        if name not in known:
            raise ValueError(f"{where} names {name}, which is not there: add the image, or remove its row")
        found[name] = label
    return found


def _together(where: str, found: dict[str, _Label], files: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """The labels in the order of the images."""
    kinds = {type(label) for label in found.values()}
    if kinds <= {int, type(None)}:
        whole = [found.get(name) for name in files]
        return _checked(where, [-1 if label is None else label for label in whole], len(files)), ()
    missing = next((name for name in files if found.get(name) is None), None)
    if missing is not None:
        raise ValueError(f"{where} has no label for {missing}: add it, or remove the image")
    if len(kinds) > 1:
        raise ValueError(f"{where} mixes labels of several kinds: give integers, texts, or lists of numbers throughout")
    labels: list[Any] = [found[name] for name in files]
    if kinds == {str}:
        names = sorted({*labels}, key=natural)
        place = {name: i for i, name in enumerate(names)}
        return _checked(where, [place[label] for label in labels], len(files)), tuple(names)
    lengths = {len(label) for label in labels}
    if len(lengths) > 1:
        raise ValueError(f"{where} has lists of {min(lengths)} to {max(lengths)} numbers: all must be of one length")
    return _checked(where, [[float(number) for number in label] for label in labels], len(files)), ()


def _checked(where: str, y: list[Any], count: int) -> Tensor:
    try:
        return checked(y, count)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
