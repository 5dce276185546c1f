"""organza.nn.condition and the networks that take y: what e(y) is, and what each way of using it computes."""

import pytest
import torch
from torch import nn

from organza.nn import (
    CGANDiscriminator,
    CGANGenerator,
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from organza.nn.condition import CONDITIONS, ConditionalBatchNorm2d, Head, beside, planes, vector
from organza.round import Verdict

LIKE = torch.zeros((), dtype=torch.float64)
SHAPE = (1, 12, 9)
R3 = {"widths": (8, 8), "blocks": 1, "group": 4}

GENERATORS = {
    "mlp": lambda k: MLPGenerator(5, SHAPE, (8,), classes=k),
    "dcgan": lambda k: DCGANGenerator(5, SHAPE, 4, classes=k),
    "dcgan-norm": lambda k: DCGANGenerator(5, SHAPE, 4, classes=k, condition="norm"),
    "resnet": lambda k: ResNetGenerator(5, SHAPE, 4, classes=k),
    "cgan": lambda k: CGANGenerator(5, SHAPE, k, 6, 7, 8, include=1.0),
    "r3gan": lambda k: R3GANGenerator(5, SHAPE, **R3, classes=k),
}
DISCRIMINATORS = {
    "mlp": lambda k, how: MLPDiscriminator(SHAPE, (8,), classes=k, condition=how),
    "dcgan": lambda k, how: DCGANDiscriminator(SHAPE, 4, False, 6, classes=k, condition=how),
    "resnet": lambda k, how: ResNetDiscriminator(SHAPE, 4, classes=k, condition=how),
    "cgan": lambda k, how: CGANDiscriminator(SHAPE, k, 6, 4, 5),
    "r3gan": lambda k, how: R3GANDiscriminator(SHAPE, **R3, classes=k),
}


def test_e_of_y():
    y = torch.tensor([2, 0, -1])
    assert vector(y, 3, LIKE).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert vector(y, 3, LIKE).dtype == torch.float64
    several = torch.tensor([[1.0, 0.0, 1.0]])
    assert torch.equal(vector(several, 3, LIKE), several.double())
    embedding = torch.randn(3, 4, dtype=torch.float64)
    assert torch.equal((vector(several, 3, LIKE) @ embedding)[0], embedding[0] + embedding[2])
    for wrong in (None, torch.zeros(2, 4), torch.zeros(2)):
        with pytest.raises(ValueError, match=r"conditional|takes labels"):
            vector(wrong, 3, LIKE)


def test_y_beside_x():
    x, y = torch.randn(2, 1, 3, 4), torch.tensor([1, 0])
    joined = planes(x, y, 2)
    assert torch.equal(joined[:, :1], x) and joined.shape == (2, 3, 3, 4)
    assert (joined[0, 2] == 1).all() and (joined[0, 1] == 0).all() and (joined[1, 1] == 1).all()
    assert beside(torch.zeros(2, 5), y, 2).tolist() == [[0] * 5 + [0, 1], [0] * 5 + [1, 0]]


def test_conditional_batch_norm_is_batch_norm_until_it_learns():
    h, y = torch.randn(8, 3, 4, 4), torch.arange(8) % 2
    norm = ConditionalBatchNorm2d(3, 2)
    plain = nn.BatchNorm2d(3)
    torch.testing.assert_close(norm(h, y), plain(h))
    with torch.no_grad():
        norm.embed.copy_(torch.tensor([[0.0, 0, 0, 5, 5, 5], [1, 1, 1, 0, 0, 0]]))
    wanted = torch.where((y == 0)[:, None, None, None], plain(h) + 5, 2 * plain(h))
    torch.testing.assert_close(norm(h, y), wanted)


def test_the_heads_are_their_formulas():
    h, y = torch.randn(5, 4), torch.tensor([0, 2, 1, -1, 2])
    psi = Head(4)
    assert torch.equal(psi(h), psi.logit(h).squeeze(1))
    projection = Head(4, 3, "projection")
    inner = (projection.embed.weight.T[y.clamp(min=0)] + projection.embed.bias) * h
    known = y >= 0
    wanted = projection.logit(h).squeeze(1) + inner.sum(1)
    torch.testing.assert_close(projection(h, y)[known], wanted[known])
    auxiliary = Head(4, 3, "auxiliary")(h, y)
    assert auxiliary.logits.shape == (5,) and auxiliary.heads["classes"].shape == (5, 3)
    verdict = Head(4, 3, "one-more", codes=6)(h)
    z = verdict.heads["classes"].exp().sum(1)
    torch.testing.assert_close(verdict.logits.sigmoid(), z / (z + 1))
    assert verdict.heads["codes"].shape == (5, 6) and torch.equal(verdict.heads["features"], h)
    with pytest.raises(ValueError, match="must be one of concat, projection, auxiliary, one-more"):
        Head(4, 3, "sum")


def test_the_head_of_components_leaves_d_as_it_is():
    """Its gradient stops at the features, and D's logit is the same with and without it."""
    h = torch.randn(5, 4, requires_grad=True)
    head, plain = Head(4, components=3), Head(4)
    plain.load_state_dict({name: w for name, w in head.state_dict().items() if not name.startswith("components")})
    verdict = head(h)
    assert torch.equal(verdict.logits, plain(h)) and verdict.heads["components"].shape == (5, 3)
    verdict.heads["components"].logsumexp(1).sum().backward()
    assert h.grad is None and all(w.grad is not None for w in head.components.parameters())


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_see_the_label_and_keep_z(name):
    torch.manual_seed(0)
    network = GENERATORS[name](3).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))  # past conditional norms that start as if blind
    z, y = torch.randn(4, 5), torch.tensor([0, 1, 2, -1])
    x = network(z, y)
    assert x.shape == (4, *SHAPE)
    other = network(z, torch.tensor([0, 2, 2, -1]))
    changed = [not torch.allclose(a, b, atol=1e-6) for a, b in zip(x, other, strict=True)]
    assert changed == [False, True, False, False]
    assert torch.allclose(network(z, nn.functional.one_hot(y + 1, 4)[:, 1:].float()), x, atol=1e-5)  # e(y) itself
    assert GENERATORS[name](2)(z, torch.rand(4, 2)).shape == (4, *SHAPE)
    with pytest.raises(ValueError, match="conditional"):
        network(z, None)


@pytest.mark.parametrize("how", CONDITIONS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_judge_by_the_label(name, how):
    torch.manual_seed(0)
    network = DISCRIMINATORS[name](3, how).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    x, y = torch.randn(4, *SHAPE), torch.tensor([0, 1, 2, 2])
    first, second = (Verdict.of(network(x, each)) for each in (y, torch.tensor([0, 2, 2, 2])))
    assert first.logits.shape == (4,)
    blind = how in ("auxiliary", "one-more") and name in ("mlp", "dcgan", "resnet")
    differs = [not torch.allclose(a, b, atol=1e-6) for a, b in zip(first.logits, second.logits, strict=True)]
    assert differs == ([False] * 4 if blind else [False, True, False, False])
    assert ("classes" in first.heads) == blind


def test_the_first_conditional_gan_has_its_published_size():
    sizes = [CGANGenerator(2500, (1, 28, 28), 10), CGANDiscriminator((1, 28, 28), 10)]
    assert [sum(p.numel() for p in net.parameters()) for net in sizes] == [2_413_984, 1_224_351]


def test_the_masks_of_its_dropout_come_with_z():
    """Unit by unit, in use as in training: those whose number is below 0.5 are doubled, the others are not there."""
    torch.manual_seed(0)
    G = CGANGenerator(3 + 6 + 7 + 8, SHAPE, 3, 6, 7, 8).double()
    chance = torch.Generator().manual_seed(0)
    z, y = torch.rand(4, 24, generator=chance, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    noise, masks = z[:, :3], (z[:, 3:] < 0.5).double() * 2
    seen = torch.cat([G.noise(noise).relu(), G.label(vector(y, 3, z)).relu()], 1) * masks[:, :13]
    x = 2 * G.end(G.joint(seen).relu() * masks[:, 13:]).sigmoid() - 1
    for network in (G.train(), G.eval()):
        torch.testing.assert_close(network(z, y), x.view(4, *SHAPE))
    with pytest.raises(ValueError, match="latent=21: 21 numbers of z are masks; must be 22 or more"):
        CGANGenerator(21, SHAPE, 3, 6, 7, 8)
    with pytest.raises(ValueError, match=r"include=0: the share of inputs that are kept must lie in \(0, 1\]"):
        CGANGenerator(5, SHAPE, 3, include=0)


def test_condition_of_a_generator_must_be_possible():
    with pytest.raises(ValueError, match="norm where norm is true"):
        DCGANGenerator(5, SHAPE, 4, norm=False, classes=3, condition="norm")


@torch.no_grad()
def test_noise_is_added_while_training_alone():
    torch.manual_seed(0)
    noisy, plain = (MLPDiscriminator((50,), (40,), noise=noise) for noise in (0.5, 0.0))
    plain.load_state_dict({name.replace("layers.1", "layers.0"): w for name, w in noisy.state_dict().items()})
    x = torch.randn(8, 50)
    assert torch.equal(noisy.eval()(x), plain.eval()(x))
    drawn = torch.stack([noisy.train()(x) for _ in range(50)])
    assert float(drawn.std(0).min()) > 0.05
    x_noise = noisy.layers[0](torch.zeros(100_000))
    assert float(x_noise.std()) == pytest.approx(0.3, rel=0.02)  # six tenths
    with pytest.raises(ValueError, match="noise=-1"):
        MLPDiscriminator((5,), (4,), noise=-1)
