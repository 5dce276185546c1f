"""Train the judge of handwritten digits, organza/metrics/digits.safetensors, on MNIST's 60,000 training images.

    python scripts/train_judge.py [--epochs 20] [--out FILE]

Adam with one cycle of the learning rate, small random affine maps of the images, a moving average of the weights.
Prints its accuracy on the 10,000 test images, which no choice here was made by, and the SHA-256 to pin in
organza/metrics/digits.py.  Another machine or number of threads gives other last bits, so the file is what counts.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load, save_file
from torch import Tensor
from torch.nn import functional

from organza.data import Data, Order, open_data
from organza.metrics.digits import WEIGHTS, DigitsNet


def warp(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned by up to 12 degrees, scaled and sheared by up to 12 %, moved by up to 2 pixels."""
    turn, wide, high, shear, right, down = (2 * torch.rand(6, len(x), generator=generator) - 1).unbind()
    turn = turn * math.radians(12)
    a, b = turn.cos() * (1 + 0.12 * wide), -turn.sin() + 0.12 * shear
    c, d = turn.sin(), turn.cos() * (1 + 0.12 * high)
    shift = 2 * 2 / x.shape[-1]
    theta = torch.stack([a, b, shift * right, c, d, shift * down], 1).view(-1, 2, 3)
    where = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x + 1, where, align_corners=False) - 1  # what comes in from outside is black, -1


def trained(data: Data, epochs: int, batch: int = 128, seed: int = 0) -> DigitsNet:
    torch.manual_seed(seed)
    network = DigitsNet(norm=True).to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    order, chance = Order(len(data), seed), torch.Generator().manual_seed(seed)
    steps = epochs * len(data) // batch
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    begin = time.monotonic()
    for step in range(steps):
        x, y = data.gather(order.indices(step * batch, batch))
        features, _ = network(warp(x, chance))
        kept = functional.dropout(features.relu(), 0.3)
        loss = functional.cross_entropy(network.head(kept), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        if step % 200 == 0:
            print(f"{step}/{steps} loss {loss.item():.4f} {time.monotonic() - begin:.0f} s", flush=True)
    return average.module.to(memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def scale(network: DigitsNet, data: Data) -> None:
    """Give the features a mean variance of 1 over the training images; the logits stay what they are."""
    x, _ = data.gather(torch.arange(len(data)))
    size = float(torch.cat([network(part)[0] for part in x.split(500)]).var(0).mean().sqrt())
    for weight, factor in (
        (network.embed.weight, 1 / size),
        (network.embed.bias, 1 / size),
        (network.head.weight, size),
    ):
        weight.mul_(factor)


@torch.no_grad()
def accuracy(network: DigitsNet, data: Data) -> float:
    x, y = data.gather(torch.arange(len(data)))
    said = torch.cat([network(part)[1].argmax(1) for part in x.split(500)])
    return float((said == y).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    data = open_data("mnist")
    network = trained(data, arguments.epochs, seed=arguments.seed).folded()
    scale(network, data)
    save_file({name: each.half().contiguous() for name, each in network.state_dict().items()}, arguments.out)
    found = arguments.out.read_bytes()
    network.load_state_dict(load(found))  # the rounded weights, which are those that are judged
    test = accuracy(network, open_data("mnist", "test"))
    print(f"{len(found):,} bytes, test accuracy {test:.2%}, sha256 {hashlib.sha256(found).hexdigest()}")


if __name__ == "__main__":
    main()
