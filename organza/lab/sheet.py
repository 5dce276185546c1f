"""A sheet of digits: what G makes of the lattice of z in R^2, and what the judge sees there."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from organza import picture
from organza.lab.experiment import CYCLE, Bench
from organza.metrics.features import extract, extractor

__all__ = ["SIDE", "Sheet", "contrast", "draw", "judged", "quantiles", "roughness"]

SIDE = 14  # pictures along a side of the sheet


class Sheet(NamedTuple):
    """The sheet of digits and what the judge sees on it."""

    x: Tensor  # (side side, 1, 28, 28), row by row
    labels: Tensor  # (side, side)
    sure: Tensor  # the judge's probability of its label, (side, side)


def quantiles(side: int = SIDE) -> Tensor:
    """The lattice of z on which every cell has the same mass under N(0, I), row by row from the top, (side side, 2)."""
    line = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    return torch.cartesian_prod(-line, line).flip(1)


def judged(x: Tensor) -> Sheet:
    """Ask the package's classifier of digits what each picture of the sheet, (side side, 1, 28, 28), is."""
    logits = extract(extractor("digits"), x).logits
    assert logits is not None
    side = math.isqrt(len(x))
    sure, labels = logits.softmax(1).max(1)
    return Sheet(x, labels.view(side, side), sure.view(side, side))


def roughness(x: Tensor) -> float:
    """How much neighbours on a sheet of pictures differ, as a share of how much two of them at random do."""
    side = math.isqrt(len(x))
    lattice = x.reshape(side, side, -1)
    steps = [(lattice[1:] - lattice[:-1]).norm(dim=-1), (lattice[:, 1:] - lattice[:, :-1]).norm(dim=-1)]
    return float(torch.cat([step.flatten() for step in steps]).mean() / torch.pdist(x.flatten(1)).mean())


def contrast(sheet: Sheet) -> float:
    """How much surer the judge is inside the regions of the classes than at their borders."""
    labels = sheet.labels
    within = torch.ones_like(labels, dtype=torch.bool)
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        there = labels.roll(shift, axis)
        there.select(axis, 0 if shift > 0 else -1).copy_(labels.select(axis, 0 if shift > 0 else -1))  # no neighbour
        within &= there == labels
    return float(sheet.sure[within].mean() - sheet.sure[~within].mean())


def draw(bench: Bench, sheet: Sheet) -> None:
    """The sheet of digits, and the map of what the judge sees on it."""
    from matplotlib.colors import to_rgb

    tab = torch.tensor([to_rgb(colour) for colour in (*CYCLE, "#7a5c3e", "#f0e442", "#b8bcc4")])
    with bench.figure("Two numbers in, a digit out", 1, 2, size=(12.0, 6.4), suffix="digits") as axes:
        left, right = axes[0]
        left.imshow(picture.grid(sheet.x, SIDE, pad=0), cmap="gray", extent=(0, 1, 0, 1))
        sure = ((sheet.sure - 0.3) / 0.7).clamp(0, 1)[..., None]
        right.imshow((tab[sheet.labels] * sure + 1 - sure).numpy(), extent=(0, 1, 0, 1))
        for cell, label in enumerate(sheet.labels.flatten().tolist()):
            y, x = divmod(cell, SIDE)
            right.text((x + 0.5) / SIDE, 1 - (y + 0.5) / SIDE, str(label), ha="center", va="center", fontsize=8)
        left.set_title("G(z) for z on the quantiles of N(0, I)")
        right.set_title("What the judge of digits sees there; the paler, the less sure")
        for ax in axes[0]:
            ax.set(xlabel="share of z₁ below", ylabel="share of z₂ below")
            ax.grid(False)
