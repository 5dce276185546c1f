"""The theorems of the papers on what the objectives measure, on a finite space, as identities of numbers."""

import math

import pytest
import torch
from test_objective import SMOOTHINGS, label, laws
from torch import tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from organza.objective import (
    DIVERGENCES,
    FGAN,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    RelativisticLogistic,
)
from organza.theory import V


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def kl(p, q):
    return (p * (p / q).log()).sum()


def jsd(p, q):
    return 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2)


def test_theorem_1_of_goodfellow_et_al():
    """C(G) = -log 4 + 2 JSD(p || q), with D* = p / (p + q)."""
    for seed in range(10):
        p, q = laws(seed)
        best = Minimax().optimum(p, q)
        torch.testing.assert_close(best.sigmoid(), p / (p + q))
        torch.testing.assert_close(V(Minimax(), p, q, best), -math.log(4) + 2 * jsd(p, q), rtol=0, atol=1e-14)
        torch.testing.assert_close(Minimax().divergence(p, q), 2 * jsd(p, q), rtol=0, atol=1e-14)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_one_sided_smoothing_multiplies_the_optimum(smoothing):
    p, q = laws(1)
    best = NonSaturating(smoothing).optimum(p, q).sigmoid()
    torch.testing.assert_close(best, smoothing * p / (p + q))


@pytest.mark.parametrize("kind", [Minimax, NonSaturating])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_the_logistic_losses_are_cross_entropies(kind, smoothing):
    r, f = torch.randn(2, 7, generator=torch.Generator().manual_seed(1))

    def bce(logits, target):
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")

    torch.testing.assert_close(kind(smoothing).discriminator(r, f), bce(r, smoothing) + bce(f, 0.0))
    expected = -bce(f, 0.0) if kind is Minimax else bce(f, 1.0)
    torch.testing.assert_close(kind(smoothing).generator(None, f), expected)


def test_hinge_is_two_less_twice_the_total_variation():
    for seed in range(10):
        p, q = laws(seed)
        variation = 0.5 * (p - q).abs().sum()
        torch.testing.assert_close(-V(Hinge(), p, q, Hinge().optimum(p, q)), 2 - 2 * variation)
        torch.testing.assert_close(Hinge().divergence(p, q), 2 * variation)


def test_least_squares_is_pearsons_chi_squared():
    """2 C(G) = sum (p - q)^2 / (p + q) = chi^2(p + q, 2q), C(G) being the loss of G on both laws at D*."""
    objective = LeastSquares(-1.0, 1.0, 0.0)
    for seed in range(10):
        p, q = laws(seed)
        cost = ((p + q) * objective.generator(None, objective.optimum(p, q))).sum()
        torch.testing.assert_close(2 * cost, ((p - q) ** 2 / (p + q)).sum())
        torch.testing.assert_close(2 * cost, ((2 * q - (p + q)) ** 2 / (p + q)).sum())
        torch.testing.assert_close(objective.divergence(p, q), cost)


def test_relativistic_is_the_divergence_of_the_pairs():
    """max V = JSD(p x q || q x p) - log 2, D* = log p / q + any constant."""
    objective = RelativisticLogistic()
    for seed in range(10):
        p, q = laws(seed)
        pairs = torch.outer(p, q)
        divergence = jsd(pairs.flatten(), pairs.T.flatten())
        torch.testing.assert_close(objective.divergence(p, q), divergence, rtol=0, atol=1e-14)
        for constant in (0.0, 3.0):
            top = V(objective, p, q, (p / q).log() + constant)
            torch.testing.assert_close(top, divergence - math.log(2))


@pytest.mark.parametrize(
    ("objective", "bound"),
    [
        (Minimax(), 2 * math.log(2)),
        (Hinge(), 2.0),
        (LeastSquares(), 1.0),
        (RelativisticLogistic(), math.log(2)),
        (FGAN("jensen-shannon"), 2 * math.log(2)),
        (FGAN("hellinger"), 2.0),
        (FGAN("kl"), math.inf),
        (FGAN("reverse-kl"), math.inf),
        (FGAN("pearson"), math.inf),
    ],
    ids=label,
)
def test_divergence_of_disjoint_laws(objective, bound):
    p, q = tensor([0.4, 0.6, 0.0]), tensor([0.0, 0.0, 1.0])
    assert objective.divergence(p, q).item() == pytest.approx(bound, abs=1e-12)


def test_relativistic_players_change_places():
    """G wants of its fakes what D wants of the real, which is not the zero-sum game: it does not saturate."""
    r, f = torch.randn(2, 7, generator=torch.Generator().manual_seed(6))
    objective = RelativisticLogistic()
    torch.testing.assert_close(objective.discriminator(r, f), -(r - f).sigmoid().log())
    torch.testing.assert_close(objective.generator(r, f), objective.discriminator(f, r))


def generator_gradient(objective, p, theta):
    """The gradient in theta of G's loss for q = softmax(theta), against D* held fixed."""
    best = objective.optimum(p, theta.softmax(-1)).detach()
    real = best.unsqueeze(-1).expand(len(p), len(p))  # (x, y)
    loss = p.unsqueeze(-1) * theta.softmax(-1) * objective.generator(real, best.expand_as(real))
    return torch.autograd.grad(loss.sum(), theta)[0]


def against(objective):
    """What G descends against D* held fixed, as a function of (p, q), where theory says."""
    if isinstance(objective, NonSaturating):
        return lambda p, q: kl(q, p) - 2 * jsd(p, q)  # Arjovsky and Bottou 2017, theorem 2.5
    if isinstance(objective, FGAN) and not objective.saturating:
        return {
            "kl": lambda p, q: kl(q, p),  # -T = -log(p/q) - 1
            "jensen-shannon": lambda p, q: kl(q, p) - 2 * jsd(p, q),
        }.get(objective.name)
    if isinstance(objective, (Minimax, FGAN, Hinge)):  # zero-sum: the envelope theorem
        return objective.divergence
    return None


FROZEN = [Minimax(), NonSaturating(), Hinge(), *[FGAN(name, bool(s)) for name in DIVERGENCES for s in (0, 1)]]


@pytest.mark.parametrize("objective", [case for case in FROZEN if against(case) is not None], ids=label)
def test_the_generators_gradient_against_the_best_discriminator(objective):
    for seed in range(5):
        p, q = laws(seed)
        theta = q.log().requires_grad_()
        (expected,) = torch.autograd.grad(against(objective)(p, theta.softmax(-1)), theta)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(generator_gradient(objective, p, theta), expected, rtol=0, atol=1e-12)


def test_saturation():
    """While D is sure, the minimax gradient of G is e^-20 and the non-saturating one is 1."""
    f = tensor([-20.0], requires_grad=True)
    assert -torch.autograd.grad(Minimax().generator(None, f).sum(), f)[0] == pytest.approx(math.exp(-20))
    assert -torch.autograd.grad(NonSaturating().generator(None, f).sum(), f)[0] == pytest.approx(1.0)


# The table of f-GAN.


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_conjugate_is_the_supremum(name):
    """f*(T(v)) = sup_u u T(v) - f(u), by ternary search over log u."""
    row = DIVERGENCES[name]
    v = torch.linspace(-1.5, 3.0, 19)
    t = row.activation(v)
    low, high = torch.full_like(v, -40.0), torch.full_like(v, 40.0)
    for _ in range(150):
        a, b = torch.lerp(low, high, 1 / 3), torch.lerp(low, high, 2 / 3)
        rising = t * a.exp() - row.f(a.exp()) < t * b.exp() - row.f(b.exp())
        low, high = torch.where(rising, a, low), torch.where(rising, high, b)
    u = ((low + high) / 2).exp()
    torch.testing.assert_close(row.conjugate(v), t * u - row.f(u), rtol=0, atol=1e-9)
    torch.testing.assert_close(row.optimum(u.log()), v, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_fenchels_equality_at_the_optimum(name):
    """T = f'(u) and f(u) + f*(T) = u T; f is convex with f(1) = 0, and the best logit grows from 0 at u = 1."""
    row = DIVERGENCES[name]
    u = torch.linspace(-4, 4, 33).exp().requires_grad_()
    v = row.optimum(u.log())
    (slope,) = torch.autograd.grad(row.f(u).sum(), u, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), u)
    torch.testing.assert_close(row.activation(v), slope)
    torch.testing.assert_close(row.f(u) + row.conjugate(v), u * slope)
    assert (curvature > 0).all()
    assert (v.diff() > 0).all()
    assert row.f(tensor(1.0)) == row.optimum(tensor(0.0)) == 0


@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("kl", kl),
        ("reverse-kl", lambda p, q: kl(q, p)),
        ("pearson", lambda p, q: ((p - q) ** 2 / q).sum()),
        ("hellinger", lambda p, q: ((p.sqrt() - q.sqrt()) ** 2).sum()),
        ("jensen-shannon", lambda p, q: 2 * jsd(p, q)),
    ],
)
def test_each_row_has_its_name_by_right(name, divergence):
    p, q = laws(4)
    torch.testing.assert_close(FGAN(name).divergence(p, q), divergence(p, q))


def test_fgan_jensen_shannon_is_minimax_up_to_log_four():
    r, f = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
    fgan = FGAN("jensen-shannon", saturating=True)
    torch.testing.assert_close(fgan.discriminator(r, f) + math.log(4), Minimax().discriminator(r, f))
    torch.testing.assert_close(fgan.generator(None, f) - math.log(2), Minimax().generator(None, f))
