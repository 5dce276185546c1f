r"""Who moves first: min max is max min, but an eager generator hops from mode to mode

The claim: the game of Goodfellow et al. 2014 is written min_G max_D; to let G answer first, max_D min_G, is another
game, whose best G puts everything on one point.

**On paper the order does not matter.**  On n points with data law p, let D choose at each point i a mixture
:math:`\lambda_i` of levels :math:`d_j \in (0, 1)`, one of which is 1/2, and G a law q:

.. math:: V(\lambda, q) = \sum_{ij} \lambda_{ij} \, [p_i \log d_j + q_i \log(1 - d_j)]

V is linear in either, so that both orders of play are linear programmes, solved here each in its own form:

.. math:: \min_{q, u} -\sum_i u_i \; : \; u_i \le -p_i \log d_j - q_i \log(1 - d_j) \qquad\text{and}\qquad
   \min_{\lambda, w} w - \sum_{ij} \lambda_{ij} p_i \log d_j \; : \; w \ge -\sum_j \lambda_{ij} \log(1 - d_j).

Both values are -log 4 and D* = 1/2.  Any q is as good as p for which 1/2 is still D's best level everywhere: with the
nearest levels at logits -h and h, all with :math:`|\log(q_i / p_i)| \le` about h/2.

**For a given D it does.**  V is linear in q, so G's best answer to a D that is not constant is a point mass at D's
maximum, and D then gets less than -log 4.  (If D has several maxima, any law on these; if D is constant, any law.)
Only D = 1/2 loses nothing by moving first; any other tells G where to go.

**In training** neither is solved.  Algorithm 1 lets D move k times per move of G; here also G m times per move of D,
on the ring of eight Gaussians, with the minimax objective.  D learns ten times faster than G (Adam, 3e-3 and 3e-4,
beta1 = 0), so that one move of D shows and many of G are needed to cross the ring; in one more arm both have what is
more usual, Adam at 1e-3 with beta1 = 0.5.  All arms play the same number of moves, of either player ("steps").  After
every round, which ends with G's move, 256 fixed z are sent to the mode nearest to G(z).  A mode dominates if it holds
more than half of them; a *hop* is that another dominates than the last one that did.  The *entropy* is that of the
histogram over modes, log 8 = 2.079 nats at best; both over the second half of the run.

Tolerances: the two values equal each other and -log 4 to 1e-9, D* is 1/2 to 1e-6, and q* within what the levels tell
apart; every best answer has all but 1e-6 of its mass at D's maximum; at D = 1/2 any q gives -log 4 to 1e-12.  In every
seed, the entropy is at least 1.5 for m = 1/5, 1 and 5, with at most 1 hop per 1,000 rounds, and at most 0.5 for m = 100
with at least 150 hops per 1,000 rounds; for m = 5 with the usual Adam it is at most 1, with at least 150 hops.

References:
    Generative Adversarial Nets (Goodfellow et al., 2014)
    NIPS 2016 Tutorial: Generative Adversarial Networks (Goodfellow, 2016), section 5.1.1, for max min and collapse
    Zur Theorie der Gesellschaftsspiele (von Neumann, 1928)
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from organza import theory
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
from organza.moves import Alternating, Moves, Stream, Table
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import Minimax
from organza.optimizer import Adam
from organza.prior import Normal
from organza.theory.linear import Programme, programme
from organza.training import State

__all__ = ["run"]

POINTS, H, LOG4 = 6, 0.01, math.log(4.0)
RATIOS = (Fraction(1, 5), Fraction(1), Fraction(5), Fraction(100))  # G's moves per move of D
SLOW, FAST, USUAL = Adam(3e-4, 0.0, 0.99), Adam(3e-3, 0.0, 0.99), Adam(1e-3, 0.5, 0.99)


class Greedy(Moves):
    """The order of max min: one move of D, then m moves of G, each on fresh noise, towards its best answer to that D.

    References:
        NIPS 2016 Tutorial: Generative Adversarial Networks (Goodfellow, 2016), section 5.1.1

    Arguments:
        m: G's moves per move of D, at least 1.
    """

    def __init__(self, m: int) -> None:
        if m < 1:
            raise ValueError(f"Greedy(m={m}): G must move at least once after D")
        self.m = m

    def __call__(self, table: Table, data: Stream) -> None:
        game = table.game
        for batch in data("discriminator"):
            with torch.no_grad():
                z, fake = game.generate(batch)
            round = game.look(batch, z, fake, "discriminator")
            table.learn("discriminator", game.loss(round, "discriminator"), round)
        table.move("discriminator")
        for _ in range(self.m):
            for batch in data("generator"):
                round = game.look(batch, *game.generate(batch), "generator")
                table.learn("generator", game.loss(round, "generator"), round)
            table.move("generator")


def levels(h: float = H) -> Tensor:
    """The logits of D's levels: 0, and h, 2 h, 4 h ... 512 h to either side, (21,)."""
    side = h * 2.0 ** torch.arange(10, dtype=torch.float64)
    return torch.cat([-side.flip(0), side.new_zeros(1), side])


def losses(logits: Tensor) -> tuple[Tensor, Tensor]:
    """D's loss on a real example, -log D, and on a fake, -log(1 - D), each beside another of which D is sure."""
    sure, D = torch.full_like(logits, math.inf), Minimax()
    return D.discriminator(logits, -sure), D.discriminator(sure, logits)


def minimax(p: Tensor, logits: Tensor) -> tuple[Programme, Tensor]:
    """min_q max_D V, whose value is the programme's, and q*, (n,)."""
    (real, fake), n, m = losses(logits), len(p), len(logits)
    # p_i real_j + q_i fake_j = u_i + slack_ij for all i, j; sum q = 1; x = (q, u, slack)
    point = torch.eye(n, dtype=p.dtype).repeat_interleave(m, 0)  # (n m, n)
    rows = torch.cat([-fake.repeat(n)[:, None] * point, point, torch.eye(n * m, dtype=p.dtype)], 1)
    A = torch.cat([rows, (torch.arange(rows.shape[1]) < n).to(p)[None]])
    c = torch.cat([p.new_zeros(n), -p.new_ones(n), p.new_zeros(n * m)])
    solved = programme(c, A, torch.cat([torch.outer(p, real).flatten(), p.new_ones(1)]))
    return solved, solved.x[:n]


def maximin(p: Tensor, logits: Tensor) -> tuple[Programme, Tensor]:
    """max_D min_q V, which is minus the programme's value, and D*, the mean of each point's mixture of levels, (n,)."""
    (real, fake), n, m = losses(logits), len(p), len(logits)
    # sum_j lambda_ij = 1 and sum_j lambda_ij fake_j - w + slack_i = 0 for all i; x = (lambda, w, slack)
    eye = torch.eye(n, dtype=p.dtype)
    whole = torch.cat([eye.repeat_interleave(m, 1), p.new_zeros(n, n + 1)], 1)
    worst = torch.cat([eye.repeat_interleave(m, 1) * fake.repeat(n), -p.new_ones(n, 1), eye], 1)
    c = torch.cat([torch.outer(p, real).flatten(), p.new_ones(1), p.new_zeros(n)])
    solved = programme(c, torch.cat([whole, worst]), torch.cat([p.new_ones(n), p.new_zeros(n)]))
    return solved, solved.x[: n * m].view(n, m) @ torch.sigmoid(logits)


def answer(logits: Tensor) -> Tensor:
    """G's best q, (n,), against a D of these logits, (n,)."""
    _, fake = losses(logits)
    return programme(-fake, torch.ones_like(fake)[None], fake.new_ones(1)).x


def V(p: Tensor, q: Tensor, logits: Tensor) -> float:
    """V(D, G) of the paper's game on a finite support."""
    return float(theory.V(Minimax(), p, q, logits))


def law(seed: int, n: int = POINTS) -> Tensor:
    """A law on n points, none of them rare, (n,)."""
    weights = 0.1 + torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return weights / weights.sum()


def two_orders(laws: list[Tensor]) -> list[Check]:
    """The checks of both programmes."""
    logits = levels()
    real, fake = losses(logits)
    low, high = len(logits) // 2, len(logits) // 2 + 1
    width = float(torch.log((fake[high] - fake[low]) / (real[low] - real[high])))
    first, second = ([solve(p, logits) for p in laws] for solve in (minimax, maximin))
    values = [(a.value, -b.value) for (a, _), (b, _) in zip(first, second, strict=True)]
    solved = [each for each, _ in (*first, *second)]
    return [
        near("|min max - max min|, largest over laws", 0.0, max(abs(a - b) for a, b in values), 1e-9),
        near("min max V farthest from −log 4", -LOG4, max((a for a, _ in values), key=lambda v: abs(v + LOG4)), 1e-9),
        near("max min V farthest from −log 4", -LOG4, max((b for _, b in values), key=lambda v: abs(v + LOG4)), 1e-9),
        most("duality gap of the programmes, largest", max(abs(each.gap) for each in solved), 1e-9),
        most("infeasibility of the programmes, largest", max(each.infeasibility for each in solved), 1e-9),
        most(
            "|log(q*/p)|, largest: what the levels tell apart",
            max(float((q / p).log().abs().max()) for p, (_, q) in zip(laws, first, strict=True)),
            width + 1e-6,
        ),
        most("|D* − 1/2|, largest", max(float((D - 0.5).abs().max()) for _, D in second), 1e-6),
    ]


def answers(p: Tensor, count: int) -> list[Check]:
    """The checks of G's answer to a fixed D."""
    generator = torch.Generator().manual_seed(0)
    Ds = list(torch.randn(count, len(p), generator=generator, dtype=p.dtype))
    found = [answer(D) for D in Ds]
    half = torch.zeros_like(p)
    return [
        least(f"mass of G's answer at the maximum of D, least of {count}", _at_maximum(Ds, found), 1.0 - 1e-6),
        most("V of a D other than 1/2 after G's answer, largest", max(map(V, [p] * count, found, Ds)), -LOG4),
        most(
            "|V + log 4| of any q against D = 1/2, largest",
            max(abs(V(p, law(i), half) + LOG4) for i in range(99)),
            1e-12,
        ),
    ]


def _at_maximum(Ds: list[Tensor], found: list[Tensor]) -> float:
    return min(float(q[D.argmax()]) for D, q in zip(Ds, found, strict=True))


class Arm(NamedTuple):
    """One run: G's moves per move of D, whether both have the usual Adam, the seed, and the moves of both together."""

    m: Fraction
    usual: bool
    seed: int
    length: int


class Played(NamedTuple):
    """What was seen of a run.

    Attributes:
        steps: The moves of both players after each round, (rounds,).
        share: Each mode's share of samples, (rounds, 8).
        entropy: Of that share, mean over the second half, nats.
        hops: Per 1,000 rounds, in the second half.
        per_steps: Hops per 1,000 moves of either player.
    """

    steps: Tensor
    share: Tensor
    entropy: float
    hops: float
    per_steps: float


def read(steps: Tensor, share: Tensor) -> Played:
    """Count hops and average the entropy over the second half."""
    half = len(steps) // 2
    later = share[half:]
    most_of, mode = later.max(1)
    dominant = mode[most_of > 0.5]
    hops = int((dominant[1:] != dominant[:-1]).sum())
    entropy = float(-torch.xlogy(later, later).sum(1).mean())
    return Played(steps, share, entropy, 1e3 * hops / len(later), 1e3 * hops / float(steps[-1] - steps[half - 1]))


def play(arm: Arm) -> Played:
    """Play one game on the ring."""
    modes, _ = centres("ring")
    with seeded(arm.seed):
        G = MLPGenerator(latent=8, shape=(2,), widths=(64, 64), output="linear")
        D = MLPDiscriminator(shape=(2,), widths=(64, 64))
    z = Normal(8).draw(256, torch.Generator().manual_seed(arm.seed))
    steps, share = [], []

    def watch(state: State) -> bool:
        with torch.no_grad():
            mode = torch.cdist(state.game.generator(z), modes).argmin(1)
        steps.append(state.steps + state.images // state.training.batch)
        share.append(mode.bincount(minlength=len(modes)) / len(z))
        return steps[-1] >= arm.length

    game = Game(G, D, Normal(8), Minimax(), joint=True)
    rules = (USUAL, USUAL) if arm.usual else (SLOW, FAST)
    moves = Greedy(int(arm.m)) if arm.m > 1 else Alternating(int(1 / arm.m))
    played(game, "ring", rules, 64 * arm.length, watch, moves=moves, half_life=0, seed=arm.seed)
    return read(torch.tensor(steps), torch.stack(share).double())


def order_matters(found: dict[Any, list[Played]]) -> list[Check]:
    """The checks of the games on the ring; the key "usual" is the arm with the usual Adam."""
    checks = []
    for m in RATIOS[:3]:
        checks.append(least(f"mode entropy at m = {m}, nats, least over seeds", min(_of(found[m], "entropy")), 1.5))
        checks.append(most(f"hops per 1,000 rounds at m = {m}, most", max(_of(found[m], "hops")), 1.0))
    for key, words, bound in ((RATIOS[3], "m = 100", 0.5), ("usual", "m = 5, usual Adam", 1.0)):
        entropy, hops = max(_of(found[key], "entropy")), min(_of(found[key], "hops"))
        checks.append(most(f"mode entropy at {words}, nats, most over seeds", entropy, bound, planted=True))
        checks.append(least(f"hops per 1,000 rounds at {words}, least", hops, 150.0, planted=True))
    return checks


def _of(runs: list[Played], name: str) -> list[float]:
    return [float(getattr(each, name)) for each in runs]


def run(bench: Bench) -> Outcome:
    """Solve both orders of play on a finite support, and play both on the ring."""
    seeds, length = (2, 4_000) if bench.fast else (3, 5_000)
    laws = [torch.full((POINTS,), 1 / POINTS, dtype=torch.float64), *(law(seed) for seed in range(3))]
    checks = two_orders(laws) + answers(laws[1], 50 if bench.fast else 200)
    arms: list[tuple[Any, Arm]] = [(m, Arm(m, False, s, length)) for m in reversed(RATIOS) for s in range(seeds)]
    arms += [("usual", Arm(RATIOS[2], True, s, length)) for s in range(seeds)]
    found: dict[Any, list[Played]] = {}
    for (key, _), each in zip(arms, bench.map("playing the ring", play, [arm for _, arm in arms]), strict=True):
        found.setdefault(key, []).append(each)
    checks += order_matters(found)
    draw(bench, laws[1], found)
    return Outcome(_words(found, checks), checks, VERDICT)


VERDICT = (
    "half true: the value does not depend on the order, and G's answer to a given D is indeed one point; but training "
    "collapses only if G gets far before D moves again; how many moves that takes depends on the optimizers"
)


def _words(found: dict[Any, list[Played]], checks: list[Check]) -> str:
    def mean(key: Any, name: str) -> float:
        values = _of(found[key], name)
        return sum(values) / len(values)

    entropy = ", ".join(f"{mean(m, 'entropy'):.2f} at {m}" for m in RATIOS)
    steps = ", ".join(f"{mean(m, 'per_steps'):.1f}" for m in RATIOS)
    return (
        f"On {POINTS} points the game is solved twice by linear programming, once with G choosing first and once with "
        f"D. The two values differ by {checks[0].measured:.0e} and are −log 4: on paper the order does not matter, as "
        "von Neumann's theorem says of any game that is linear in both players' mixtures.\n\n"
        "But D = 1/2 is the only D that may show its hand. Against any other that is not constant, the best G puts all "
        "its mass on the one point where D is largest, and does not care for the data's other points.\n\n"
        "So it is in training. Played with m moves of G per move of D, the entropy over the ring's eight modes "
        f"(2.08 nats when even) is {entropy}; hops per 1,000 moves of either player: {steps}. At m = 100 G is nearly "
        f"a point that runs to wherever D is largest, and changes mode in {mean(RATIOS[3], 'hops') / 10:.0f} of 100 "
        "rounds, as D sends it on.\n\n"
        "The number of moves alone does not tell. Five moves of a slow G against a fast D leave all modes in place; "
        "with the usual Adam for both (1e-3, beta1 = 0.5) five are enough for collapse (entropy "
        f"{mean('usual', 'entropy'):.2f}, {mean('usual', 'hops') / 10:.0f} hops in 100 rounds). Nor do more moves of D "
        "than one per move of G buy more modes here."
    )


def draw(bench: Bench, p: Tensor, found: dict[Any, list[Played]]) -> None:
    """Draw the two programmes, G's answer to a fixed D, and the games."""
    with bench.figure("Who moves first: min max, max min, and training between them", 2, 4, (13.4, 7.4)) as axes:
        _draw_orders(axes[0, 0], p)
        _draw_answer(axes[0, 1], p)
        _draw_ratios(axes[0, 2], found, "entropy", "mode entropy (nats)")
        axes[0, 2].axhline(math.log(8), color=GREY, linestyle="--", linewidth=1)
        axes[0, 2].text(0.02, math.log(8) + 0.04, "log 8: even", transform=axes[0, 2].get_yaxis_transform(), fontsize=9)
        axes[0, 2].set_ylim(-0.1, 2.5)
        axes[0, 2].legend(loc="center left", fontsize=8)
        _draw_ratios(axes[0, 3], found, "hops", "hops per 1,000 rounds")
        for axis, m in zip(axes[1], RATIOS, strict=True):
            image = _draw_modes(axis, m, found[m][0])
        axes[1, 0].set_ylabel("mode of the ring")
        axis.figure.colorbar(image, ax=axes[1, 3], label="share of G's samples")


def _draw_orders(axis: Any, p: Tensor) -> None:
    (first, q), (second, D) = minimax(p, levels()), maximin(p, levels())
    place = torch.arange(1, len(p) + 1)
    axis.bar((place - 0.2).numpy(), p.numpy(), 0.4, color=GREY, label="p")
    axis.bar((place + 0.2).numpy(), q.numpy(), 0.4, color=ORANGE, label="q*")
    axis.plot(place.numpy(), D.numpy(), "o-", color=BLUE, label="D*")
    axis.set(title=f"min max V = {first.value:.9f}\nmax min V = {-second.value:.9f}", ylim=(0, 0.75))
    axis.set(xlabel="point", ylabel="probability", xticks=place.tolist())
    axis.legend(loc="upper center", ncols=3, fontsize=9)


def _draw_answer(axis: Any, p: Tensor) -> None:
    logits = torch.randn(len(p), generator=torch.Generator().manual_seed(3), dtype=p.dtype)
    q, place = answer(logits), torch.arange(1, len(p) + 1)
    axis.bar((place - 0.2).numpy(), p.numpy(), 0.4, color=GREY, label="p")
    axis.bar((place + 0.2).numpy(), q.numpy(), 0.4, color=ORANGE, label="G's best q")
    axis.plot(place.numpy(), torch.sigmoid(logits).numpy(), "o-", color=BLUE, label="a fixed D")
    axis.set(title=f"Against a fixed D: one point\nV = {V(p, q, logits):.3f} < −log 4", ylim=(0, 1.3))
    axis.set(xlabel="point", xticks=place.tolist(), yticks=[0, 0.5, 1])
    axis.legend(loc="upper center", ncols=3, fontsize=8, columnspacing=0.8, handlelength=1.2)


def _draw_ratios(axis: Any, found: dict[Any, list[Played]], name: str, label: str) -> None:
    means = [sum(_of(found[m], name)) / len(found[m]) for m in RATIOS]
    axis.plot(range(4), means, color=GREEN, linewidth=1)
    for i, m in enumerate(RATIOS):
        axis.plot([i] * len(found[m]), _of(found[m], name), "o", color=GREEN, label=None if i else "slow G, fast D")
    axis.plot([2] * len(found["usual"]), _of(found["usual"], name), "D", color=RED, label="usual Adam for both")
    axis.set(xticks=range(4), xticklabels=[str(m) for m in RATIOS], xlim=(-0.4, 3.4))
    axis.set(
        xlabel="moves of G per move of D", ylabel=label, title=f"{label.split(' (')[0].capitalize()}\neach seed a dot"
    )


def _draw_modes(axis: Any, m: Fraction, played: Played) -> Any:
    """Each mode's share of G's samples over the last 1,500 moves."""
    keep = played.steps > played.steps[-1] - 1_500
    steps, share = played.steps[keep], played.share[keep]
    edges = torch.cat([steps, 2 * steps[-1:] - steps[-2:-1]]) - (steps[-1] - steps[-2])
    image = axis.pcolormesh(edges, torch.arange(9) + 0.5, share.T, vmin=0, vmax=1, cmap="Blues", rasterized=True)
    axis.grid(False)
    axis.set(xlabel="moves of either player", yticks=range(1, 9))
    axis.set_title(f"{m} moves of G per move of D" if m != 1 else "1 move of G per move of D", color=INK)
    return image
