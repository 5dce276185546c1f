r"""Mode collapse, and what is said to cure it

The lectures say: a GAN forgets most of its data, makes "only ones", and there are cures.  G is only ever asked to
please the D of this moment.  Against any one D the best G is a point mass where D is highest; D then learns that this
point is false, and G jumps to another.  Nothing in

.. math:: \max_G E_z[\log D(G(z))]

speaks of variety: D judges one sample at a time, and cannot say that all of them are the same.

Four arms play for the ring, eight narrow Gaussians on a circle.  They share networks, data, batch, optimizers, learning
rates and length, and what is judged is G's moving average (half-life 100 moves), unless said; each cure changes only
what its method says:

- *plain*: the non-saturating game of 2014, G learning four times as fast as D;
- *packing*: D sees m = 2 samples at once (its first layer is as wide as that), so that sameness shows;
- *unrolled D*: G moves against the D that would answer it after 3 more steps of gradient descent;
- *RpGAN + R1 + R2*: D judges pairs, :math:`L_D = \mathrm{softplus}(f - r)`, and its slope is held down on both sides,
  :math:`\frac\gamma2 E\|\nabla D\|^2`.

On the ring a mode is *captured* if one of 2,500 samples of G lies within 3 sigma of its centre, and an arm *holds*
eight modes if it has all of them at every look in the last fifth of its run.  Then the plain arm and the last one play
for the digits, with perceptrons; a class is kept if the package's classifier sees it in 2 % or more of 1,000 samples.

Tolerances: the plain arm ends with at most 6 of 8 modes in every seed, and G itself with samples whose standard
deviation is at most .4 of the ring's, at a distance of .75 to 1.25 from its middle (that of a G that learnt nothing is
.3); each cure holds 8 of 8 in every seed (5; 2 if fast).  On digits the plain arm ends with 80 % of its samples in one
class, half as far apart as digits are or less, and on dark paper; the cured one keeps at least 9 of the 10.

References:
    Unrolled Generative Adversarial Networks (Metz, Poole, Pfau, Sohl-Dickstein, 2017)
    PacGAN: The power of two samples in generative adversarial networks (Lin, Khetan, Fanti, Oh, 2018)
    The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
    Which Training Methods for GANs do actually Converge? (Mescheder, Geiger, Nowozin, 2018)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from organza.data import open_data
from organza.data.synthetic import centres
from organza.game import Game
from organza.lab.experiment import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    Bench,
    Check,
    Outcome,
    least,
    most,
    near,
    played,
    seeded,
)
from organza.metrics.features import extract, extractor
from organza.metrics.modes import mode_coverage
from organza.moves import Alternating, Moves, Unrolled
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import NonSaturating, RelativisticLogistic
from organza.optimizer import Adam
from organza.penalty import R1, R2
from organza.picture import to_uint8
from organza.prior import Normal
from organza.schedule import Linear
from organza.training import State

__all__ = ["run"]

PLAIN, PACKED, UNROLLED, RELATIVISTIC = ARMS = ("plain", "packing", "unrolled D", "RpGAN + R1 + R2")
COLOURS = dict(zip(ARMS, (RED, ORANGE, GREEN, BLUE), strict=True))
BATCH, LOOK = 64, 30


class Stage(NamedTuple):
    """What all arms share: data, networks, learning rates, Adam's decays, and gamma of R1 and R2."""

    data: str
    shape: tuple[int, ...]
    latent: int
    widths: tuple[int, ...]
    output: str
    rate_G: float
    rate_D: float
    beta1: float
    beta2: float
    gamma: float


class Item(NamedTuple):
    """One run: an arm, its seed and its length in moves of G."""

    arm: str
    seed: int
    rounds: int


class Path(NamedTuple):
    """What a run on the ring was seen to do: the captured modes after so many moves of G, and its last samples.

    Of G itself, not its average: the median distance of its last samples from the middle (1 on the ring), and their
    standard deviation (1 on the ring).
    """

    item: Item
    moves: list[int]
    captured: list[int]
    quality: float
    x: Tensor
    radius: float
    spread: float


class Digits(NamedTuple):
    """What a run on the digits ended with: samples, how many of them the classifier takes for each class, their mean
    pixel (-.74 of the digits) and their standard deviation over that of the digits."""

    item: Item
    counts: list[int]
    x: Tensor
    mean: float
    spread: float


class Packed(nn.Module):
    """D(x_1, ..., x_m): each run of m rows of the batch is one input, and has one logit."""

    def __init__(self, network: nn.Module, m: int) -> None:
        super().__init__()
        self.network, self.m = network, m

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x.reshape(-1, self.m, *x.shape[1:]))  # (B, ...) -> (B / m, m, ...) -> (B / m,)
        return logits


RING = Stage("ring", (2,), 16, (128, 128), "linear", 2e-3, 5e-4, 0.5, 0.99, 0.5)
DIGITS = Stage("digits", (1, 28, 28), 32, (256, 256), "tanh", 1e-3, 1e-3, 0.8, 0.99, 5.0)


def arm(name: str, stage: Stage) -> tuple[Game, Moves]:
    """Return an arm's game and who moves when in it.  All that differs between the arms stands here."""
    m = 2 if name == PACKED else 1
    G = MLPGenerator(stage.latent, stage.shape, stage.widths, output=stage.output)
    D: nn.Module = MLPDiscriminator((m, *stage.shape), stage.widths)
    cured = name == RELATIVISTIC
    game = Game(
        generator=G,
        discriminator=Packed(D, m),
        prior=Normal(stage.latent),
        objective=RelativisticLogistic() if cured else NonSaturating(),
        terms=[R1(stage.gamma), R2(stage.gamma)] if cured else [],
        joint=True,
    )
    return game, Unrolled(depth=3, lr=0.02) if name == UNROLLED else Alternating()


def play(item: Item, stage: Stage, watch: Callable[[State], None]) -> Callable[[int], Tensor]:
    """Play one run, and return G as a function of the number of samples: always the same z."""
    with seeded(item.seed):
        game, moves = arm(item.arm, stage)
    images = BATCH * item.rounds

    def rule(rate: float) -> Adam:
        """Constant for two fifths, falling for two fifths, and low while the modes are counted."""
        falling = Linear(rate, 0.02 * rate, images=images * 2 // 5, hold=images * 2 // 5)
        return Adam(falling, stage.beta1, stage.beta2)

    rules = rule(stage.rate_G), rule(stage.rate_D)
    half_life = 100 * BATCH  # what is judged is G's moving average, in every arm
    more: dict[str, Any] = {"batch": BATCH, "moves": moves, "half_life": half_life, "seed": item.seed}
    model = played(game, stage.data, rules, images, watch, **more)
    return lambda n: samples(model.generator, stage.latent, n)


@torch.no_grad()
def samples(G: nn.Module, latent: int, n: int) -> Tensor:
    """Return n samples of G, (n, ...), always for the same z."""
    return G(Normal(latent).draw(n, torch.Generator().manual_seed(0)))  # type: ignore[no-any-return]


def on_ring(item: Item) -> Path:
    """Play on the ring, counting modes by the way."""
    where, sigma = centres("ring")
    moves, captured, last = [], [], []

    def watch(state: State) -> None:
        if state.steps == item.rounds:
            last.append(samples(state.game.generator, RING.latent, 2_500))
        if state.steps % LOOK == 0:
            moves.append(state.steps)
            captured.append(mode_coverage(samples(state.average, RING.latent, 2_500), where, sigma).captured)

    x = play(item, RING, watch)(2_500)
    radius, spread = float(last[0].norm(dim=1).median()), float(last[0].std(0).norm())
    return Path(item, moves, captured, mode_coverage(x, where, sigma).quality, x, radius, spread)


def on_digits(item: Item) -> Digits:
    """Play on the digits, and let the classifier count what G makes in the end."""
    x = play(item, DIGITS, lambda state: None)(1_000)
    logits = extract(extractor("digits"), to_uint8(x)).logits
    assert logits is not None
    real = open_data(DIGITS.data).gather(torch.arange(1_000))[0]
    spread = float((x.var(0).sum() / real.var(0).sum()).sqrt())
    return Digits(item, logits.argmax(1).bincount(minlength=10).tolist(), x[:64], float(x.mean()), spread)


def holds(captured: Sequence[int]) -> int:
    """Return the fewest modes at any look in the last fifth of a run."""
    return min(captured[-max(1, len(captured) // 5) :])


def kept(counts: Sequence[int], share: float = 0.02) -> int:
    """Return the number of classes that hold at least this share of all samples."""
    return sum(count >= share * sum(counts) for count in counts)


def verify(paths: Sequence[Path], digits: Sequence[Digits]) -> list[Check]:
    """Compare what was measured with what the tolerances say, over all seeds."""
    mine = {name: [path for path in paths if path.item.arm == name] for name in ARMS}
    end = max(path.captured[-1] for path in mine[PLAIN])
    checks = [most(f"ring, plain: modes at the end of 8, most of {len(mine[PLAIN])} seeds", end, 6, planted=True)]
    # It is a collapse, and no G that never learnt or flew off: its samples lie together, and on the ring.
    apart = max(path.spread for path in mine[PLAIN])
    checks.append(most("ring, plain: standard deviation of G's samples, most of all seeds", apart, 0.4, planted=True))
    far = max((path.radius for path in mine[PLAIN]), key=lambda radius: abs(radius - 1))
    checks.append(near("ring, plain: their distance from the middle, furthest off of all seeds", 1.0, far, 0.25))
    for name in ARMS[1:]:
        held = sum(holds(path.captured) == 8 for path in mine[name])
        checks.append(least(f"ring, {name}: seeds of {len(mine[name])} that hold 8 modes", held, len(mine[name])))
    plain, cured = ([run.counts for run in digits if run.item.arm == name] for name in (PLAIN, RELATIVISTIC))
    top = min(max(counts) / sum(counts) for counts in plain)
    checks.append(least("digits, plain: share of the largest class, least of all seeds", top, 0.8, planted=True))
    alike = [run for run in digits if run.item.arm == PLAIN]
    checks.append(
        most(
            "digits, plain: standard deviation of samples, of digits'", [run.spread for run in alike], 0.5, planted=True
        )
    )
    checks.append(most("digits, plain: mean pixel, as dark as paper is", [run.mean for run in alike], -0.5))
    classes = min(kept(counts) for counts in cured)
    checks.append(least(f"digits, {RELATIVISTIC}: classes of 10 with 2 % or more, least of all seeds", classes, 9))
    return checks


def run(bench: Bench) -> Outcome:
    """Let four arms play for the ring and two for the digits, and count what they keep.

    Arguments:
        bench: Where to work; if fast, 2 seeds instead of 5 and shorter runs.
    """
    seeds, rounds, long = (2, 2_600, 800) if bench.fast else (5, 2_600, 1_200)
    slow_first = (UNROLLED, RELATIVISTIC, PACKED, PLAIN)
    items = [Item(name, seed, rounds) for name in slow_first for seed in range(seeds)]
    paths = bench.map("four arms on the ring", on_ring, items)
    digits = bench.map("two arms on the digits", on_digits, [Item(name, 0, long) for name in (RELATIVISTIC, PLAIN)])
    with bench.figure(
        f"Mode collapse on a ring of 8: one plain game, three cures, {seeds} seeds each", 2, 4, (10.0, 6.6)
    ) as axes:
        _over_time(_merged(axes), paths)
        for axis, name in zip(axes[1], ARMS, strict=True):
            _plane(axis, name, next(path for path in paths if path.item.arm == name))
    with bench.figure("Mode collapse on digits: the same networks, two games", 2, 2, (10.0, 6.6), "digits") as axes:
        for column, name in zip(axes.T, (PLAIN, RELATIVISTIC), strict=True):
            _sheet(column, name, next(each for each in digits if each.item.arm == name))
    return Outcome(_words(paths, digits), verify(paths, digits), _verdict(paths))


def _words(paths: Sequence[Path], digits: Sequence[Digits]) -> str:
    plain = [path.captured[-1] for path in paths if path.item.arm == PLAIN]
    quality = {name: np.mean([path.quality for path in paths if path.item.arm == name]) for name in ARMS}
    counts = {each.item.arm: each.counts for each in digits}
    top = int(np.argmax(counts[PLAIN]))
    return f"""\
Four generators learn the same ring of eight narrow heaps of points, {len(plain)} times each from other random seeds. \
They share networks, batches, optimizers, learning rates and length. The plain game of 2014, with a G that learns \
four times as fast as D, puts all its samples in one place, D learns that this place is false, G jumps, and so on: it \
ends on {min(plain)} to {max(plain)} of the 8 modes.

Each cure changes only what its method says. Packing shows D two samples at once, so that sameness itself is a sign \
of forgery; unrolling lets G feel how D would answer, so that jumping no longer pays; the relativistic objective with \
R1 and R2 compares each fake with a real example and keeps D's slope small. How many of their runs hold all 8 modes \
stands in the table. That every mode is reached does not yet mean that it is well made: of their samples \
{quality[PACKED]:.0%}, {quality[UNROLLED]:.0%} and {quality[RELATIVISTIC]:.0%} lie within 3 sigma of a mode, where a \
perfect sampler has 99 %, and one that covers the whole circle evenly 8 %; the rest lies near or between modes. These \
runs are short.

On the digits the plain game makes one picture over and over: {counts[PLAIN][top] / sum(counts[PLAIN]):.0%} of its \
samples are of the class "{top}" to the classifier. The lecture's G made only ones; which digit, or what smudge, G \
falls on is chance. The same networks with {RELATIVISTIC} keep {kept(counts[RELATIVISTIC])} of the 10 classes.

Collapse is no law of nature, and the cures are no magic: without momentum (beta1 = 0) the plain game of the same \
networks and rates holds all 8 modes too (docs/log.md). What differs is how much each forgives."""


def _verdict(paths: Sequence[Path]) -> str:
    cures = [path for path in paths if path.item.arm != PLAIN]
    held = sum(holds(path.captured) == 8 for path in cures)
    return (
        f"only if G outruns D with momentum: the plain game then loses modes, and each cure holds all 8 "
        f"({held} of {len(cures)} runs); without momentum it needs none"
    )


def _merged(axes: Any) -> Any:
    """The first row of panels as one."""
    grid = axes[0, 0].get_gridspec()
    for axis in axes[0]:
        axis.remove()
    return axes[1, 0].figure.add_subplot(grid[0, :])


def _over_time(axis: Any, paths: Sequence[Path]) -> None:
    """Draw the captured modes against moves of G: each arm's median over seeds, and its range."""
    for name in ARMS:
        mine = [path for path in paths if path.item.arm == name]
        modes = np.array([path.captured for path in mine])  # (seeds, looks)
        axis.fill_between(mine[0].moves, modes.min(0), modes.max(0), color=COLOURS[name], alpha=0.15, linewidth=0)
        axis.plot(mine[0].moves, np.median(modes, 0), color=COLOURS[name], label=name)
    axis.set(xlabel="moves of G", ylabel="modes captured, of 8", ylim=(-0.2, 8.4), xlim=(0, mine[0].moves[-1]))
    axis.set_title("Modes over time: median of the seeds, and their range")
    axis.legend(loc="center right")


def _plane(axis: Any, name: str, path: Path) -> None:
    """Draw an arm's last samples over the modes."""
    where, _ = centres("ring")
    axis.scatter(*where.T, s=120, facecolor="none", edgecolor=GREY, linewidth=1.2)
    axis.scatter(*path.x[:1_000].T, s=3, color=COLOURS[name], alpha=0.5, linewidth=0)
    axis.set_title(f"{name}: {path.captured[-1]} of 8", color=INK)
    axis.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))


def _sheet(column: Any, name: str, found: Digits) -> None:
    """Draw an arm's samples of digits, and how many of each class they are."""
    from organza.picture import grid

    above, below = column
    above.imshow(grid(found.x[:40], 10), cmap="gray", interpolation="nearest")
    above.set_title(f"{name}: {kept(found.counts)} of 10 classes")
    above.axis("off")
    below.bar(range(10), [100 * count / sum(found.counts) for count in found.counts], color=COLOURS[name])
    below.axhline(10, color=GREY, linestyle="--", linewidth=1)
    below.set(xticks=range(10), ylim=(0, 105), xlabel="digit, by the classifier", ylabel="% of 1,000 samples")
