"""Draws docs/2014.png: the code of 2014 beside the algorithm of 2014, from the logs of two runs.

    python scripts/draw_2014.py [--runs runs/recipes] [--out docs/2014.png]

The runs are those of ``benchmarks/recipes.py goodfellow2014 algorithm1``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import organza as oz
from organza import picture
from organza.run import Run

GAMES = {
    "goodfellow2014": "goodfellow2014: both at once, G lowers -log D(G(z))",
    "algorithm1": "algorithm1: D, then G lowers log(1 - D(G(z)))",
}
D, REAL, FAKE = "discriminator", "discriminator/real_accuracy", "discriminator/fake_accuracy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--out", type=Path, default=Path("docs/2014.png"))
    arguments = parser.parse_args()
    figure, axes = plt.subplots(3, 2, figsize=(11, 9), sharex="row", sharey="row", height_ratios=(2, 2, 2.4))
    for column, (name, title) in enumerate(GAMES.items()):
        folder = arguments.runs / name
        records = [record for record in Run(folder).records() if REAL in record]
        images = np.array([record["images"] for record in records]) / 1000
        accuracy, slope, shown = axes[:, column]
        accuracy.set_title(title, fontsize=11)
        accuracy.plot(images, [(r[REAL] + r[FAKE]) / 2 for r in records], color="#d9580d", lw=1, label="D is right")
        accuracy.axhline(0.5, color="0.5", ls="--", lw=1, label="at equilibrium")
        accuracy.set_ylim(0.45, 1.01)
        slope.semilogy(images, [r["generator/gradient"] for r in records], color="#2b6be4", lw=1)
        slope.set_xlabel("thousand images shown to D")
        grid = picture.grid(oz.load(folder).sample(50, seed=1), columns=10)
        shown.imshow(grid[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        shown.axis("off")
    axes[0, 0].set_ylabel("accuracy of D, with its dropout")
    axes[0, 0].legend(loc="upper right", fontsize=9, frameon=False)
    axes[1, 0].set_ylabel("norm of G's gradient")
    figure.tight_layout()
    figure.savefig(arguments.out, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
