"""A tree of files: a folder, or the same folder in an archive (zip, or tar without compression), which is read where it
lies and never unpacked.

Names are relative, with "/" between the parts, on every system.  They are in natural order, in which digits compare as
a number and all else by code point: img2 comes before img10.  What is hidden is not seen: what begins with a dot,
``__MACOSX``, which archives made on a Mac have beside their contents, and what Windows leaves in folders of images
(``Thumbs.db``, ``desktop.ini``).  Of an archive whose contents all lie in one outermost folder, that folder is the
tree.
"""

import hashlib
import io
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

__all__ = ["Folder", "Member", "Packed", "Tar", "Tree", "Zip", "natural"]

_NO_TEXT = re.compile("[\ud800-\udfff]")  # where a name on disk is no UTF-8
_HIDDEN = {"__macosx", "thumbs.db", "desktop.ini"}

_MOST_FILES = 2_000_000
_DEEPEST = 30  # folders
_UNPACKED, _SMALL = 200, 2**17  # a file in a zip archive unpacks to so many times its size, if that is not small
_MOST_BYTES = 2**28  # of one file: an image of 8,000 x 8,000 pixels, not compressed


class Tree(Protocol):
    """Files with names that can be opened."""

    def scan(self, folder: str = "") -> tuple[list[str], list[str]]:
        """The names of the files and of the folders in a folder, which are not hidden, each in natural order.

        Raises:
            ValueError: If it cannot be read, or holds something else.
        """
        ...

    def open(self, name: str) -> BinaryIO:
        """Open a file to be read."""
        ...

    def where(self, name: str) -> str:
        """How to call a file or folder in a message."""
        ...

    def stamp(self) -> str:
        """A text that is another one when any file has changed; read from names, sizes and times alone."""
        ...


class Folder:
    """A folder on disk; links are followed.

    Arguments:
        path: Its path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self, folder: str = "") -> tuple[list[str], list[str]]:
        """See :class:`Tree`."""
        try:
            with os.scandir(self.path / folder) as there:
                entries = [(entry, entry.is_dir(), entry.is_file()) for entry in there if _is_seen(entry.name)]
        except OSError as error:  # a link to itself, too
            raise ValueError(f"{error.filename or self.where(folder)} cannot be read: {error.strerror}") from error
        found: tuple[list[str], list[str]] = [], []
        for entry, is_folder, is_file in sorted(entries, key=lambda each: natural(each[0].name)):
            if _NO_TEXT.search(entry.name):
                raise ValueError(f"{entry.path!r}: the name holds what is no text in UTF-8; rename it")
            if not (is_folder or is_file):
                raise ValueError(f"{entry.path} is neither a file nor a folder: remove it")
            found[is_folder].append(f"{folder}/{entry.name}" if folder else entry.name)
        return found

    def open(self, name: str) -> BinaryIO:
        """See :class:`Tree`."""
        return (self.path / name).open("rb")

    def where(self, name: str) -> str:
        """See :class:`Tree`."""
        return str(self.path / name)

    def stamp(self) -> str:
        """See :class:`Tree`."""
        total, waiting = 0, [""]
        while waiting:  # a sum, as the system lists files in any order
            folder = waiting.pop()
            if folder.count("/") > _DEEPEST:
                raise ValueError(f"{self.where(folder)} lies {_DEEPEST} folders deep: is it a link to one above?")
            try:
                for entry in os.scandir(self.path / folder):
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if _is_seen(entry.name) and entry.is_dir():
                        waiting.append(name)
                    elif _is_seen(entry.name) and entry.is_file():
                        about = entry.stat()
                        text = f"{name}\0{about.st_size}\0{about.st_mtime_ns}"
                        total += int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=16).digest(), "little")
            except OSError as error:
                raise ValueError(f"{self.where(folder)} cannot be read: {error.strerror}") from error
        return f"{total % 2**128:032x}"


class Member(NamedTuple):
    """Where a file lies in an archive."""

    name: str
    size: int
    at: Any  # as the kind of archive has it


class Packed:
    """A folder in one archive or several, whose table of contents is read when it is first asked for.

    Arguments:
        paths: The path of each archive; several together are one folder.

    Raises:
        ValueError: On first use, if one is no sound archive, if a name is there twice or is not plain and relative, or
            if there are more than two million files, or one of more than 256 MiB.
    """

    kind = "archive"

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self.path = paths[0] if len(paths) == 1 else paths[0].parent

    def listing(self) -> Iterator[Member]:
        """The files in the archives, in the order in which they lie there."""
        raise NotImplementedError

    def read(self, member: Member) -> bytes:
        """What a file holds.

        Raises:
            OSError: If the archive is damaged there.
        """
        raise NotImplementedError

    @cached_property
    def _members(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        try:
            for member in self.listing():
                self._check(member, found)
                if all(map(_is_seen, member.name.split("/"))):
                    found[member.name] = member
        except (OSError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{self.path} cannot be read as a {self.kind} archive ({said})") from error
        return found

    def _check(self, member: Member, known: dict[str, Member]) -> None:
        name, what = member.name, ""
        parts = re.split(r"[/\\]", name)
        if len(known) >= _MOST_FILES:
            raise ValueError(
                f"{self.path} holds more than {_MOST_FILES:,} files, the most that are read: make several of it"
            )
        if name in known:
            what = "is there twice"
        elif {"", ".", ".."} & {*parts} or ":" in parts[0] or "\\" in name or not name.isprintable():
            what = "is no plain relative name"
        elif member.size > _MOST_BYTES:
            what = f"has {member.size / 2**20:,.0f} MiB, more than the {_MOST_BYTES >> 20} that are read"
        if what:
            raise ValueError(f"{self.path}: {name!r} {what}; make the archive again without it")

    @cached_property
    def _root(self) -> str:
        tops = {name.partition("/")[0] for name in self._members}
        return f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in self._members) else ""

    @cached_property
    def _folders(self) -> dict[str, tuple[list[str], list[str]]]:
        """The files and the folders in each folder."""
        found: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
        for name in self._members:
            inner, is_folder = name.removeprefix(self._root), False
            while True:
                folder = inner.rpartition("/")[0]
                found.setdefault(folder, (set(), set()))[is_folder].add(inner)
                if not folder:
                    break
                inner, is_folder = folder, True
        return {at: (sorted(files, key=natural), sorted(inner, key=natural)) for at, (files, inner) in found.items()}

    def scan(self, folder: str = "") -> tuple[list[str], list[str]]:
        """See :class:`Tree`."""
        files, folders = self._folders[folder]
        return [*files], [*folders]

    def open(self, name: str) -> BinaryIO:
        """See :class:`Tree`."""
        return io.BytesIO(self.read(self._members[self._root + name]))

    def where(self, name: str) -> str:
        """See :class:`Tree`."""
        return f"{self.path}/{self._root}{name}" if name else str(self.path)

    def stamp(self) -> str:
        """See :class:`Tree`."""
        about = [path.stat() for path in self.paths]
        return " ".join(f"{each.st_size}:{each.st_mtime_ns}" for each in about)


class Zip(Packed):
    """A folder in a zip archive."""

    kind = "zip"

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except ValueError as error:
            raise zipfile.BadZipFile(str(error)) from error

    def listing(self) -> Iterator[Member]:
        """See :class:`Packed`."""
        for info in self._zip.infolist():
            if info.flag_bits & 1:
                raise ValueError(f"{self.path}: {info.filename!r} is encrypted; make the archive again without it")
            if info.file_size > _UNPACKED * max(info.compress_size, _SMALL):
                said = f"unpacks to more than {_UNPACKED} times its size"
                raise ValueError(f"{self.path}: {info.filename!r} {said}; make the archive again without it")
            if not info.is_dir():
                yield Member(info.filename, info.file_size, info)

    def read(self, member: Member) -> bytes:
        """See :class:`Packed`."""
        try:
            # No longer than its entry says, whatever it holds; then the sum is checked.
            found: bytes = self._zip.read(member.at)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
            raise OSError(f"the archive is damaged there: {error}") from error
        return found


class Tar(Packed):
    """A folder in tar archives without compression: the shards of a large set.  A file is read by its place."""

    kind = "tar"

    def listing(self) -> Iterator[Member]:
        """See :class:`Packed`."""
        for number, path in enumerate(self.paths):
            length = path.stat().st_size
            with tarfile.open(path, "r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # or it keeps a million of them
                    if info.isdir():
                        continue
                    if not info.isreg() or info.issparse():
                        raise ValueError(f"{path}: {info.name!r} is a link or no plain file; make the archive anew")
                    if info.offset_data + info.size > length:
                        raise ValueError(f"{path} ends within {info.name!r}: copy it again")
                    yield Member(info.name.removeprefix("./"), info.size, (number, info.offset_data))

    def read(self, member: Member) -> bytes:
        """See :class:`Packed`."""
        number, offset = member.at
        with self.paths[number].open("rb") as file:  # each time, so that threads share no place in it
            file.seek(offset)
            found: bytes = file.read(member.size)
        if len(found) != member.size:
            raise OSError("the archive has become shorter")
        return found


def natural(name: str) -> tuple[list[str | int], str]:
    """The key that puts names in natural order."""
    parts = re.split("([0-9]+)", name)  # text and digits by turns, text first
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _is_seen(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _HIDDEN
