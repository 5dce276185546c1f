"""organza.nn.began: published sizes, the energy that D is, and any height and width."""

import pytest
import torch

from organza.nn.began import BEGANDiscriminator, BEGANGenerator
from organza.nn.layers import doubled

SHAPES = [(1, 28, 28), (3, 64, 64), (4, 33, 50), (2, 8, 9), (1, 1, 3)]
MAKERS = {
    "G": lambda shape: BEGANGenerator(6, shape, 4),
    "D": lambda shape: BEGANDiscriminator(shape, 5, 4),
}
every = pytest.mark.parametrize(("name", "shape"), [(n, s) for n in MAKERS for s in SHAPES], ids=str)


def numbers(network):
    return sum(weight.numel() for weight in network.parameters())


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def take(name, shape, n=4):
    return random(n, *((6,) if name == "G" else shape))


@every
def test_forward_and_backward(name, shape):
    torch.manual_seed(0)
    network = MAKERS[name](shape)
    out = network(take(name, shape))
    assert out.shape == ((4, *shape) if name == "G" else (4,))
    (out * random(*out.shape, seed=1)).sum().backward()
    for parameter, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), parameter


@every
def test_save_and_load_and_no_chance(name, shape):
    one, other = MAKERS[name](shape), MAKERS[name](shape)
    other.load_state_dict(one.state_dict())
    x, before = take(name, shape), torch.get_rng_state()
    assert torch.equal(one(x), other(x))
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(one(x)[1:2], one(x[1:2]))  # every example is judged on its own


def convolution(before, after):
    return 9 * before * after + after


def test_published_sizes():
    """64 x 64 with n = 128: four levels of two convolutions each, 8x8 in the middle."""
    n, base = 128, 8 * 8
    decoder = 64 * n * base + n * base + 8 * convolution(n, n) + convolution(n, 3)
    encoder = convolution(3, n) + 2 * sum(convolution(i * n, i * n) for i in (1, 2, 3, 4))
    encoder += sum(convolution(i * n, (i + 1) * n) for i in (1, 2, 3)) + 4 * n * base * 64 + 64
    with torch.device("meta"):
        generator, discriminator = BEGANGenerator(64, (3, 64, 64), n), BEGANDiscriminator((3, 64, 64), 64, n)
    assert (numbers(generator), numbers(discriminator)) == (decoder, encoder + decoder)
    assert generator.state_dict().keys() == discriminator.decoder.state_dict().keys()


@pytest.mark.parametrize(
    ("sides", "sizes"),
    [
        ((64, 64), [(8, 8), (16, 16), (32, 32), (64, 64)]),
        ((28, 28), [(14, 14), (28, 28)]),
        ((33, 50), [(9, 13), (17, 25), (33, 50)]),
        ((16, 15), [(16, 15)]),
    ],
)
def test_maps_have_the_same_sides_on_the_way_down_and_up(sides, sizes):
    discriminator = BEGANDiscriminator((1, *sides), 5, 2)
    seen = []
    levels = [module for module in discriminator.encoder if isinstance(module, torch.nn.Sequential)]
    for level in (*levels, *discriminator.decoder.levels):
        level.register_forward_hook(lambda module, given, out: seen.append(tuple(out.shape[1:])))
    discriminator(torch.zeros(1, 1, *sides))
    n = len(sizes)
    assert seen[:n] == [(2 * (i + 1), *size) for i, size in enumerate(reversed(sizes))]  # linearly more channels
    assert seen[n:] == [(2, *size) for size in sizes]


def test_doubling_repeats_pixels():
    x = random(2, 2, 14, 9)
    assert torch.equal(doubled(x, (27, 18)), x[..., torch.arange(27)[:, None] // 2, torch.arange(18) // 2])


def test_the_last_layer_of_g_is_linear():
    torch.manual_seed(0)
    generator = BEGANGenerator(6, (3, 28, 28), 4).double()
    x = generator(random(4, 6).double())
    with torch.no_grad():
        generator.end.weight.mul_(1000)
    torch.testing.assert_close(generator(random(4, 6).double()), 1000 * x)
    assert generator(random(4, 6).double()).abs().max() > 1


@pytest.mark.parametrize("shape", SHAPES)
def test_d_is_minus_the_mean_error_of_its_reconstruction(shape):
    torch.manual_seed(0)
    discriminator, x = MAKERS["D"](shape), random(4, *shape)
    error = (discriminator.reconstruct(x) - x).abs().sum((1, 2, 3)) / x[0].numel()
    torch.testing.assert_close(discriminator(x), -error)
    assert (discriminator(x) < 0).all()
    constant = torch.full_like(x, 0.3)
    with torch.no_grad():  # an autoencoder that always says 0.3
        discriminator.decoder.end.weight.zero_()
        discriminator.decoder.end.bias.fill_(0.3)
    assert not discriminator(constant).any()
    torch.testing.assert_close(discriminator(-constant), torch.full((4,), -0.6))


def test_slopes_of_d_have_slopes():
    """What R1 needs: activations done in place must not stand in the way of a second derivative."""
    torch.manual_seed(0)
    discriminator, x = BEGANDiscriminator((1, 20, 17), 3, 2).double(), random(2, 1, 20, 17).double().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert discriminator.encoder[0].weight.grad.any()
    step = 1e-6 * random(*x.shape, seed=1).double()
    moved = (discriminator(x + step) - discriminator(x - step)).sum() / 2
    torch.testing.assert_close(moved, (slope * step).sum(), rtol=1e-4, atol=1e-12)


def test_initialisation_is_glorots():
    torch.manual_seed(0)
    for network in (BEGANGenerator(6, (3, 32, 32), 16), BEGANDiscriminator((3, 32, 32), 6, 16)):
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                fan_in, fan_out = (9 * module.weight.shape[i] for i in (0, 1))
                bound = (6 / (fan_in + fan_out)) ** 0.5
                assert 0.9 * bound < module.weight.abs().max() <= bound and not module.bias.any()


@pytest.mark.parametrize("shape", [(28, 28), (1, 0, 28), (2, 1, 28, 28)])
def test_mistakes_are_named(shape):
    for make in (lambda: BEGANGenerator(4, shape), lambda: BEGANDiscriminator(shape)):
        with pytest.raises(ValueError) as caught:
            make()
        assert f"shape={shape}: must be (channels, height, width), each 1 or more" in str(caught.value)
