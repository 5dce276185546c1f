"""The cache: what can be had again, kept in $ORGANZA_CACHE (~/.cache/organza where that is not set)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["place", "write"]


def place(kind: str) -> Path:
    """The cache's folder for one kind of thing; it need not exist."""
    try:
        return Path(os.environ.get("ORGANZA_CACHE") or Path.home() / ".cache" / "organza") / kind
    except RuntimeError:  # there is no home: a place where nothing is found and nothing can be written
        return Path(os.devnull, "organza", kind)


def write(path: Path, contents: bytes) -> None:
    """Write aside and rename, so that no reader ever sees half a file; makes the folders.

    Raises:
        OSError: If it cannot be written; nothing is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".part-{os.getpid()}-{secrets.token_hex(4)}")  # with the rights of any other file
    try:
        with open(aside, "xb") as file:
            file.write(contents)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
