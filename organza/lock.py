"""One writer at a time: a folder is held by the process that writes it."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["held"]

_BEYOND = 2**30  # the byte that is locked on Windows, where nobody can read one that is; no lock file is so long


@contextmanager
def held(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the folder by a lock on its file ``.lock``, which says who holds it.

    The system lets go of it when the process ends, however it ends, so that no lock is ever stale.  On disks that know
    no locks (some network disks) it holds nobody off.

    Arguments:
        folder: The folder, which must be there.
        wait: Whether to wait for another process that holds it.

    Raises:
        ValueError: If another process holds it and is not waited for, or the folder cannot be written.
    """
    try:
        file = open(folder / ".lock", "a+", encoding="utf-8", errors="replace")  # noqa: SIM115  (closed below, whatever comes)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}): make it writable, or copy it") from None
    with file:
        while not _take(file):
            if wait:
                time.sleep(0.1)
                continue
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ValueError(f"{folder} is being written by {holder}; wait for it, or stop it: Ctrl-C saves first")
        with suppress(OSError):  # a full disk holds locks too
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
        with suppress(OSError):
            file.truncate(0)


def _take(file: IO[str]) -> bool:
    """Lock the file, unless another process has."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        import msvcrt

        try:
            file.seek(_BEYOND)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EDEADLK)  # else it is a disk without locks
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return True
    return True
