"""The run folder: all that one training keeps, and the promise that a kill loses none of it.

    RUN/plan.json                 what was asked, complete
    RUN/log.jsonl                 one JSON object a line, in order of `images` (images shown to D so far)
    RUN/samples/IMAGES.png        pictures by the way
    RUN/checkpoints/IMAGES/       GROUP.safetensors ..., state.json, MANIFEST.json
    RUN/best.json                 which checkpoint a score found best; it stays
    RUN/data.json, RUN/nearest.png, RUN/scores.json, RUN/evaluation/, RUN/report.html   written by others

A checkpoint is *complete* when every file named in its manifest is there in its full size, and *sound* when
every SHA-256 matches too. `Run.save` writes to `.tmp-IMAGES`, syncs each file, then the folder, and renames:
at every instant the newest sound checkpoint on the disk is the previous one or the new one, never a mix.
No file is a pickle: whoever can write a run folder can spoil it, but cannot make a reader execute anything.

Only one process may write a run (rank 0); any number may read it meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    Groups: TypeAlias = dict[str, dict[str, Tensor]]

__all__ = ["Run", "to_safetensors", "write_bytes", "write_text"]

StrPath: TypeAlias = str | os.PathLike[str]

_MANIFEST, _STATE = "MANIFEST.json", "state.json"
_BEGUN = {".plan.json.tmp", ".lock"}  # what a kill may leave of a run not begun
FORMAT, _FORMAT = 1, "format"  # of a checkpoint; those from before there was one have none
_FILE = re.compile(r"state\.json|[A-Za-z0-9_-]+\.safetensors")
_FOLDER = re.compile(r"(\.old-)?([0-9]+)")
# What systems answer that cannot sync a folder: Windows refuses to open one, some network disks to sync one.
_CANNOT_SYNC = {errno.EACCES, errno.EPERM, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


class Run:
    """One run folder, opened.

    Raises:
        ValueError: There is no run at `path`: it must hold a plan.json.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._log, self._checkpoints, self._best = (self.path / n for n in ("log.jsonl", "checkpoints", "best.json"))
        if not (self.path / "plan.json").is_file():
            inside = ", ".join(sorted(each.parent.name for each in self.path.glob("*/plan.json"))[:3])
            raise ValueError(f"no run at {path} (no plan.json){inside and f'; those in it are {inside}'}")

    @classmethod
    def create(cls, path: StrPath, plan: Mapping[str, Any]) -> Run:
        """Makes the folder (and its parents) and writes `plan` as plan.json.

        Raises:
            ValueError: `path` holds something or cannot be made, or `plan` holds NaN or an infinity.
        """
        path, text = Path(path), _plan_text(plan)
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot make {path} ({error.strerror}); choose another --run") from error
        write_text(path / "plan.json", text)
        return cls(path)

    @staticmethod
    def check_free(path: StrPath) -> None:
        """Raises the ValueError of :meth:`create` if something is at `path` already."""
        if ((path := Path(path)) / "plan.json").exists():
            raise ValueError(f"{path} exists; organza resume {path} continues it, or choose another --run")
        if path.exists() and not (path.is_dir() and {each.name for each in path.iterdir()} <= _BEGUN):
            raise ValueError(f"{path} exists and is not a run; choose another --run")

    @property
    def plan(self) -> dict[str, Any]:
        """The plan, read from the file at each call."""
        try:
            plan: dict[str, Any] = json.loads((self.path / "plan.json").read_bytes())
        except ValueError as error:
            raise ValueError(f"{self.path / 'plan.json'} is not JSON ({error}); restore it") from error
        return plan

    def replan(self, plan: Mapping[str, Any]) -> None:
        """Writes `plan` in the place of the old one."""
        write_text(self.path / "plan.json", _plan_text(plan))

    def stay(self) -> None:
        """Raises FileNotFoundError if the folder is no longer here: made anew it would be no run."""
        os.stat(self.path / "plan.json")

    def log(self, record: Mapping[str, Any]) -> None:
        """Appends `record` as one line; NaN and infinities, which JSON lacks, become "nan", "inf", "-inf"."""
        self.stay()
        if _is_torn(self._log):
            write_bytes(self._log, b"".join(map(_line, self.records())))
        with open(self._log, "ab") as file:
            file.write(_line(record))

    def records(self) -> list[dict[str, Any]]:
        """The records of the log, oldest first; a last line that a kill cut short is left out.

        Raises:
            ValueError: Another line is not JSON.
        """
        if not self._log.exists():
            return []
        lines, records = self._log.read_bytes().splitlines(), []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise ValueError(f"line {number} of {self._log} is not JSON; delete that line") from error
        return records

    def rewind(self, images: int) -> None:
        """Forgets what came after `images`: records of the log whose "images" is greater, and samples.

        Later checkpoints stay until the next `save`, so that nothing is lost before something new is kept.
        """
        for sample in (self.path / "samples").glob("*.png"):
            if sample.stem.isdecimal() and int(sample.stem) > images:
                sample.unlink()
        if self._log.exists():
            kept = [record for record in self.records() if record.get("images", 0) <= images]
            write_bytes(self._log, b"".join(map(_line, kept)))
        best, before = self._marked()
        if best is not None and best["images"] > images:
            if before is not None and before["images"] <= images:  # at once: a kill leaves the one mark or the other
                write_text(self._best, json.dumps({**before, "before": None}, allow_nan=False) + "\n")
            else:
                self._best.unlink()

    @property
    def best(self) -> dict[str, Any] | None:
        """Which checkpoint is the best so far, by which score: {"images", "name", "value"}; None if none was marked."""
        best, before = self._marked()  # a mark whose checkpoint never came counts for nothing
        return best if best is None or before is None or best["images"] in self.checkpoints() else before

    def _marked(self) -> list[dict[str, Any] | None]:
        """The mark, and the one before it."""
        kinds = {"images": int, "name": str, "value": float}
        try:
            best = json.loads(self._best.read_bytes())
            marks = (best, best.get("before"))
            return [{name: kind(m[name]) for name, kind in kinds.items()} if m else None for m in marks]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [None, None]

    def mark(self, images: int, name: str, value: float) -> None:
        """Marks the checkpoint at `images`, to be saved next, as the best: no `save` deletes it while it is."""
        best = {"images": images, "name": name, "value": value, "before": self.best}
        write_text(self._best, json.dumps(best, allow_nan=False) + "\n")

    def save(
        self, images: int, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
    ) -> Path:
        """Writes checkpoints/`images` atomically, then deletes all but the `keep` - 1 before it and the best.

        Returns its folder.  Checkpoints beyond `images` are deleted too: they are the future of a run that was rewound.

        Arguments:
            images: Images shown to D so far, not negative.
            groups: Named tensors of any dtype, shape and device, by name of group ("game", "ema"): the stem
                of a file, letters, digits, _ and - only. Tensors may share memory; each is written whole.
            state: All else, JSON as it stands: str keys, lists and no tuples, finite numbers.
            keep: How many checkpoints stay, at least 1.

        Raises:
            ValueError: A name of a group, `state` or `keep` is not as above; nothing was written.
            OSError: The disk is full or failing; the older checkpoints are as they were.
        """
        assert images >= 0, images
        state_bytes = _exact_json({**state, _FORMAT: FORMAT})
        if keep < 1:
            raise ValueError(f"keep = {keep}; a run keeps at least 1 checkpoint")
        for name in groups:
            if not _FILE.fullmatch(f"{name}.safetensors"):
                raise ValueError(f"group name {name!r}; only letters, digits, _ and - are allowed")
        final, tmp, old = (self._checkpoints / f"{prefix}{images}" for prefix in ("", ".tmp-", ".old-"))
        self.stay()
        self._checkpoints.mkdir(exist_ok=True)
        try:
            _remove(tmp)
            tmp.mkdir()
            _write_checkpoint(tmp, groups, state_bytes)
            if final.exists():
                # A folder cannot be renamed over another; should the second rename fail, `load` finds `old`.
                _remove(old)
                os.replace(final, old)
            os.replace(tmp, final)
            _sync_folder(self._checkpoints)
            _sync_folder(self.path)
        except Exception:
            _remove(tmp)
            raise
        self._prune(images, keep)
        return final

    @property
    def begun(self) -> bool:
        """Whether a checkpoint was ever made, sound or not."""
        return bool(self._folders())

    def checkpoints(self) -> list[int]:
        """The images of the complete checkpoints, ascending (sizes are checked, contents are not)."""
        return sorted({images for images, folder in self._folders() if _is_complete(folder)})

    def load(self, images: int | None = None) -> tuple[Groups, dict[str, Any], list[str]]:
        """Reads the newest sound checkpoint, or the one at `images`, each file checked by its SHA-256.

        Returns:
            groups: The tensors as saved, on the CPU.
            state: The state as saved.
            warnings: One line for each newer checkpoint that was skipped, naming the damaged file.

        Raises:
            ValueError: No checkpoint is sound, or the one at `images` is not, or it has another format.
        """
        warnings: list[str] = []
        for number, folder in self._folders():
            if images is None or number == images:
                try:
                    groups, state = _read_checkpoint(folder)
                except (OSError, ValueError) as error:
                    warnings.append(f"checkpoint {number} skipped: {error}")
                    continue
                if (was := state.pop(_FORMAT, 1)) != FORMAT:
                    raise ValueError(f"{folder} has format {was!r}, not {FORMAT}: install the version that wrote it")
                return groups, state, warnings
        wanted = "checkpoint" if images is None else f"checkpoint {images}"
        others = [] if images is None else [number for number in self.checkpoints() if number != images]
        begun = "organza train starts a new run" if warnings else "the first is made after a minute, or at the end"
        advice = f"whole are {others}" if others else begun
        raise ValueError("; ".join([f"no sound {wanted} in {self.path}", *warnings, advice]))

    def _folders(self) -> list[tuple[int, Path]]:
        """(images, folder) of all that may be a checkpoint, newest first; IMAGES goes before .old-IMAGES."""
        if not self._checkpoints.is_dir():
            return []
        named = [(_FOLDER.fullmatch(folder.name), folder) for folder in self._checkpoints.iterdir()]
        ranked = [(int(match[2]), match[1] is None, folder) for match, folder in named if match]
        return [(images, folder) for images, _, folder in sorted(ranked, reverse=True)]

    def _prune(self, images: int, keep: int) -> None:
        kept, best = set[int](), (self.best or {"images": None})["images"]
        for number, folder in self._folders():
            if number <= images and number not in kept and len(kept) < keep and _is_complete(folder):
                kept.add(number)
            elif number != best or folder.name != str(number):
                _remove(folder)
        for folder in self._checkpoints.glob(".tmp-*"):
            _remove(folder)


def write_text(path: StrPath, text: str) -> None:
    """Writes `text` as UTF-8 to `path` at once: a reader, or a kill, sees the old file or the new one."""
    write_bytes(path, text.encode())


def write_bytes(path: StrPath, data: bytes) -> None:
    """Writes `data` to `path` at once: a reader, or a kill, sees the old file or the new one."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.tmp")
    try:
        _write(aside, data)
        os.replace(aside, path)
    except Exception:
        aside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    try:
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _remove(folder: Path) -> None:
    # What cannot be removed now (a file held open on Windows) is a leftover, no reason to stop a training.
    shutil.rmtree(folder, ignore_errors=True)


def _write_checkpoint(folder: Path, groups: Mapping[str, Mapping[str, Tensor]], state: bytes) -> None:
    files = ((f"{name}.safetensors", to_safetensors(tensors)) for name, tensors in groups.items())
    manifest = {}
    for name, data in chain([(_STATE, state)], files):
        _write(folder / name, data)
        manifest[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    _write(folder / _MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    _sync_folder(folder)


def to_safetensors(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a file of these, a copy of each: safetensors refuses strides and shared memory (tied weights)."""
    import torch
    from safetensors.torch import save

    whole = torch.contiguous_format
    return save({k: x.detach().to("cpu", copy=True, memory_format=whole) for k, x in tensors.items()}, metadata)


def _read_checkpoint(folder: Path) -> tuple[Groups, dict[str, Any]]:
    """Reads a sound checkpoint; ValueError or OSError names the file that is not."""
    from safetensors.torch import load

    groups: Groups = {}
    state: dict[str, Any] = {}
    for name, digest in _read_manifest(folder).items():
        data = (folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"{name} does not match its SHA-256")
        if name == _STATE:
            state = json.loads(data)
        else:
            groups[name.removesuffix(".safetensors")] = load(data)
    return groups, state


def _read_manifest(folder: Path) -> dict[str, str]:
    """{file: SHA-256} of a complete checkpoint; ValueError or OSError names the file that is missing."""
    text = (folder / _MANIFEST).read_bytes()
    try:
        entries = {name: (int(each["size"]), str(each["sha256"])) for name, each in json.loads(text).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{_MANIFEST} is damaged") from None
    if _STATE not in entries or not all(map(_FILE.fullmatch, entries)):
        raise ValueError(f"{_MANIFEST} is damaged")
    for name, (size, _) in entries.items():
        found = (folder / name).stat().st_size
        if found != size:
            raise ValueError(f"{name} has {found} bytes, not {size}")
    return {name: digest for name, (_, digest) in entries.items()}


def _is_complete(folder: Path) -> bool:
    try:
        return bool(_read_manifest(folder))
    except (OSError, ValueError):
        return False


def _is_torn(log: Path) -> bool:
    try:
        with open(log, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # no file yet, or an empty one
        return False


def _exact_json(state: Mapping[str, Any]) -> bytes:
    text = json.dumps(state, indent=2, allow_nan=False)
    if json.loads(text) != state:
        raise ValueError("state would change in JSON; give it str keys, lists for tuples, finite numbers")
    return (text + "\n").encode()


def _plan_text(plan: Mapping[str, Any]) -> str:
    return json.dumps(plan, indent=2, allow_nan=False) + "\n"


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(_finite(record), allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
