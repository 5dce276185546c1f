"""Few images: the same recipe without augmentation, with DiffAugment and with ADA, judged by images held out.

    ORGANZA_DATA=... python benchmarks/small_data.py [--images N] [--seeds 0 1] [--arms off diffaugment ada] [--out DIR]
        [--side 64] [--batch 64] [--device cuda]

The data are the Twitter emoji on white at 32 x 32 (means of 2 x 2 pixels) or 64 x 64, three folds of four by name:
1,435 to train on, and 471 that no network sees.  The recipe is ``quick``, the same for every arm but for ``augment``:
ADA's p may go from 0 to 1 within 100,000 images, as is usual for short runs, with the paper's target r_t = .6; in
``ada-early`` with .2; in ``ada-fixed`` p is .4 throughout.

At each of ``--looks`` points: the Fréchet and kernel distance of 500 samples to the images held out (features
efficientnet-lite0 where it is installed, else random), D's mean logits of trained, held-out and generated images as it
is shown them, through the augmentation; the share r_v = (train - held) / (train - fake) of what D knows that it knows
by heart; r_t, the mean sign of D's logits of real examples since the last point; and p.  At the end the distances are
of 2,000 samples.  Their floor is that of the training images to those held out.  The kernel distance has no bias from
the number of examples, as the Fréchet distance has.

Prints one JSON object, with each arm's last distance over that without augmentation; the curves are drawn in
DIR/small-data-SEED.png, the samples of each arm, not selected, in DIR/ARM-SEED.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import organza as oz
from organza.data import Data, open_data
from organza.game import Game
from organza.metrics.features import extract, extractor
from organza.metrics.frechet import Moments, frechet_distance
from organza.metrics.kernel import mmd
from organza.picture import grid, save, to_uint8
from organza.recipes import recipe
from organza.round import Draw, Verdict
from organza.training import State

ARMS: dict[str, Any] = {
    "off": None,
    "diffaugment": "DiffAugment",
    "ada": {"kind": "ADA", "ramp": 100_000},
    "ada-early": {"kind": "ADA", "ramp": 100_000, "target": 0.2},
    "ada-fixed": {"kind": "ADA", "p": 0.4},
}
SIDES = ("train", "held", "fake")


def emoji(part: str, side: int) -> Data:
    """The emoji of these folds, each pixel the mean of four if half as large."""
    found = open_data(f"{os.environ['ORGANZA_DATA']}/emoji/twitter.zip[background=white][{part}]")
    if side == 64:
        return found
    x = found.x.float().unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    return open_data(x.round().to(torch.uint8))


class Judge:
    """Distances to the images held out."""

    def __init__(self, held: Tensor, device: torch.device) -> None:
        self.device = device
        try:
            self.extractor = extractor("efficientnet-lite0")
        except ValueError:
            self.extractor = extractor("random")
        self.held = self.features(held)

    def features(self, x: Tensor) -> Tensor:
        return extract(self.extractor, x, device=self.device).embeddings

    def __call__(self, x: Tensor) -> dict[str, float]:
        found = self.features(x)
        frechet = frechet_distance(Moments.of(found), Moments.of(self.held))
        return {"frechet": round(frechet, 3), "kernel": round(mmd(found, self.held), 5)}


@torch.no_grad()
def shown(game: Game, x: Tensor) -> float:
    """D's mean logit of images in [-1, 1], through the augmentation."""
    if game.augment is not None:
        x, _ = game.augment(x, None, Draw(torch.Generator(x.device).manual_seed(0), len(x)))
    return round(float(Verdict.of(game.discriminator(x)).logits.mean()), 3)


def clock(device: torch.device) -> float:
    """Seconds: this process's own on a CPU, which others share; on a GPU the wall's, once it has done all."""
    if device.type == "cpu":
        return time.process_time()
    getattr(torch, device.type).synchronize()
    return time.perf_counter()


def run(arm: str, seed: int, asked: argparse.Namespace, train: Data, held: Data, judge: Judge) -> Any:
    images, looks, out = asked.images, asked.looks, asked.out
    changes = {"augment": ARMS[arm], "training.seed": seed, "training.batch": asked.batch}
    plan = recipe("quick")(train.spec, images=images).set(changes)
    state = State(plan.game(), plan.play(), train, judge.device)
    some = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: len(held)]
    real = {"train": train.gather(some)[0], "held": held.gather(torch.arange(len(held)))[0]}
    real = {side: x.to(judge.device) for side, x in real.items()}
    curve, seconds = [], 0.0
    for look in range(1, looks + 1):
        begin = clock(judge.device)
        while state.images < images * look // looks:
            state.training.moves(state, state.stream)
        seconds += clock(judge.device) - begin
        means, x = state.means(), state.model().sample(500, seed=1)
        logits = {side: shown(state.game, value) for side, value in (real | {"fake": x}).items()}
        apart = logits["train"] - logits["fake"]
        point = {"images": state.images, **judge(to_uint8(x)), "logits": logits}
        point["r_v"] = round((logits["train"] - logits["held"]) / apart, 3) if apart else None
        point["r_t"] = round(2 * means["discriminator/real_accuracy"] - 1, 3)
        point["p"] = round(means.get("discriminator/augment_p", 0.0), 3)
        curve.append(point)
        print(f"{arm} {seed}: {point}", flush=True, file=open(out / "progress.txt", "a"))  # noqa: SIM115
    save(grid(state.model().sample(80, seed=2), columns=16), out / f"{arm}-{seed}.png")
    end = judge(to_uint8(state.model().sample(2_000, seed=2)))
    return {"end": end, "seconds": round(seconds), "images_per_second": round(images / seconds), "curve": curve}


def draw(path: Path, runs: dict[str, Any]) -> None:
    """A column for each arm: what D says, the share known by heart with r_t and p, and the distance."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, len(runs), figsize=(4 * len(runs), 8), sharex=True, sharey="row", squeeze=False)
    for column, (arm, found) in zip(axes.T, runs.items(), strict=True):
        x = [point["images"] for point in found["curve"]]
        for side in SIDES:
            column[0].plot(x, [point["logits"][side] for point in found["curve"]], label=side)
        for name in ("r_v", "r_t", "p"):
            column[1].plot(x, [point[name] for point in found["curve"]], label=name)
        column[2].plot(x, [point["frechet"] for point in found["curve"]], label="Fréchet, held out")
        column[0].set_title(f"{arm}: D's mean logits")
        column[2].set_xlabel("images shown to D")
        for axis in column:
            axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["off", "diffaugment", "ada"])
    parser.add_argument("--looks", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("small-data"))
    parser.add_argument("--side", type=int, choices=(32, 64), default=32)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train, held = emoji("fold%4!=0", asked.side), emoji("fold%4=0", asked.side)
    judge, found = Judge(held.x, torch.device(asked.device)), {}
    for seed in asked.seeds:
        runs = {arm: run(arm, seed, asked, train, held, judge) for arm in asked.arms}
        draw(asked.out / f"small-data-{seed}.png", runs)
        if "off" in runs:
            for each in runs.values():
                each["over_off"] = {k: round(v / runs["off"]["end"][k], 3) for k, v in each["end"].items()}
        found[seed] = runs
    protocol = {
        "recipe": "quick",
        "side": asked.side,
        "batch": asked.batch,
        "images": asked.images,
        "train": len(train),
        "held": len(held),
        "samples": 2_000,
    }
    protocol |= {"features": judge.extractor.name, "organza": oz.__version__, "torch": torch.__version__}
    print(json.dumps({"protocol": protocol, "floor": judge(train.x), "seeds": found}, indent=1))


if __name__ == "__main__":
    main()
