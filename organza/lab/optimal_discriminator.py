r"""Proposition 1: the best D is p / (p + q)

Claim: for G fixed, the best discriminator is D*(x) = p(x) / (p(x) + q(x)), and V(D*, G) = -log 4 + 2 JSD(p || q).

The data are a mixture of two Gaussians; G is fixed, x = 1.6 z + .4 sin(1.5 z) with z ~ N(0, 1), so that its density
q is known by change of variables, :math:`q(G(z)) = p_z(z) / |G'(z)|`.  A perceptron D is trained by `fit` with the
paper's objective, G's learning rate being 0, to convergence.  Data and z are shown without sampling noise (1,024
evenly likely points of the data in every batch, one z from each of 1,024 slices of equal probability).

The proof of the proposition turns an expectation over z into one over x,
:math:`E_z[\log(1 - D(G(z)))] = E_{x \sim q}[\log(1 - D(x))]`; both sides are computed, the first over z and the second
over x with the density.

It passes if max |D - D*| <= .02 wherever p + q is at least 1 % of its maximum; V(D, G) of the trained D is that of
theory within .002, and not above it; C(G) by quadrature is -log 4 + 2 JSD to 1e-8; and the two expectations agree to
1e-7.

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), Proposition 1 and Theorem 1
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from organza.game import Game
from organza.lab.convergence import Sliced, shown
from organza.lab.experiment import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    Bench,
    Outcome,
    double,
    most,
    near,
    number,
    played,
    seeded,
)
from organza.nn import MLPDiscriminator
from organza.objective import Minimax
from organza.optimizer import SGD, Adam
from organza.schedule import Linear
from organza.theory import D_star, Gaussian, Mixture, Pushforward, cost, expectation, js, value
from organza.training import State

__all__ = ["run"]

DATA = Mixture([Gaussian(-1.5, 0.6), Gaussian(1.2, 0.7)], [0.4, 0.6])
OBJECTIVE, BATCH = Minimax(), 1024
X = torch.linspace(-5.0, 5.0, 1001, dtype=torch.float64)[:, None]


class Wave(nn.Module):
    """G: x = a z + b sin(1.5 z), whose two numbers never move."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([1.6, 0.4], dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.weights[0] * z + self.weights[1] * torch.sin(1.5 * z)


class Found(NamedTuple):
    """What training D led to: its logits at X, V and the two expectations, and max |D - D*| by D's steps."""

    logits: Tensor
    V: float
    over_z: float
    over_x: float
    steps: list[int]
    errors: list[float]


def dense(q: Pushforward) -> Tensor:
    """Where p + q is at least 1 % of its maximum, (1001,)."""
    both = DATA.log_prob(X).exp() + q.log_prob(X).exp()
    return both >= 0.01 * both.max()


def train(steps: int) -> Found:
    """Train D against the fixed G, in float64."""
    errors: list[float] = []
    with double():
        with seeded(0):
            D = MLPDiscriminator((1,), (32, 32, 32), "tanh")
        game = Game(Wave(), D, Sliced(), OBJECTIVE, joint=True)
        p, q = DATA, Pushforward(Wave(), Gaussian())
        told, where = D_star(OBJECTIVE, p, q)(X).sigmoid(), dense(q)
        images = steps * BATCH
        looks = sorted({round(steps ** (i / 40)) for i in range(41)})

        def watch(state: State) -> None:
            if state.steps in looks:
                with torch.no_grad():
                    errors.append(float((state.game.discriminator(X).sigmoid() - told)[where].abs().max()))

        rule = Adam(Linear(5e-3, 0.0, images * 3 // 4, hold=images // 4), 0.9, 0.999)
        played(game, shown(DATA, BATCH), (SGD(0.0), rule), images, watch, batch=BATCH, half_life=0)

        def pays(x: Tensor) -> Tensor:
            return OBJECTIVE.generator(None, game.discriminator(x))  # log(1 - D(x))

        with torch.no_grad():
            over_z = expectation(Gaussian(), lambda z: pays(game.generator(z))).value
            over_x = expectation(q, pays).value
            V = value(OBJECTIVE, p, q, game.discriminator).value
            return Found(game.discriminator(X), V, over_z, over_x, looks, errors)


def run(bench: Bench) -> Outcome:
    """Train D, and compare it with the theorem."""
    (found,) = bench.map("training D", train, [1500 if bench.fast else 2000])
    q = Pushforward(Wave(), Gaussian())
    C, told = cost(OBJECTIVE, DATA, q), -math.log(4) + 2 * js(DATA, q).value
    error = float((found.logits.sigmoid() - D_star(OBJECTIVE, DATA, q)(X).sigmoid())[dense(q)].abs().max())
    checks = [
        most("max |D − D*| where p + q ≥ 1 % of its maximum", error, 0.02),
        near("V(D, G) of the trained D", told, found.V, 0.002),
        most("V(D, G) − max V: no D is better than D*", found.V - told, 1e-9),
        near("C(G) by quadrature, against −log 4 + 2 JSD", told, C.value, 1e-8),
        near("E_z log(1 − D(G(z))), against E_q log(1 − D(x))", found.over_x, found.over_z, 1e-7),
    ]
    _draw(bench, found, q, told)
    return Outcome(_words(error, found, told), checks, VERDICT)


VERDICT = "true, for a D that can be any function and is trained to the end; here a perceptron comes close"


def _words(error: float, found: Found, told: float) -> str:
    return f"""G does not move; D alone is trained, on data (grey) and on what G makes (green). The theorem says what \
the best D is, point by point: the share of the data in what is seen there, p / (p + q). The trained network agrees to \
{error:.4f} wherever anything is ever seen; farther out, where neither law has mass, D may be anything.

V reaches {found.V:.4f}; theory says −log 4 + 2 JSD = {told:.4f}, which measures how far apart the two laws are. \
D(x) = 1 on data and D(G(z)) = 0 on fakes is not what the best D says, unless the laws do not overlap at all: where \
they overlap it must hedge.

The proof replaces an average over z by one over x with G's density. The two were computed separately, and agree to \
{abs(found.over_z - found.over_x):.0e}."""


def _draw(bench: Bench, found: Found, q: Pushforward, told: float) -> None:
    x = X[:, 0].numpy()
    with bench.figure("The best D is p / (p + q)", 1, 2, (12, 4.8), width_ratios=(1.7, 1)) as axes:
        ax = axes[0, 0]
        ax.fill_between(x, DATA.log_prob(X).exp(), color=GREY, alpha=0.4, label="data p")
        ax.fill_between(x, q.log_prob(X).exp(), color=GREEN, alpha=0.35, label="model q")
        ax.plot(x, D_star(OBJECTIVE, DATA, q)(X).sigmoid(), color=INK, linewidth=4, alpha=0.25, label="p / (p + q)")
        ax.plot(x, torch.where(dense(q), found.logits.sigmoid(), math.nan), color=BLUE, label="trained D")
        ax.set(
            title=f"V = {number(found.V, 5)}, theory {number(told, 5)}",
            xlabel="x",
            ylabel="density, and D(x)",
            ylim=(0, 1.05),
        )
        ax.legend(loc="upper center", ncols=2)
        ax = axes[0, 1]
        ax.loglog(found.steps, found.errors, color=ORANGE)
        ax.axhline(0.02, color=INK, linestyle="--", linewidth=1)
        ax.text(found.steps[0], 0.022, "asked for: .02", color=INK)
        ax.set(title="The way there", xlabel="steps of D", ylabel="max |D − D*|")
