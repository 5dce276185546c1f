"""What a large set of images costs: to open it first, to open it again, to read it, and the plain way beside it.

    python benchmarks/data.py [--images 1000000] [--side 32] [--kinds zip tar folder] [--out DIR]

Archives (and a folder) of so many random PNG images are made, and each is opened twice in processes of their own, the
second of which plays the stream of an epoch or several as training does.  Beside it, on the same archive, what people
write: a Dataset that opens the image with Pillow, and PyTorch's DataLoader, without workers and with two.  Memory is
what the process holds for itself (RssAnon) at its peak, above what importing took; pages of mapped files are the
system's, which takes them back when it needs them.  Prints one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BATCH, SHOWN = 64, 60_000


def images(count: int, side: int) -> Iterator[tuple[str, bytes, int]]:
    """Smooth random images as PNG, each another: name, contents, class."""
    chance = np.random.RandomState(0)
    for i in range(count):
        coarse = chance.randint(0, 256, (4, 4, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG", compress_level=1)
        yield f"{i:07}", file.getvalue(), i % 10


def make(kind: str, path: Path, count: int, side: int) -> None:
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as made:
            for name, contents, label in images(count, side):
                made.writestr(f"{label}/{name}.png", contents)
    elif kind == "tar":
        with tarfile.open(path, "w") as made:
            for name, contents, label in images(count, side):
                for suffix, data in (("png", contents), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{name}.{suffix}")
                    info.size = len(data)
                    made.addfile(info, io.BytesIO(data))
    else:
        for label in range(10):
            (path / str(label)).mkdir(parents=True)
        for name, contents, label in images(count, side):
            (path / str(label) / f"{name}.png").write_bytes(contents)


class Memory:
    """The most memory of its own that this process has held, looked at every 20 ms."""

    def __init__(self) -> None:
        self.before, self.peak = self.now(), 0.0
        threading.Thread(target=self._look, daemon=True).start()

    @staticmethod
    def now() -> float:
        """MiB."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    def _look(self) -> None:
        while True:
            self.peak = max(self.peak, self.now() - self.before)
            time.sleep(0.02)


def ours(path: str, epochs: int) -> dict[str, Any]:
    """Open it, and play the stream of so many epochs."""
    import torch

    from organza.data import open_data
    from organza.data.order import Order

    open_data("digits[:8]")
    memory, begin = Memory(), time.perf_counter()
    data = open_data(path)
    opened = time.perf_counter() - begin
    seen: dict[str, Any] = {"open_s": round(opened, 2), "open_MiB": round(memory.peak), "images": len(data)}
    seen["digest"] = data.digest
    order, grown = Order(len(data), 0), []
    for epoch in range(epochs):
        begin = time.perf_counter()
        digest = hashlib.sha256()
        for position in range(epoch * len(data), (epoch + 1) * len(data) - BATCH + 1, BATCH):
            x, y = data.gather(order.indices(position, BATCH))
            digest.update(x[:1, :, 0].numpy().tobytes())
        seen["images_per_s"] = round(len(data) / (time.perf_counter() - begin))
        grown.append(round(memory.now() - memory.before))
        assert torch.isfinite(x).all() and y is not None
    return seen | {"after_epochs_MiB": grown}


class Plain:
    """The images of an archive as people read them: opened by name, one by one."""

    def __init__(self, path: str) -> None:
        self.path, self.file = path, None
        with zipfile.ZipFile(path) as file:
            self.names = sorted(name for name in file.namelist() if name.endswith(".png"))

    def __len__(self) -> int:
        return min(SHOWN, len(self.names))

    def __getitem__(self, i: int) -> tuple[Any, int]:
        import torch

        self.file: Any = self.file or zipfile.ZipFile(self.path)
        with self.file.open(self.names[i]) as opened:
            x = np.array(Image.open(opened).convert("RGB"), np.float32)
        return torch.from_numpy(x).permute(2, 0, 1) / 127.5 - 1, int(self.names[i].split("/")[0])


def plain(path: str, workers: int) -> dict[str, Any]:
    from torch.utils.data import DataLoader

    memory, begin = Memory(), time.perf_counter()
    data: Any = Plain(path)
    opened, peak = time.perf_counter() - begin, memory.peak
    begin = time.perf_counter()
    for x, _ in DataLoader(data, BATCH, shuffle=True, num_workers=workers):
        assert x.shape[0]
    speed = len(data) / (time.perf_counter() - begin)
    # That of workers, each of which opens the archive for itself, is not counted.
    seen = {"open_s": round(opened, 2), "open_MiB": round(peak), "epoch_MiB": round(memory.peak)}
    return seen | {"images_per_s": round(speed)}


def alone(task: str, path: Path, number: int, cache: Path) -> dict[str, Any]:
    """Run a task in a process of its own, on one core if there are no workers."""
    command = [sys.executable, __file__, "--task", task, str(path), str(number)]
    where = {**os.environ, "ORGANZA_CACHE": str(cache)} | (
        {} if number and task == "plain" else {"OMP_NUM_THREADS": "1"}
    )
    done = subprocess.run(command, env=where, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--task"]:
        task, path, number = sys.argv[2:]
        print(json.dumps(ours(path, int(number)) if task == "ours" else plain(path, int(number))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=32, help="of an image, in pixels")
    parser.add_argument("--kinds", nargs="+", default=["zip", "tar"], choices=["zip", "tar", "folder"])
    parser.add_argument("--out", type=Path, help="where to make them (removed afterwards); else a temporary folder")
    given = parser.parse_args()
    found: dict[str, Any] = {"images": given.images, "side": given.side}
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        for kind in given.kinds:
            path, cache = Path(folder) / (f"x.{kind}" if kind != "folder" else "x"), Path(folder) / "cache"
            make(kind, path, given.images, given.side)
            rows = {"first": alone("ours", path, 0, cache), "again": alone("ours", path, 3, cache)}
            assert rows["first"].pop("digest") == rows["again"].pop("digest")
            rows["first"]["images_per_s"] = round(given.images / rows["first"]["open_s"])
            if kind == "zip":
                rows |= {f"plain, {n} workers": alone("plain", path, n, cache) for n in (0, 2)}
            found[kind] = rows
            print(json.dumps({kind: rows}), file=sys.stderr, flush=True)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.rmtree(cache, ignore_errors=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
