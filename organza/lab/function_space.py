r"""Proposition 2: laws that move freely converge, networks only on the whole

Claim (Proposition 2 of the paper): if D is the best one at each step and p_g makes sufficiently small steps down the
criterion C, then p_g converges to p_data, because C is convex in p_g.

*As stated.*  On n points p_g = q is moved on the simplex by mirror descent, with the loss that minimax gives G at each
point, log(1 - D*), for its slope:

.. math:: q_i \leftarrow q_i \exp(-\eta \log(1 - D^*_i)) / \textstyle\sum_j \dots, \qquad D^* = \frac{p}{p + q}

The Hessian of C is at most that of the entropy (p / (q (p + q)) <= 1 / q), so that every eta <= 1 is sufficiently
small and C never rises (Bauschke, Bolte, Teboulle 2017).  With eta = 1 the step is q <- (p + q) / 2: halfway to the
data each time.

*With networks and k = 1*: the 1-D game of the experiment `convergence`, with ordinary batches and one step of D per
step of G.  C(G) is computed from the density that G makes, though the players never see it.

It passes if C never rises on the simplex (by more than 1e-12, which is rounding) and ends within 1e-6 of -log 4 for
eta = .25 and 1; with eta = 1 the distance to p is 2^-t of the first, to 1e-12; with eta = 2.5, which is not small, C
rises (planted); and with networks C(G) + log 4 ends below .05 and below a tenth of its start, having risen on the way
by at least 1e-3 (planted: the proposition does not speak of networks).

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), Proposition 2
    A Descent Lemma Beyond Lipschitz Gradient Continuity (Bauschke, Bolte, Teboulle, 2017)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from organza.lab.convergence import Play, Story, play
from organza.lab.experiment import BLUE, GREEN, GREY, INK, ORANGE, RED, Bench, Outcome, least, most
from organza.objective import Minimax
from organza.theory import V

__all__ = ["descent", "run"]

GAME = Minimax()


def laws(n: int = 8) -> tuple[Tensor, Tensor]:
    """The data's law, and a first law of G that nearly misses half of it."""
    p = torch.randn(n, generator=torch.Generator().manual_seed(4), dtype=torch.float64).mul(0.7).softmax(0)
    q = torch.where(torch.arange(n) < n // 2, 1.0, 1e-3).double()
    return p, q / q.sum()


def descent(p: Tensor, q: Tensor, eta: float, steps: int) -> tuple[list[float], list[Tensor]]:
    """Return C(G) + log 4 and q at each step of mirror descent against the best D."""
    costs, path = [], []
    for _ in range(steps + 1):
        best = GAME.optimum(p, q)
        costs.append(float(V(GAME, p, q, best)) + math.log(4))
        path.append(q)
        slope = GAME.generator(None, best)  # log(1 - D*): what each point of q pays
        q = torch.softmax(q.log() - eta * slope, 0)
    return costs, path


def run(bench: Bench) -> Outcome:
    """Descend on the simplex, and play the same with networks."""
    p, q = laws()
    small = descent(p, q, 0.25, 120)
    halving = descent(p, q, 1.0, 30)
    large = descent(p, q, 2.5, 14)
    (story,) = bench.map(
        "networks", play, [Play(1, 1000 if bench.fast else 3000, 1, False, 30 if bench.fast else 60, True)]
    )
    nets = [moment.cost + math.log(4) for moment in story.moments]
    away = [float((path - p).norm()) for path in halving[1]]
    off = [abs(distance - away[0] / 2**t) for t, distance in enumerate(away)]
    checks = [
        most("largest rise of C on the simplex, eta = .25", _rise(small[0]), 1e-12),
        most("C + log 4 at the end, eta = .25", abs(small[0][-1]), 1e-6),
        most("largest rise of C on the simplex, eta = 1", _rise(halving[0]), 1e-12),
        most("C + log 4 at the end, eta = 1", abs(halving[0][-1]), 1e-6),
        most("distance to p − 2^−t of the first, eta = 1", off, 1e-12),
        least("largest rise of C, eta = 2.5", _rise(large[0]), 1e-3, planted=True),
        most("networks, k = 1: C + log 4 of G's average at the end", story.C, 0.05),
        most("networks, k = 1: C + log 4 of G's average, end over start", story.C / nets[0], 0.1),
        least("networks, k = 1: largest rise of C", _rise(nets), 1e-3, planted=True),
    ]
    _draw(bench, (p, small[1]), (small[0], halving[0], large[0]), story)
    return Outcome(_words(nets, story), checks, VERDICT)


VERDICT = "true of laws with the best D and small steps; of networks it promises nothing, though C falls on the whole"


def _rise(costs: list[float]) -> float:
    return float(torch.tensor(costs, dtype=torch.float64).diff().max())  # not a number, if one of them is not


def _words(nets: list[float], story: Story) -> str:
    return f"""The proposition speaks of laws, not of networks. Where p_g is a list of probabilities and D is the best \
one at every step, C falls without fail to −log 4: its slope at a point is log(1 − D*), what the minimax loss makes G \
pay there. With a step of 1 each move goes exactly halfway from the model to the data. “Sufficiently small” is \
meant: a step of 2.5 overshoots, and C jumps up and down for ever.

Networks of the same task, one step of D per step of G and ordinary batches, bring C + log 4 from {nets[0]:.2f} to \
{story.C:.4f}, but not steadily: on the way it rose by up to {_rise(nets):.3f} between two looks. D is not the best \
one, the steps are noisy, and C is not convex in the weights: that it works is experience, not a theorem."""


def _draw(bench: Bench, masses: tuple[Tensor, list[Tensor]], costs: tuple[list[float], ...], story: Story) -> None:
    p, path = masses
    with bench.figure("C(G) falls to −log 4: as a theorem, and in practice", 1, 3, (12, 4.4)) as axes:
        _bars(axes[0, 0], p, path)
        ax = axes[0, 1]
        for values, colour, name in zip(
            costs, (GREEN, BLUE, RED), ("eta = .25", "eta = 1", "eta = 2.5: too large"), strict=True
        ):
            ax.semilogy([max(value, 1e-16) for value in values[:41]], color=colour, label=name)
        ax.set(title="On the simplex, with the best D", xlabel="step", ylabel="C + log 4", ylim=(1e-10, 1e2))
        ax.legend(loc="upper right")
        ax = axes[0, 2]
        steps = [max(moment.step, 0.7) for moment in story.moments]
        ax.loglog(steps, [moment.cost + math.log(4) for moment in story.moments], color=ORANGE)
        ax.set(title="Networks, k = 1", xlabel="moves of G", ylabel="C(G) + log 4")


def _bars(ax: Any, p: Tensor, path: list[Tensor]) -> None:
    places = torch.arange(len(p)).numpy()
    ax.bar(places, p.numpy(), 0.8, color=GREY, alpha=0.45, label="data p")
    for t, colour in ((0, RED), (4, ORANGE), (12, GREEN)):
        ax.plot(places, path[t], "o-", color=colour, markersize=4, linewidth=1, label=f"model q, step {t}")
    ax.plot(places, path[-1], "x", color=INK, label=f"model q, step {len(path) - 1}")
    ax.set(title="The law of G on eight points (eta = .25)", xlabel="point", ylabel="probability", ylim=(0, 0.42))
    ax.legend(fontsize=9)
