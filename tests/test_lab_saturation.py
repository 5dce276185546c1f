"""Vanishing gradients: the parts of the experiment, and the whole of it."""

import math

import pytest
import torch
from torch import nn

from organza.game import Game
from organza.lab.convergence import shown
from organza.lab.experiment import Bench, double
from organza.lab.saturation import (
    ARMS,
    DATA,
    GOOD,
    Affine,
    Item,
    Path,
    excess,
    fell,
    jacobian,
    limit,
    looks,
    on_line,
    overlap,
    reach,
    run,
    told,
    vanished,
)
from organza.objective import Minimax, NonSaturating
from organza.prior import Normal
from organza.theory import D_star, Gaussian


class Known(nn.Module):
    """D with given logits."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def path(minimax, other, bound=math.nan):
    """What a run might have seen at steps 0, 1, 2 ..."""
    item = Item("line", False, ARMS[0], 0, len(minimax) - 1)
    gradients = {"minimax": list(minimax), "non-saturating": list(other)}
    return Path(item, list(range(len(minimax))), gradients, [0.5] * len(minimax), [bound] * len(minimax))


def test_at_the_best_D_gradients_are_those_of_the_divergences():
    with double():
        G, z = Affine(*GOOD), shown(Gaussian(), 4096)
        before = [weight.clone() for weight in G.parameters()]
        game = Game(G, Known(D_star(Minimax(), DATA, Gaussian(*GOOD))), Normal(1))
        found = [reach(game, objective, z, z) for objective in (Minimax(), NonSaturating())]
        assert found == pytest.approx(told(), rel=1e-2)
        assert all(torch.equal(*pair) for pair in zip(before, G.parameters(), strict=True))
        wrong = Game(G, Known(lambda x: x[:, 0]), Normal(1))
        assert reach(wrong, Minimax(), z, z) != pytest.approx(told()[0], rel=0.1)


@pytest.mark.parametrize("a", [0.01, 0.2])
def test_the_bound_holds_for_any_D(a):
    with double():
        G, z = Affine(8.0, 0.5), shown(Gaussian(), 512)
        D = Known(lambda x: -a * x[:, 0] - 3)
        gradient = reach(Game(G, D, Normal(1)), Minimax(), z, z)
        bound = limit(math.sqrt(1.25), D, G(z))
        assert 0 < gradient < bound
        assert math.isnan(limit(1.0, Known(lambda x: 9 * x[:, 0]), G(z)))  # epsilon is not below 1


def test_the_jacobian_of_an_affine_map():
    with double():
        z = shown(Gaussian(), 4096)
        assert jacobian(Affine(8.0, 0.5), z) == pytest.approx(math.sqrt(1.25), rel=0.05)


def test_what_counts_as_vanished():
    assert vanished(path((1, 0.05, 0.2, 0.09, 0.01), (1, 1, 1, 1, 1))) == 3  # not at 1, where it comes back
    assert vanished(path((1, 1), (1, 1))) == math.inf
    assert math.isnan(excess(path((1, 1), (1, 1)))) and excess(path((1, 3), (1, 1), 2.0)) == 1.5
    assert fell(path((4, 1), (1, 2)), "minimax") == 0.25


def test_looks_begin_before_the_first_step_and_end_after_the_last():
    assert looks(10) == [0, 1, 2, 3, 4, 6, 7, 10]


def test_the_poor_fakes_lie_apart():
    assert overlap() < 1e-5


def test_G_stands_still_and_minimax_vanishes():
    short = on_line(Item("line", False, ARMS[0], 0, 40))
    assert excess(short) < 1 and vanished(short) < 40
    assert short.gradients["minimax"][-1] < 0.01 * short.gradients["non-saturating"][-1]
    again = on_line(Item("line", False, ARMS[0], 0, 40))
    assert short.gradients == again.gradients


@pytest.mark.slow
def test_the_experiment_passes(tmp_path):
    outcome = run(Bench("saturation", tmp_path, fast=True))
    assert outcome.passed, [check for check in outcome.checks if not check.passed]
    assert (tmp_path / "saturation.png").exists()
