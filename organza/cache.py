"""The cache: what can be had again, kept in $ORGANZA_CACHE (~/.cache/organza where that is not set)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["place", "write"]


def place(kind: str) -> Path:
    """The cache's folder for one kind of thing; it need not exist."""
    return Path(os.environ.get("ORGANZA_CACHE") or Path.home() / ".cache" / "organza") / kind


def write(path: Path, contents: bytes) -> None:
    """Write aside and rename, so that no reader ever sees half a file; makes the folders.

    Raises:
        OSError: If it cannot be written; nothing is left then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise
