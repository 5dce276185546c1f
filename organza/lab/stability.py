r"""Which games settle: the Dirac-GAN under each method

Claim: GANs do not converge.  The smallest game there is tells when they do.  The data are the point 0, G is a point
theta, D(x) = psi x, and the equilibrium is (0, 0).  Its vector field's Jacobian has, with
f'(0) = 1/2 and f''(0) = -1/4 for the logistic objectives, the eigenvalues

.. math:: \pm \tfrac i2 \text{ (minimax, non-saturating, relativistic)}, \quad \pm i \text{ (Wasserstein)}, \quad
          -\tfrac \gamma2 \pm \sqrt{\tfrac{\gamma^2}4 - \tfrac14} \text{ (R1 or R2)}, \\
          -\tfrac{s^2}4 \pm \sqrt{\tfrac{s^4}{16} - \tfrac14} \text{ (instance noise of variance } s^2), \quad
          -\tfrac c4 \pm \tfrac i2 \text{ (consensus)}

Simultaneous steps of size h multiply a small distance by |1 + h lambda|: sqrt(1 + h^2 / 4) > 1 for a purely imaginary
lambda, whatever h is.  Alternating steps have the modulus 1 exactly.  Further out minimax flies off, while the third
order of the non-saturating loss pulls its players back, for small h to a ring of radius sqrt(2 h).  Wasserstein's
penalty with target 1 has a slope that jumps at psi = 0, and so no Jacobian there; it ends at psi = 0, |theta| = 2.

It passes if eigenvalues and the radii of discrete steps are those to 1e-9, the distances after 500 steps of .1 from
theta = 1 are those of an independent calculation (1.7558 simultaneous, .9935 alternating, 9.69e-4 with R1) to half a
unit of their last digit, minimax by simultaneous steps moves away (planted) and Wasserstein's penalty with target 1
does not come nearer than .05 (planted) but to a distance of 2 to 1e-6, the non-saturating loss by simultaneous steps to
its ring to .01, and every method that theory says converges does: distance at most 1e-3 after 1,000 steps.

References:
    Which Training Methods for GANs do actually Converge? (Mescheder, Geiger, Nowozin, 2018)
    The Numerics of GANs (Mescheder, Nowozin, Geiger, 2017)
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from organza.game import Game
from organza.lab.experiment import BLUE, GREY, INK, RED, Bench, Check, Outcome, least, most, near
from organza.moves import Alternating, Consensus, Moves, Simultaneous
from organza.objective import Minimax, NonSaturating, Objective, RelativisticLogistic, Wasserstein
from organza.penalty import R1, R2, GradientPenalty
from organza.term import Term
from organza.theory import dirac, eigenvalues, field, orbit, place, radius

__all__ = ["run"]

START = (0.0, 1.0)  # (psi, theta)
H = 0.1
STEPS = 1000


class Method(NamedTuple):
    """A way to play the Dirac-GAN, and the eigenvalues that theory gives it, where its field has a slope."""

    name: str
    objective: Objective
    terms: Sequence[Term]
    moves: Moves
    noise: float
    eigenvalues: tuple[complex, complex] | None

    @property
    def game(self) -> Game:
        return dirac(self.objective, self.terms, self.noise)

    @property
    def flow(self) -> Moves:
        """The moves whose field is studied: alternating ones have that of simultaneous ones."""
        return self.moves if isinstance(self.moves, Consensus) else Simultaneous()


def _pair(real: float, under: float) -> tuple[complex, complex]:
    """real -+ sqrt(under)."""
    root = cmath.sqrt(under)
    return real - root, real + root


def _penalised(gamma: float) -> tuple[complex, complex]:
    return _pair(-gamma / 2, gamma**2 / 4 - 0.25)


def methods() -> list[Method]:
    """All methods, and what theory says of each."""
    half, s, c = _pair(0, -0.25), 1.0, 2.0
    noisy = _pair(-(s**2) / 4, s**4 / 16 - 0.25)
    both, turns = Simultaneous(), Alternating()
    saturating, friendly = Minimax(), NonSaturating()
    return [
        Method("Minimax, simultaneous steps", saturating, [], both, 0.0, half),
        Method("Minimax, alternating steps", saturating, [], turns, 0.0, half),
        Method("Non-saturating, alternating", friendly, [], turns, 0.0, half),
        Method("Wasserstein + penalty, target 1", Wasserstein(), [GradientPenalty(1.0)], turns, 0.0, None),
        Method("Non-saturating + R1 (.3)", friendly, [R1(0.3)], turns, 0.0, _penalised(0.3)),
        Method("Relativistic + R1 (2)", RelativisticLogistic(), [R1(2.0)], turns, 0.0, _penalised(2.0)),
        Method("Non-saturating, instance noise", friendly, [], turns, s, noisy),
        Method("Minimax, consensus (2)", saturating, [], Consensus(c), 0.0, _pair(-c / 4, -0.25)),
    ]


def _more() -> list[Method]:
    """What is checked, but not drawn."""
    both, half = Simultaneous(), _pair(0, -0.25)
    return [
        Method("Relativistic", RelativisticLogistic(), [], both, 0.0, half),
        Method("Wasserstein", Wasserstein(), [], both, 0.0, _pair(0, -1.0)),
        Method("R1 (1), the critical gamma", NonSaturating(), [R1(1.0)], both, 0.0, _penalised(1.0)),
        Method("R2 (.3)", NonSaturating(), [R2(0.3)], both, 0.0, _penalised(0.3)),
        Method("R1 (2)", NonSaturating(), [R1(2.0)], both, 0.0, _penalised(2.0)),
        Method("Consensus (.3)", NonSaturating(), [], Consensus(0.3), 0.0, _pair(-0.075, -0.25)),
    ]


def off(method: Method) -> float:
    """How far the measured eigenvalues are from those of theory, where it knows them."""
    assert method.eigenvalues is not None
    told = torch.tensor(method.eigenvalues, dtype=torch.complex128)
    seen = eigenvalues(method.game, method.flow)
    return min(float((seen - order).abs().max()) for order in (told, told.flip(0)))


def run(bench: Bench) -> Outcome:
    """Measure eigenvalues, radii and orbits, and draw the phase portraits."""
    every = methods()
    smooth = [method for method in (*every, *_more()) if method.eigenvalues is not None]
    checks = [most(f"eigenvalues of {m.name}: distance to the formula", off(m), 1e-9) for m in smooth]
    bench.tell("orbits", 0, len(every))
    paths = []
    for done, method in enumerate(every, 1):
        paths.append(orbit(method.game, method.moves, H, STEPS, START))
        bench.tell("orbits", done, len(every))
    _draw(bench, every, paths)
    ends = {method.name: float(path[-1].norm()) for method, path in zip(every, paths, strict=True)}
    checks += _radii() + _distances()
    checks.append(least("minimax, simultaneous: distance at the end", ends[every[0].name], 1.5, planted=True))
    checks.append(least("Wasserstein + penalty: distance at the end", ends[every[3].name], 0.05, planted=True))
    checks.append(near("Wasserstein + penalty: the end, |theta| = 2 at psi = 0", 2.0, ends[every[3].name], 1e-6))
    ring = orbit(dirac(NonSaturating()), Simultaneous(), H, STEPS, (0.0, 0.5))[-500:].norm(dim=1).mean()
    checks.append(near("non-saturating, simultaneous: radius of the ring, sqrt(2 h)", math.sqrt(2 * H), ring, 0.01))
    checks += [most(f"{m.name}: distance at the end", ends[m.name], 1e-3) for m in every[4:]]
    slow = ends[every[2].name]
    checks.append(most("non-saturating, alternating: distance at the end", slow, 0.5))
    return Outcome(_words(ends, slow), checks, VERDICT)


VERDICT = "“GANs do not converge” is half true: bare games circle or fly off, and R1, R2 or noise make them settle"


def _radii() -> list[Check]:
    """What one discrete step does to the distance from the equilibrium."""
    bare = dirac(NonSaturating())
    found = [
        near("radius, simultaneous, h = .1", math.sqrt(1 + H**2 / 4), radius(bare, Simultaneous(), H), 1e-9),
        near("radius, alternating, h = .1", 1.0, radius(bare, Alternating(), H), 1e-9),
        near("radius, alternating with k = 5", 1.0, radius(bare, Alternating(5), H), 1e-9),
    ]
    for gamma, h in ((0.3, 0.1), (0.1, 0.5)):
        told = max(abs(1 + h * value) for value in _penalised(gamma))
        seen = radius(dirac(NonSaturating(), [R1(gamma)]), Simultaneous(), h)
        found.append(near(f"radius, simultaneous + R1 ({gamma:g}), h = {h:g}", told, seen, 1e-9))
    return found


def _distances() -> list[Check]:
    """Orbits of 500 steps, against an independent calculation of theirs."""
    bare, penalised = dirac(Minimax()), dirac(Minimax(), [R1(0.3)])
    apart = orbit(bare, Simultaneous(), H, 500, START)[-1]
    nearer = orbit(penalised, Simultaneous(), H, 500, START)[-1]
    # The calculation lets G begin, whose first move at psi = 0 is none: 499 rounds, and one more move of D.
    around = orbit(bare, Alternating(), H, 499, START)[-1]
    around = orbit(bare, Alternating(), (H, 0.0), 1, around.tolist())[-1]
    return [
        near("distance after 500 steps, minimax, simultaneous", 1.7558, float(apart.norm()), 5e-5),
        near("distance after 500 steps, minimax, alternating", 0.9935, float(around.norm()), 5e-5),
        near("distance after 500 steps, minimax + R1 (.3), simultaneous", 9.69e-4, float(nearer.norm()), 5e-7),
    ]


def _words(ends: dict[str, float], slow: float) -> str:
    wrong = ends["Wasserstein + penalty, target 1"]
    first = ends["Minimax, simultaneous steps"]
    return f"""The data are one point, G is one number and D one slope: the smallest GAN there is, played by the moves \
and penalties that train networks. Its equilibrium is in the middle of each picture.

Without help the game has imaginary eigenvalues: the players run around the equilibrium like a predator and its prey. \
Simultaneous steps leave it for any learning rate h: those of minimax spiral outwards (from 1 to {first:.2f} in \
{STEPS:,} steps), those of the non-saturating loss come, if h is small, to a ring of radius sqrt(2 h); alternating \
steps of minimax keep to theirs. The non-saturating loss has the same eigenvalues, yet creeps inwards (to {slow:.2f} \
in as many alternating steps): its pull is of third order, which no eigenvalue shows, and ever slower. Wasserstein's \
gradient penalty asks for a slope of 1 where the equilibrium has 0, so the players end somewhere else (at a distance \
of {wrong:.2f}).

A slope penalty with target 0 (R1 or R2), noise on what D sees, or consensus steps give the eigenvalues a negative \
real part: the spiral turns inwards. Too much of it is as bad as too little: beyond gamma = 1 the eigenvalues are \
real and one of them goes back towards 0, and with a step too long for its gamma even R1 does not settle (the radius \
above 1 in the table)."""


def _draw(bench: Bench, every: list[Method], paths: list[Tensor]) -> None:
    axis = torch.linspace(-1.6, 1.6, 15, dtype=torch.float64)
    with bench.figure("Which games settle? The Dirac-GAN under eight methods", 2, 4, (12, 6.4)) as axes:
        for ax, method, path in zip(axes.flat, every, paths, strict=True):
            _portrait(ax, method, path, axis)
        for ax in axes[-1]:
            ax.set_xlabel("G: θ")
        for ax in axes[:, 0]:
            ax.set_ylabel("D: ψ")


def _portrait(ax: Any, method: Method, path: Tensor, axis: Tensor) -> None:
    """The vector field, and the way from theta = 1."""
    game = method.game
    v = torch.stack([field(place(game, [psi, theta]), method.flow) for psi in axis for theta in axis])  # (225, 2)
    v = (v / v.norm(dim=1, keepdim=True).clamp(min=1e-12)).view(len(axis), len(axis), 2).numpy()
    ax.quiver(axis.numpy(), axis.numpy(), v[..., 1], v[..., 0], color="#c9cdd3", pivot="mid", scale=24, width=0.005)
    ends = float(path[-1].norm()) < 0.01
    ax.plot(path[:600, 1], path[:600, 0], color=BLUE if ends else RED, linewidth=1.3)
    ax.plot([START[1]], [START[0]], "o", color=INK, markersize=5)
    ax.plot([0], [0], "+", color=INK, markersize=9, markeredgewidth=1.8)
    low, high = method.eigenvalues or (math.nan, math.nan)
    if method.eigenvalues is None:
        text = "?, as its slope jumps"
    elif abs(high.imag) > 0:
        text = f"{high.real:.2g} ± {high.imag:.2g}i" if high.real else f"± {high.imag:.2g}i"
    else:
        text = f"{low.real:.3g}, {high.real:.2g}"
    ax.set_title(f"{method.name}\nλ = {text.replace('-', '−')}", fontsize=9.5, color=INK)
    ax.set(xlim=(-1.9, 1.9), ylim=(-1.9, 1.9), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    ax.grid(False)
    ax.text(0.03, 0.03, "settles" if ends else "does not settle", transform=ax.transAxes, fontsize=9,
            color=BLUE if ends else RED, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(GREY)
