"""organza.penalty: closed forms, derivatives against finite differences, slopes through augmentation, constraints."""

import math

import pytest
import torch
from torch import nn

from organza.game import Game
from organza.penalty import DRAGAN, R1, R2, Clip, GradientPenalty, MaxColumnNorm
from organza.prior import Normal
from organza.round import Batch, Draw

PENALTIES = [R1(1.0), R2(1.0), GradientPenalty(1.0), DRAGAN(1.0)]
every = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.name)
SHAPES = [(3,), (2, 3, 4)]


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Linear(nn.Module):
    """D(x) = w . x."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self, x):
        return x.flatten(1) @ self.w.flatten()


class Quadratic(nn.Module):
    """D(x) = x' A x, with A symmetric: the slope is 2 A x."""

    def __init__(self, A):
        super().__init__()
        self.A = nn.Parameter((A + A.T) / 2)

    def forward(self, x):
        return ((x.flatten(1) @ self.A) * x.flatten(1)).sum(1)


class Made(nn.Module):
    """A generator that returns what it was told to."""

    def __init__(self, fake):
        super().__init__()
        self.fake = fake

    def forward(self, z):
        return self.fake


def look(D, real, fake, augment=None, joint=False, turn="discriminator"):
    game = Game(Made(fake), D, Normal(1), augment=augment, joint=joint)
    batch = Batch(real, None, Draw(torch.Generator().manual_seed(4), len(real)), images=0, step=0)
    return game.look(batch, *game.generate(batch), turn)


def data(*shape, seed=0):
    return torch.randn(2, 5, *shape, generator=torch.Generator().manual_seed(seed))


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_discriminators(shape):
    """With slope w everywhere R1 = R2 = |w|^2 / 2 (gamma/2 convention) and the others are (|w| - target)^2."""
    w = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    size = w.square().sum().sqrt()
    round = look(Linear(w), *data(*shape))
    for penalty, expected in (
        (R1(1.0), size**2 / 2),
        (R2(1.0), size**2 / 2),
        (GradientPenalty(1.0), (size - 1) ** 2),
        (GradientPenalty(1.0, target=0.0), size**2),
        (DRAGAN(1.0), (size - 1) ** 2),
    ):
        torch.testing.assert_close(penalty.discriminator(round), expected.expand(5))


@pytest.mark.parametrize("shape", SHAPES)
def test_quadratic_discriminators(shape):
    """Each penalty takes the slope 2 A x at its own place, the chance of which is drawn per example."""
    real, fake = data(*shape)
    A = torch.randn(real[0].numel(), real[0].numel(), generator=torch.Generator().manual_seed(2))

    def norm(x):
        return (x.flatten(1) @ (A + A.T)).square().sum(1).sqrt()

    def value(penalty):
        return penalty.discriminator(look(Quadratic(A), real, fake))

    def drawn(*rest):  # the turn's chance after z
        g = torch.Generator().manual_seed(4)
        Normal(1).draw(5, g)
        return torch.rand(5, *rest, generator=g)

    torch.testing.assert_close(value(R1()), norm(real) ** 2 / 2)
    torch.testing.assert_close(value(R2()), norm(fake) ** 2 / 2)
    epsilon = drawn(*[1] * len(shape))
    torch.testing.assert_close(value(GradientPenalty()), (norm(epsilon * real + (1 - epsilon) * fake) - 1) ** 2)
    near = real + 0.5 * real.std() * drawn(*shape)
    torch.testing.assert_close(value(DRAGAN()), (norm(near) - 1) ** 2)


@every
def test_gradients_in_the_weights_are_finite_differences(penalty):
    D, (real, fake), h = mlp(), data(3), 1e-5

    def loss():
        return penalty.discriminator(look(D, real, fake)).mean()

    # The last bias shifts all logits and so no slope.
    for exact, weight in zip(torch.autograd.grad(loss(), [*D.parameters()][:3]), D.parameters(), strict=False):
        assert exact.abs().max() > 1e-4
        numeric, flat = torch.zeros(weight.numel()), weight.detach().view(-1)
        for i in range(len(flat)):
            ends = []
            for sign in (1, -1):
                flat[i] += sign * h
                ends.append(loss().item())
                flat[i] -= sign * h
            numeric[i] = (ends[0] - ends[1]) / (2 * h)
        torch.testing.assert_close(exact.flatten(), numeric, rtol=1e-6, atol=1e-9)


@every
def test_a_vanishing_slope_gives_no_nan(penalty):
    D = Linear(torch.zeros(3))
    loss = penalty.discriminator(look(D, *data(3))).mean()
    assert loss == (1.0 if isinstance(penalty, (GradientPenalty, DRAGAN)) else 0.0)
    (slope,) = torch.autograd.grad(loss, D.w, create_graph=True)
    assert torch.equal(slope, torch.zeros(3))
    (second,) = torch.autograd.grad(slope.sum(), D.w)
    assert second.isfinite().all()


@every
def test_penalties_speak_to_d_alone(penalty):
    real, fake = data(3)
    round = look(mlp(), real, fake.requires_grad_(), turn="generator")
    assert penalty.generator(round) is None
    assert not penalty.paired


@every
def test_penalties_ask_nothing_of_g(penalty):
    """A penalty moves D's weights; where it looks is a constant, but for fakes, which move with G."""
    real, fake = data(3)
    D, fake = mlp(), fake.requires_grad_()
    loss = penalty.discriminator(look(D, real, fake)).sum()
    moved = torch.autograd.grad(loss, fake, allow_unused=True)[0]
    assert (moved is None) is not isinstance(penalty, R2 | GradientPenalty)


def stretched(x, y, draw):
    """x -> s * x A, with A a fixed matrix and s a number for each example."""
    A = torch.arange(9.0).view(3, 3) / 5 - 0.7
    return draw(lambda n, g: 1 + torch.rand(n, 1, generator=g)) * (x @ A), y


@pytest.mark.parametrize("joint", [False, True])
def test_slopes_pass_through_the_augmentation(joint):
    """The slope is in x before augmentation: by the chain rule s * A grad D(s * x A)."""
    real, fake = data(3)
    D, g = mlp(), torch.Generator().manual_seed(4)
    Normal(1).draw(5, g)
    round = look(D, real, fake, stretched, joint)
    A = torch.arange(9.0).view(3, 3) / 5 - 0.7
    for side, x in (("real", real), ("fake", fake)):
        s = 1 + torch.rand(5, 1, generator=g)
        seen = (s * (x @ A)).requires_grad_()
        (outer,) = torch.autograd.grad(D(seen).sum(), seen)
        torch.testing.assert_close(round.slope(side), s * outer @ A.T, rtol=1e-12, atol=1e-14)


def test_joint_and_separate_looks_have_the_same_slopes():
    real, fake = data(3)
    D = mlp()
    looks = [look(D, real, fake, stretched, joint) for joint in (False, True)]
    for side in ("fake", "real"):
        torch.testing.assert_close(looks[0].slope(side), looks[1].slope(side), rtol=1e-12, atol=1e-14)
    sums = [R1().discriminator(r).mean() + R2().discriminator(r).mean() for r in looks]
    separate, together = (torch.autograd.grad(s, [*D.parameters()][:3]) for s in sums)
    torch.testing.assert_close(separate, together, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("joint", [False, True])
def test_gs_turn_has_a_slope_on_the_fake(joint):
    """Whatever the look: a term of G may ask how D slopes at its fakes."""
    real, fake = data(3)
    round = look(Linear(torch.ones(3)), real, fake.requires_grad_(), joint=joint, turn="generator")
    assert torch.equal(round.slope("fake"), torch.ones(5, 3))


def test_clip():
    network = mlp()
    before = [w.detach().clone() for w in network.parameters()]
    Clip(0.3)(network)
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(new, old.clamp(-0.3, 0.3))
    assert any((old.abs() > 0.3).any() for old in before)
    assert Clip.players == ("discriminator",)


@pytest.mark.parametrize("layer", [nn.Linear(6, 8), nn.Conv2d(2, 8, 3)], ids=["linear", "conv"])
def test_max_column_norm_is_taken_per_unit(layer):
    with torch.no_grad():
        for i, unit in enumerate(layer.weight):  # norms .25, .5 ... 2
            unit.copy_(torch.randn(unit.shape, generator=torch.Generator().manual_seed(i)))
            unit.mul_(0.25 * (i + 1) / unit.square().sum().sqrt())
        layer.bias.fill_(50.0)
    before, bound = layer.weight.detach().clone(), 1.1
    MaxColumnNorm(bound)(layer)
    for i, (old, new) in enumerate(zip(before, layer.weight.detach(), strict=True)):
        norm = old.square().sum().sqrt()
        assert norm == pytest.approx(0.25 * (i + 1))
        if norm <= bound:
            assert torch.equal(new, old)
        else:
            torch.testing.assert_close(new, old * bound / norm, rtol=1e-6, atol=0)
            assert new.square().sum().sqrt() <= bound * (1 + 1e-6)
    assert (layer.bias == 50.0).all()


def test_max_column_norm_of_a_transposed_convolution_is_taken_per_unit():
    """Its weight is (in, out, h, w): a unit's incoming weights lie along the other axes."""
    layer = nn.ConvTranspose2d(2, 3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2))
    MaxColumnNorm(math.sqrt(8.0) * 3)(layer)
    expected = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(2, 3, 2, 2)
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-6, atol=0)


def test_max_column_norm_leaves_what_is_no_incoming_weight():
    layer = nn.Conv2d(2, 3, 3)
    layer.map = nn.Parameter(torch.full((3, 4, 4), 9.0))  # a bias for each pixel
    MaxColumnNorm(0.1)(layer)
    assert (layer.map == 9).all() and layer.weight.flatten(1).norm(dim=1).max() <= 0.1001


def test_whose_weights_are_bound():
    assert MaxColumnNorm().players == ("generator", "discriminator")
    assert MaxColumnNorm(player="generator").players == ("generator",)


@pytest.mark.parametrize("build", [lambda: Clip(0.0), lambda: MaxColumnNorm(-1.0)])
def test_refusals(build):
    with pytest.raises(ValueError, match="must be above 0"):
        build()
