r"""Where everything is known: laws with a density, the best D against a fixed G, and how small games move.

    from organza import theory

    p, q = theory.Gaussian(0, 1), theory.Gaussian(1, 2)
    theory.cost(Minimax(), p, q)                # C(G) = -log 4 + 2 JSD, with its error
    theory.divergence(MyObjective(), p_i, q_i)  # what D's best reveals, from the losses alone
    theory.eigenvalues(theory.dirac(MyObjective(), [R1(0.3)]))

Nothing here knows a loss: objectives, penalties and moves are those that train networks, in float64.
"""

from organza.theory.density import Gaussian, Law, Mixture, Pushforward, Spiral, Uniform, grid, law_of, ring
from organza.theory.divergence import Estimate, chi2, expectation, integrate, js, kl, reverse_kl, tv, w1
from organza.theory.dynamics import Play, dirac, eigenvalues, field, jacobian, orbit, place, position, radius, update
from organza.theory.linear import Programme, programme
from organza.theory.optimum import Best, D_star, V, best, cost, divergence, kantorovich, separable, value

__all__ = [
    "Best",
    "D_star",
    "Estimate",
    "Gaussian",
    "Law",
    "Mixture",
    "Play",
    "Programme",
    "Pushforward",
    "Spiral",
    "Uniform",
    "V",
    "best",
    "chi2",
    "cost",
    "dirac",
    "divergence",
    "eigenvalues",
    "expectation",
    "field",
    "grid",
    "integrate",
    "jacobian",
    "js",
    "kantorovich",
    "kl",
    "law_of",
    "orbit",
    "place",
    "position",
    "programme",
    "radius",
    "reverse_kl",
    "ring",
    "separable",
    "tv",
    "update",
    "value",
    "w1",
]
