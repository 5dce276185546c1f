"""organza.optimizer: torch's own rules, step for step, with settings that follow their schedules."""

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
    (SGD(LR, 0.5), torch.optim.SGD, {"lr": LR, "momentum": 0.5}),
    (SGD(DECAY, RISE), torch.optim.SGD, {"lr": DECAY, "momentum": RISE}),
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


def test_equal_rules_read_equal():
    assert repr(Adam()) == repr(Adam(2e-4)) == "Adam(lr=0.0002, beta1=0.5, beta2=0.999, eps=1e-08)" != repr(Adam(1e-4))
    assert repr(SGD(DECAY)) == f"SGD(lr={DECAY}, momentum=0.0)"
