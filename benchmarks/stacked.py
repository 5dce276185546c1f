"""Stacked MNIST: how many of its thousand modes the recipe ``stacked-mnist`` reaches, over time.

    ORGANZA_DATA=... python benchmarks/stacked.py --run DIR [--recipe stacked-mnist] [--minutes 120 | --images N]
        [--every N] [--seed 0] [--threads 2] [--device cuda] [--set KEY=VALUE ...]

Trains as a user does on 128,000 images of three digits of MNIST chosen by chance, without labels, and every so many
images lets our digits classifier read 26,000 samples of G's moving average: the modes, of 1,000, that it sees, and the
KL divergence of their shares to even ones, in nats.  Prints the curve as JSON, with the minutes since the first line of
the log, judging included.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import organza as oz
from organza.run import Run

DATA = "mnist[stacked=128000]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--recipe", default="stacked-mnist")
    parser.add_argument("--minutes", type=float, help="of training; those of judging come on top")
    parser.add_argument("--images", type=int)
    parser.add_argument("--every", type=int, default=250_000, help="images from one judgement to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the plan, the value as JSON")
    given = parser.parse_args()
    changes = {key: json.loads(value) for key, value in (item.split("=", 1) for item in given.set)}
    changes |= {
        "training.threads": given.threads,
        "evaluation": {"metric": "stacked-kl", "features": "pixels", "n": 26_000, "every": given.every},
    }
    oz.train(
        DATA,
        given.recipe,
        run=given.run,
        images=given.images,
        minutes=given.minutes,
        seed=given.seed,
        device=given.device,
        changes=changes,
    )
    begin = now = 0.0
    for record in Run(given.run).records():
        now = record.get("time", now)
        begin = begin or now
        if "stacked-modes" in record:
            print(json.dumps({**record, "minutes": round((now - begin) / 60, 1)}))


if __name__ == "__main__":
    main()
