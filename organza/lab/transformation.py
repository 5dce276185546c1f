r"""One network turns a simple law into a given one

The claim: a generator is a change of variables.  A law of z that any computer can draw becomes the law of the data by
x = G(z), and the game finds such a G from examples alone.  On the line the law of G(z) is known exactly:

.. math:: q(x) = \sum_{z : G(z) = x} \frac{p_z(z)}{|G'(z)|}

The increasing map :math:`F^{-1} \circ F_z`, with F the distribution function of the data, is one perfect answer.  But
a continuous G cannot break an interval.  Between two humps a distance w apart there remains a bridge, of a mass of at
least :math:`w \min p_z / \max |G'|`: the emptier the gap, the steeper G must be, and a network's slope is finite.

In the plane G bends the lattice of z into the data; each cell keeps its mass, so that crowded lines are dense data.
With z in R^2 and x a picture of 784 pixels, the same is a map of digits: neighbours look alike, and on the way from
one digit to another lie pictures that are neither.  Samples of such a G lie on a surface of two dimensions.

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), Figure 1 and section 3
    Density estimation using Real NVP (Dinh, Sohl-Dickstein, Bengio, 2017), for the change of variables
    Learning Disconnected Manifolds: a no GAN's land (Tanielian, Issenhuth, Dohmatob, Mary, 2020), for the bridge
    Revisiting Classifier Two-Sample Tests (Lopez-Paz, Oquab, 2017), for the test in the plane

Tolerances.  The line, worst of all runs: W1 to the data's law at most 0.05 of its standard deviation; the density of
G(z) integrates to 1 within 0.001; its distribution function is nowhere more than 0.01 from that of 100,000 samples of
G (about twice 1.63 / sqrt n, which one law exceeds once in a hundred times).  The planted failure: the bridge has at
least ten times the mass that the data have there.  The plane: a classifier tells 10,000 samples from 10,000 test data
with an accuracy of at most 0.54, and a normal law of the same moments with at least 0.55 (so it can see).  Digits: the
judge finds at least 7 of 10 classes on a sheet of 14 by 14; neighbours on it differ at most 0.5 times as much as
pictures at random; and, planted, the judge is surer inside the regions of the classes than at their borders by 0.05.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from organza.data import open_data
from organza.game import Game
from organza.lab import sheet as sheets
from organza.lab.experiment import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    Bench,
    Check,
    Outcome,
    double,
    least,
    most,
    near,
    played,
    seeded,
)
from organza.metrics.classifier import two_sample
from organza.model import Model
from organza.moves import Alternating
from organza.nn import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from organza.objective import NonSaturating, RelativisticLogistic
from organza.optimizer import Adam
from organza.penalty import R1, R2
from organza.prior import Normal, Prior, Uniform
from organza.schedule import Linear
from organza.term import Lazy
from organza.theory.density import Gaussian, Mixture, Pushforward, grid, law_of
from organza.theory.divergence import integrate, w1

__all__ = ["run"]

WEIGHTS, MEANS, SIGMAS = (0.4, 0.6), (-1.5, 1.5), (0.3, 0.4)
GAP = (-0.5, 0.1)  # more than three standard deviations from either hump


class Job(NamedTuple):
    """One game: which part of the experiment, on what, how long."""

    part: str  # "line", "plane" or "sheet"
    what: str  # the law of z, or the data
    seed: int
    images: int


class Line(NamedTuple):
    """What a generator on the line became."""

    z: Tensor
    mapped: Tensor  # G(z)
    x: Tensor
    density: Tensor  # q(x)
    samples: Tensor
    w1: float  # in standard deviations of the data
    mass: float  # of q
    kolmogorov: float
    bridge: float  # mass in the gap
    slope: float  # the largest |G'|


class Plane(NamedTuple):
    """What a generator in the plane became."""

    across: Tensor  # G of the lines of constant z_2, (lines, points, 2)
    along: Tensor  # G of the lines of constant z_1
    accuracy: float  # of the classifier that tells samples from data
    control: float  # of the one that tells a normal law of the same moments from data


def law() -> Mixture:
    """The law of the data on the line: two humps far apart."""
    return Mixture([Gaussian(mean, sigma) for mean, sigma in zip(MEANS, SIGMAS, strict=True)], WEIGHTS)


def deviation() -> float:
    """Its standard deviation."""
    mean = sum(w * m for w, m in zip(WEIGHTS, MEANS, strict=True))
    square = sum(w * (m**2 + s**2) for w, m, s in zip(WEIGHTS, MEANS, SIGMAS, strict=True))
    return math.sqrt(square - mean**2)


def play(job: Job) -> Line | Plane | sheets.Sheet:
    """Play one game and measure what its G became."""
    if job.part == "line":
        with double():
            return on_the_line(job)
    return on_the_plane(job) if job.part == "plane" else on_the_sheet(job)


def on_the_line(job: Job) -> Line:
    prior = PRIORS[job.what]
    data = law().sample(100_000, torch.Generator().manual_seed(1000 + job.seed))
    with seeded(job.seed):
        G = MLPGenerator(1, (1,), (32, 32), output="linear")
        D = MLPDiscriminator((1,), (64, 64, 64))
    model = perceptrons(G, D, prior, data, job, batch=512)
    return measure_line(model, job.seed)


def measure_line(model: Model, seed: int) -> Line:
    """Compare the law of G(z), by the change of variables, with the data's and with samples of G."""
    q, p = Pushforward(model.generator, law_of(model.prior)), law()
    x = torch.linspace(-3.5, 3.5, 1401)[:, None]
    samples = model.sample(100_000, seed, batch=100_000)[:, 0].sort().values
    gap = q.cdf(torch.tensor(GAP)[:, None])
    seen = (q.z > -4) & (q.z < 4)
    return Line(
        z=q.z[seen],
        mapped=q.x[seen],
        x=x[:, 0],
        density=q.log_prob(x).exp(),
        samples=samples[:: len(samples) // 10_000].clone(),
        w1=w1(q, p, 1e-5).value / deviation(),
        mass=integrate(lambda x: q.log_prob(x).exp(), q.box[0], q.box[1], q.scale, 1e-5).value,
        kolmogorov=kolmogorov(samples, q),
        bridge=float(gap[1] - gap[0]),
        slope=float((q.x.diff() / q.z.diff()).abs().max()),
    )


def kolmogorov(samples: Tensor, q: Pushforward, points: int = 2_000) -> float:
    """The distance of Kolmogorov between sorted samples, (n,), and a law: max |F_n - F| at so many of the samples."""
    rank = torch.linspace(0, len(samples) - 1, points).round().long()
    F = q.cdf(samples[rank][:, None])
    n = len(samples)
    return float(torch.maximum(((rank + 1) / n - F).abs(), (rank / n - F).abs()).max())


def points(name: str) -> tuple[Tensor, Tensor]:
    """Training and test points of the plane, (100,000, 2) and (10,000, 2)."""
    if name == "moons":
        return open_data(name).x, open_data(name, "test").x
    heaps = grid(3, spacing=2.0, sigma=0.3)
    return tuple(heaps.sample(n, torch.Generator().manual_seed(n)).float() for n in (100_000, 10_000))  # type: ignore[return-value]


def on_the_plane(job: Job) -> Plane:
    data, test = points(job.what)
    with seeded(job.seed):
        G = MLPGenerator(2, (2,), (64, 64, 64), output="linear")
        D = MLPDiscriminator((2,), (64, 64, 64))
    model = perceptrons(G, D, Uniform(2), data, job, batch=256)
    across, along = lattice()
    generator = torch.Generator().manual_seed(job.seed)
    normal = torch.randn(len(test), 2, generator=generator) @ torch.linalg.cholesky(test.T.cov()).T + test.mean(0)
    return Plane(
        across=model.generate(across.flatten(0, 1)).view_as(across),
        along=model.generate(along.flatten(0, 1)).view_as(along),
        accuracy=two_sample(model.sample(len(test), job.seed), test, job.seed).accuracy,
        control=two_sample(normal, test, job.seed).accuracy,
    )


def lattice(lines: int = 25, points: int = 400) -> tuple[Tensor, Tensor]:
    """The lines of constant z_2 and those of constant z_1 on [-1, 1]^2, (lines, points, 2) each."""
    along, fixed = torch.meshgrid(torch.linspace(-1, 1, points), torch.linspace(-1, 1, lines), indexing="xy")
    return torch.stack([along, fixed], -1), torch.stack([fixed, along], -1)


def perceptrons(G: nn.Module, D: nn.Module, prior: Prior, data: Any, job: Job, batch: int) -> Model:
    """Play the game that points need: relativistic, with R1 and R2, and rates that fall to almost nothing."""
    quarter = job.images // 4
    rule = Adam(Linear(2e-3, 2e-5, images=3 * quarter, hold=quarter), beta1=0.0, beta2=0.99)
    game = Game(G, D, prior, RelativisticLogistic(), (R1(0.02), R2(0.02)), joint=True)
    return played(game, data, rule, job.images, batch=batch, seed=job.seed)


def on_the_sheet(job: Job) -> sheets.Sheet:
    shape = (1, 28, 28)
    with seeded(job.seed):
        # Two numbers are lifted to many whose kinks lie all over the plane.  Without this layer they would all pass
        # through z = 0, for what follows has no biases of its own at first, and the sheet would be a wheel.
        lift = nn.Sequential(nn.Linear(2, 128), nn.LeakyReLU(0.2))
        G = nn.Sequential(lift, DCGANGenerator(128, shape, width=16))
        D = DCGANDiscriminator(shape, width=16, norm=False, dense=128, kernel=3)
    half = job.images // 2
    rule = Adam(Linear(2e-3, 2e-5, images=half, hold=half), beta1=0.0, beta2=0.99)
    game = Game(G, D, Normal(2), NonSaturating(), (Lazy(R1(0.5), every=8),), joint=True)
    once = Alternating(fresh_noise=False)  # fakes made once serve both players
    model = played(game, job.what, rule, job.images, batch=32, moves=once, seed=job.seed)
    return sheets.judged(model.generate(sheets.quantiles()))


PRIORS: dict[str, Prior] = {"N(0, 1)": Normal(1), "U(−1, 1)": Uniform(1)}


def jobs(fast: bool) -> list[Job]:
    """All games, the longest first."""
    seeds = range(1 if fast else 2)
    return [
        Job("sheet", "digits", 0, 40_000 if fast else 70_000),
        *(Job("line", prior, seed, 800_000 if fast else 1_200_000) for prior in PRIORS for seed in seeds),
        *(Job("plane", name, seed, 200_000 if fast else 400_000) for name in ("moons", "nine heaps") for seed in seeds),
    ]


def run(bench: Bench) -> Outcome:
    """Turn simple laws into given ones on the line, in the plane and among pictures."""
    todo = jobs(bench.fast)
    found = bench.map("games", play, todo)
    lines = {job: each for job, each in zip(todo, found, strict=True) if isinstance(each, Line)}
    planes = {job: each for job, each in zip(todo, found, strict=True) if isinstance(each, Plane)}
    (sheet,) = (each for each in found if isinstance(each, sheets.Sheet))
    draw_points(bench, lines, planes)
    sheets.draw(bench, sheet)
    ends = law().cdf(torch.tensor(GAP, dtype=torch.float64)[:, None])
    empty = float(ends[1] - ends[0])
    return Outcome(
        words=words(list(lines.values()), list(planes.values()), sheet, empty),
        checks=[*check_lines(list(lines.values()), empty), *check_planes(list(planes.values())), *check_sheet(sheet)],
        verdict="half true: one network does it wherever the law holds together; G is continuous, so between humps "
        "apart it leaves a bridge, and between digits pictures that are neither",
    )


def check_lines(lines: list[Line], empty: float) -> list[Check]:
    """The worst of the runs on the line; ``empty`` is the data's mass in the gap."""
    worst = max(lines, key=lambda line: abs(line.mass - 1))
    over = f"line: mass of G(z) on the bridge, over the law's own {empty:.5f} (least run)"
    return [
        most("line: W1 of G(z) to the law, in its standard deviations (worst run)", [e.w1 for e in lines], 0.05),
        near("line: integral of the density of G(z) (worst run)", 1.0, worst.mass, 0.001),
        most("line: Kolmogorov distance of samples to that law (worst run)", [e.kolmogorov for e in lines], 0.01),
        least(over, [e.bridge / empty for e in lines], 10, planted=True),
    ]


def check_planes(planes: list[Plane]) -> list[Check]:
    """The worst of the runs in the plane."""
    known, control = [e.accuracy for e in planes], [e.control for e in planes]
    return [
        most("plane: accuracy of telling G(z) from data (worst run)", known, 0.54),
        least("plane: accuracy of telling a normal law of the same moments from data", control, 0.55),
    ]


def check_sheet(sheet: sheets.Sheet) -> list[Check]:
    """The sheet of digits: variety, continuity, and what lies between."""
    return [
        least("digits: classes that the judge finds on the sheet", len(sheet.labels.unique()), 7),
        most("digits: distance of neighbours over that of pictures at random", sheets.roughness(sheet.x), 0.5),
        least("digits: how much surer the judge is inside regions than at borders", sheets.contrast(sheet), 0.05, True),
    ]


def words(lines: list[Line], planes: list[Plane], sheet: sheets.Sheet, empty: float) -> str:
    """What happened, in plain words."""
    share = float((sheet.sure >= 0.9).float().mean())
    classes = len(sheet.labels.unique())
    bridges = sorted(100 * line.bridge for line in lines)
    return f"""\
On the line, z from N(0, 1) or U(−1, 1) was turned into two humps by a perceptron that saw nothing but its opponent's \
gradients. At the end the law of G(z), computed exactly by the change of variables, was within \
{max(line.w1 for line in lines):.3f} standard deviations (W1) of the data's in every run, and samples of G follow that \
density: no formula for the data's law was ever used.

But G is continuous, and cannot break an interval. Between the humps, where the data have {100 * empty:.3f} % of their \
mass, G left {bridges[0]:.1f} to {bridges[-1]:.1f} %: a bridge whose mass falls only as G's slope grows (here up to \
{max(line.slope for line in lines):.0f}). "Any law from any z" also needs a z of continuous law and of enough \
dimensions: what G makes of z in R^2 is a surface, however many pixels a picture has.

In the plane the lattice of z is bent into moons and heaps; every cell keeps its mass, so lines are crowded where \
data are dense, and the few lines between the two moons are the bridge again. A classifier told G's points from the \
data's with an accuracy of {max(plane.accuracy for plane in planes):.3f} at most (0.5 is chance).

With two numbers in, G draws a map of digits: {classes} of 10 classes on one sheet, and neighbours alike. Points \
between two digits are not always digits: the judge is sure (0.9 or more) of {100 * share:.0f} % of the pictures, and \
what it doubts lies mostly where two classes meet."""


def draw_points(bench: Bench, lines: dict[Job, Line], planes: dict[Job, Plane]) -> None:
    """The line above, the plane below; of every game the first seed."""
    first = {job.what: each for job, each in reversed(lines.items())}
    flat = {job.what: each for job, each in reversed(planes.items())}
    with bench.figure("One network turns a simple law into a given one", 2, 3, size=(12.0, 7.6)) as axes:
        draw_map(axes[0, 0], first)
        for ax, (name, line), colour in zip(axes[0, 1:], sorted(first.items()), (BLUE, ORANGE), strict=True):
            draw_density(ax, name, line, colour)
        across, along = lattice()
        draw_lattice(axes[1, 0], across, along)
        axes[1, 0].set(title="z: every cell has the same mass", xlabel="z₁", ylabel="z₂")
        for ax, name in zip(axes[1, 1:], sorted(flat), strict=True):
            plane = flat[name]
            x = points(name)[1][:4000]
            ax.scatter(x[:, 0], x[:, 1], s=2, color=GREY, alpha=0.5, linewidths=0)
            draw_lattice(ax, plane.across, plane.along)
            ax.set(title=f"The lattice carried to {name}", xlabel="x₁", ylabel="x₂")
        for ax in axes[1]:
            ax.set_aspect("equal", adjustable="datalim")
            ax.grid(False)


def draw_map(ax: Any, lines: dict[str, Line]) -> None:
    """G itself, as a function of the share of mass below z, in which both laws of z are uniform."""
    u = torch.linspace(0.0005, 0.9995, 2000, dtype=torch.float64)
    x = torch.linspace(-3.5, 3.5, 7001, dtype=torch.float64)
    ideal = x[torch.searchsorted(law().cdf(x[:, None]), u).clamp(max=len(x) - 1)]
    ax.axhspan(*GAP, color=RED, alpha=0.12, linewidth=0)
    ax.plot(u, ideal, color=INK, linestyle="--", linewidth=1.2, label="the perfect increasing map")
    for (name, line), colour in zip(sorted(lines.items()), (BLUE, ORANGE), strict=True):
        share = law_of(PRIORS[name]).cdf(line.z[:, None])
        if line.mapped[0] > line.mapped[-1]:
            share = 1 - share  # -z is as likely as z: a G that falls is drawn as the one that rises
        ax.plot(share, line.mapped, color=colour, label=f"G(z), z from {name}")
    ax.text(0.98, sum(GAP) / 2, "gap", color=RED, ha="right", va="center", fontsize=9)
    ax.set(title="The map", xlabel="share of the mass of z below z", ylabel="x = G(z)", ylim=(-3.2, 3.2))
    ax.legend(loc="upper left", fontsize=8)


def draw_density(ax: Any, name: str, line: Line, colour: str) -> None:
    """The law of G(z) by the change of variables, its samples, and the data's law."""
    ax.axvspan(*GAP, color=RED, alpha=0.12, linewidth=0)
    ax.hist(
        line.samples.numpy(),
        bins=torch.linspace(-3, 3, 121).numpy(),
        density=True,
        color=colour,
        alpha=0.3,
        label="samples of G",
    )
    ax.plot(line.x, line.density, color=colour, linewidth=1.4, label="p(z) / |G′(z)|")
    p = law().log_prob(line.x[:, None]).exp()
    ax.plot(line.x, p, color=INK, linestyle="--", linewidth=1.2, label="law of the data")
    bridge = f"bridge: {100 * line.bridge:.1f} %\nof the mass"
    middle = sum(GAP) / 2
    arrow = {"arrowstyle": "-", "color": RED}
    ax.annotate(bridge, (middle, 0.02), (middle, 0.27), color=RED, ha="center", fontsize=9, arrowprops=arrow)
    ax.set(title=f"The density of G(z), z from {name}", xlabel="x", ylabel="density", xlim=(-3, 3.2), ylim=(0, 0.9))
    ax.legend(loc="upper right", fontsize=8)


def draw_lattice(ax: Any, across: Tensor, along: Tensor) -> None:
    """The lines of constant z_2 and of constant z_1, wherever they are now."""
    for lines, colour in ((across, BLUE), (along, ORANGE)):
        for line in lines:
            ax.plot(line[:, 0], line[:, 1], color=colour, linewidth=0.7, alpha=0.9)
