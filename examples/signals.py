"""Signals: bursts of a sine, of random frequency, phase and place, 64 steps of one channel.

    python examples/signals.py [SEED]

A float array (N, C, L) of 1 to 4 channels and 8 or more steps is signals.  What is printed is the accuracy of a
classifier that tells samples from data it has not seen: 0.5 where it cannot.
"""

import sys

import numpy as np
import torch

import organza as oz
from organza.metrics.classifier import TwoSample, two_sample


def draw(n: int, seed: int) -> np.ndarray:
    """Return n examples, (n, 1, 64), between about -5 and 5."""
    chance, t = np.random.default_rng(seed), np.arange(64)
    frequency, phase = chance.uniform(1, 4, (n, 1)), chance.uniform(0, 2 * np.pi, (n, 1))
    envelope = np.exp(-((t - chance.uniform(16, 48, (n, 1))) ** 2) / (2 * 12**2))
    x = 5 * envelope * np.sin(2 * np.pi * frequency * t / 64 + phase)  # (n, 64)
    return x[:, None]


def main(run: str | None = None, images: int = 500_000, seed: int = 0) -> TwoSample:
    """Train, and tell the samples from fresh examples."""
    model = oz.train(draw(20_000, seed), "quick", run=run, images=images, seed=seed, changes={"training.threads": 1})
    made = model.restore(model.sample(5_000, seed=1)).float()
    return two_sample(made.flatten(1), torch.from_numpy(draw(5_000, seed + 1_000)).float().flatten(1))


if __name__ == "__main__":
    found = main(seed=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(f"two-sample accuracy {found.accuracy:.3f} ± {found.error:.3f}")
