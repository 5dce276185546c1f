"""Is `organza train` any good?  Trains as a newcomer does, then lets a digits classifier judge 1,000 samples.

    python benchmarks/digits.py [--seeds 0 1 2] [--run DIR] [--samples N]

The classifier (two convolutions and a hidden layer) is trained here on MNIST's 60,000 training images if
$ORGANZA_DATA or the cache has them, else on the 10,000 built-in ones; no generator ever sees it.  Prints one JSON
object: each class's share of the samples, the median confidence, the same of real test images, and the seconds.
A class should have between 4 % and 20 %, and the median confidence should be at least 0.9.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import organza as oz
from organza.data import Data, Order, open_data


def classifier() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
    ).to(memory_format=torch.channels_last)


def trained(data: Data, epochs: int, batch: int = 128) -> nn.Module:
    torch.manual_seed(0)
    network, order = classifier(), Order(len(data), seed=0)
    steps = epochs * len(data) // batch
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        x, y = data.gather(order.indices(step * batch, batch))
        loss = nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def probabilities(network: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([network(part).softmax(1) for part in x.split(500)])


def verdict(p: Tensor) -> dict[str, object]:
    """Shares of the ten classes and the confidence of the classifier in its choice."""
    confidence, label = p.max(1)
    shares = torch.bincount(label, minlength=10) / len(p)
    return {
        "shares": [round(float(share), 4) for share in shares],
        "least": round(float(shares.min()), 4),
        "most": round(float(shares.max()), 4),
        "median_confidence": round(float(confidence.median()), 4),
        "below_0.9": round(float((confidence < 0.9).float().mean()), 4),
    }


def judge() -> tuple[nn.Module, dict[str, object]]:
    """The classifier, with its accuracy on test images and what it says of them."""
    try:
        train, test, epochs, name = open_data("mnist"), open_data("mnist", "test"), 4, "mnist"
    except ValueError:
        train, test, epochs, name = open_data("digits"), open_data("digits", "test"), 12, "digits"
    network = trained(train, epochs)
    x, y = test.gather(torch.arange(len(test)))
    p = probabilities(network, x)
    accuracy = float((p.argmax(1) == y).float().mean())
    return network, {"trained_on": name, "accuracy": round(accuracy, 4), "real": verdict(p)}


def train(seed: int, run: Path) -> dict[str, object]:
    """What a newcomer types, as a process of its own; how long it took and how many images that was."""
    command = [sys.executable, "-m", "organza", "train", "--run", str(run), "--seed", str(seed), "--json"]
    begin = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"seed": seed, "seconds": round(time.monotonic() - begin, 1), "images": json.loads(done.stdout)["images"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help="judge this run instead of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="train once with each")
    parser.add_argument("--samples", type=int, default=1000)
    arguments = parser.parse_args()
    results, samples = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds if arguments.run is None else [None]:
            run = Path(arguments.run or f"{folder}/{seed}")
            results.append({"run": str(run)} if seed is None else train(seed, run))
            samples.append(oz.load(run).sample(arguments.samples, seed=1))
    network, classifier = judge()
    for result, x in zip(results, samples, strict=True):
        result |= verdict(probabilities(network, x))
    print(json.dumps({"samples": arguments.samples, "runs": results, "classifier": classifier}))


if __name__ == "__main__":
    main()
