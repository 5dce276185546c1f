"""organza.theory.optimum: the best D by numbers alone, for every objective there is and three that there are not."""

import math

import pytest
import torch
from test_objective import EVERY, KNOWN, laws
from torch.nn.functional import softplus

from organza.energy import EnergyMargin
from organza.objective import (
    FGAN,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Objective,
    RelativisticLogistic,
    Wasserstein,
)
from organza.theory import (
    D_star,
    Gaussian,
    Mixture,
    Uniform,
    V,
    best,
    cost,
    dirac,
    divergence,
    eigenvalues,
    js,
    kantorovich,
    separable,
    tv,
    value,
    w1,
)

P, Q = Gaussian(0.0, 1.0), Mixture([Gaussian(1.0, 0.5), Gaussian(-2.0, 0.3)])
known = pytest.mark.parametrize("objective", KNOWN)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@known
@pytest.mark.parametrize(("seed", "least"), [(0, 0.0), (1, 1e-6)])
def test_the_numeric_best_is_the_optimum(objective, seed, least):
    p, q = laws(seed, least=least)
    found, told = best(objective, p, q), objective.optimum(p, q)
    assert found.inside and found.error < 1e-9
    assert abs(found.value - V(objective, p, q, told)) < 1e-10
    if found.unique:
        off = found.logits - told
        free = off.mean() if objective.paired else 0.0
        assert (off - free).abs().max() < 1e-6


@known
def test_the_numeric_divergence_is_the_closed_form(objective):
    p, q = laws(2, least=1e-6)
    found, told = divergence(objective, p, q), objective.divergence(p, q).item()
    allowed = found.error + 1e-10 * max(1, told)
    assert abs(found.value - told) <= allowed < abs(found.value - (1 + 1e-6) * told)  # a wrong one would be seen


@known
def test_a_wrong_optimum_is_below_the_best(objective):
    """The bound is one: what is off by a thousandth is worse than the best by more than the stated error."""
    p, q = laws(0)
    found = best(objective, p, q)
    for wrong in (1.001 * objective.optimum(p, q), objective.optimum(q, p)):
        assert V(objective, p, q, wrong) < found.value - found.error


@pytest.mark.parametrize("objective", EVERY)
def test_no_random_D_is_better_than_the_bound_says(objective):
    p, q = laws(3)
    found = best(objective, p, q)
    if found.error < math.inf:
        tries = 3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        assert V(objective, p, q, tries).max() <= found.value + found.error


def test_what_grows_for_ever_is_said_so():
    p, q = laws(0)
    found = best(Wasserstein(), p, q)
    assert not found.inside and found.error > 1e6
    assert divergence(Wasserstein(), p, q).error > 1e6
    assert best(Wasserstein(), p, q, (-0.01, 0.01)).value == pytest.approx(0.01 * (p - q).abs().sum().item())  # clipped


def test_points_that_one_law_never_shows():
    """There the best D is infinitely sure; V levels off, so that its value is known all the same."""
    p, q = torch.tensor([0.4, 0.6, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    found = divergence(Minimax(), p, q)
    assert found.error < 1e-9
    assert found.value == pytest.approx(Minimax().divergence(p, q).item(), abs=1e-9)
    assert not best(Minimax(), p, q).inside


@pytest.mark.parametrize(
    ("p", "q", "said"),
    [([0.5, 0.5], [1.0], "same points"), ([0.5, 0.6], [0.5, 0.5], "add up to 1"), ([[1.0]], [1.0], "finite support")],
)
def test_what_is_no_law_is_refused(p, q, said):
    with pytest.raises(ValueError, match=said):
        best(Minimax(), torch.tensor(p), torch.tensor(q))


def test_an_energy_has_a_box_of_its_own():
    p, q = laws(0)
    found = divergence(EnergyMargin(2.0), p, q, (-60.0, 0.0))
    assert found.value == pytest.approx(EnergyMargin(2.0).divergence(p, q).item(), abs=1e-9)


def test_flat_optima_are_not_called_unique():
    assert not best(Hinge(), *laws(0)).unique
    assert best(RelativisticLogistic(), *laws(0)).unique


class Bumpy(Objective):
    """Many peaks in each logit."""

    def discriminator(self, real_logits, fake_logits):
        return torch.cos(real_logits) + fake_logits**2

    def generator(self, real_logits, fake_logits):
        return -fake_logits


def test_no_bound_where_there_may_be_several_peaks():
    assert best(Bumpy(), *laws(0)).error == math.inf


class TwoPeaks(Objective):
    """A loss of pairs that is not convex: Newton's way from 0 ends on the lower of two peaks of V."""

    paired = True

    def discriminator(self, real_logits, fake_logits):
        t = real_logits - fake_logits
        return t**2 * (t - 3) ** 2 - t

    def generator(self, real_logits, fake_logits):
        return fake_logits


def test_what_may_have_another_peak_is_not_certified():
    p, q = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    found = best(TwoPeaks(), p, q, (-5.0, 5.0))
    assert found.value < 1 < float(V(TwoPeaks(), p, q, torch.tensor([3.0, 0.0]).double())) and found.error == math.inf
    assert best(RelativisticLogistic(), *laws(1)).error < 1e-6


def test_one_sided_smoothing_and_its_equilibrium():
    """D* = s p / (p + q): at p = q it says s / 2, and V is s log(s/2) + (2 - s) log(1 - s/2), not -log 4."""
    for s in (1.0, 0.9, 0.7):
        p, q = laws(1)
        torch.testing.assert_close(best(Minimax(s), p, q).logits.sigmoid(), s * p / (p + q), rtol=0, atol=1e-9)
        found = best(Minimax(s), p, p)
        torch.testing.assert_close(found.logits.sigmoid(), torch.full((5,), s / 2), rtol=0, atol=1e-9)
        assert found.value == pytest.approx(s * math.log(s / 2) + (2 - s) * math.log(1 - s / 2), abs=1e-12)


def test_theorem_1_by_quadrature():
    found = cost(Minimax(), P, Q)
    assert abs(found.value - (-math.log(4) + 2 * js(P, Q).value)) < 1e-9
    assert cost(NonSaturating(), P, Q).value == pytest.approx(found.value, abs=1e-12)
    assert cost(Minimax(), P, P).value == pytest.approx(-math.log(4), abs=1e-10)
    assert cost(Hinge(), P, Q).value == pytest.approx(-2 + 2 * tv(P, Q).value, abs=1e-6)


@pytest.mark.parametrize("apart", [0.5, 2.0, 3.0, 5.0])
def test_the_cost_of_f_gans_is_their_divergence_however_far_apart(apart):
    """The best logits grow without bound, to 22,000 at x = -2 for laws 5 apart: none is cut."""
    p, q = Gaussian(0, 1), Gaussian(apart, 1)
    found = {name: cost(FGAN(name), p, q) for name in ("pearson", "kl", "reverse-kl")}
    assert found["pearson"].value == pytest.approx(math.exp(apart**2) - 1, rel=1e-9)
    assert found["kl"].value == pytest.approx(apart**2 / 2, rel=1e-9)
    assert found["reverse-kl"].value == pytest.approx(apart**2 / 2, rel=1e-9)
    assert all(each.error < 1e-6 * max(1, each.value) for each in found.values())


def test_a_cost_that_is_no_number_is_not_certified():
    """Where q has no mass and p has, V of the KL grows for ever; of laws far apart it leaves the range of numbers."""
    assert cost(FGAN("kl"), Uniform(0, 2), Uniform(0, 1)).error == math.inf
    far = cost(FGAN("kl"), Gaussian(0, 1), Gaussian(30, 1))
    assert far.error == math.inf and far.value == pytest.approx(450)
    assert cost(Minimax(), Uniform(0, 2), Uniform(0, 1)).error < 1e-9  # of which nothing is lost
    squared = cost(FGAN("hellinger"), Uniform(0, 2), Uniform(0, 1))  # whose loss of fakes is infinite where q is 0
    assert squared.value == pytest.approx(2 - math.sqrt(2)) and squared.error < 1e-6
    assert cost(Hinge(), Uniform(0, 2), Uniform(0, 1)).error < 1e-6
    beyond = value(
        Wasserstein(), Uniform(0, 2), Uniform(0, 1), lambda x: torch.full((len(x),), math.inf).double() * x[:, 0]
    )
    assert beyond.error == math.inf  # of an infinite logit no number will do


def test_no_other_D_reaches_the_cost():
    top = cost(LeastSquares(), P, Q)
    D = D_star(LeastSquares(), P, Q)
    for other in (lambda x: D(x) + 0.01, lambda x: 0.99 * D(x), lambda x: x[:, 0]):
        assert value(LeastSquares(), P, Q, other).value < top.value - top.error


def test_D_star_where_densities_underflow():
    """Far out both densities are 0 in float64, but their ratio is known."""
    x = torch.tensor([[60.0], [-60.0]])
    logits = D_star(Minimax(), Gaussian(0, 1), Gaussian(1, 1))(x)
    torch.testing.assert_close(logits, torch.tensor([0.5 - 60, 0.5 + 60]))


def test_kantorovichs_critic_reaches_w1():
    x = torch.linspace(-9, 9, 20001)
    D = kantorovich(P, Q, x)
    assert (D.diff() / x.diff()).abs().max() <= 1 + 1e-9
    reached = ((P.log_prob(x[:, None]).exp() - Q.log_prob(x[:, None]).exp()) * D).sum() * (x[1] - x[0])
    assert reached.item() == pytest.approx(w1(P, Q).value, abs=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match="finite support"):
        D_star(Wasserstein(), P, Q)
    with pytest.raises(ValueError, match="judges pairs"):
        value(RelativisticLogistic(), P, Q, lambda x: x[:, 0])


# A new objective needs its two losses and nothing else: three f-divergences that the package does not have.


class NeymanChi2(Objective):
    """f(u) = (1 - u)^2 / u, with T = 1 - exp(-2v) and f*(t) = 2 - 2 sqrt(1 - t)."""

    def discriminator(self, real_logits, fake_logits):
        return 2 - 2 * torch.exp(-fake_logits) - (1 - torch.exp(-2 * real_logits))

    def generator(self, real_logits, fake_logits):
        return -(1 - torch.exp(-2 * fake_logits))


class Jeffreys(Objective):
    """f(u) = (u - 1) log u, by its optimum: V = E_p[v - exp(-v)] - E_q[exp(v) + v] + 2 at v = log u."""

    def discriminator(self, real_logits, fake_logits):
        return torch.exp(-real_logits) - real_logits + torch.exp(fake_logits) + fake_logits - 2

    def generator(self, real_logits, fake_logits):
        return -fake_logits


class Skewed(Objective):
    """Jensen's divergence with the weight 1/4 on p: KL(p || m) / 4 + 3 KL(q || m) / 4, m = p / 4 + 3 q / 4."""

    def discriminator(self, real_logits, fake_logits):
        return 0.25 * softplus(-real_logits) + 0.75 * softplus(fake_logits)

    def generator(self, real_logits, fake_logits):
        return softplus(-fake_logits)


def skewed(p, q):
    m = p / 4 + 3 * q / 4
    return (p * (p / m).log()).sum() / 4 + 3 * (q * (q / m).log()).sum() / 4


@pytest.mark.parametrize(
    ("objective", "optimum", "told", "slopes"),
    [
        (NeymanChi2(), lambda p, q: (p / q).log(), lambda p, q: ((p - q) ** 2 / p).sum(), (2.0, 2.0)),
        (Jeffreys(), lambda p, q: (p / q).log(), lambda p, q: ((p - q) * (p / q).log()).sum(), (2.0, 1.0)),
        (Skewed(), lambda p, q: (p / (3 * q)).log(), skewed, (0.375, 0.5)),
    ],
    ids=["Neyman", "Jeffreys", "skewed"],
)
def test_a_new_objective_needs_nothing_else(objective, optimum, told, slopes):
    """Its optimum, its divergence, and its eigenvalues of the Dirac-GAN: those of [[0, -a], [b, 0]]."""
    assert separable(objective)
    p, q = laws(5)
    found = best(objective, p, q)
    torch.testing.assert_close(found.logits, optimum(p, q), rtol=0, atol=1e-9)
    measured = divergence(objective, p, q)
    assert measured.value == pytest.approx(told(p, q).item(), abs=1e-10)
    assert measured.error < 1e-9
    a, b = slopes
    expected = math.sqrt(a * b)
    seen = eigenvalues(dirac(objective))
    torch.testing.assert_close(seen, torch.tensor([-1j * expected, 1j * expected]), rtol=0, atol=1e-9)
