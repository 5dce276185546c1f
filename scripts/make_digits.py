"""Write organza/data/digits.npz, the built-in digits, from the four IDX files of MNIST.

    python scripts/make_digits.py FOLDER [--out FILE]

FOLDER holds the four gzip files.  Kept are the first 1,000 training images of each class, and 200 test images of each,
evenly spread, since the two halves of the test part are of different writers; in the order of the original files.  The
same zlib writes the same bytes each time: the archive carries no date.
"""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from organza.data import mnist

PER_CLASS = {"train": 1_000, "test": 200}


def some_of_each_class(y: NDArray[np.uint8], n: int, spread: bool) -> NDArray[np.int64]:
    """The indices, ascending, of n of each class: the first, or evenly spread."""
    found = [np.flatnonzero(y == label) for label in range(10)]
    return np.sort(np.concatenate([rows[np.arange(n) * len(rows) // n] if spread else rows[:n] for rows in found]))


def make(folder: Path, out: Path) -> None:
    """Write the archive from the four files in a folder, once each has been checked to be the original."""
    contents = {name: mnist.read(folder / name) for name in mnist.FILES}
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, prefix in (("train", "train"), ("test", "t10k")):
            x = mnist.read_idx(contents[f"{prefix}-images-idx3-ubyte.gz"])
            y = mnist.read_idx(contents[f"{prefix}-labels-idx1-ubyte.gz"])
            kept = some_of_each_class(y, PER_CLASS[split], spread=split == "test")
            for name, array in ((f"{split}_x", x[kept]), (f"{split}_y", y[kept])):
                member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                member.create_system = 3  # else Windows would write another byte here
                stream = io.BytesIO()
                np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
                archive.writestr(member, stream.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the built-in digits from the four IDX files of MNIST.")
    parser.add_argument("folder", type=Path, help="the folder that holds the four .gz files")
    parser.add_argument("--out", type=Path, default=mnist.DIGITS, help="the file to write")
    arguments = parser.parse_args()
    make(arguments.folder, arguments.out)
