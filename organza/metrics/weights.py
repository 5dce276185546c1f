"""Published weights: found on this machine, checked by the SHA-256 of the file, and only then read.

Nothing is ever downloaded.  What is missing or is another file is refused in one line that names the file, its
hash and where to put it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from organza import cache

__all__ = ["Missing", "find", "load", "packaged"]


class Missing(ValueError):
    """There is no such file on this machine; one that is there and is not the published one is a plain ValueError."""


def find(*names: str, sha256: str, advice: str = "", also: Sequence[Path] = ()) -> Path:
    """Return the first file of one of these names on this machine, once its contents are found to be the right ones.

    It is looked for in $ORGANZA_WEIGHTS, then in ``weights`` of $ORGANZA_CACHE (~/.cache/organza where that is not
    set), then where PyTorch keeps what it downloads: ``hub/checkpoints`` of $TORCH_HOME (~/.cache/torch).

    Arguments:
        names: The names under which the file is in circulation.
        sha256: The SHA-256 of its contents, 64 hexadecimal digits.
        advice: Where the file comes from, for the message.
        also: Folders to look in last.

    Raises:
        Missing: If there is none.
        ValueError: If its contents have another hash.
    """
    kept = cache.place("weights")
    own = [Path(os.environ["ORGANZA_WEIGHTS"])] if os.environ.get("ORGANZA_WEIGHTS") else []
    folders = [*own, kept, Path(torch.hub.get_dir()) / "checkpoints", *also]
    for path in (folder / name for folder in folders for name in names):
        if os.path.isfile(path):  # and may be looked at
            return _checked(path, sha256)
    missing = f"{' or '.join(names)} (SHA-256 {sha256}) is not on this machine: put it into {folders[0]}"
    raise Missing(f"{missing}; {advice}" if advice else missing)


def packaged(package: str, folder: str) -> list[Path]:
    """Return the folder of a package from PyPI, where that is installed; nothing of it is imported."""
    spec = find_spec(package.replace("-", "_"))
    return [Path(place) / folder for place in (spec and spec.submodule_search_locations) or ()]


def load(path: Path, sha256: str) -> dict[str, Tensor]:
    """Return the tensors, on the CPU, of a .safetensors or .pth file, once its contents are found to be the right ones.

    Arguments:
        path: The file; by its suffix it is read.
        sha256: The SHA-256 of its contents, 64 hexadecimal digits.

    Raises:
        ValueError: If its contents have another hash.
    """
    _checked(path, sha256)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _checked(path: Path, sha256: str) -> Path:
    status = path.stat()
    got = _hash(path, status.st_mtime_ns, status.st_size)
    if got != sha256:
        raise ValueError(f"{path} is not the published file, or is damaged: SHA-256 {got}, not {sha256}; replace it")
    return path


@lru_cache
def _hash(path: Path, modified: int, size: int) -> str:
    """The SHA-256 of a file, taken anew only if the time of its last change or its size is another than before."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
