"""The number of 2014: the Parzen log-likelihood of ``goodfellow2014`` on MNIST, by the protocol of its authors.

    python benchmarks/parzen.py train [--recipe goodfellow2014] [--k 1] [--seed 1] [--images N] [--every N]
        [--set KEY=VALUE ...] --run DIR
    python benchmarks/parzen.py test --run DIR
    python benchmarks/parzen.py references
    python benchmarks/parzen.py curve --run DIR [DIR ...] --out curve.png

``train`` shows D the first 50,000 training images, with one CPU thread, and every N images (500,000) lets the other
10,000 judge 10,000 samples: the first 1,000 of them choose sigma, the other 9,000 are scored.  The checkpoint that
scores best is kept; the same command goes on with a run that was stopped.  ``test`` then reads the test images, once,
with the best checkpoint's samples.  ``references`` scores what is no generator: training images themselves, and
centroids of k-means.  MNIST is looked for in $ORGANZA_DATA.  Each but ``train`` prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import organza as oz
from organza import __version__
from organza.data import open_data
from organza.decision import decide
from organza.metrics.likelihood import Parzen, parzen
from organza.model import Model
from organza.run import Run
from organza.training import Judge, fit

PUBLISHED = {"goodfellow2014": "225 +- 2", "cgan2014": "132 +- 1.8"}
CENTRES, CHOOSING = 10_000, 1_000
SEED = 1  # of the samples


def unit(source: str, split: str = "train") -> Tensor:
    """MNIST's images as rows in [0, 1]."""
    data = open_data(source, split)
    return data.x.flatten(1).float() / 255


def drawn(model: Model, n: int) -> Tensor:
    """Samples as rows in [0, 1], of every label alike if the model takes one."""
    x = model.sample(n, SEED, torch.arange(n) % 10 if model.conditional else None)
    return (x.flatten(1) + 1) / 2


def judged(valid: Tensor) -> Callable[[Model], dict[str, float]]:
    def score(model: Model) -> dict[str, float]:
        found = parzen(drawn(model, CENTRES), valid[:CHOOSING], valid[CHOOSING:])
        return {"parzen": found.value, "parzen_sigma": found.sigma}

    return score


def train(recipe: str, k: int, seed: int, images: int | None, every: int, changes: dict[str, Any], run: Path) -> None:
    data, changes = open_data("mnist[:50000]"), {"training.threads": 1, "training.log_every": 50_000, **changes}
    if recipe == "algorithm1":
        changes["training.moves.k"] = k
    plan = decide(data, recipe, images=images, seed=seed, device="cpu", changes=changes).plan
    if not (run / "plan.json").exists():
        Run.create(run, {"organza": __version__, **plan.json()})
    judge = Judge(judged(unit("mnist[50000:]")), every, "parzen", highest=True)
    fit(plan.game(), data, plan.play(), run=run, device="cpu", judge=judge)


def described(found: Parzen) -> dict[str, Any]:
    return {"parzen": round(found.value, 2), "error": round(found.error, 2), "sigma": round(found.sigma, 4)}


def test(run: Path) -> dict[str, Any]:
    best, plan = Run(run).best, Run(run).plan
    found = parzen(drawn(oz.load(run, best=True), CENTRES), unit("mnist[50000:]"), unit("mnist", "test"))
    recipe = plan["recipe"]
    return {"recipe": recipe, "best": best, **described(found), "published": PUBLISHED.get(recipe), "edge": found.edge}


def references() -> dict[str, Any]:
    """Training images, and centroids of k-means of them, in the place of samples."""
    x, valid, real = unit("mnist[:50000]"), unit("mnist[50000:]"), unit("mnist", "test")
    some = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    found = {f"{n:,} training images": parzen(some[:n], valid, real) for n in (CENTRES, len(x))}
    for k in (100, 1_000, 10_000):
        found[f"k-means, {k:,} centroids"] = parzen(centroids(some, k), valid, real)
    return {name: described(each) for name, each in found.items()}


def centroids(x: Tensor, k: int, rounds: int = 20) -> Tensor:
    """Lloyd's algorithm from the first k rows; a centroid that loses all its rows stays where it is."""
    mu = x[:k].clone()
    for _ in range(rounds):
        half = mu.square().sum(1) / 2
        nearest = torch.cat([(part @ mu.T - half).argmax(1) for part in x.split(2_000)])
        count = torch.bincount(nearest, minlength=k)[:, None]
        mu = torch.where(count > 0, torch.zeros_like(mu).index_add_(0, nearest, x) / count.clamp(min=1), mu)
    return mu


def curve(runs: list[Path], out: Path) -> dict[str, Any]:
    """Draw the validation scores of the runs over images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes, found = figure.subplots(), {}
    for run in runs:
        records = [r for r in Run(run).records() if "parzen" in r]
        found[run.name] = [(r["images"], round(r["parzen"], 1)) for r in records]
        axes.plot([r["images"] / 1e6 for r in records], [r["parzen"] for r in records], label=run.name)
    axes.axhline(225, color="grey", linestyle="--", linewidth=1, label="published, 225 ± 2")
    axes.set(xlabel="images shown to D (millions)", ylabel="Parzen log-likelihood, validation (nats)")
    axes.legend()
    figure.savefig(out, dpi=150)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("train", "test", "references", "curve"))
    parser.add_argument("--run", type=Path, nargs="+")
    parser.add_argument("--recipe", default="goodfellow2014")
    parser.add_argument("--k", type=int, default=1, help="D's moves, of algorithm1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int)
    parser.add_argument("--every", type=int, default=500_000, help="images from one judgement to the next")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the plan, the value as JSON")
    parser.add_argument("--out", type=Path, default=Path("curve.png"))
    given = parser.parse_args()
    if given.what != "references" and not given.run:
        parser.error("--run is missing: the run folder")
    changes = {key: json.loads(value) for key, value in (item.split("=", 1) for item in given.set)}
    if given.what == "train":
        train(given.recipe, given.k, given.seed, given.images, given.every, changes, given.run[0])
    elif given.what == "test":
        print(json.dumps(test(given.run[0])))
    elif given.what == "references":
        print(json.dumps(references()))
    else:
        print(json.dumps(curve(given.run, given.out)))


if __name__ == "__main__":
    main()
