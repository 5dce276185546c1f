"""Min max and max min: the parts of the experiment, and the whole of it."""

import math

import pytest
import torch

from organza.lab.experiment import Bench
from organza.lab.minimax_maximin import (
    Greedy,
    V,
    answer,
    answers,
    law,
    levels,
    losses,
    maximin,
    minimax,
    read,
    run,
    two_orders,
)


def test_losses_are_the_logarithms():
    logits = levels()
    real, fake = losses(logits)
    assert torch.allclose(real, -torch.sigmoid(logits).log()) and torch.allclose(fake, -torch.sigmoid(-logits).log())
    assert float(logits[10]) == 0.0 and len(logits) == 21


def test_both_orders_pass():
    assert all(check.passed for check in two_orders([law(5)]))


def test_without_the_level_one_half_the_value_is_not_log_4():
    logits = levels()[torch.arange(21) != 10] + 1.0
    (first, _), (second, D) = minimax(law(5), logits), maximin(law(5), logits)
    assert first.value == pytest.approx(-second.value, abs=1e-9)
    assert first.value < -math.log(4) - 1e-6 and float((D - 0.5).abs().max()) > 1e-6


def test_the_value_bounds_any_play():
    p, logits = law(5), levels()
    value = minimax(p, logits)[0].value
    for seed in range(20):
        D = torch.randn(len(p), generator=torch.Generator().manual_seed(seed), dtype=p.dtype)
        assert V(p, answer(D), D) < value


def test_answers_pass_and_a_tie_does_not():
    assert all(check.passed for check in answers(law(5), 10))
    assert float(answer(torch.tensor([1.0, 1.0, 0.0])).max()) == pytest.approx(0.5, abs=1e-6)


def test_hops_are_counted_between_dominant_modes():
    point = torch.eye(8, dtype=torch.float64)
    still, even = point[[0] * 8], torch.full((8, 8), 1 / 8, dtype=torch.float64)
    steps = torch.arange(1, 9) * 101
    hopping = read(steps, point[[0, 1, 0, 1, 0, 1, 0, 1]])
    assert hopping.hops == 750 and hopping.per_steps == pytest.approx(3 / 0.404) and hopping.entropy == 0
    assert read(steps, still).hops == 0 and read(steps, even).hops == 0
    assert read(steps, even).entropy == pytest.approx(math.log(8))
    between = torch.cat([still[:5], even[:1], point[[0, 1]]])  # back to where it was is no hop
    assert read(steps, between).hops == 250


def test_greedy_needs_a_move():
    with pytest.raises(ValueError, match="at least once"):
        Greedy(0)


@pytest.mark.slow
def test_the_experiment_passes(tmp_path):
    outcome = run(Bench("minimax-maximin", tmp_path, fast=True))
    assert outcome.passed, [check for check in outcome.checks if not check.passed]
