"""Every network of every shape: forward, backward, save and load, and no chance of its own."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from organza import nn as networks
from organza.nn import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator

SHAPES = [(1, 28, 28), (3, 64, 64), (4, 33, 50), (2, 8, 9)]
MAKERS: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "MLPGenerator": lambda shape: MLPGenerator(6, shape, (16, 16)),
    "MLPDiscriminator": lambda shape: MLPDiscriminator(shape, (16, 16), dropout=0.3),
    "DCGANGenerator": lambda shape: DCGANGenerator(6, shape, 4),
    "DCGANDiscriminator": lambda shape: DCGANDiscriminator(shape, 4),
}
every = pytest.mark.parametrize(("name", "shape"), [(n, s) for n in MAKERS for s in SHAPES], ids=str)


def test_every_network_is_here() -> None:
    assert sorted(MAKERS) == sorted(networks.__all__)


def numbers(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def take(name: str, shape: tuple[int, ...], n: int = 4) -> torch.Tensor:
    return torch.randn(n, *((6,) if "Generator" in name else shape), generator=torch.Generator().manual_seed(0))


@every
def test_forward_and_backward(name: str, shape: tuple[int, ...]) -> None:
    network = MAKERS[name](shape)
    y = network(take(name, shape))
    assert y.shape == ((4, *shape) if "Generator" in name else (4,))
    if "Generator" in name:
        assert y.abs().max() <= 1
    (y * torch.randn(y.shape)).sum().backward()
    for parameter, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), parameter


@every
def test_save_and_load_and_no_chance_in_evaluation(name: str, shape: tuple[int, ...]) -> None:
    one, other = MAKERS[name](shape).eval(), MAKERS[name](shape).eval()
    other.load_state_dict(one.state_dict())
    x, before = take(name, shape), torch.get_rng_state()
    assert torch.equal(one(x), other(x))
    assert torch.equal(before, torch.get_rng_state())
    assert type(one).__name__ in repr(one)


def test_published_sizes() -> None:
    """The lecture's perceptrons (recipes.md A), and DCGAN at 64 x 64: 100 -> 4x4x1024 -> ... -> 3x64x64."""
    assert numbers(MLPGenerator(100, (1, 28, 28))) == 1_486_352
    assert numbers(MLPDiscriminator((1, 28, 28))) == 1_460_225
    generator, discriminator = DCGANGenerator(100, (3, 64, 64), 128), DCGANDiscriminator((3, 64, 64), 64)
    g = 100 * 16 * 1024 + 2 * 1024 + 16 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3) + 2 * (512 + 256 + 128) + 3
    d = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 2 * (128 + 256 + 512) + 512 * 16 + 1
    assert (numbers(generator), numbers(discriminator)) == (g, d)
    assert [tuple(size) for size in generator.sizes] == [(4, 4), (8, 8), (16, 16), (32, 32), (64, 64)]


def test_initialisation_follows_its_law() -> None:
    torch.manual_seed(0)
    weight = MLPGenerator(100, (1, 28, 28)).layers[0].weight.detach()  # Glorot: U(-a, a), a = sqrt(6 / (in + out))
    bound = (6 / (100 + 256)) ** 0.5
    assert weight.abs().max() <= bound and weight.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    kernel = DCGANDiscriminator((3, 64, 64), 64).layers[3].weight.detach()  # N(0, 0.02^2)
    assert kernel.std() == pytest.approx(0.02, rel=0.02) and abs(float(kernel.mean())) < 1e-3


def test_sigmoid_output_is_a_pixel_in_unit_range() -> None:
    torch.manual_seed(0)
    generator = MLPGenerator(4, (5,), (8,), output="sigmoid")
    z = torch.randn(3, 4)
    inner = generator.layers[:-1](z)
    torch.testing.assert_close((generator(z) + 1) / 2, inner.sigmoid())


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_dense_and_kernel_options(kernel: int, shape: tuple[int, ...]) -> None:
    assert DCGANDiscriminator(shape, 4, norm=False, dense=8, kernel=kernel)(torch.zeros(2, *shape)).shape == (2,)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DCGANGenerator(4, (1, 4, 28)), "sides of 8 or more"),
        (lambda: DCGANDiscriminator((28, 28)), "must be (channels, height, width)"),
        (lambda: DCGANDiscriminator((1, 28, 28), kernel=5), "kernel=5: must be 3 or 4"),
        (lambda: MLPGenerator(4, (1, 0, 3)), "every side must be 1 or more"),
        (lambda: MLPGenerator(4, (3,), hidden="rulu"), "hidden"),
        (lambda: MLPGenerator(4, (3,), output="tan"), "output='tan': must be one of tanh, sigmoid, linear"),
        (lambda: MLPDiscriminator((3,), dropout=1.0), "dropout=1.0: must be at least 0 and below 1"),
        (lambda: MLPDiscriminator((3,), widths=(4, 0)), "every layer needs at least 1 unit"),
    ],
)
def test_mistakes_are_named(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert said in str(caught.value)
