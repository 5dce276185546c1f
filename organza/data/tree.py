"""A tree of files: a folder, or the same folder in a zip archive, which is read where it lies and never unpacked.

Names are relative, with "/" between the parts, on every system.  They are in natural order, in which digits compare as
a number and all else by code point: img2 comes before img10.  What is hidden (its name begins with a dot) is not seen,
nor ``__MACOSX``, which archives made on a Mac have beside their contents.  Of an archive whose contents all lie in one
outermost folder, that folder is the tree.
"""

import io
import os
import re
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

__all__ = ["Archive", "Folder", "Tree", "natural"]

_MOST_FILES = 2_000_000
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
            entries = [entry for entry in os.scandir(self.path / folder) if _is_seen(entry.name)]
        except OSError as error:
            raise ValueError(f"{self.where(folder)} cannot be read: {error.strerror}") from error
        found: tuple[list[str], list[str]] = [], []
        for entry in sorted(entries, key=lambda entry: natural(entry.name)):
            if not (entry.is_dir() or entry.is_file()):
                raise ValueError(f"{entry.path} is neither a file nor a folder: remove it")
            found[entry.is_dir()].append(f"{folder}/{entry.name}" if folder else entry.name)
        return found

    def open(self, name: str) -> BinaryIO:
        """See :class:`Tree`."""
        return (self.path / name).open("rb")

    def where(self, name: str) -> str:
        """See :class:`Tree`."""
        return str(self.path / name)


class Archive:
    """A folder in a zip archive.

    Arguments:
        path: The path of the archive.

    Raises:
        ValueError: If it is no sound archive, is encrypted, holds a name twice or one that is not plain and relative,
            more than two million files, or a file of more than 256 MiB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a zip archive ({' '.join(str(error).split())})") from error
        members = [member for member in self._zip.infolist() if not member.is_dir()]
        if len(members) > _MOST_FILES:
            raise ValueError(f"{path} holds {len(members):,} files: {_MOST_FILES:,} are the most that are read")
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            self._check(member)
            if all(map(_is_seen, member.filename.split("/"))):
                self._members[member.filename] = member
        tops = {name.partition("/")[0] for name in self._members}
        self._root = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in self._members) else ""
        self._folders: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
        for name in self._members:
            inner, is_folder = name.removeprefix(self._root), False
            while True:
                folder = inner.rpartition("/")[0]
                self._folders.setdefault(folder, (set(), set()))[is_folder].add(inner)
                if not folder:
                    break
                inner, is_folder = folder, True

    def _check(self, member: zipfile.ZipInfo) -> None:
        name, what = member.filename, ""
        parts = re.split(r"[/\\]", name)
        if name in self._members:
            what = "is there twice"
        elif {"", ".", ".."} & {*parts} or ":" in parts[0] or "\\" in name or not name.isprintable():
            what = "is no plain relative name"
        elif member.flag_bits & 1:
            what = "is encrypted"
        elif member.file_size > _MOST_BYTES:
            what = f"has {member.file_size / 2**20:,.0f} MiB, more than the {_MOST_BYTES >> 20} that are read"
        if what:
            raise ValueError(f"{self.path}: {name!r} {what}; make the archive again without it")

    def scan(self, folder: str = "") -> tuple[list[str], list[str]]:
        """See :class:`Tree`."""
        files, folders = self._folders[folder]
        return sorted(files, key=natural), sorted(folders, key=natural)

    def open(self, name: str) -> BinaryIO:
        """See :class:`Tree`."""
        try:
            # No longer than its entry says, whatever it holds: zipfile stops there, and then checks the sum.
            return io.BytesIO(self._zip.read(self._members[self._root + name]))
        except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
            raise OSError(f"the archive is damaged there: {error}") from error

    def where(self, name: str) -> str:
        """See :class:`Tree`."""
        return f"{self.path}/{self._root}{name}".rstrip("/")


def natural(name: str) -> tuple[list[str | int], str]:
    """The key that puts names in natural order."""
    parts = re.split("([0-9]+)", name)  # text and digits by turns, text first
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _is_seen(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"
