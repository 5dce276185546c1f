"""What D has learnt without labels: a linear classifier on its features of digits, and on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from organza.data import open_data
from organza.game import Game
from organza.lab.experiment import BLUE, GREY, ORANGE, Bench, Check, least, near, played, seeded
from organza.moves import Alternating
from organza.nn import DCGANDiscriminator, DCGANGenerator
from organza.objective import NonSaturating
from organza.optimizer import Adam
from organza.penalty import R1
from organza.prior import Normal
from organza.schedule import Linear
from organza.term import Lazy

__all__ = [
    "DISCRIMINATOR",
    "LABELS",
    "PIXELS",
    "RANDOM",
    "Probe",
    "ahead",
    "check",
    "draw",
    "mean",
    "probe",
    "words",
]

DISCRIMINATOR, RANDOM, PIXELS = "D's last hidden layer", "the same network, random weights", "pixels"
LABELS = {100: 5, 1_000: 3, 10_000: 1}  # how many labels, and how many times other ones


class Probe(NamedTuple):
    """What linear classifiers found in features of digits."""

    accuracy: dict[str, dict[int, float]]  # by features, by number of labels
    x: Tensor  # samples of G


def ahead(probes: Sequence[Probe], other: str, labels: int) -> float:
    """By how much the accuracy on D's features exceeds that on others, in the worst run."""
    return min(each.accuracy[DISCRIMINATOR][labels] - each.accuracy[other][labels] for each in probes)


def check(probes: Sequence[Probe]) -> list[Check]:
    """The worst of the probes."""
    everything = max(LABELS)
    apart = max((e.accuracy[DISCRIMINATOR][everything] - e.accuracy[PIXELS][everything] for e in probes), key=abs)
    pixels = min(e.accuracy[PIXELS][everything] for e in probes)
    return [
        least("digits, 1,000 labels: D's features ahead of a random network's", ahead(probes, RANDOM, 1_000), 0.015),
        # A little ahead as a rule; the standard error of either accuracy is .007, and machines differ in the last bits.
        least("digits, 1,000 labels: D's features not behind pixels", ahead(probes, PIXELS, 1_000), -0.01),
        near("digits, all labels: D's features ahead of pixels", 0.0, apart, 0.02),
        least("digits, all labels: accuracy on pixels", pixels, 0.9),
    ]


def mean(probes: Sequence[Probe], features: str, labels: int) -> float:
    """The mean accuracy over the probes."""
    return sum(each.accuracy[features][labels] for each in probes) / len(probes)


def words(probes: Sequence[Probe]) -> str:
    """What happened, in plain words."""
    points = {(f, n): 100 * mean(probes, f, n) for f in (DISCRIMINATOR, RANDOM, PIXELS) for n in LABELS}
    few, some, everything = sorted(LABELS)
    return f"""\
"What it can create it understands": D has seen digits and forgeries, never a label. With {some:,} labels a linear \
classifier on its last hidden layer is right on {points[DISCRIMINATOR, some]:.1f} %, on the same network with random \
weights on {points[RANDOM, some]:.1f} %, and on bare pixels on {points[PIXELS, some]:.1f} % (with {few}: \
{points[DISCRIMINATOR, few]:.1f}, {points[RANDOM, few]:.1f} and {points[PIXELS, few]:.1f} %). So D has learnt \
something about classes that chance does not give; but with all {everything:,} labels pixels are as good \
({points[PIXELS, everything]:.1f} against {points[DISCRIMINATOR, everything]:.1f} %). Features that help are not yet \
understanding, and a random network is the comparison that most claims leave out."""


def probe(seed: int, images: int) -> Probe:
    """Play a game on digits without labels, and train linear classifiers on D's features and on others."""
    data, test = open_data("digits"), open_data("digits", "test")
    shape = (1, 28, 28)
    with seeded(seed):
        G = DCGANGenerator(64, shape, width=16)
        D, random = (DCGANDiscriminator(shape, width=16, norm=False, dense=128, kernel=3) for _ in range(2))
    half = images // 2
    rule = Adam(Linear(1e-3, 2e-5, images=images - half, hold=half), beta1=0.0, beta2=0.99)
    game = Game(G, D, Normal(64), NonSaturating(), (Lazy(R1(0.5), every=8),), joint=True)
    once = Alternating(fresh_noise=False)  # fakes made once serve both players
    model = played(game, data.x, rule, images, batch=32, moves=once, seed=seed)
    x, y = data.gather(torch.arange(len(data)))
    x_test, y_test = test.gather(torch.arange(len(test)))
    assert y is not None and y_test is not None
    accuracy: dict[str, dict[int, float]] = {}
    for name, net in ((DISCRIMINATOR, D), (RANDOM, random), (PIXELS, None)):
        train, probed = (pictures.flatten(1) if net is None else hidden(net, pictures) for pictures in (x, x_test))
        train, probed = standardised(train, probed)
        accuracy[name] = {n: linear(train, y, probed, y_test, n, times, seed) for n, times in LABELS.items()}
    return Probe(accuracy, model.sample(36, seed))


@torch.no_grad()
def hidden(D: DCGANDiscriminator, x: Tensor) -> Tensor:
    """What D's last hidden layer says of pictures, (n, units): the input of the layer that gives the logit."""
    return torch.cat([D.layers(part) for part in x.split(500)])


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Features of mean 0 and standard deviation 1 on the training pictures; what never varies stays 0."""
    mean, std = train.mean(0), train.std(0)
    std = torch.where(std > 0, std, 1.0)
    return (train - mean) / std, (test - mean) / std


def linear(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, n: int, times: int, seed: int) -> float:
    """The mean test accuracy of logistic regressions, each on n other labelled examples."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    accuracies = []
    for rows in order[: n * times].split(n):
        W, b = regression(x[rows], y[rows])
        accuracies.append(float(((x_test @ W + b).argmax(1) == y_test).double().mean()))
    return sum(accuracies) / len(accuracies)


def regression(x: Tensor, y: Tensor, ridge: float = 0.01) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression by L-BFGS: W, (features, 10), and b, (10,)."""
    W, b = x.new_zeros(x.shape[1], 10, requires_grad=True), x.new_zeros(10, requires_grad=True)
    solver = torch.optim.LBFGS([W, b], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = cross_entropy(x @ W + b, y) + 0.5 * ridge * W.square().sum()
        value.backward()
        return value

    solver.step(loss)
    return W.detach(), b.detach()


def draw(bench: Bench, probes: Sequence[Probe]) -> None:
    """What G draws, and the accuracy of linear classifiers against the number of labels."""
    from organza.picture import grid

    title = "What it can create, does it understand? A linear classifier on frozen features"
    with bench.figure(title, 1, 2, (11.0, 5.0), suffix="probe", width_ratios=(1, 1.6)) as axes:
        left, right = axes[0]
        left.imshow(grid(probes[0].x, 6), cmap="gray", interpolation="nearest")
        left.set_title("Samples of G; no label was ever seen")
        left.axis("off")
        for name, colour in ((DISCRIMINATOR, BLUE), (PIXELS, GREY), (RANDOM, ORANGE)):
            means = [100 * mean(probes, name, n) for n in LABELS]
            right.plot(list(LABELS), means, color=colour, marker="o", markersize=5, label=name)
            for each in probes:
                runs = [100 * each.accuracy[name][n] for n in LABELS]
                right.scatter(list(LABELS), runs, s=14, color=colour, alpha=0.5, linewidths=0)
        right.set(xscale="log", xlabel="labels given to the linear classifier", ylabel="test accuracy, %")
        right.set_xticks(list(LABELS), [f"{n:,}" for n in LABELS])
        right.minorticks_off()
        right.set_title("Mean of the runs (dots: each run)")
        right.legend(loc="lower right")
