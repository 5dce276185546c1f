"""How long until something happens: whole processes, as a person starts them.

    python benchmarks/startup.py [--repeats 5]

``organza --help``; from the command to the first training step (the built-in digits, recipe quick); sampling 64 images
from a saved run to a file.  Seconds, medians; prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ORGANZA = [sys.executable, "-m", "organza"]


def seconds(*words: str) -> float:
    begin = time.monotonic()
    subprocess.run([*ORGANZA, *words], check=True, capture_output=True)
    return time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    found: dict[str, list[float]] = {"help": [], "first_step": [], "sample_64": []}
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/kept"
        seconds("train", "--recipe", "quick", "--images", "64", "--run", run)
        for i in range(repeats):
            found["help"].append(seconds("--help"))
            # One step and all that a run ends with: an upper bound of the time to the first step.
            again = f"{folder}/{i}"
            found["first_step"].append(seconds("train", "--recipe", "quick", "--images", "32", "--run", again))
            found["sample_64"].append(seconds("sample", run, "-n", "64", "--out", str(Path(folder) / f"{i}.png")))
    print(json.dumps({name: round(median(taken), 2) for name, taken in found.items()}))


if __name__ == "__main__":
    main()
