"""Every recipe on MNIST for a stated time: its picture, its speed, and what a digits classifier makes of it.

    ORGANZA_DATA=... python benchmarks/recipes.py [NAME ...] [--minutes M] [--device cuda] [--runs DIR]
    ORGANZA_DATA=... python benchmarks/recipes.py --judge [--runs DIR] [--out docs/recipes]

The first trains each recipe with one thread (so that two such commands can share two cores) and keeps the runs; the
second judges all runs in the folder by the classifier of ``benchmarks/digits.py`` and prints the table of
docs/recipes.md.  A recipe too heavy for a CPU is trained with the changes in ``CHANGES``, which the table names.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median

from digits import judge, probabilities, verdict

import organza as oz
from organza import picture
from organza.run import Run

# Minutes of each on MNIST, and changes for those that a CPU cannot carry as published.
MINUTES = {
    "quick": 2.1,
    "goodfellow2014": 10,
    "algorithm1": 10,
    "goodfellow2014-tfd": 5,
    "goodfellow2014-cifar10": 5,
    "goodfellow2014-cifar10-conv": 5,
    "tiny": 3,
    "mlp": 5,
    "mlp-literal": 3,
    "dcgan": 5,
    "lsgan": 5,
    "wgan": 6,
    "wgan-gp": 6,
    "sngan": 8,
    "began": 6,
    "r3gan-tiny": 10,
    "r3gan-small": 8,
    "r3gan": 4,
}
CHANGES: dict[str, dict[str, object]] = {
    "goodfellow2014": {"training.seed": 1},
    "sngan": {"generator.width": 32, "discriminator.width": 32},
    "began": {"generator.filters": 32, "discriminator.filters": 32},
    "r3gan": {"training.batch": 16},
}
CODE = {"goodfellow2014", "algorithm1"}  # trained on the first 50,000 images, as in 2014


def train(name: str, minutes: float, runs: Path, device: str) -> None:
    data = "mnist[:50000]" if name in CODE else "mnist"
    changes = {"training.threads": 1, **CHANGES.get(name, {})} if device == "cpu" else {}
    seed = int(changes.pop("training.seed", 0))  # type: ignore[call-overload]
    oz.train(data, name, run=runs / name, minutes=minutes, seed=seed, changes=changes, device=device)


def measured(name: str, runs: Path, out: Path) -> dict[str, object]:
    """The facts of a run; its picture is 40 samples, not selected."""
    run = Run(runs / name)
    model = oz.load(run.path)
    picture.save(picture.grid(model.sample(40, seed=1), columns=10), out / f"{name}.png")
    times = [(record["images"], record["time"]) for record in run.records() if "time" in record]
    if len(times) < 2:  # a run of less than two lines of the log
        times.insert(0, (0, (run.path / "plan.json").stat().st_mtime))
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(times)]
    usual = median(seconds / images for images, seconds in steps)
    kept = [(images, seconds) for images, seconds in steps if seconds < 10 * usual * images]  # no pause of a resume
    speed = sum(images for images, _ in kept) / sum(seconds for _, seconds in kept)
    return {"recipe": name, "images": times[-1][0], "speed": speed, "minutes": times[-1][0] / speed / 60}


def table(runs: Path, out: Path) -> str:
    network, about = judge()
    lines = [
        "| recipe | changed | minutes | images | images/s | rarest class | commonest | median confidence |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in MINUTES:
        if not (runs / name / "checkpoints").exists():
            continue
        row = measured(name, runs, out)
        said = verdict(probabilities(network, oz.load(runs / name).sample(1000, seed=1)))
        changed = " ".join(f"`{key}={value}`" for key, value in CHANGES.get(name, {}).items())
        lines.append(
            f"| `{name}` | {changed} | {row['minutes']:.1f} | {row['images']:,} | {row['speed']:,.0f} | "
            f"{said['least']:.1%} | {said['most']:.1%} | {said['median_confidence']:.3f} |"
        )
    real = about["real"]
    assert isinstance(real, dict)
    lines.append(
        f"| real test images | | | | | {real['least']:.1%} | {real['most']:.1%} | {real['median_confidence']:.3f} |"
    )
    return "\n".join([*lines, "", json.dumps({"classifier": about})])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="recipes; all if none")
    parser.add_argument("--minutes", type=float, help="instead of each recipe's own")
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--out", type=Path, default=Path("docs/recipes"))
    parser.add_argument("--device", default="cpu", help="on another than the CPU every recipe is as published")
    parser.add_argument("--judge", action="store_true", help="judge the runs instead of training")
    arguments = parser.parse_args()
    if arguments.judge:
        print(table(arguments.runs, arguments.out))
        return
    for name in arguments.names or MINUTES:
        print(name, file=sys.stderr, flush=True)
        train(name, arguments.minutes or MINUTES[name], arguments.runs, arguments.device)


if __name__ == "__main__":
    main()
