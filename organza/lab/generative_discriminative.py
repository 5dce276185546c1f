r"""Four views of one law: to tell classes apart, or to draw them

The same labelled points of the plane are seen by a classifier, which learns p(y|x) and nothing else, and by three
generators, of p(x|y) (a conditional game), of the joint p(x, y) (a plain game on points that carry their label as a
third number) and of p(x).  Who can draw each class can also tell them apart, by Bayes' rule:

.. math:: p(y|x) = \frac{p(y) \, p(x|y)}{\sum_{y'} p(y') \, p(x|y')}

A game gives samples and no density, so p(x|y) is estimated by Parzen windows on samples of G, whose width is the one
under which held-out points are most likely.  The law is known, and with it the best accuracy that anything can have.
What p(y|x) cannot say is whether x looks like the data at all: that is a matter of p(x), which divides out.

The other claim is "what it can create it understands": that D, which has learnt without labels to tell digits from
forgeries, has learnt features of digits.  Its last hidden layer is frozen, and a linear classifier (multinomial
logistic regression with a small fixed ridge on standardised features) is trained on it with 100, 1,000 and all labels;
beside it, the same on the same network with random weights and on the bare pixels.

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), section 6
    On Discriminative vs. Generative Classifiers (Ng, Jordan, 2002)
    Conditional Generative Adversarial Nets (Mirza, Osindero, 2014)
    Why ReLU Networks Yield High-Confidence Predictions Far Away From the Training Data (Hein et al., 2019)
    Unsupervised Representation Learning with Deep Convolutional GANs (Radford, Metz, Chintala, 2016), for the probe
    On Random Weights and Unsupervised Feature Learning (Saxe et al., 2011), for the random network

Tolerances, each for the worst of all runs.  On 4,000 test points the accuracies of the classifier, of p(x|y) and of
p(x, y) fall short of that of the law itself by at most 0.03; p(x, y) draws the second class as often as its data within
0.05.  That an outlier, uniform in a box and 5 standard deviations from every heap, has a lower density than a typical
point is seen by each generator with an AUC of at least 0.9; planted, the classifier's doubt has at most 0.5 (it is
surer of outliers than of data).  Digits: with 1,000 labels the accuracy on D's features exceeds that on the random
network's by at least 0.015, and falls short of that on pixels by at most 0.01; with all 10,000 it differs from that on
pixels by at most 0.02, which itself is at least 0.9, so that the probe is no straw man.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from organza.game import Game
from organza.lab.experiment import BLUE, GREY, INK, ORANGE, RED, Bench, Check, Outcome, least, most, played, seeded
from organza.lab.probe import RANDOM, Probe, ahead, probe
from organza.lab.probe import check as check_probes
from organza.lab.probe import draw as draw_probes
from organza.lab.probe import words as words_of_probes
from organza.metrics.likelihood import parzen, parzen_log_likelihood
from organza.model import Model
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import RelativisticLogistic
from organza.optimizer import Adam
from organza.penalty import R1, R2
from organza.prior import Normal
from organza.schedule import Linear
from organza.theory.density import Gaussian, Mixture

__all__ = ["run"]

CLASSIFIER, GIVEN, JOINT, PLAIN = "p(y|x)", "p(x|y)", "p(x, y)", "p(x)"
P_Y = (0.55, 0.45)
HEAPS = (  # of each class: centre, standard deviation, weight
    (((-1.2, 0.9), 0.45, 0.6), ((1.0, -1.0), 0.55, 0.4)),
    (((1.1, 0.8), 0.5, 0.5), ((-0.9, -1.1), 0.4, 0.5)),
)
SIDE = 5.0  # of the box of outliers, from its middle
FAR = 5.0  # standard deviations from every heap, for an outlier
SIGMAS = tuple(0.05 * 1.25**k for k in range(12))  # widths of windows, 0.05 to 0.58


class Job(NamedTuple):
    """One view of the points, or one probe."""

    what: str  # a view, or "probe"
    seed: int
    images: int  # shown to D


class View(NamedTuple):
    """What became of one view of the points."""

    job: Job
    accuracy: float  # of naming classes; NaN where the view knows none
    best: float  # that of the law itself on the same points
    auc: float  # of telling outliers from data by the view's own doubt
    x: Tensor  # its samples, (n, 2); empty for the classifier
    y: Tensor  # their labels, (n,)
    surface: Tensor  # p(y=1|x) on the lattice, or log p(x); empty but for the first seed


def laws() -> list[Mixture]:
    """p(x|y) of both classes."""
    return [Mixture([Gaussian(mean, sigma) for mean, sigma, _ in heaps], [w for *_, w in heaps]) for heaps in HEAPS]


def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Labelled points of the law: x, (n, 2), and y, (n,)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor(P_Y), n, replacement=True, generator=generator)
    both = torch.stack([law.sample(n, generator) for law in laws()])  # (2, n, 2)
    return both[y, torch.arange(n)].float(), y


def outliers(n: int, seed: int) -> Tensor:
    """Uniform points of the box that are far from every heap, (n, 2)."""
    x = SIDE * (2 * torch.rand(4 * n, 2, generator=torch.Generator().manual_seed(seed)) - 1)
    for mean, sigma, _ in (heap for heaps in HEAPS for heap in heaps):
        x = x[(x - torch.tensor(mean)).norm(dim=1) > FAR * sigma]
    return x[:n]


def lattice(points: int = 81) -> Tensor:
    """The box, (points^2, 2), row by row."""
    line = torch.linspace(-SIDE, SIDE, points)
    return torch.cartesian_prod(line, line).flip(1)


def law_joint(x: Tensor) -> Tensor:
    """log p(x, y) of the law itself, (n, 2)."""
    return torch.stack([law.log_prob(x.double()) for law in laws()], 1) + torch.tensor(P_Y).double().log()


def auc(high: Tensor, low: Tensor) -> float:
    """The probability that one of ``high`` exceeds one of ``low``, ties by half: the area under the ROC curve."""
    low = low.sort().values
    below, upto = torch.searchsorted(low, high), torch.searchsorted(low, high, right=True)
    return float((below + upto).double().mean()) / (2 * len(low))


class LabelledG(nn.Module):
    """G(z, y): the label enters as one-hot beside z (Mirza and Osindero, 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLPGenerator(4, (2,), (64, 64, 64), output="linear")

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x: Tensor = self.net(torch.cat([z, one_hot(y, 2).to(z)], 1))  # (B, 2) and (B,) -> (B, 2)
        return x


class LabelledD(nn.Module):
    """D(x, y): the label enters as one-hot beside x."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLPDiscriminator((4,), (64, 64, 64))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        logits: Tensor = self.net(torch.cat([x, one_hot(y, 2).to(x)], 1))  # (B, 2) and (B,) -> (B,)
        return logits


def jobs(fast: bool) -> list[Job]:
    """All runs, the longest first."""
    digits, points, seeds = (55_000, 80_000, 1) if fast else (80_000, 120_000, 3)
    views = (GIVEN, JOINT, PLAIN, CLASSIFIER)
    return [
        *(Job("probe", seed, digits) for seed in range(1 if fast else 2)),
        *(Job(view, seed, points) for seed in range(seeds) for view in views),
    ]


def run(bench: Bench) -> Outcome:
    """See labelled points in four ways, and ask what D has learnt about digits."""
    found = bench.map("views and probes", play, jobs(bench.fast))
    views = [each for each in found if isinstance(each, View)]
    probes = [each for each in found if isinstance(each, Probe)]
    draw_views(bench, views)
    draw_probes(bench, probes)
    return Outcome(
        words=words(views, probes),
        checks=[*check_views(views), *check_probes(probes)],
        verdict="half true: who can draw each class can name it as well as a classifier, and knows what is strange; "
        f"D's features beat random ones by {100 * ahead(probes, RANDOM, 1_000):.2f} points or more with 1,000 labels, "
        "but with all labels pixels do as well",
    )


def check_views(views: Sequence[View]) -> list[Check]:
    """The worst of the runs on points."""
    by = {name: [view for view in views if view.job.what == name] for name in (CLASSIFIER, GIVEN, JOINT, PLAIN)}
    shares = [abs(float(view.y.double().mean() - draw(4_000, view.job.seed)[1].double().mean())) for view in by[JOINT]]
    return [
        *(
            most(f"{name}: accuracy short of the best possible", [e.best - e.accuracy for e in by[name]], 0.03)
            for name in (CLASSIFIER, GIVEN, JOINT)
        ),
        most(f"{JOINT}: share of the second class, samples against their data", shares, 0.05),
        *(
            least(f"{name}: AUC of low density for outliers", [e.auc for e in by[name]], 0.9)
            for name in (GIVEN, JOINT, PLAIN)
        ),
        most(f"{CLASSIFIER}: AUC of doubt for outliers", [e.auc for e in by[CLASSIFIER]], 0.5, planted=True),
    ]


def words(views: Sequence[View], probes: Sequence[Probe]) -> str:
    """What happened, in plain words."""
    short = 100 * max(view.best - view.accuracy for view in views if view.job.what in (GIVEN, JOINT))
    plain = 100 * max(view.best - view.accuracy for view in views if view.job.what == CLASSIFIER)
    sure = max(view.auc for view in views if view.job.what == CLASSIFIER)
    known = min(view.auc for view in views if view.job.what != CLASSIFIER)
    return f"""\
Four programs saw the same 4,000 labelled points. The classifier learnt p(y|x) and comes within {plain:.1f} points of \
the best accuracy that the law allows. The generators of p(x|y) and of p(x, y) never learnt to tell classes apart, \
only to draw them; with Bayes' rule on what they draw they come within {short:.1f} points. In two dimensions windows \
on the data would do as well: the game shows that nothing about y is lost, not that it is the best way to name it.

What the classifier lacks is p(x). Of points far from all data it is surer than of data, so that its doubt finds \
outliers worse than chance (AUC {sure:.2f}; 0.5 is chance); the density of G's samples finds them in every generator \
(AUC {known:.5f} or more), even in that of p(x), which knows no class and can name none.

{words_of_probes(probes)}"""


def play(job: Job) -> View | Probe:
    """Make one view of the points, or one probe of digits."""
    if job.what == "probe":
        return probe(job.seed, job.images)
    return classifier(job) if job.what == CLASSIFIER else generators(job)


def classifier(job: Job, steps: int = 1_000) -> View:
    """Learn p(y|x) alone, by cross-entropy."""
    x, y = draw(4_000, job.seed)
    with seeded(job.seed):
        net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(job.seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,), generator=generator)
        loss = cross_entropy(net(x[rows]), y[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        # Logits of a classifier are log p(y|x) up to a constant of each x; how sure it is, is their difference.
        return judged(job, net, lambda logits: -logits.diff(dim=1).abs()[:, 0], x[:0], y[:0])


def generators(job: Job) -> View:
    """Play the view's game, and estimate the density of what its G draws."""
    x, y = draw(4_000, job.seed)
    model = generator(job, x, y)
    n = 4_000
    labels = torch.arange(n) % 2
    if job.what == GIVEN:
        samples, prior = model.sample(n, job.seed, labels), y.bincount() / len(y)
    elif job.what == JOINT:
        points = model.sample(n, job.seed)
        samples, labels = points[:, :2], (points[:, 2] > 0).long()
        prior = labels.bincount(minlength=2) / n
    else:
        samples, labels, prior = model.sample(n, job.seed), torch.zeros(n).long(), torch.ones(1)
    held, name = draw(1_000, 10_000 + job.seed)
    name = torch.zeros_like(name) if job.what == PLAIN else name
    centres = [samples[labels == k] for k in range(len(prior))]
    widths = [parzen(mu, held[name == k], held[name == k], SIGMAS).sigma for k, mu in enumerate(centres)]

    def log_joint(x: Tensor) -> Tensor:
        given = [parzen_log_likelihood(mu, x, sigma) for mu, sigma in zip(centres, widths, strict=True)]
        return torch.stack(given, 1) + prior.double().log()  # (n, classes)

    return judged(job, log_joint, lambda joint: -joint.logsumexp(1), samples, labels)


def generator(job: Job, x: Tensor, y: Tensor) -> Model:
    """Play the game of a view: relativistic, with R1 and R2, and rates that fall to almost nothing."""
    data: Any = (x, y) if job.what == GIVEN else x
    with seeded(job.seed):
        G: nn.Module = LabelledG()
        D: nn.Module = LabelledD()
        if job.what != GIVEN:
            if job.what == JOINT:
                data = torch.cat([x, 2.0 * y[:, None] - 1], 1)  # (n, 3)
            G = MLPGenerator(4, data.shape[1:], (64, 64, 64), output="linear")
            D = MLPDiscriminator(data.shape[1:], (64, 64, 64))
    third = job.images // 3
    rule = Adam(Linear(2e-3, 2e-5, images=job.images - third, hold=third), beta1=0.0, beta2=0.99)
    prior = Normal(2 if job.what == GIVEN else 4)
    terms = (R1(0.02), R2(0.02))
    game = Game(G, D, prior, RelativisticLogistic(), terms, conditional=job.what == GIVEN, joint=True)
    return played(game, data, rule, job.images, batch=128, seed=job.seed)


def judged(job: Job, log_joint: Any, doubt: Any, x: Tensor, y: Tensor) -> View:
    """Let a view name the classes of test points, and doubt outliers.

    ``log_joint`` takes points, (n, 2), to log p(x, y) up to what does not depend on y, (n, classes), and ``doubt`` that
    to how little the view believes in each point, (n,); x, y are the view's own samples.
    """
    test, truth = draw(4_000, 20_000 + job.seed)
    seen = log_joint(test)
    right = (seen.argmax(1) == truth).double().mean() if seen.shape[1] == 2 else torch.tensor(torch.nan)
    values = log_joint(lattice() if job.seed == 0 else lattice(2))  # only the first seed is drawn
    surface = values.softmax(1)[:, 1] if values.shape[1] == 2 else values[:, 0]
    return View(
        job=job,
        accuracy=float(right),
        best=float((law_joint(test).argmax(1) == truth).double().mean()),
        auc=auc(doubt(log_joint(outliers(1_000, 30_000 + job.seed))), doubt(seen)),
        x=x,
        y=y,
        surface=surface,
    )


def draw_views(bench: Bench, views: Sequence[View]) -> None:
    """The points, three maps of p(y|x), one of log p(x), and how good all views are; of each the first seed."""
    first = {view.job.what: view for view in reversed(views)}
    x, y = draw(1_000, 0)
    strange = outliers(150, 0)
    with bench.figure("Telling classes apart, or drawing them: four views of one law", 2, 3, (12.0, 7.8)) as axes:
        draw_points(axes[0, 0], x, y)
        draw_border(axes[0, 0], law_joint(lattice()).softmax(1)[:, 1])
        axes[0, 0].set(title="The data, and the best border", ylabel="x₂")
        draw_map(axes[0, 1], first[CLASSIFIER].surface)
        axes[0, 1].scatter(*strange.T, s=16, marker="x", color=INK, linewidths=0.9, label="outliers")
        axes[0, 1].set_title("Classifier p(y|x): sure of outliers too")
        axes[0, 1].legend(loc="upper left", fontsize=8, frameon=True)
        hows = ((axes[0, 2], GIVEN, "a G told the class"), (axes[1, 0], JOINT, "a G that draws the label"))
        for ax, name, how in hows:
            image = draw_map(ax, first[name].surface)
            draw_points(ax, first[name].x[:1_000], first[name].y[:1_000])
            ax.set_title(f"{name}: {how}, and Bayes")
        bar = axes[0, 2].figure.colorbar(image, ax=axes[0, 2], label="p(y = 1 | x)", ticks=(0, 0.5, 1))
        bar.outline.set_visible(False)
        draw_density(axes[1, 1], first[PLAIN], strange)
        for ax in (*axes[0], *axes[1, :2]):
            ticks = (-4, -2, 0, 2, 4)
            ax.set(xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), aspect="equal", xlabel="x₁", xticks=ticks, yticks=ticks)
            ax.grid(False)
        axes[1, 0].set_ylabel("x₂")
        draw_bars(axes[1, 2], views)


def draw_points(ax: Any, x: Tensor, y: Tensor) -> None:
    """Points in the colours of their classes."""
    for k, colour in enumerate((BLUE, ORANGE)):
        ax.scatter(*x[y == k].T, s=5, color=colour, linewidths=0, alpha=0.8, label=f"y = {k}")
    ax.legend(loc="upper left", fontsize=8, markerscale=2.5, frameon=True)


def draw_map(ax: Any, surface: Tensor) -> Any:
    """p(y=1|x) on the lattice in pale colours of the classes, and the border."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("classes", ["#a9cfe8", "#ffffff", "#f6d48f"])
    side = round(len(surface) ** 0.5)
    box = (-SIDE, SIDE, -SIDE, SIDE)
    image = ax.imshow(surface.view(side, side).numpy(), extent=box, origin="lower", cmap=colours, vmin=0, vmax=1)
    draw_border(ax, surface)
    return image


def draw_border(ax: Any, surface: Tensor) -> None:
    """Where both classes are equally likely."""
    side = round(len(surface) ** 0.5)
    line = torch.linspace(-SIDE, SIDE, side)
    ax.contour(line.numpy(), line.numpy(), surface.view(side, side).numpy(), levels=[0.5], colors=[INK], linewidths=1.0)


def draw_density(ax: Any, view: View, strange: Tensor) -> None:
    """log p(x) on the lattice, cut off below, and the outliers."""
    side = round(len(view.surface) ** 0.5)
    box = (-SIDE, SIDE, -SIDE, SIDE)
    field = view.surface.view(side, side).numpy()
    image = ax.imshow(field, extent=box, origin="lower", cmap="Greys", vmin=-20, vmax=0)
    bar = ax.figure.colorbar(image, ax=ax, label="log p(x), nats (−20 or less is white)", ticks=(-20, -10, 0))
    bar.outline.set_visible(False)
    ax.scatter(*strange.T, s=16, marker="x", color=RED, linewidths=0.9, label="outliers")
    ax.set_title("p(x): knows outliers, names no class")
    ax.legend(loc="upper left", fontsize=8, frameon=True)


def draw_bars(ax: Any, views: Sequence[View]) -> None:
    """Accuracy and AUC of each view, the mean of its runs."""
    for place, name in enumerate((CLASSIFIER, GIVEN, JOINT, PLAIN)):
        mine = [view for view in views if view.job.what == name]
        bars = ((-0.2, BLUE, [e.accuracy for e in mine if name != PLAIN]), (0.2, GREY, [e.auc for e in mine]))
        for side, colour, values in bars:
            if values:
                middle = sum(values) / len(values)
                ax.bar(place + side, middle, 0.36, color=colour)
                ax.text(place + side, middle + 0.03, f"{middle:.2f}", ha="center", fontsize=8, color=INK)
            else:
                ax.text(place + side, 0.03, "none", ha="center", fontsize=8, color=INK)
    best = sum(view.best for view in views) / len(views)
    ax.axhline(best, color=INK, linestyle="--", linewidth=1, label=f"best accuracy possible: {best:.2f}")
    ax.bar(0, 0, color=BLUE, label="accuracy of naming classes")
    ax.bar(0, 0, color=GREY, label="AUC of finding outliers (chance: 0.5)")
    ax.set(title="What each view is good for", xticks=range(4), ylim=(0, 1.55), yticks=(0, 0.25, 0.5, 0.75, 1))
    ax.set_xticklabels([CLASSIFIER, GIVEN, JOINT, PLAIN])
    ax.legend(loc="upper left", fontsize=8)
