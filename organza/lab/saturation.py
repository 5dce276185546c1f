r"""Vanishing gradients: early or late?

Claim (Goodfellow et al., 2014): "early in learning, when G is poor, D can reject samples with high confidence [...]
log(1 - D(G(z))) saturates", so that nothing reaches G; train G to maximise log D(G(z)) instead.

G is frozen and D trained by `fit`; at D's steps, evenly spread on a scale of logarithms, the gradient that would reach
G is measured, :math:`\| \nabla_\theta E_z[L_G(D(G_\theta(z)))] \|`, for the G loss of each objective, D being trained
with that objective's D loss.  Minimax and non-saturating share D's loss, and so the very same D.  With f = D's logit,

.. math::
    \nabla_\theta \log(1 - D(G)) = -D \; \nabla_\theta f(G), \qquad
    \nabla_\theta (-\log D(G)) = -(1 - D) \; \nabla_\theta f(G)

Where D is sure of a fake, D -> 0, the first vanishes and the second does not.  Arjovsky and Bottou bound the first:
where the laws do not overlap the best D has D* = 0 and no slope on the fakes, and if
:math:`\epsilon = \sup_x |D - D^*| + \| \nabla_x (D - D^*) \| < 1` and :math:`E_z \| J_\theta G(z) \|^2 \le M^2`,

.. math:: \| \nabla_\theta E_z \log(1 - D(G(z))) \| < M \epsilon / (1 - \epsilon)

At the best D held fixed, minimax's is the gradient of 2 JSD, non-saturating's that of KL(q || p) - 2 JSD.

In 1-D (float64) the data are N(0, 1), the poor G makes N(8, .5), the good one N(.2, 1); G is affine, in mean and log
sigma; data and z come without sampling noise; epsilon is the largest of 2,001 points of the fakes' range, M exact.  On
digits the poor G is an untrained perceptron, the good one the same trained with R1; every D starts anew; epsilon is the
largest over the z measured, M^2 the mean squared Frobenius norm of the Jacobian there, by a random direction each.

It passes if in 1-D, for every seed (3, or 1 with ``--fast``), at the poor G: D* is below 1e-5 on the fakes; minimax's
gradient ends at 1/50 or less of the start and 1/1,000 or less of non-saturating's (planted), which does not fall; it
is below the bound wherever epsilon < 1; RpGAN + R1 + R2 ends at 1/10 or less (planted).  At the good G both end within
5 % of theory and within a factor of 1.1 of each other.  On digits, at the poor G: minimax's falls to 1/100 or less
(planted), non-saturating's does not fall, the bound holds; minimax's falls for good below 10 % of non-saturating's
within 50 steps of D (planted), and takes at least 5 times as many at the good G.

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), section 3
    Towards Principled Methods for Training Generative Adversarial Networks (Arjovsky, Bottou, 2017), section 2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from organza.data import open_data
from organza.game import Game
from organza.lab.convergence import Sliced, shown
from organza.lab.experiment import (
    CYCLE,
    INK,
    RED,
    Bench,
    Check,
    Outcome,
    double,
    least,
    most,
    near,
    number,
    played,
    seeded,
)
from organza.moves import Alternating
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import Hinge, LeastSquares, Minimax, NonSaturating, Objective, RelativisticLogistic, Wasserstein
from organza.optimizer import SGD, Adam
from organza.penalty import R1, R2, GradientPenalty
from organza.prior import Normal
from organza.round import Batch, Draw
from organza.schedule import Linear
from organza.term import Lazy, Term
from organza.theory import D_star, Gaussian, js, reverse_kl

__all__ = ["run"]

MINIMAX, OTHER = "minimax", "non-saturating"
NAMES = (OTHER, "hinge", "least squares", MINIMAX, "WGAN-GP", "RpGAN", "RpGAN + R1 + R2")
COLOURS = dict(zip(NAMES, CYCLE, strict=True))
LOGISTIC, REGULAR = "logistic", NAMES[-1]  # the arm of minimax and non-saturating, whose D is the same
ARMS = (LOGISTIC, *(name for name in NAMES if name not in (MINIMAX, OTHER)))
DATA, POOR, GOOD = Gaussian(0.0, 1.0), (8.0, 0.5), (0.2, 1.0)
LATENT, SHAPE, BATCH = 32, (1, 28, 28), {"line": 256, "digits": 64}
SHARE = 0.1  # of non-saturating's gradient: below it minimax's counts as vanished
Weights = dict[str, Tensor]


class Arm(NamedTuple):
    """What D is trained with, and the objectives whose G loss is then measured."""

    objective: Objective
    terms: Sequence[Term]
    measured: Mapping[str, Objective] = MappingProxyType({})


class Item(NamedTuple):
    """One D to be trained: on which data, against the good G or the poor, with which arm, seed and number of steps."""

    data: str
    good: bool
    arm: str
    seed: int
    steps: int
    weights: Weights | None = None  # of the good G


class Path(NamedTuple):
    """What was measured at each look, from D's step 0: gradients by objective, mean D(G(z)), and the bound or NaN."""

    item: Item
    steps: list[int]
    gradients: dict[str, list[float]]
    scores: list[float]
    bound: list[float]


class Affine(nn.Module):
    """G(z) = mean + sigma z, with parameters mean and log sigma."""

    def __init__(self, mean: float, sigma: float) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma), dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.mean + self.log_sigma.exp() * z


def arm(name: str) -> Arm:
    """Return an arm by its name."""
    arms = {
        LOGISTIC: Arm(Minimax(), [], {MINIMAX: Minimax(), OTHER: NonSaturating()}),
        "least squares": Arm(LeastSquares(), []),
        "hinge": Arm(Hinge(), []),
        "WGAN-GP": Arm(Wasserstein(), [GradientPenalty(10.0)]),
        "RpGAN": Arm(RelativisticLogistic(), []),
        REGULAR: Arm(RelativisticLogistic(), [R1(1.0), R2(1.0)]),
    }
    return arms[name]._replace(measured=arms[name].measured or {name: arms[name].objective})


def reach(game: Game, objective: Objective, x: Tensor, z: Tensor) -> float:
    """Return the norm of the gradient that reaches G's parameters through the game's D and the objective's G loss."""
    asked = Game(game.generator, game.discriminator, game.prior, objective)
    round = asked.look(Batch(x, None, Draw(torch.Generator(), len(x)), 0, 0), z, game.generator(z), "generator")
    parts = torch.autograd.grad(asked.loss(round, "generator"), list(game.generator.parameters()))
    return float(torch.cat([part.flatten() for part in parts]).norm())


def limit(M: float, D: nn.Module, fakes: Tensor) -> float:
    """Return Arjovsky and Bottou's bound with D* = 0 on the fakes, (n, ...), or NaN where it says nothing."""
    x = fakes.detach().requires_grad_()
    score = D(x).sigmoid()
    (slope,) = torch.autograd.grad(score.sum(), x)
    epsilon = float((score.detach() + slope.flatten(1).norm(dim=1)).max())
    return M * epsilon / (1 - epsilon) if epsilon < 1 else math.nan


def jacobian(G: nn.Module, z: Tensor) -> float:
    """Return M: the root of the mean over z of |J|^2 (Frobenius) in G's parameters: E |v J|^2 with v ~ N(0, I)."""
    weights = {name: weight.detach() for name, weight in G.named_parameters()}
    v = torch.randn(G(z).shape, generator=torch.Generator().manual_seed(0), dtype=z.dtype)

    def squared(one: Tensor, v: Tensor) -> Tensor:
        pull: Any = vjp(lambda w: functional_call(G, w, (one[None],))[0], weights)[1]
        return torch.stack([part.square().sum() for part in pull(v)[0].values()]).sum()

    return math.sqrt(float(vmap(squared, chunk_size=64)(z, v).mean()))


def looks(steps: int) -> list[int]:
    """D's steps at which to look, 8 for each factor of 10."""
    return sorted({0, steps, *(round(10 ** (i / 8)) for i in range(int(8 * math.log10(steps)) + 1))})


def watched(game: Game, item: Item, data: Any, rule: Adam, x: Tensor, z: Tensor, bound: Callable[[], float]) -> Path:
    """Train D by `fit` against the frozen G, and measure by the way."""
    when, measured, batch = looks(item.steps), arm(item.arm).measured, BATCH[item.data]
    path = Path(item, when, {name: [] for name in measured}, [], [])

    def look(steps: int) -> None:
        if steps in when:
            for name, objective in measured.items():
                path.gradients[name].append(reach(game, objective, x, z))
            with torch.no_grad():
                path.scores.append(float(game.discriminator(game.generator(z)).sigmoid().mean()))
            path.bound.append(math.nan if item.good or item.arm != LOGISTIC else bound())

    look(0)
    more = {"batch": batch, "generator_batch": 2, "half_life": 0, "seed": item.seed}
    played(game, data, (SGD(0.0), rule), item.steps * batch, lambda state: look(state.steps), **more)
    return path


def on_line(item: Item) -> Path:
    """Train one D on the line, in float64."""
    with double():
        G = Affine(*(GOOD if item.good else POOR))
        with seeded(item.seed):
            D = MLPDiscriminator((1,), (32, 32), "tanh")
        chosen, n = arm(item.arm), 4096
        game = Game(G, D, Sliced(), chosen.objective, chosen.terms, joint=True)
        z = shown(Gaussian(), n)
        x = shown(DATA, n)[torch.randperm(n, generator=torch.Generator().manual_seed(0))]  # pairs are independent
        fakes = G(torch.linspace(float(z.min()), float(z.max()), 2001)[:, None])
        M = math.sqrt(1 + float(G.log_sigma.detach().exp()) ** 2)  # dG = d mean + sigma z d log sigma
        rule = Adam(Linear(1e-2, 1e-5, item.steps * BATCH["line"]), 0.9)
        return watched(game, item, shown(DATA, BATCH["line"]), rule, x, z, lambda: limit(M, D, fakes))


def players(seed: int) -> tuple[nn.Module, nn.Module]:
    """For the digits: the poor G, untrained and always the same, and a new D."""
    with seeded(0):
        G = MLPGenerator(LATENT, SHAPE, (128, 256))
    with seeded(1000 + seed):
        return G, MLPDiscriminator(SHAPE, (256, 128))


def good_digits(steps: int) -> Weights:
    """Train the good G, and return its weights."""
    game = Game(*players(99), Normal(LATENT), NonSaturating(), [Lazy(R1(2.0), every=4)], joint=True)
    images = steps * BATCH["digits"]
    rule = Adam(Linear(1e-3, 2e-5, images // 2, hold=images // 2), 0.0, 0.99)
    once, mean = Alternating(fresh_noise=False), Linear(0, 10_000, images=100_000)
    return dict(played(game, "digits", rule, images, moves=once, half_life=mean).generator.state_dict())


def on_digits(item: Item) -> Path:
    """Train one D on the digits."""
    G, D = players(item.seed)
    if item.weights is not None:
        G.load_state_dict(item.weights)
    chosen, data, n = arm(item.arm), open_data("digits"), 512
    game = Game(G, D, Normal(LATENT), chosen.objective, chosen.terms, joint=True)
    chance = torch.Generator().manual_seed(7)
    z = game.prior.draw(n, chance)
    x, _ = data.gather(torch.randperm(len(data), generator=chance)[:n])
    M = math.nan if item.good or item.arm != LOGISTIC else jacobian(G, z)
    rule = Adam(Linear(1e-3, 1e-5, 2000 * 64), 0.5)
    path = watched(game, item, data, rule, x, z, lambda: limit(M, D, G(z)))
    return path._replace(item=item._replace(weights=None))


def work(item: Item | int) -> Path | Weights:
    """Do what an item says: train one D, or for a number of steps the good G for the digits."""
    return good_digits(item) if isinstance(item, int) else on_line(item) if item.data == "line" else on_digits(item)


def told() -> tuple[float, float]:
    """Theory at the good G on the line: the norms of the gradients of 2 JSD and of KL(q || p) - 2 JSD."""

    def slopes(of: Callable[[Gaussian], float]) -> float:
        (m, s), h = GOOD, 1e-3
        mean = of(Gaussian(m + h, s)) - of(Gaussian(m - h, s))
        log_sigma = of(Gaussian(m, s * math.exp(h))) - of(Gaussian(m, s * math.exp(-h)))
        return math.hypot(mean, log_sigma) / (2 * h)

    jsd = slopes(lambda q: 2 * js(DATA, q, 1e-9).value)
    return jsd, slopes(lambda q: reverse_kl(DATA, q, 1e-9).value - 2 * js(DATA, q, 1e-9).value)


def overlap() -> float:
    """Return the largest D* on the range of the poor G's fakes on the line."""
    D = D_star(Minimax(), DATA, Gaussian(*POOR))
    return float(D(POOR[0] + POOR[1] * shown(Gaussian(), 4096)).sigmoid().max())


def vanished(path: Path) -> float:
    """Return D's steps after which minimax's gradient stays below a tenth of non-saturating's, or infinity."""
    pairs = zip(path.gradients[MINIMAX], path.gradients[OTHER], strict=True)
    last = max((i for i, (minimax, other) in enumerate(pairs) if not minimax < SHARE * other), default=-1)
    return float([*path.steps, math.inf][last + 1])


def excess(path: Path) -> float:
    """Return the largest ratio of minimax's gradient to its bound, over the looks where there is one."""
    pairs = zip(path.gradients[MINIMAX], path.bound, strict=True)
    return max((gradient / bound for gradient, bound in pairs if not math.isnan(bound)), default=math.nan)


def fell(path: Path, name: str) -> float:
    """Return an objective's gradient at the end as a share of that at the start."""
    return path.gradients[name][-1] / path.gradients[name][0]


def verify(paths: Sequence[Path]) -> list[Check]:
    """Compare what was measured with what the tolerances say."""
    (poor, good), (bad, fine) = ([pick(paths, data, kind) for kind in (False, True)] for data in ("line", "digits"))
    (penalised,) = pick(paths, "line", False, REGULAR)
    ends, theory = [(path.gradients[MINIMAX][-1], path.gradients[OTHER][-1]) for path in good], told()
    worst = [theory[i] + max((end[i] - theory[i] for end in ends), key=abs) for i in range(2)]
    apart = max(abs(math.log(minimax / other)) for minimax, other in ends)
    final = max(path.gradients[MINIMAX][-1] / path.gradients[OTHER][-1] for path in poor)
    line, digits, early, late = "1-D, poor G: ", "digits, poor G: ", vanished(bad[0]), vanished(fine[0])
    return [
        most(line + "largest D* on the fakes", overlap(), 1e-5, planted=True),
        most(line + "minimax's gradient, end / start", max(fell(path, MINIMAX) for path in poor), 1 / 50, planted=True),
        most(line + "minimax's / non-saturating's at the end", final, 1e-3, planted=True),
        least(line + "non-saturating's gradient, end / start", min(fell(path, OTHER) for path in poor), 1.0),
        most(line + "minimax's gradient / its bound, largest", max(excess(path) for path in poor), 1.0),
        most(line + "RpGAN + R1 + R2's gradient, end / start", fell(penalised, REGULAR), 0.1, planted=True),
        near("1-D, good G: minimax's gradient, against that of 2 JSD", theory[0], worst[0], 0.05 * theory[0]),
        near("1-D, good G: non-saturating's, against KL(q || p) − 2 JSD", theory[1], worst[1], 0.05 * theory[1]),
        most("1-D, good G: factor between the two at the end", math.exp(apart), 1.1),
        most(digits + "minimax's gradient, end / start", fell(bad[0], MINIMAX), 0.01, planted=True),
        least(digits + "non-saturating's gradient, end / start", fell(bad[0], OTHER), 1.0),
        most(digits + "minimax's gradient / its bound, largest", excess(bad[0]), 1.0),
        most(digits + "D's steps until minimax's stays below 10 % of the other", early, 50, planted=True),
        least("digits, good G: times as many steps until then", late / early, 5.0),
    ]


def pick(paths: Sequence[Path], data: str, good: bool, name: str = LOGISTIC) -> list[Path]:
    """Return the paths of an arm, one for each seed."""
    return [path for path in paths if path.item[:3] == (data, good, name)]


def run(bench: Bench) -> Outcome:
    """Freeze G, train D with every objective, and measure what would reach G; if fast, 1 seed and shorter runs."""
    seeds, steps, short, long, training = (1, 600, 60, 800, 1000) if bench.fast else (3, 1200, 600, 2000, 2500)
    first: list[Item | int] = [training, *(Item("digits", False, name, 0, max(short, 150)) for name in ARMS)]
    for good in (False, True):
        first += [Item("line", good, name, i, steps) for name in ARMS for i in range(seeds if name == LOGISTIC else 1)]
    weights, *found = bench.map("D against a poor G, and the training of a good one", work, first)
    assert isinstance(weights, dict)
    then = [Item("digits", True, name, 0, long if name == LOGISTIC else short, weights) for name in ARMS]
    found += bench.map("D against the good G", work, then)
    paths = [path for path in found if isinstance(path, Path)]
    _draw(bench, paths)
    early, late = (_when(pick(paths, "digits", kind)[0]) for kind in (False, True))
    verdict = f"true if D is sure, at any hour; on digits minimax fails {early} at a poor G, {late} at a good one"
    return Outcome(_words(paths), verify(paths), verdict)


def _when(path: Path) -> str:
    return f"after {s:,.0f} steps of D" if math.isfinite(s := vanished(path)) else f"not in {path.steps[-1]:,} steps"


def _shares(paths: Sequence[Path], data: str) -> str:
    """The other objectives' gradients at the poor G, at the end as a multiple of the start."""
    return ", ".join(f"{name} × {number(fell(pick(paths, data, False, name)[0], name), 2)}" for name in ARMS[1:])


def _words(paths: Sequence[Path]) -> str:
    poor, good, bad, fine = (pick(paths, data, kind)[0] for data in ("line", "digits") for kind in (False, True))
    ends = [number(path.gradients[name][-1], 3) for path in (poor, good) for name in (MINIMAX, OTHER)]
    tail = fine.gradients[MINIMAX][-1] / fine.gradients[OTHER][-1]
    return f"""\
G is frozen, D is trained, and now and then we ask how large a gradient would reach G; of minimax and non-saturating \
with the very same D. Early, when G is poor: on the line its fakes hardly touch the data, D soon gives them \
{number(poor.scores[-1], 2)} on average, and minimax's gradient ends at {ends[0]}, non-saturating's at {ends[1]}. \
Arjovsky and Bottou's bound (dashed) says that the first must vanish: the nearer D is to the best, the less G learns.

Late, when G is good: on the line the laws overlap, the best D is near 1/2, and the gradients end at {ends[2]} and \
{ends[3]}, as theory says: small because little is left to learn, not because D is sure. Training D longer changes \
nothing. On digits it does: minimax's gradient stays below a tenth of non-saturating's {_when(bad)} at the untrained \
G, {_when(fine)} at the trained one, where it ends at {tail:.1%} of it (and × \
{number(fell(fine, MINIMAX), 2)} its own start). Given time, this D becomes sure of good fakes \
too, be it by their flaws or by knowing its 10,000 digits by heart. What counts is not the hour but how far D is \
ahead: against a poor G a few steps are enough; against a good one it takes a D that is trained on and on while G waits.

Non-saturating's gradient does not vanish: it grows with D's slope, × {fell(bad, OTHER):.0f} at the poor G of digits, \
× {fell(fine, OTHER):.0f} at the good one. The others at the poor G, end against start, on the line: \
{_shares(paths, "line")}; on digits: {_shares(paths, "digits")}. One of them saturates as well: R1 and R2 make D flat \
where data and fakes are, and if the two lie apart and D is trained to the end, it rises only between them, where no \
fake feels it. In play D hardly gets so far. WGAN-GP asks for slope 1 between them, and keeps its gradient."""


def _draw(bench: Bench, paths: Sequence[Path]) -> None:
    title = "The gradient that reaches G, while D is trained and G stands still"
    with bench.figure(title, 2, 2, (11, 7.6), sharey="row", sharex="row") as axes:
        for row, data in zip(axes, ("line", "digits"), strict=True):
            for ax, good in zip(row, (False, True), strict=True):
                _panel(ax, paths, data, good)
                ax.set_xlabel("steps of D" if data == "digits" else "")
        axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def _panel(ax: Any, paths: Sequence[Path], data: str, good: bool) -> None:
    """One panel: all objectives, with the first seed."""
    for name in reversed(ARMS):  # minimax and non-saturating last, and above all
        path = pick(paths, data, good, name)[0]
        for objective, norms in path.gradients.items():
            width = 2.6 if name == LOGISTIC else 1.4
            ax.plot(path.steps[1:], norms[1:], color=COLOURS[objective], label=objective, linewidth=width)
    if not good:
        ax.plot(path.steps[1:], path.bound[1:], "--", color=RED, linewidth=1.2, label="bound on minimax")
    step = vanished(path)
    if math.isfinite(step):
        ax.axvline(step, color=INK, linestyle=":", linewidth=1)
        side = {"ha": "right", "x": step / 1.12} if good else {"ha": "left", "x": step * 1.12}
        text = f"minimax below 10 % of\nnon-saturating from step {step:,.0f}"
        ax.text(y=0.03, s=text, transform=ax.get_xaxis_transform(), color=INK, fontsize=9, **side)
    titles = ("Digits: a poor G, untrained", "Digits: a good G, trained")
    titles = ("1-D: a poor G, N(8, .5)", "1-D: a good G, N(.2, 1)") if data == "line" else titles
    ax.set(xscale="log", yscale="log", title=titles[good], ylabel="" if good else "norm of the gradient")
