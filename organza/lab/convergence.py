r"""The game converges: Figure 1 of the paper, played

Claim: as the players play, the model's law turns into the data's, and D ends with nothing to say: D = 1/2 everywhere.

The data are N(2, 1) on the line, z ~ N(0, 1), G and D are perceptrons, and `fit` plays Algorithm 1 with k = 2, the
non-saturating loss and R1 (gamma = 1), D being trained 300 steps before G's first move.  Both laws are shown without
sampling noise, as theory has it: the data as 256 evenly likely points, all of them in every batch, z one from each of
256 slices of equal probability.  The law of G is known: z is pushed forward by change of variables.

It passes if at the end, for every seed (5, or 2 with ``--fast``), |D - 1/2| <= .05 where the data's density is at least
1 % of its maximum, |C(G) + log 4| <= .02, and W1 <= .05 sigma, with C(G) = max_D V(D, G) and W1 by quadrature; and
if G began at least one sigma away (planted).

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), Figure 1
    Which Training Methods for GANs do actually Converge? (Mescheder, Geiger, Nowozin, 2018), for R1
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from organza import picture
from organza.game import Game
from organza.lab.experiment import BLUE, GREEN, GREY, INK, Bench, Outcome, double, drawn, least, most, played, seeded
from organza.moves import Alternating
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import Minimax, NonSaturating
from organza.optimizer import Adam
from organza.penalty import R1
from organza.prior import Normal, Prior
from organza.schedule import Bursts, Linear
from organza.theory import Gaussian, Law, Pushforward, cost, w1
from organza.training import State

__all__ = ["DATA", "Moment", "Sliced", "Story", "play", "run", "shown"]

DATA, BATCH = Gaussian(2.0, 1.0), 256
X = torch.linspace(-2.0, 6.0, 401, dtype=torch.float64)[:, None]
Z = torch.special.ndtri((torch.arange(15, dtype=torch.float64) + 0.5) / 15)[:, None]  # evenly likely z


class Sliced(Prior):
    """The standard normal law of one z, drawn once from each of n slices of equal probability: no slice is left out."""

    dim = 1

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
        z: Tensor = torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
        return z[:, None]


class Moment(NamedTuple):
    """The game at one moment.

    Attributes:
        step: Moves of G so far.
        D: D(x) at X, as a probability, (401,).
        q: The model's density at X, (401,).
        G: G(z) at 15 evenly likely z, (15,).
        cost: C(G), or NaN where it was not asked for.
    """

    step: int
    D: Tensor
    q: Tensor
    G: Tensor
    cost: float


class Story(NamedTuple):
    """How one game went: its moments, and at the end max |D - 1/2|, C(G) + log 4 and W1 in sigma."""

    moments: list[Moment]
    D: float
    C: float
    W1: float


class Play(NamedTuple):
    """How to play: seed, G's moves, k, without sampling noise or with, how many moments to keep, with C(G) or not."""

    seed: int
    steps: int = 1500
    k: int = 2
    exact: bool = True
    moments: int = 0
    costs: bool = False


def shown(law: Law, n: int) -> Tensor:
    """n evenly likely points of a law on the line, (n, 1): the middles of slices of equal probability."""
    return law.quantile((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def play(item: Play) -> Story:
    """Play one game by `fit`, in float64."""
    with double():
        with seeded(item.seed):
            G = MLPGenerator(1, (1,), (32, 32), "tanh", "linear")
            D = MLPDiscriminator((1,), (32, 32), "tanh")
        game = Game(G, D, Sliced() if item.exact else Normal(1), NonSaturating(), [R1(1.0)], joint=True)
        moves = Alternating(Bursts(item.k, 300, first=1, every=10**9) if item.exact else item.k)
        images = item.steps * item.k * BATCH + (300 * BATCH if item.exact else 0)
        rule = Adam(Linear(2e-3, 0.0, images // 2, hold=images // 2), 0.0, 0.99)
        when = _when(item)
        moments = [_moment(game, 0, item.costs)] if item.moments else []

        def watch(state: State) -> None:
            if state.steps in when:
                moments.append(_moment(state.game, state.steps, item.costs))

        data = shown(DATA, BATCH if item.exact else 2**14)
        more: dict[str, Any] = {"batch": BATCH, "moves": moves, "half_life": 20_000, "seed": item.seed}
        model = played(game, data, rule, images, watch, **more)
        return _judged(moments, game, model.generator)


def _when(item: Play) -> set[int]:
    """Moves of G at which to look: evenly spread on a scale of logarithms, the last among them."""
    n = max(1, item.moments)
    return {round(item.steps ** (i / n)) for i in range(n + 1)} if item.moments else set()


@torch.no_grad()
def _moment(game: Game, step: int, costs: bool) -> Moment:
    q = Pushforward(copy.deepcopy(game.generator), Gaussian())
    C = cost(Minimax(), DATA, q, 1e-7).value if costs else math.nan
    return Moment(step, game.objective.score(game.discriminator(X)), q.log_prob(X).exp(), game.generator(Z)[:, 0], C)


@torch.no_grad()
def _judged(moments: list[Moment], game: Game, G: nn.Module) -> Story:
    q, density = Pushforward(G, Gaussian()), DATA.log_prob(X)
    inside = density >= density.max() + math.log(0.01)
    D = game.objective.score(game.discriminator(X[inside]))
    C = cost(Minimax(), DATA, q, 1e-7).value + math.log(4)
    return Story(moments, float((D - 0.5).abs().max()), C, w1(DATA, q, 1e-6).value / DATA.sigma)


def run(bench: Bench) -> Outcome:
    """Play the game with several seeds, and draw the first."""
    seeds = 2 if bench.fast else 5
    items = [Play(seed, moments=(24 if bench.fast else 60) if seed == 0 else 0) for seed in range(seeds)]
    stories = bench.map("playing", play, items)
    moments = stories[0].moments
    _draw(bench, moments)
    bench.tell("film", 0, 1)
    bench.film([_frame(moment) for moment in moments], 0.12)
    good = sum(story.D <= 0.05 and abs(story.C) <= 0.02 and story.W1 <= 0.05 for story in stories)
    start = abs(float(moments[0].G.mean() - DATA.mean)) / DATA.sigma
    checks = [
        most("max |D − 1/2| on the support, worst seed", [story.D for story in stories], 0.05),
        most("|C + log 4|, worst seed", [abs(story.C) for story in stories], 0.02),
        most("W1 in sigma, worst seed", [story.W1 for story in stories], 0.05),
        least(f"seeds of {seeds} that meet all three", good, seeds),
        least("distance of the means at the start, in sigma", start, 1.0, planted=True),
    ]
    return Outcome(_words(stories, start), checks, VERDICT)


VERDICT = "true only if something (here R1) makes the game settle and steps shrink: the proof is for laws, not nets"


def _words(stories: list[Story], start: float) -> str:
    worst = max(story.W1 for story in stories)
    return f"""This is the picture with which the paper explains the game: the data's density dotted, the model's in \
green, D in blue, and below it how G carries evenly likely z to x. It is played here by the code that trains networks.

(a) At first G is wrong (its mean {start:.1f} sigma away) and D knows nothing. (b) D has learnt, and says where the \
data are denser than the model; the thin line is p / (p + q), which it would reach without the penalty that keeps its \
slope small. (c) G has followed D's slope uphill. (d) The two laws agree, to {worst:.3f} sigma in the worst of \
{len(stories)} seeds, and D says 1/2 everywhere: it has nothing left to tell.

The paper proves this for laws that are moved freely, with the best D at each step. For networks there is no such \
theorem: without R1, and learning rates that fall to zero, players may circle for ever (see `stability`)."""


def _draw(bench: Bench, moments: list[Moment]) -> None:
    middle = min(moments, key=lambda m: abs(m.step - 40))
    four = [
        (moments[0], "(a) before the game"),
        (moments[1], "(b) D has learnt"),
        (middle, f"(c) after {middle.step} moves of G"),
        (moments[-1], f"(d) the end: {moments[-1].step:,} moves"),
    ]
    title = "Figure 1 of Goodfellow et al. 2014, played"
    with bench.figure(title, 2, 4, (12, 5.2), height_ratios=(3, 1), sharex="col") as axes:
        for column, (moment, name) in enumerate(four):
            panel(axes[:, column], moment)
            axes[0, column].set_title(name)
        axes[0, 0].set_ylabel("density, and D(x)")
        axes[0, 3].legend(fontsize=9, loc="upper right")
        for ax in axes[1]:
            ax.set_xlabel("x")


def panel(axes: Any, moment: Moment) -> None:
    """One panel: the laws and D above, the map from z to x below."""
    x, p, q = X[:, 0].numpy(), DATA.log_prob(X).exp(), moment.q
    axes[0].plot(x, p, ":", color=INK, label="data p")
    axes[0].plot(x, q, color=GREEN, label="model q")
    axes[0].plot(x, moment.D, color=BLUE, label="D(x)")
    best = torch.where(p + q > 0.01 * p.max(), p / (p + q), math.nan)
    axes[0].plot(x, best, color=BLUE, linewidth=0.8, alpha=0.7, label="p / (p + q)")
    axes[0].set(ylim=(0, 1.25), yticks=[0, 0.5, 1])
    # -z is as likely as z: a G that falls is drawn as the one that rises.
    to = moment.G if moment.G[-1] > moment.G[0] else moment.G.flip(0)
    for start, end in zip(Z[:, 0].tolist(), to.tolist(), strict=True):
        way = {"arrowstyle": "->", "color": GREY, "lw": 0.8}
        axes[1].annotate("", (end, 1.0), (2 + start, 0.0), arrowprops=way)
    axes[1].set(ylim=(-0.05, 1.05), yticks=[0, 1], yticklabels=["z + 2", "x"], xlim=(-2, 6))
    axes[1].grid(False)


def _frame(moment: Moment) -> Any:
    with drawn(f"{moment.step:,} moves of G", 2, 1, (5, 4.4), height_ratios=(3, 1), sharex=True) as (figure, axes):
        panel(axes[:, 0], moment)
        axes[0, 0].legend(fontsize=8.5, loc="upper right")
        axes[1, 0].set_xlabel("x")
        return picture.render(figure)
