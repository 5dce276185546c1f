"""organza.theory.divergence: closed forms of Gaussians and uniform laws, infinities, and errors that bound."""

import math

import pytest
import torch
from torch import tensor

from organza.theory import (
    Gaussian,
    Mixture,
    Pushforward,
    Uniform,
    chi2,
    expectation,
    integrate,
    js,
    kl,
    reverse_kl,
    ring,
    tv,
    w1,
)

P, Q = Gaussian(0.0, 1.0), Gaussian(1.0, 2.0)


def holds(found, expected, tolerance=1e-9):
    """The value is right, and within its own stated error but for rounding."""
    assert found.value == pytest.approx(expected, abs=tolerance, rel=1e-12)
    assert abs(found.value - expected) <= found.error + 1e-12 * max(1, abs(expected))
    assert found.error <= tolerance * max(1, abs(expected))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: kl(P, Q), math.log(2) + 2 / 8 - 0.5),
        (lambda: reverse_kl(P, Q), -math.log(2) + 5 / 2 - 0.5),
        (lambda: kl(Gaussian([0.0, 0.0]), Gaussian([1.0, 2.0])), 2.5),
        (lambda: tv(P, Gaussian(1)), math.erf(0.5 / math.sqrt(2))),
        (lambda: chi2(P, Gaussian(3)), math.exp(9) - 1),
        (lambda: chi2(P, Gaussian(6)), math.exp(36) - 1),  # most of it lies outside of both laws' boxes
        (lambda: js(P, P), 0.0),
        (lambda: js(Uniform(0, 1), Uniform(2, 3)), math.log(2)),
        (lambda: js(Gaussian(-30), Gaussian(30)), math.log(2)),
        (lambda: tv(Uniform(0, 1), Uniform(0.3, 1.3)), 0.3),
        (lambda: w1(P, Gaussian(3)), 3.0),
        (lambda: w1(P, Gaussian(0, 2)), math.sqrt(2 / math.pi)),
        (lambda: w1(Uniform(0, 1), Uniform(2.3, 3.3)), 2.3),
        (lambda: kl(Pushforward(lambda z: 2 * z + 1, Gaussian()), Q), 0.0),
        (lambda: expectation(Q, lambda x: x[:, 0] ** 2), 5.0),
    ],
)
def test_closed_forms(found, expected):
    found = found()
    if expected > 1e9:
        assert found.value == pytest.approx(expected, rel=1e-12)
    else:
        holds(found, expected, 1e-5 if expected == 2.5 else 1e-8)


def test_infinities():
    assert kl(Uniform(0, 1), Uniform(0.5, 1.5)).value == math.inf
    assert kl(Uniform(0.5, 1.0), Uniform(0, 1)).value == pytest.approx(math.log(2))
    assert chi2(Gaussian(0, 2), Gaussian(0, 1)).value == math.inf
    assert chi2(Gaussian(0, 1), Gaussian(0, 1.1)).value < math.inf


def test_narrow_modes_are_not_stepped_over():
    w = tensor([1.0, 2, 3, 4, 4, 3, 2, 1], dtype=torch.float64)
    w /= w.sum()
    expected = (torch.log(1 / (8 * w)) / 8).sum().item()
    holds(kl(ring(), ring(weights=w)), expected, 1e-5)


def test_jensen_shannon_is_the_sum_of_its_halves():
    m = Mixture([P, Q])
    holds(js(P, Q), 0.5 * kl(P, m).value + 0.5 * kl(Q, m).value)


def test_the_error_bounds_a_kink():
    """|x - 1/3| on [0, 1]: its corner lies in no cell's middle."""
    found = integrate(lambda x: (x[:, 0] - 1 / 3).abs(), tensor([0.0]).double(), tensor([1.0]).double(), 1.0, 1e-6)
    assert abs(found.value - (1 / 18 + 4 / 18)) <= found.error <= 1e-6


def test_refusals():
    with pytest.raises(ValueError, match="only on the line"):
        w1(ring(), ring())
    with pytest.raises(ValueError, match="1 and 2 dimensions"):
        kl(P, ring())
    with pytest.raises(ValueError, match="too fine"):
        integrate(lambda x: x[:, 0], tensor([0.0, 0.0]), tensor([1.0, 1.0]), 1e-6)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Gaussian(0.0, 0.01), Uniform(1.0, 2.0)),
        (Mixture([Gaussian(0.0, 0.1), Gaussian(10.0, 0.1)]), Uniform(-1.0, 1.0)),
    ],
)
def test_a_density_too_small_for_a_number_adds_nothing(p, q):
    """And is no number times infinity: q has no mass where p has."""
    assert kl(p, q).value == math.inf and reverse_kl(q, p).value == math.inf
