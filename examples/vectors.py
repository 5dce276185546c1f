"""Vectors whose columns have very different scales: a mixture of three correlated Gaussians in five dimensions.

    python examples/vectors.py [SEED]

The columns are standardised inside, and samples come back in their own numbers.  What is printed is the accuracy of a
classifier that tells samples from data it has not seen: 0.5 where it cannot.
"""

import sys

import numpy as np
import torch

import organza as oz
from organza.metrics.classifier import TwoSample, two_sample

CENTRES = np.array([[0, 0, 0, 0, 0], [3, 3, -2, 0, 1], [-3, 2, 2, 1, -2]])
SCALES, OFFSETS = np.array([1e-3, 1, 50, 1e4, 10]), np.array([0, 100, -20, 5e4, 1])


def draw(n: int, seed: int) -> np.ndarray:
    """Return n examples, (n, 5)."""
    shapes = 0.6 * np.random.default_rng(0).normal(size=(3, 5, 5))  # of each Gaussian: its covariance's root
    chance = np.random.default_rng(seed + 1)
    which = chance.integers(3, size=n)
    x = CENTRES[which] + np.einsum("nij,nj->ni", shapes[which], chance.normal(size=(n, 5)))
    return x * SCALES + OFFSETS


def main(run: str | None = None, images: int = 200_000, seed: int = 0) -> TwoSample:
    """Train, and tell the samples from fresh examples."""
    model = oz.train(draw(20_000, seed), "quick", run=run, images=images, seed=seed, changes={"training.threads": 1})
    made = model.restore(model.sample(5_000, seed=1)).float()
    return two_sample(made, torch.from_numpy(draw(5_000, seed + 1_000)).float())


if __name__ == "__main__":
    found = main(seed=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(f"two-sample accuracy {found.accuracy:.3f} ± {found.error:.3f}")
