"""Quality per minute: what ``organza train mnist`` comes to in so many minutes, beside the lecture's Keras program.

    ORGANZA_DATA=... python benchmarks/quality.py [--minutes 3 10] [--seeds 0] [--keras PYTHON] [--out DIR]
        [--features digits random]

On MNIST's 60,000 images and two cores: the recipe ``quick`` with ``--minutes M``, and then ``keras_mlp.py`` (under that
interpreter, which must have Keras 3 and JAX) for as many seconds as that took, its compilation among them.  Of each,
10,000 samples are judged against the test images: the Fréchet distance in the features of our digits classifier, of a
random network and of EfficientNet-Lite0 (where it is installed), each as a multiple of its floor, which is that of as
many training images; the share of each class over its share of the test images; and the share of samples that are
memorised.  Prints one JSON object; samples, and pictures of the first of them, are written to DIR, where an arm that is
there already is not trained again.  The judging of an arm takes minutes, of EfficientNet most.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import organza as oz
from organza.data import Data, open_data
from organza.evaluation import evaluate
from organza.evaluation.reference import reference
from organza.picture import grid, save, to_uint8

FEATURES = ("digits", "random", "efficientnet-lite0")
METRICS = {"digits": ["frechet", "classes", "memorisation"]}  # and of the others the distance alone


def judged(name: str, x: Tensor, chosen: Sequence[str]) -> dict[str, Any]:
    """What 10,000 samples are worth, (N, 1, 28, 28) bytes."""
    found: dict[str, Any] = {}
    for features in chosen:
        try:
            scores = evaluate(Data(name, x), reference("mnist"), METRICS.get(features, ["frechet"]), features)
        except ValueError as error:
            found[features] = {"skipped": str(error)}
            continue
        of = {score.key: score for score in scores}
        distance, floor = of["frechet"].value, of["frechet"].floor
        found[features] = {"frechet": round(distance, 4), "floor": round(floor, 4) if floor else None}
        if floor:
            found[features]["over_floor"] = round(distance / floor, 1)
        if features == "digits":
            told = of["class-entropy"].details
            ratio = [p / q for p, q in zip(told["shares"], told["real_shares"], strict=True)]
            found["classes"] = {"least": round(min(ratio), 3), "most": round(max(ratio), 3)}
            found["memorised"] = of["memorised"].value
    return found


def ours(minutes: float, seed: int, changes: dict[str, Any], out: Path) -> dict[str, Any]:
    """Train as a user does, and keep 10,000 samples at ``out``."""
    begin = time.perf_counter()
    run = out.with_suffix("")
    model = oz.train("mnist", "quick", run=run, minutes=minutes, seed=seed, device="cpu", changes=changes)
    seconds = time.perf_counter() - begin
    np.save(out, to_uint8(model.sample(10_000, seed=1)).numpy())
    return {"seconds": round(seconds, 1), "images": model.config["images"] if model.config else None}


def theirs(keras: str, threads: int, seconds: float, seed: int, out: Path) -> dict[str, Any]:
    """Train as the lecture does, and keep 10,000 samples at ``out``."""
    images = out.with_name("mnist.npy")
    np.save(images, open_data("mnist").x.numpy())
    program = str(Path(__file__).with_name("keras_mlp.py"))
    command = [keras, program, str(threads), str(seconds), str(images), str(out), str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {"seconds": seconds, "step": float(done.stdout.split()[-1])}


def trained(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Train each arm, unless its samples are in the folder already, and return what it took."""
    changes: dict[str, Any] = dict(item.split("=", 1) for item in given.set)
    changes = {name: json.loads(value) for name, value in changes.items()}
    rows = []
    for minutes, seed in itertools.product(given.minutes, given.seeds):
        told = given.out / f"{minutes:g}-{seed}.json"
        if not told.exists():
            row = {"quick": ours(minutes, seed, changes, given.out / f"quick-{minutes:g}-{seed}.npy")}
            if given.keras:
                out, seconds = given.out / f"keras-{minutes:g}-{seed}.npy", row["quick"]["seconds"]
                row["keras"] = theirs(given.keras, given.threads, seconds, seed, out)
            told.write_text(json.dumps(row))
        rows.append({"minutes": minutes, "seed": seed, "arms": json.loads(told.read_text())})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[3, 10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2, help="of Keras; ours takes as many as are fastest")
    parser.add_argument("--keras", help="an interpreter with Keras 3 and JAX, such as python")
    parser.add_argument("--features", nargs="+", default=FEATURES, choices=FEATURES, help="that judge")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the plan, for a search")
    parser.add_argument("--out", type=Path, default=Path("quality"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found = []
    for trial in trained(given):  # the judging takes longer than the training, and needs no quiet machine
        row: dict[str, Any] = {"minutes": trial["minutes"], "seed": trial["seed"]}
        for who, told in trial["arms"].items():
            x = torch.from_numpy(np.load(given.out / f"{who}-{trial['minutes']:g}-{trial['seed']}.npy"))
            save(
                grid(x[:80].float() / 127.5 - 1, columns=16), given.out / f"{who}-{row['minutes']:g}-{row['seed']}.png"
            )
            row[who] = told | judged(who, x, given.features)
        if "keras" in row:
            row["times_keras"] = {
                name: round(row["quick"][name]["frechet"] / row["keras"][name]["frechet"], 3)
                for name in given.features
                if "frechet" in row["quick"][name]
            }
        found.append(row)
        print(json.dumps(row), flush=True)
    print(json.dumps({"organza": oz.__version__, "torch": torch.__version__, "runs": found}, indent=1))


if __name__ == "__main__":
    main()
