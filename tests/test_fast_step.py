"""A step as it is played fast, against the same step as anyone would write it in plain PyTorch."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from organza.data import open_data
from organza.decision import decide
from organza.nn import bilinear, mask
from organza.optimizer import SGD
from organza.training import State

STEPS, RATE = 3, 1e-2


def plain(form, place, filled, bias=None):
    """What the fast layers compute, by PyTorch's own layers."""
    if isinstance(form, bilinear.Matrix):
        return F.linear(filled[bilinear.X], filled[bilinear.W], bias)
    settings = {"stride": form.stride, "padding": form.padding, "groups": form.groups}
    if place == bilinear.Y:
        return F.conv2d(filled[bilinear.X], filled[bilinear.W], bias, **settings)
    y, w = filled[bilinear.Y], filled[bilinear.W]
    sides = zip(form.x[2:], y.shape[2:], form.stride, form.padding, form.w[2:], strict=True)
    more = [x - ((n - 1) * s - 2 * p + k) for x, n, s, p, k in sides]
    return F.conv_transpose2d(y, w, bias, output_padding=more, **settings)


def mlp_losses():
    """The lecture's: targets .9 and 0, D's loss the mean over the joined batch, G's non-saturating."""

    def target(logits, value):
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, value))

    return (lambda D, x, fake: (target(D(x), 0.9) + target(D(fake), 0.0)) / 2), lambda D, x, fake: target(D(fake), 1.0)


def dcgan_losses():
    return (lambda D, x, fake: softplus(-D(x)).mean() + softplus(D(fake)).mean()), (
        lambda D, x, fake: softplus(-D(fake)).mean()
    )


def r3gan_losses():
    """RpGAN with R1 and R2, of the weight at the beginning of the schedule, 2 (28 / 64)^3 256 / 64, rounded."""
    gamma = 0.67

    def discriminator(D, x, fake):
        x, fake = x.clone().requires_grad_(), fake.clone().requires_grad_()
        real, made = D(x), D(fake)
        slopes = [torch.autograd.grad(says.sum(), at, create_graph=True)[0] for says, at in ((real, x), (made, fake))]
        penalty = sum(slope.square().sum((1, 2, 3)).mean() for slope in slopes)
        return softplus(made - real).mean() + gamma / 2 * penalty

    return discriminator, lambda D, x, fake: softplus(D(x) - D(fake)).mean()


CASES = {
    "mlp": (mlp_losses, {"discriminator.dropout": 0.0}),
    "dcgan": (dcgan_losses, {"training.batch": 32}),
    "r3gan-tiny": (r3gan_losses, {}),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "r3gan-tiny" else ()) for n in CASES])
def test_a_fast_step_is_a_plain_step(name, monkeypatch):
    losses, changes = CASES[name]
    data = open_data("digits")
    torch.manual_seed(0)
    # So long that no schedule has moved within the steps.
    plan = decide(data, name, images=10**12, device="cpu", changes=changes, timed=False).plan
    # Not Adam: it divides by slopes, however small, and would make digits of their last bits.
    training = replace(plan.play(), generator_optimizer=SGD(RATE), discriminator_optimizer=SGD(RATE))
    fast = State(plan.game(), training, data, torch.device("cpu"))
    slow = State(copy.deepcopy(fast.game), training, data, torch.device("cpu"))
    first = {n: w.detach().clone() for n, w in fast.game.named_parameters()}
    for _ in range(STEPS):
        fast.training.moves(fast, fast.stream)

    monkeypatch.setattr(bilinear, "contract", plain)
    monkeypatch.setattr(mask._Rectify, "apply", lambda x, slope, inplace: F.leaky_relu(x, slope))
    G, D, prior = slow.game.generator, slow.game.discriminator, slow.game.prior
    optimizers = [torch.optim.SGD(net.parameters(), RATE) for net in (D, G)]
    d_loss, g_loss = losses()
    for _ in range(STEPS):
        (batch,) = slow.stream("discriminator")
        fake = G(batch.draw(prior.draw))
        optimizers[0].zero_grad()
        d_loss(D, batch.x, fake.detach()).backward()
        optimizers[0].step()
        slow.images += slow.training.batch
        if slow.training.moves.fresh_noise:
            (batch,) = slow.stream("generator")
            fake = G(batch.draw(prior.draw))
        optimizers[1].zero_grad()
        g_loss(D, batch.x, fake).backward()
        optimizers[1].step()
        slow.steps += 1

    for (n, a), (_, b) in zip(fast.game.named_parameters(), slow.game.named_parameters(), strict=True):
        assert float((a - first[n]).detach().abs().max()) > 0 or not b.grad.any(), f"{n} did not move"
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12), (n, float((a - b).detach().abs().max()))
