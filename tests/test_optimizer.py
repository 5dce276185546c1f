"""organza.optimizer: torch's own rules, step for step, with settings that follow their schedules."""

from copy import copy

import pytest
import torch
from torch import nn

from organza.optimizer import SGD, Adam, Optimizer, RMSprop
from organza.schedule import Cosine, Exponential, Linear, at

LR, BETA = Linear(0.1, 0.01, 1000), Cosine(0.9, 0.99, 1500)
DECAY, RISE = Exponential(0.1, 0.5, 100), Linear(0.0, 0.7, 800)
CASES = [
    (Adam(), torch.optim.Adam, {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-8}),
    (Adam(LR, 0.0, BETA, 1e-6), torch.optim.Adam, {"lr": LR, "betas": (0.0, BETA), "eps": 1e-6}),
    (SGD(), torch.optim.SGD, {"lr": 0.1}),
    (RMSprop(), torch.optim.RMSprop, {"lr": 5e-5, "alpha": 0.99}),
    (RMSprop(LR, 0.9, 1e-5), torch.optim.RMSprop, {"lr": LR, "alpha": 0.9, "eps": 1e-5}),
]
every = pytest.mark.parametrize(
    ("rule", "plain", "settings"), CASES, ids=lambda part: repr(part)[:60] if isinstance(part, Optimizer) else ""
)


def values(settings, images):
    return {k: tuple(at(b, images) for b in v) if k == "betas" else at(v, images) for k, v in settings.items()}


def quadratic(weights):
    return sum(((1 + torch.arange(w.numel())) * (w.flatten() - 1) ** 2).sum() for w in weights)


@every
def test_steps_are_those_of_torch(rule, plain, settings):
    start = [torch.randn(4, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
    ours, theirs = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    mine = rule.build(ours)
    reference = plain(theirs, foreach=False, **values(settings, 0))
    for images in range(0, 2000, 50):
        rule.set(mine, images)
        reference.param_groups[0].update(values(settings, images))
        for weights, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad(set_to_none=True)
            quadratic(weights).backward()
            optimizer.step()
    for a, b, begun in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert not torch.equal(a, begun)


@every
def test_schedules_land_in_the_groups(rule, plain, settings):
    optimizer = rule.build([nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, plain)
    for images in (0, 333, 10**9):
        rule.set(optimizer, images)
        for name, value in values(settings, images).items():
            assert optimizer.param_groups[0][name] == value


@pytest.mark.parametrize("rule", [SGD(0.02, 0.5), SGD(DECAY, RISE), SGD(Linear(0.01, 0.03, 500), 0.9)], ids=repr)
def test_momentum_is_classical(rule):
    """v <- m v - lr g, w <- w + v; at a constant rate it is PyTorch's."""
    start = torch.randn(5, dtype=torch.float64)
    ours, weight, velocity = nn.Parameter(start.clone()), start.clone(), torch.zeros(5, dtype=torch.float64)
    theirs = nn.Parameter(start.clone())
    optimizer, reference = rule.build([ours]), torch.optim.SGD([theirs], 0.02, 0.5)
    for images in range(0, 2000, 50):
        rule.set(optimizer, images)
        for w, each in ((ours, optimizer), (theirs, reference)):
            each.zero_grad()
            quadratic([w]).backward()
            each.step()
        gradient = 2 * (1 + torch.arange(5)) * (weight - 1)
        velocity = at(rule.momentum, images) * velocity - at(rule.lr, images) * gradient
        weight = weight + velocity
        torch.testing.assert_close(ours.detach(), weight, rtol=1e-9, atol=1e-12)
    if not callable(rule.lr):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


REFUSED = [
    (lambda: SGD(-1.0), "SGD: lr=-1.0"),
    (lambda: SGD(0.1, 1.0), "SGD: lr=0.1, momentum=1.0"),
    (lambda: SGD(float("nan")), "SGD: lr=nan"),
    (lambda: Adam(-1.0), "Adam: lr=-1.0"),
    (lambda: Adam(float("nan")), "Adam: lr=nan"),
    (lambda: Adam(beta1=1.0), "beta1=1.0"),
    (lambda: Adam(beta2=-0.1), "beta2=-0.1"),
    (lambda: Adam(eps=-1e-8), "eps=-1e-08"),
    (lambda: RMSprop(-1.0), "RMSprop: lr=-1.0"),
    (lambda: RMSprop(decay=1.0), "decay=1.0"),
    (lambda: RMSprop(eps=-1.0), "eps=-1.0"),
]


@pytest.mark.parametrize(("rule", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_numbers_out_of_range_are_refused(rule, said):
    with pytest.raises(ValueError, match=said):
        rule().build([nn.Parameter(torch.ones(1))])


@every
def test_a_schedule_that_leaves_its_range_is_refused_there(rule, plain, settings):
    """A negative rate would climb."""
    rule = copy(rule)
    rule.lr = Linear(0.1, -0.1, 1000)
    optimizer = rule.build([nn.Parameter(torch.ones(1))])
    rule.set(optimizer, 500)
    with pytest.raises(ValueError, match=r"lr=-0\.1"):
        rule.set(optimizer, 1000)


def test_equal_rules_read_equal():
    assert repr(Adam()) == repr(Adam(2e-4)) == "Adam(lr=0.0002, beta1=0.5, beta2=0.999, eps=1e-08)" != repr(Adam(1e-4))
    assert repr(SGD(DECAY)) == f"SGD(lr={DECAY}, momentum=0.0)"
