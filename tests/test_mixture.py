"""organza.mixture: components drawn by their weights, and weights learnt by counts or by advantages."""

import math

import pytest
import torch

from organza.mixture import Cells, Mixture
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
        ({"half_life": 0.0}, r"half_life=0.0\): must be above 0"),
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


def test_cells_draw_each_pair_of_values_by_its_weight():
    shares = [0.3, 0.0, 0.2, 0.1, 0.0, 0.4]
    prior = Cells((2, 3), 2, spread=0.5, height=3.0, weights=shares)
    z = prior.draw(60_000, seeded())
    assert z.shape == (60_000, prior.dim) == (60_000, 7) and float(z[:, 5:].std()) == pytest.approx(0.5, abs=0.01)
    assert (z[:, :2].sum(1) == 3).all() and (z[:, 2:5].sum(1) == 3).all()
    cell = 3 * z[:, :2].argmax(1) + z[:, 2:5].argmax(1)
    found = torch.bincount(cell, minlength=6) / len(z)
    assert found.tolist() == pytest.approx(shares, abs=5 * 0.5 / math.sqrt(60_000)) and found[1] == found[4] == 0
    assert torch.equal(prior.project(z), z)
    near = prior.project(torch.tensor([[2.0, 1, 0, 9, 1, 7, 8]]))  # where the 9 is no cell is ever drawn
    assert near[0].tolist() == [3, 0, 0, 0, 3, 7, 8]
    assert prior.traverse(z[:4], 1).shape == (4, 3, 7) and torch.equal(prior.truncate(z, 9.0)[:, :5], z[:, :5])


def test_cells_write_what_they_have_learnt():
    prior = Cells((2, 2), 1, rate=0.5, after=0)
    assert written(prior)["weights"] == []
    prior.adapt({"prior/fakes": torch.tensor([4.0, 2, 1, 1]), "prior/advantages": torch.tensor([1.0, 0, -1, 0])})
    again = build(Prior, written(prior))
    assert torch.equal(again.draw(100, seeded()), prior.draw(100, seeded())) and written(again) == written(prior)
    before = prior.shares
    prior.adapt({"discriminator/objective": torch.tensor(1.0)})  # no move of D
    assert torch.equal(prior.shares, before)


def test_cells_follow_the_natural_gradient_of_the_mean_advantage():
    """If each cell has its share of the fakes, a move is the gradient of sum_k pi_k A_k by theta over the Fisher matrix
    of softmax(theta), diag(pi) - pi pi^T; of a cell rarer than a tenth of the mean it is smaller by that."""
    pi, A, rate = torch.tensor([0.5, 0.2, 0.2, 0.1]), torch.tensor([0.3, -0.6, 0.1, 0.9]), 0.05
    theta = pi.log().requires_grad_()
    (gradient,) = torch.autograd.grad((theta.softmax(0) * A).sum(), theta)
    natural = torch.linalg.pinv(pi.diag() - pi.outer(pi)) @ gradient
    assert moved(pi, pi, A, rate) == pytest.approx((theta + rate * natural).softmax(0).tolist())
    rare = torch.tensor([0.59, 0.2, 0.2, 0.01])
    step = A - rare @ A
    step[3] *= 0.01 / 0.025
    assert moved(rare, rare, A, rate) == pytest.approx((rare.log() + rate * step).softmax(0).tolist())
    drawn = torch.tensor([9.0, 0, 3, 4]) / 16
    assert moved(pi, drawn, torch.full((4,), 0.5), rate) == pytest.approx(pi.tolist())  # to be drawn is no advantage


def moved(pi, drawn, A, rate):
    """The weights after 1,000 fakes, of the cells by ``drawn``, of the advantages A."""
    prior = Cells((2, 2), 1, weights=pi.tolist(), rate=rate, after=0)
    prior.adapt({"prior/fakes": 1000 * drawn, "prior/advantages": 1000 * drawn * A})
    return prior.weights


def test_the_first_fakes_move_no_weight():
    prior, move = Cells((2,), 1, rate=1.0, after=20), {"prior/fakes": torch.tensor([5.0, 5.0])}
    move["prior/advantages"] = torch.tensor([5.0, -5.0])
    for _ in range(2):
        prior.adapt(move)
        assert prior.weights == []
    prior.adapt(move)
    assert prior.weights == pytest.approx(torch.tensor([1.0, -1.0]).softmax(0).tolist())


def test_against_the_best_discriminator_the_shares_become_those_of_the_data():
    """Of fakes N(-1, 1), N(1, 1), N(4, .5^2) and N(9, 1) for data of the first two in shares of .2 and .8: what lies
    between or beyond the data's modes dies, whatever is drawn, and the rest is weighed as it should."""
    truth, n, g = torch.tensor([0.2, 0.8, 0.0, 0.0]), 2_000, seeded()
    means, sigmas = torch.tensor([-1.0, 1.0, 4.0, 9.0]), torch.tensor([1.0, 1.0, 0.5, 1.0])

    def density(x, shares):
        return ((-(((x[:, None] - means) / sigmas) ** 2) / 2).exp() / sigmas) @ shares

    prior = Cells((2, 2), 1, rate=0.02, after=0)
    for _ in range(2_000):
        k, of_data = (torch.multinomial(p, n, True, generator=g) for p in (prior.shares, truth))
        fake, real = (means[c] + sigmas[c] * torch.randn(n, generator=g) for c in (k, of_data))
        D = [(density(x, truth) / density(x, prior.shares)).clamp(1e-12).log() for x in (fake, real)]
        a, cell = torch.tanh((D[0] - D[1]) / 2), torch.eye(4)[k]
        prior.adapt({"prior/fakes": cell.sum(0), "prior/advantages": a @ cell})
    assert prior.weights == pytest.approx(truth.tolist(), abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"categories": ()}, r"Cells\(categories=\[\]\): their product must be from 2 to 65,536"),
        ({"categories": (2**10, 2**10)}, "their product must be from 2 to 65,536"),
        ({"categories": (1, 4)}, "each code needs 2 categories or more"),
        ({"rate": -1.0}, r"Cells\(rate=-1.0\): must be 0 or more"),
        ({"rate": math.nan}, "must be 0 or more"),
        ({"after": -1}, r"Cells\(after=-1\): must be from 0"),
        ({"categories": (2, 2), "weights": (0.5, 0.5)}, r"Cells\(weights=\[0.5, 0.5\]\): must be 4 of 0 or more"),
    ],
)
def test_cells_refuse_what_are_none(arguments, said):
    with pytest.raises(ValueError, match=said):
        Cells(**arguments)
    with pytest.raises(ValueError, match="the term tells 2 cells apart"):
        Cells((3,)).adapt({"prior/fakes": torch.ones(2), "prior/advantages": torch.ones(2)})


def test_examples_are_counted_exactly_however_many():
    """Beyond 2^24 floats do not tell one more."""
    prior = Cells((2,), 1, after=10**12)
    prior.seen = torch.tensor(2**25)
    prior.adapt({"prior/fakes": torch.tensor([0.5, 0.5]), "prior/advantages": torch.zeros(2)})
    assert int(prior.seen) == 2**25 + 1
