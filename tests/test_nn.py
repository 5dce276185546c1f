"""Every network of every shape: forward, backward, save and load, and no chance of its own."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from organza import nn as networks
from organza.joint import grown
from organza.nn import (
    BEGANDiscriminator,
    BEGANGenerator,
    CGANDiscriminator,
    CGANGenerator,
    DCGANDiscriminator,
    DCGANGenerator,
    JointGenerator,
    MaxoutConvDiscriminator,
    MaxoutDiscriminator,
    MLPDiscriminator,
    MLPGenerator,
    PatchDiscriminator,
    PatchPair,
    R3GANDiscriminator,
    R3GANGenerator,
    RectifierConvGenerator,
    RectifierGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    Translator,
    TranslatorPair,
    UNetGenerator,
    UNetPair,
)
from organza.nn.layers import Fourier, SpectralConv2d, SpectralLinear, pyramid
from organza.nn.r3gan import _double, _halve

SHAPES = [(1, 28, 28), (3, 64, 64), (4, 33, 50), (2, 8, 9)]
R3 = {"group": 4, "blocks": 1, "classes": 3}


def eights(shape: tuple[int, ...]) -> list[int]:
    """A width for each stage of R3GAN, so that some change and some do not."""
    stages = len(pyramid(shape))
    return [8] * (stages - stages // 2) + [4] * (stages // 2)


def twice(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (2 * shape[0], *shape[1:])


MAKERS: dict[str, Callable[[tuple[int, ...]], nn.Module]] = {
    "MLPGenerator": lambda shape: MLPGenerator(6, shape, (16, 16)),
    "MLPDiscriminator": lambda shape: MLPDiscriminator(shape, (16, 16), dropout=0.3),
    "RectifierGenerator": lambda shape: RectifierGenerator(
        6, shape, (16, 16), ("relu", "sigmoid"), sparse=3, bias=-2.0
    ),
    "RectifierConvGenerator": lambda shape: RectifierConvGenerator(6, shape, 16, 4),
    "MaxoutDiscriminator": lambda shape: MaxoutDiscriminator(shape, (16, 16), irange=0.5),
    "MaxoutConvDiscriminator": lambda shape: MaxoutConvDiscriminator(shape, (4, 4, 8), 16, irange=0.1),
    "DCGANGenerator": lambda shape: DCGANGenerator(6, shape, 4),
    "DCGANDiscriminator": lambda shape: DCGANDiscriminator(shape, 4),
    "ResNetGenerator": lambda shape: ResNetGenerator(6, shape, 4),
    "ResNetDiscriminator": lambda shape: ResNetDiscriminator(shape, 4),
    "BEGANGenerator": lambda shape: BEGANGenerator(6, shape, 4),
    "BEGANDiscriminator": lambda shape: BEGANDiscriminator(shape, 6, 4),
    "R3GANGenerator": lambda shape: R3GANGenerator(6, shape, eights(shape), **R3, embedding=2),
    "R3GANDiscriminator": lambda shape: R3GANDiscriminator(shape, eights(shape), **R3),
    "CGANGenerator": lambda shape: CGANGenerator(6 + 24, shape, 3, 8, 8, 8),
    "CGANDiscriminator": lambda shape: CGANDiscriminator(shape, 3, 8, 8, 8, irange=0.1),
    "JointGenerator": lambda shape: JointGenerator(
        DCGANGenerator(6, (shape[0], shape[1], shape[2]), 4, classes=2), 6, 2, temperature=1.0
    ),
    "UNetGenerator": lambda shape: UNetGenerator((2, *shape[1:]), shape, 4),
    "PatchDiscriminator": lambda shape: PatchDiscriminator(shape, (2, *shape[1:]), 4, 1),
    "Translator": lambda shape: Translator((2, *shape[1:]), shape, 4, 1),
    "TranslatorPair": lambda shape: TranslatorPair(twice(shape), 2, 1),
    "UNetPair": lambda shape: UNetPair(twice(shape), 2, refine=2, residual=1.5),
    "PatchPair": lambda shape: PatchPair(twice(shape), 4, 1),
}
LINEAR = {"BEGANGenerator", "R3GANGenerator", "RectifierConvGenerator"}  # their outputs may leave [-1, 1], as published
BOTH_WAYS = {"TranslatorPair", "UNetPair"}
every = pytest.mark.parametrize(("name", "shape"), [(n, s) for n in MAKERS for s in SHAPES], ids=str)


def test_every_network_is_here() -> None:
    assert sorted(MAKERS) == sorted(networks.__all__)


def numbers(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def given(name: str, shape: tuple[int, ...], n: int = 4) -> tuple[torch.Tensor, ...]:
    """What the network is called with: z or x, and the label or the image it is conditioned on."""
    chance = torch.Generator().manual_seed(0)
    latent = 30 if name == "CGANGenerator" else 6
    first = torch.randn(n, *((latent,) if "Generator" in name else shape), generator=chance)
    if name.startswith(("R3GAN", "CGAN")):
        return first, torch.arange(n) % 3
    if name in ("UNetGenerator", "PatchDiscriminator", "Translator"):
        return first, torch.randn(n, 2, *shape[1:], generator=chance)
    if name in BOTH_WAYS:
        return first, torch.randn(n, *twice(shape), generator=chance)
    if name == "PatchPair":
        return (torch.randn(n, *twice(shape), generator=chance),)
    return (first,)


def awake(network: nn.Module) -> nn.Module:
    """With no weight at 0: R3GAN's last convolutions start there, and block the gradients of those before."""
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.normal_(0, 0.1)
    return network


@every
def test_forward_and_backward(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = awake(MAKERS[name](shape))
    y = network(*given(name, shape))
    assert y.isfinite().all()
    makes = "Generator" in name or "Translator" in name or name in BOTH_WAYS
    if name.startswith("Patch"):
        assert len(y) == 4 and y.shape[1:-2] == ((2,) if name == "PatchPair" else ())
    else:
        wanted = twice(shape) if name in BOTH_WAYS else grown(shape, 2) if name == "JointGenerator" else shape
        assert y.shape == ((4, *wanted) if makes else (4,))
    if makes and name not in LINEAR:
        assert y.abs().max() <= 1
    (y * torch.randn(y.shape)).sum().backward()
    for parameter, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), parameter


@every
def test_save_and_load_and_no_chance_in_evaluation(name: str, shape: tuple[int, ...]) -> None:
    one, other = MAKERS[name](shape).eval(), MAKERS[name](shape).eval()
    other.load_state_dict(one.state_dict())
    x, before = given(name, shape), torch.get_rng_state()
    assert torch.equal(one(*x), other(*x))
    assert torch.equal(before, torch.get_rng_state())
    assert type(one).__name__ in repr(one)


@every
def test_training_draws_from_dropout_alone(name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """No network draws noise of its own: with every source of chance but dropout poisoned, it still runs."""
    network, x = MAKERS[name](shape), spaced(name, shape)

    def poison(*args: object, **kwargs: object) -> None:
        raise AssertionError("a network drew from the global generator")

    for source in ("rand", "randn", "randint", "normal", "bernoulli", "rand_like", "randn_like", "randperm"):
        monkeypatch.setattr(torch, source, poison)
    dropouts = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    before = torch.get_rng_state()
    network(*x)
    assert torch.equal(before, torch.get_rng_state()) != bool(dropouts)


def spaced(name: str, shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """The same with numbers that are not drawn."""
    drawn = given(name, shape, 2)
    return tuple(torch.linspace(-1, 1, x.numel()).view(x.shape) if x.is_floating_point() else x for x in drawn)


@pytest.mark.parametrize(
    ("shape", "widths", "classes", "group", "published"),
    [
        ((3, 32, 32), [768] * 4, 0, 16, (20_732_160, 20_683_776)),  # Stacked MNIST
        ((3, 32, 32), [768] * 4, 10, 16, (20_781_952, 21_280_512)),  # CIFAR-10
        ((3, 256, 256), [768] * 4 + [384, 192, 96], 0, 16, (23_057_952, 23_009_568)),  # FFHQ-256
        ((3, 64, 64), [768] * 4 + [384], 0, 16, (22_429_824, 22_381_440)),  # FFHQ-64
        ((3, 32, 32), [1536] * 4, 1000, 32, (82_914_304, 86_548_992)),  # ImageNet-32
        ((3, 64, 64), [1536] * 5, 1000, 32, (103_570_432, 107_205_120)),  # ImageNet-64
    ],
    ids=["stacked-mnist", "cifar10", "ffhq256", "ffhq64", "imagenet32", "imagenet64"],
)
def test_the_twelve_published_sizes_of_r3gan(shape, widths, classes, group, published) -> None:
    with torch.device("meta"):
        generator = R3GANGenerator(64, shape, widths, classes=classes, group=group)
        discriminator = R3GANDiscriminator(shape, widths, classes=classes, group=group)
    assert (numbers(generator), numbers(discriminator)) == published


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 4)])
def test_resampling_keeps_a_constant_and_is_adjoint_but_for_a_pixel(size: tuple[int, int]) -> None:
    """Inside, [1, 2, 1] keeps a constant image in both directions; <halve x, y> = <x, double y moved by one> / 4."""
    x, y = torch.randn(2, 3, *size).double(), torch.randn(2, 3, *((s + 1) // 2 for s in size)).double()
    wider = torch.nn.functional.pad(y, (0, 1, 0, 1))
    doubled = _double(wider, tuple(2 * s for s in wider.shape[2:]))[..., 1 : 1 + size[0], 1 : 1 + size[1]]
    torch.testing.assert_close((_halve(x) * y).sum(), (x * doubled).sum() / 4)
    ones = torch.ones(1, 1, 8, 8)
    assert torch.equal(_halve(ones)[..., 1:, 1:], torch.ones(1, 1, 3, 3))
    assert torch.equal(_double(ones, (16, 16))[..., 1:, 1:], torch.ones(1, 1, 15, 15))
    assert torch.equal(_double(ones, (15, 16)), _double(ones, (16, 16))[..., :15, :])
    line = torch.arange(4.0).view(1, 1, 1, 4)
    assert _double(line, (1, 8))[0, 0, 0].tolist() == [x / 2 for x in [0, 0, 0.5, 1, 1.5, 2, 2.5, 3]]


def test_r3gan_begins_with_unit_variance() -> None:
    """Blocks begin as the identity, and the initialisation keeps the variance of what goes through."""
    torch.manual_seed(0)
    generator = R3GANGenerator(64, (3, 32, 32), (32, 32, 32, 32))
    assert all(not block.reduce.weight.any() for stage in generator.stages for block in stage)
    gains = [block.mix.weight.std() * (16 * 9) ** 0.5 for stage in generator.stages for block in stage]
    assert torch.stack(gains).mean().item() == pytest.approx((2 / 1.04) ** 0.5 * 8**-0.25, rel=0.02)
    with torch.no_grad():
        x = generator(torch.randn(60, 64))
    assert 0.1 < x.var() < 2


def test_the_label_of_r3gan() -> None:
    """Another label, another image; -1, unlabelled, is the embedding of none; a projection reads D."""
    torch.manual_seed(0)
    generator, discriminator = MAKERS["R3GANGenerator"]((1, 28, 28)), MAKERS["R3GANDiscriminator"]((1, 28, 28))
    z, y = torch.randn(2, 6), torch.tensor([0, 1])
    assert not torch.equal(generator(z, y), generator(z, 1 - y))
    x = generator(z, y)
    assert torch.equal(discriminator(x, torch.tensor([-1, -1])), torch.zeros(2))
    for network, first in ((generator, z), (discriminator, x)):
        with pytest.raises(ValueError, match="needs a label or condition y"):
            network(first)


@pytest.mark.parametrize("layer", [SpectralConv2d(3, 5, 3, 1), SpectralLinear(7, 4)], ids=["conv", "linear"])
def test_spectral_norm_converges_to_the_largest_singular_value(layer: nn.Module) -> None:
    """And iterates only when told so: a pass changes nothing, and gradients see u and v fixed."""
    for _ in range(200):
        layer.adapt({})
    exact = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
    sigma = layer.sigma(layer.weight)
    torch.testing.assert_close(sigma.detach(), exact, rtol=1e-4, atol=0)
    (gradient,) = torch.autograd.grad(sigma, layer.weight)
    u, v = layer.sigma.u, layer.sigma.v
    torch.testing.assert_close(gradient.flatten(1), torch.outer(u, v))
    old = {name: value.clone() for name, value in layer.state_dict().items()}
    x = torch.randn(2, 3, 6, 6) if isinstance(layer, nn.Conv2d) else torch.randn(2, 7)
    before = layer(x)
    assert torch.equal(before, layer(x))
    assert all(torch.equal(value, old[name]) for name, value in layer.state_dict().items())
    with torch.no_grad():
        layer.weight.mul_(3.0)  # the scale of the weight no longer matters
    torch.testing.assert_close(layer(x), before)


def test_the_shortcut_of_sngan_commutes() -> None:
    """A 1 x 1 convolution commutes with doubling and with means of pixels, so both are done on the small map."""
    conv, x = nn.Conv2d(3, 4, 1).double(), torch.randn(2, 3, 6, 8).double()
    torch.testing.assert_close(interpolate(conv(x), scale_factor=2), conv(interpolate(x, scale_factor=2)))
    pool = nn.AvgPool2d(2)
    torch.testing.assert_close(pool(conv(x)), conv(pool(x)))


def test_maxout_is_the_largest_of_its_pieces() -> None:
    torch.manual_seed(0)
    network = MaxoutDiscriminator((5,), (3,), pieces=4, irange=0.5, pixels=False).eval()
    linear, end = network.layers[2], network.layers[-1]
    x = torch.randn(6, 5)
    pieces = (x @ linear.weight.T).view(6, 4, 3)
    torch.testing.assert_close(network(x), (pieces.amax(1) @ end.weight.T).squeeze(1))
    assert linear.weight.abs().max() <= 0.5 and not linear.bias.any()


def test_dropout_of_2014_keeps_the_mean() -> None:
    """A kept input is multiplied by 1 / p, so that evaluation needs no scale; a dropped pixel is black."""
    network = MaxoutDiscriminator((1, 10, 10), (2,))
    first = network.layers[1]
    x = (first(torch.ones(2000, 100)) == 0).float().mean()
    assert x == pytest.approx(0.2, abs=0.01) and first(torch.ones(1, 10_000)).mean() == pytest.approx(1.0, abs=0.02)
    network.eval()
    assert network(-torch.ones(1, 1, 10, 10)).item() == pytest.approx(0.0)  # black is 0, and all biases are


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DCGANGenerator(4, (1, 16, 16), width=0), "width=0: must be 1 or more"),
        (lambda: DCGANDiscriminator((1, 16, 16), width=-1), "width=-1: must be 1 or more"),
        (lambda: ResNetGenerator(4, (1, 16, 16), width=0), "width=0: must be 1 or more"),
        (lambda: ResNetDiscriminator((1, 16, 16), width=0), "width=0: must be 1 or more"),
        (lambda: BEGANGenerator(4, (1, 16, 16), filters=0), "filters=0: must be 1 or more"),
        (lambda: BEGANDiscriminator((1, 16, 16), hidden=0), "hidden=0: must be 1 or more"),
        (lambda: UNetGenerator((1, 16, 16), (1, 16, 16), width=0), "width=0: must be 1 or more"),
        (lambda: PatchDiscriminator((1, 16, 16), None, width=0), "width=0: must be 1 or more"),
        (lambda: Translator((1, 16, 16), (1, 16, 16), width=0), "width=0: must be 1 or more"),
        (lambda: RectifierGenerator(4, (9,), sparse=-1), "sparse=-1: must be 0 or more"),
        (lambda: RectifierGenerator(4, (9,), output_irange=-1.0), "output_irange=-1.0: must be above 0"),
    ],
)
def test_layers_without_width_are_refused_by_name(make, said) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_the_sparse_initialisation() -> None:
    weight = RectifierGenerator(6, (50,), (40, 30), sparse=10, output="linear").end.weight.detach()
    assert ((weight != 0).sum(1) == 10).all() and weight[weight != 0].std() == pytest.approx(1.0, abs=0.15)


def test_sides() -> None:
    assert pyramid((3, 64, 64)) == [(4, 4), (8, 8), (16, 16), (32, 32), (64, 64)]
    assert pyramid((1, 28, 28)) == [(7, 7), (14, 14), (28, 28)]
    assert pyramid((1, 33, 50)) == [(5, 7), (9, 13), (17, 25), (33, 50)]


def test_published_sizes() -> None:
    """The lecture's perceptrons (recipes.md A), and DCGAN at 64 x 64: 100 -> 4x4x1024 -> ... -> 3x64x64."""
    assert numbers(MLPGenerator(100, (1, 28, 28))) == 1_486_352
    assert numbers(MLPDiscriminator((1, 28, 28))) == 1_460_225
    generator, discriminator = DCGANGenerator(100, (3, 64, 64), 128), DCGANDiscriminator((3, 64, 64), 64)
    g = 100 * 16 * 1024 + 2 * 1024 + 16 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3) + 2 * (512 + 256 + 128) + 3
    d = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 2 * (128 + 256 + 512) + 512 * 16 + 1
    assert (numbers(generator), numbers(discriminator)) == (g, d)
    assert [tuple(size) for size in generator.sizes] == [(4, 4), (8, 8), (16, 16), (32, 32), (64, 64)]
    infogan = DCGANGenerator(74, (1, 28, 28), 64, dense=1024)  # 74 -> 1024 -> 7x7x128 -> 14x14x64 -> 28x28
    g = 74 * 1024 + 2 * 1024 + 1024 * 49 * 128 + 2 * 128 + 16 * (128 * 64 + 64) + 2 * 64 + 1
    assert numbers(infogan) == g


def test_initialisation_follows_its_law() -> None:
    torch.manual_seed(0)
    weight = MLPGenerator(100, (1, 28, 28)).layers[0].weight.detach()  # Glorot: U(-a, a), a = sqrt(6 / (in + out))
    bound = (6 / (100 + 256)) ** 0.5
    assert weight.abs().max() <= bound and weight.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    kernel = DCGANDiscriminator((3, 64, 64), 64).layers[3].weight.detach()  # N(0, 0.02^2)
    assert kernel.std() == pytest.approx(0.02, rel=0.02) and abs(float(kernel.mean())) < 1e-3


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
        (lambda: MLPDiscriminator((3,), waves=-1), "waves=-1"),
        (lambda: MLPGenerator(4, (3,), skip=5), "skip=5: must be from 0 to the 4 numbers of z"),
        (lambda: MLPGenerator(4, (3,), skip=-1), "skip=-1: must be from 0"),
        (lambda: Fourier(3, 4, highest=0.5), "a frequency above 0.5"),
        (lambda: R3GANGenerator(4, (1, 28, 28), (8, 8)), "images of this size need 3, one for each size of map"),
        (lambda: R3GANDiscriminator((1, 8, 8), (12, 4)), "must be a multiple of group=16"),
        (lambda: MaxoutDiscriminator((3,), include=0.0), "include=0.0: the share of inputs that are kept"),
        (lambda: MaxoutDiscriminator((3,), include=1.5), "include=1.5: the share of inputs that are kept"),
        (lambda: MaxoutDiscriminator((3,), units=(0,)), "every layer needs at least 1"),
        (lambda: RectifierGenerator(4, (3,), (5,), ("relu", "relu")), "give each layer one of relu, sigmoid"),
        (lambda: RectifierGenerator(4, (3,), irange=0.0), "irange=0.0: must be above 0"),
        (lambda: RectifierConvGenerator(4, (3, 4, 4)), "sides of 5 or more"),
        (lambda: ResNetGenerator(4, (3, 4, 4)), "sides of 8 or more"),
    ],
)
def test_mistakes_are_named(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        make()
    assert said in str(caught.value)
