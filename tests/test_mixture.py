"""organza.mixture: components drawn by their weights, and weights learnt as expectation maximisation says."""

import math

import pytest
import torch

from organza.mixture import Mixture
from organza.part import build, written
from organza.prior import Prior


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_mixture_draws_its_components_by_their_weights():
    shares = [0.5, 0.0, 0.3, 0.2]
    prior = Mixture(4, 3, height=2.0, weights=shares)
    z = prior.draw(60_000, seeded())
    assert z.shape == (60_000, prior.dim) == (60_000, 7) and (z[:, :4].sum(1) == 2).all()
    assert (z[:, :4].mean(0) / 2).tolist() == pytest.approx(shares, abs=5 * 0.5 / math.sqrt(60_000))
    assert float(z[:, 1].max()) == 0 and float(z[:, 4:].std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(Mixture(4, 3, weights=(0.25,) * 4).draw(9, seeded()), Mixture(4, 3).draw(9, seeded()))
    assert torch.equal(prior.project(z), z)
    assert (prior.project(torch.eye(7)[1:2])[:, 1] == 0).all()  # none that is never drawn
    assert prior.traverse(z[:1], 0)[0, :, :4].argmax(1).tolist() == [0, 2, 3, 1]


def test_a_mixture_writes_what_it_has_learnt():
    """Made again from what is written, it draws the same to the last bit."""
    prior = Mixture(3, 2, half_life=40.0, after=0)
    assert written(prior)["weights"] == []
    prior.adapt({"prior/counts": torch.tensor([7.0, 2.0, 1.0])})
    again = build(Prior, written(prior))
    assert torch.equal(again.draw(100, seeded()), prior.draw(100, seeded()))
    assert written(again) == written(prior) != written(Mixture(3, 2, half_life=40.0, after=0))


@pytest.mark.parametrize("cuts", [1, 4])
def test_after_a_half_life_of_examples_half_of_the_shares_is_new(cuts):
    prior = Mixture(2, 1, half_life=64, after=0)
    for _ in range(cuts):
        prior.adapt({"prior/counts": torch.tensor([64.0, 0.0]) / cuts})
    assert prior.weights == pytest.approx([0.75, 0.25], abs=1e-6)
    prior.adapt({"discriminator/objective": torch.tensor(1.0)})  # no move that counted
    assert prior.weights == pytest.approx([0.75, 0.25], abs=1e-6)


def test_the_first_examples_are_not_counted():
    prior = Mixture(2, 1, half_life=10, after=20)
    for _ in range(2):
        prior.adapt({"prior/counts": torch.tensor([10.0, 0.0])})
        assert prior.weights == []
    prior.adapt({"prior/counts": torch.tensor([10.0, 0.0])})
    assert prior.weights == pytest.approx([0.75, 0.25])


def test_by_the_true_posterior_the_shares_become_those_of_the_data():
    """Expectation maximisation of the proportions of overlapping laws, N(-1, 1), N(1, 1) and N(9, 1), is consistent."""
    truth, n, g = torch.tensor([0.2, 0.8, 0.0]), 20_000, seeded()
    means = torch.tensor([-1.0, 1.0, 9.0])
    x = means[torch.multinomial(truth, n, True, generator=g)] + torch.randn(n, generator=g)
    density = (-((x[:, None] - means) ** 2) / 2).exp()  # (n, 3)
    prior = Mixture(3, 1, half_life=1.0, after=0)  # all is new at once: the M-step itself
    for _ in range(200):
        joint = prior.shares * density
        prior.adapt({"prior/counts": (joint / joint.sum(1, keepdim=True)).sum(0)})
    assert prior.weights == pytest.approx(truth.tolist(), abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"components": 1}, r"Mixture\(components=1\): must be from 2 to"),
        ({"components": 2**70}, "must be from 2 to 65,536"),
        ({"after": 2**70}, "after=1180591620717411303424"),
        ({"half_life": 0.0}, r"half_life=0.0, after=20000\): must be above 0"),
        ({"components": 3, "weights": (0.5, 0.5)}, r"weights=\[0.5, 0.5\]\): must be 3 of 0 or more that add up to 1"),
        ({"components": 2, "weights": (1.5, -0.5)}, r"weights=\[1.5, -0.5\]\): must be 2 of 0 or more"),
        ({"components": 2, "weights": (0.5, 0.6)}, r"weights=\[0.5, 0.6\]\): must be 2"),
    ],
)
def test_a_mixture_refuses_what_are_no_weights(arguments, said):
    with pytest.raises(ValueError, match=said):
        Mixture(**arguments)


def test_a_mixture_refuses_counts_of_other_components():
    with pytest.raises(ValueError, match="D tells 2 apart"):
        Mixture(3).adapt({"prior/counts": torch.ones(2)})
