"""Images in the rows of Parquet files, as Hugging Face's data sets have them: encoded files in a column, and labels.

The column of images is binary, or has the fields ``bytes`` and ``path``; that of labels is called ``label`` or
``labels`` and holds integers or texts.  Names of classes are those that the file itself gives for integers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from .tree import Member, Packed

__all__ = ["Parquet"]

_LABELS = ("label", "labels")
_MOST_BYTES = 2**31  # of the images in one group of rows, which are read together


class Parquet(Packed):
    """The rows of Parquet files as a folder of images, which are called by their number.

    Raises:
        ValueError: On first use, if pyarrow is missing, or a file has no column of images, or several.
    """

    kind = "parquet"

    def __init__(self, *paths: Path) -> None:
        super().__init__(*paths)
        self._lock = threading.Lock()
        self._held: tuple[tuple[int, int], Any] | None = None  # the last group of rows

    def listing(self) -> Iterator[Member]:
        """See :class:`~organza.data.tree.Packed`."""
        count = 0
        for number, file in enumerate(self._files):
            self._column(number)
            for group in range(file.metadata.num_row_groups):
                for row in range(file.metadata.row_group(group).num_rows):
                    yield Member(f"{count:09}", 0, (number, group, row))
                    count += 1

    def read(self, member: Member) -> bytes:
        """See :class:`~organza.data.tree.Packed`."""
        number, group, row = member.at
        with self._lock:  # threads want neighbours
            if self._held is None or self._held[0] != (number, group):
                self._held = ((number, group), self._group(number, group))
            found = self._held[1][row].as_py()
        if found is None:
            raise OSError("there is no image in this row")
        return bytes(found)

    def labels(self) -> tuple[list[int | str | None], tuple[str, ...]] | None:
        """The label of each row, and the names of the classes if the file has them; None if there are none."""
        column = next((name for name in _LABELS if name in self._files[0].schema_arrow.names), None)
        if column is None:
            return None
        found: list[int | str | None] = []
        for path, file in zip(self.paths, self._files, strict=True):
            try:
                rows = file.read(columns=[column]).column(column).to_pylist()
            except (OSError, ValueError, LookupError) as error:
                raise ValueError(
                    f"{path}: the column {column} cannot be read ({' '.join(str(error).split())})"
                ) from error
            wrong = next((row for row in rows if not (row is None or type(row) in (int, str))), None)
            if wrong is not None:
                raise ValueError(f"{path}: the column {column} holds {wrong!r}: give integers, or texts")
            found += rows
        names, most = self._names(column), max((row for row in found if isinstance(row, int)), default=-1)
        if names and most >= len(names):
            raise ValueError(f"{self.path}: the column {column} holds {most}, and the file names {len(names)} classes")
        return found, names

    @cached_property
    def _files(self) -> list[Any]:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise ValueError(f"{self.path}: to read it, install pyarrow: pip install 'organza[parquet]'") from error
        files = []
        for path in self.paths:
            try:
                files.append(ParquetFile(path))
            except (OSError, ValueError) as error:  # pyarrow's own are among them
                said = " ".join(str(error).split())
                raise ValueError(f"{path} cannot be read as a parquet archive ({said})") from error
        return files

    def _column(self, number: int) -> tuple[str, bool]:
        """The column of images of a file, and whether it has fields."""
        import pyarrow.types as types

        def is_binary(kind: Any) -> bool:
            return bool(types.is_binary(kind) or types.is_large_binary(kind))

        schema = self._files[number].schema_arrow
        found = {each.name: False for each in schema if is_binary(each.type)}
        for each in schema:
            inner = each.type.get_field_index("bytes") if types.is_struct(each.type) else -1
            if inner >= 0 and is_binary(each.type.field(inner).type):
                found[each.name] = True
        if len(found) != 1:
            said = f"{len(found)} columns could hold images" if found else "no column holds images"
            raise ValueError(
                f"{self.paths[number]}: {said} among {', '.join(schema.names) or 'none'}: needed is one, of encoded "
                "image files as bytes, or with the field bytes"
            )
        return next(iter(found.items()))

    def _group(self, number: int, group: int) -> Any:
        """The images of a group of rows."""
        file, (name, has_fields) = self._files[number], self._column(number)
        about = file.metadata.row_group(group)
        size = sum(
            about.column(i).total_uncompressed_size
            for i in range(about.num_columns)
            if about.column(i).path_in_schema.split(".")[0] == name
        )
        if size > _MOST_BYTES:
            raise OSError(
                f"{size / 2**30:.1f} GiB lie in one group of rows, {_MOST_BYTES >> 30} are read: write smaller ones"
            )
        try:
            column = file.read_row_group(group, columns=[name]).column(0).combine_chunks()
        except ValueError as error:
            raise OSError(f"the file is damaged there: {error}") from error
        return column.field("bytes") if has_fields else column

    def _names(self, column: str) -> tuple[str, ...]:
        """The names of the classes that Hugging Face's library has written beside the columns."""
        kept = (self._files[0].schema_arrow.metadata or {}).get(b"huggingface", b"{}")
        try:
            names = json.loads(kept)["info"]["features"][column]["names"]
        except (ValueError, KeyError, TypeError):
            return ()
        return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
