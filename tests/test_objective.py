"""organza.objective: what the optima and divergences of all have in common, and the losses as numbers.

That they are the best is tested in test_optimum, against a numeric maximiser.
"""

import inspect
import math

import pytest
import torch
from torch import tensor

from organza import objective as module
from organza.objective import (
    DIVERGENCES,
    FGAN,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Objective,
    RelativisticLogistic,
    Scaled,
)

SMOOTHINGS = (1.0, 0.9, 0.7)
TARGETS = ((-1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (-0.3, 2.0, 0.7))
FOUND = [
    kind
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, Objective) and not inspect.isabstract(kind)
]
# A new objective is tested as its constructor makes it; what is worth more cases stands here.
CASES = {
    Minimax: [Minimax(s) for s in SMOOTHINGS],
    NonSaturating: [NonSaturating(s) for s in SMOOTHINGS],
    LeastSquares: [LeastSquares(*targets) for targets in TARGETS],
    FGAN: [FGAN(name, saturating) for name in DIVERGENCES for saturating in (False, True)],
    Scaled: [Scaled(NonSaturating(0.9), d=0.5, g=2.0), Scaled(RelativisticLogistic(), d=3.0, g=0.5)],
}


def label(part):
    if not isinstance(part, Objective):
        return str(part)
    if isinstance(part, Scaled):
        return f"Scaled-{label(part.objective)}"
    numbers = [str(v) for k, v in vars(part).items() if k[0] != "_" and k not in ("training", "anchored", "paired")]
    return "-".join([type(part).__name__, *numbers])


EVERY = [pytest.param(part, id=label(part)) for kind in FOUND for part in CASES.get(kind) or [kind()]]
every = pytest.mark.parametrize("objective", EVERY)
KNOWN = [  # of two that differ in G's loss alone, one
    case
    for case in EVERY
    if case.values[0].optimum(*torch.full((2, 2), 0.5)) is not None and not getattr(case.values[0], "saturating", False)
]
known = pytest.mark.parametrize("objective", KNOWN)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def laws(seed, n=5, least=0.0):
    """Random p and q on n points, the first of p and the second of q being ``least`` (if above 0)."""
    g = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, n, generator=g).softmax(-1)
    if least > 0:
        p[0] = q[1] = least
    return p / p.sum(), q / q.sum()


@every
def test_optimum_and_divergence_are_known_together(objective):
    assert (objective.optimum(*laws(0)) is None) == (objective.divergence(*laws(0)) is None)


@known
def test_divergence_is_zero_exactly_at_equality(objective):
    for seed in range(20):
        p, q = laws(seed)
        assert objective.divergence(p, q) > 1e-4
        assert abs(objective.divergence(p, p)) < 1e-15
        near = p + 1e-3 * (q - p)
        assert 0 < objective.divergence(p, near) < objective.divergence(p, q)


@known
def test_divergence_is_a_batch_over_the_last_axis(objective):
    p, q = (torch.stack(pair) for pair in zip(laws(0), laws(1), strict=True))
    expected = torch.stack([objective.divergence(*laws(0)), objective.divergence(*laws(1))])
    torch.testing.assert_close(objective.divergence(p, q), expected)


@known
def test_divergence_with_empty_points_is_the_limit(objective):
    """Points of zero mass, in one law or in both, give the limit of small masses: a number or infinity, never nan."""
    p, q = tensor([0.25, 0.75, 0.0, 0.0]), tensor([0.5, 0.0, 0.5, 0.0])
    least = 1e-13
    limit = objective.divergence(p + least, q + least).item()
    exact = objective.divergence(p, q).item()
    assert exact == pytest.approx(limit, abs=1e-5) or (exact == math.inf and limit > 5), (exact, limit)


def bordered(objective):
    """Whether zero is D's border: one-sided smoothing t moves it to log(t / (2 - t))."""
    inner = objective.objective if isinstance(objective, Scaled) else objective
    return objective.anchored and getattr(inner, "smoothing", 1.0) == 1.0


@pytest.mark.parametrize("objective", [case for case in KNOWN if bordered(case.values[0])])
def test_an_anchored_optimum_changes_sign_between_real_and_fake(objective):
    p, q = laws(3)
    assert torch.equal(objective.optimum(p, q).sign(), (p - q).sign())
    assert objective.optimum(p, p).abs().max() < 1e-12


# Losses as the loop calls them.


@every
@pytest.mark.parametrize("shape", [(4,), (4, 2, 3)])
def test_losses_are_unreduced(objective, shape):
    """Each entry depends on the logits of its own place alone."""
    r, f = torch.randn(2, *shape, generator=torch.Generator().manual_seed(3))
    for player in (objective.discriminator, objective.generator):
        whole = player(r, f)
        assert whole.shape == shape
        alone = [player(a.view(1), b.view(1)) for a, b in zip(r.flatten(), f.flatten(), strict=True)]
        torch.testing.assert_close(whole.flatten(), torch.cat(alone))


@every
def test_the_reals_are_needed_exactly_where_declared(objective):
    f = torch.randn(4, generator=torch.Generator().manual_seed(4))
    if objective.paired:
        with pytest.raises((AssertionError, ValueError)):
            objective.generator(None, f)
    else:
        assert torch.equal(objective.generator(None, f), objective.generator(torch.randn(4), f))


@every
def test_the_players_pull_the_logits_apart_and_together(objective):
    """At equal logits D raises the real and lowers the fake one, and G raises the fake one."""
    middle = 0.5 * (getattr(objective, "a", 0.0) + getattr(objective, "b", 0.0))
    r, f = torch.full((2, 1), middle).requires_grad_().unbind()
    pull_r, pull_f = torch.autograd.grad(objective.discriminator(r, f).sum(), (r, f))
    (raised,) = torch.autograd.grad(objective.generator(r.detach(), f).sum(), f)
    assert pull_r < 0 < pull_f
    assert raised < 0 or isinstance(objective, LeastSquares)  # with c = 0 G wants D to waver, not to err


LOGISTIC = [
    *[case for case in EVERY if isinstance(case.values[0], (Minimax, NonSaturating, RelativisticLogistic, Scaled))],
    pytest.param(FGAN("jensen-shannon"), id="FGAN-jensen-shannon"),
]


@pytest.mark.parametrize("objective", LOGISTIC)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logistic_losses_of_huge_logits_are_right(objective, dtype):
    """At +-1e4 softplus is the positive part: the losses are piecewise linear there, so scaling logits scales them."""
    r, f = torch.cartesian_prod(tensor([-1e4, 1e4]), tensor([-1e4, 1e4])).to(dtype).T
    r, f = r.clone().requires_grad_(), f.clone().requires_grad_()
    for player in (objective.discriminator, objective.generator):
        loss = player(r, f)
        slopes = torch.autograd.grad(loss.sum(), (r, f), allow_unused=True, materialize_grads=True)
        assert loss.isfinite().all() and all(slope.isfinite().all() for slope in slopes)
        # Euler's identity of what is linear along rays, but for constants and the kink at r = f.
        ray = (r * slopes[0] + f * slopes[1]).detach()
        torch.testing.assert_close(loss.detach(), ray, rtol=0, atol=3.0)
    if not objective.paired:
        weight, inner = (objective.d, objective.objective) if isinstance(objective, Scaled) else (1.0, objective)
        soft = 1 - getattr(inner, "smoothing", 1.0)
        expected = weight * ((-r).relu() + soft * r + f.relu()).detach()
        torch.testing.assert_close(objective.discriminator(r, f).detach(), expected, rtol=1e-6, atol=3.0)


def test_scaled_weighs_the_two_players():
    r, f = torch.randn(2, 5, generator=torch.Generator().manual_seed(5))
    for inner in (Hinge(), RelativisticLogistic(), LeastSquares(0, 1, 1)):
        scaled = Scaled(inner, d=0.25, g=3.0)
        torch.testing.assert_close(scaled.discriminator(r, f), 0.25 * inner.discriminator(r, f))
        torch.testing.assert_close(scaled.generator(r, f), 3.0 * inner.generator(r, f))
        assert (scaled.paired, scaled.anchored) == (inner.paired, inner.anchored)
        assert torch.equal(scaled.score(r), inner.score(r))


@every
def test_score_is_a_probability_where_there_is_one(objective):
    logits = torch.linspace(-3, 3, 7)
    inner = objective.objective if isinstance(objective, Scaled) else objective
    expected = logits.sigmoid() if isinstance(inner, (Minimax, NonSaturating)) else logits
    assert torch.equal(objective.score(logits), expected)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Minimax(0.0), "smoothing=0.0"),
        (lambda: NonSaturating(1.1), "smoothing=1.1"),
        (lambda: LeastSquares(1.0, 1.0), "must differ"),
        (lambda: FGAN("jeffreys"), "known are kl"),
    ],
)
def test_refusals(build, said):
    with pytest.raises(ValueError, match=said):
        build()
