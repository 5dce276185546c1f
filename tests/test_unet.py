"""organza.nn.unet: published sizes, the published order of layers, what a patch sees, and any height and width."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from organza.game import Game
from organza.nn.unet import Drawing, PatchDiscriminator, UNetGenerator
from organza.objective import NonSaturating
from organza.prior import Normal
from organza.round import Batch, Draw
from organza.term import Reconstruction

SHAPES = [(1, 28, 28), (3, 33, 50), (2, 8, 9), (1, 64, 64), (3, 3, 2)]
NOTHING = torch.empty(4, 0)
SEEN, ROWS = [(3, 6, 7), (5,), (4, 6, 7)], torch.arange(6)[:, None]


def numbers(network):
    return sum(weight.numel() for weight in network.parameters())


def unet(shape, channels=2, width=4, **settings):
    return UNetGenerator((channels, *shape[1:]), shape, width, **settings)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shaken(network, seed=0):
    """The network with statistics and biases that are nobody's defaults, in evaluation."""
    chance = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=chance) + 0.5 if "running_var" in name else value)
            value.add_(0.1 * torch.randn(value.shape, generator=chance).abs())
    return network.eval()


# G.


def test_the_published_generator_has_54_414_million_parameters():
    """C64-C128-C256-C512x5, then twice the inputs for each skip; batch norm has two numbers a channel."""
    with torch.device("meta"):
        generator = UNetGenerator((3, 256, 256), (3, 256, 256))
    down = [3, 64, 128, 256, 512, 512, 512, 512, 512]
    up = [(512, 512), *[(1024, 512)] * 3, (1024, 256), (512, 128), (256, 64), (128, 3)]
    kernels = 16 * (sum(a * b for a, b in pairwise(down)) + sum(a * b for a, b in up))
    norms = 2 * (sum(down[2:8]) + sum(b for _, b in up[:-1]))
    assert numbers(generator) == kernels + norms + 3
    assert round(numbers(generator) / 1e6, 3) == 54.414
    biases = [m.bias is not None for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert biases == [False] * 15 + [True]


@pytest.mark.parametrize(
    ("refine", "norm", "colours"),
    [(0, "batch", 0), (3, "batch", 0), (3, "instance", 0), (0, "none", 0), (3, "none", 0), (3, "batch", 4)],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_at_any_size(shape, refine, norm, colours):
    torch.manual_seed(0)
    generator = unet(shape, refine=refine, norm=norm, colours=colours, reach=2.0)
    x = generator(NOTHING, random(4, 2, *shape[1:]))
    assert x.shape == (4, *shape) and x.abs().max() <= 1
    (x * random(*x.shape, seed=1)).sum().backward()
    for name, weight in generator.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("settings", [{}, {"refine": 3, "colours": 4, "reach": 2.0}])
def test_save_and_load_and_no_chance_in_evaluation(shape, settings):
    one, other = shaken(unet(shape, **settings)), unet(shape, **settings).eval()
    other.load_state_dict(one.state_dict())
    y, before = random(4, 2, *shape[1:]), torch.get_rng_state()
    assert torch.equal(one(NOTHING, y), other(random(4, 7), y))  # nor is z read
    assert torch.equal(before, torch.get_rng_state())


def published(generator, y):
    """Equation by equation: LeakyReLU before each convolution, skips as they are before it, ReLU on the way up."""
    norms = [[m for m in block if isinstance(m, nn.BatchNorm2d)] for block in (*generator.downs, *generator.ups)]

    def norm(x, i):
        for n in norms[i]:
            x = (x - n.running_mean[:, None, None]) / (n.running_var[:, None, None] + n.eps).sqrt()
            x = x * n.weight[:, None, None] + n.bias[:, None, None]
        return x

    skips = [norm(F.conv2d(y, generator.downs[0][0].weight, stride=2, padding=1), 0)]
    for i, block in enumerate(generator.downs[1:], 1):
        x = torch.where(skips[-1] > 0, skips[-1], 0.2 * skips[-1])
        skips.append(norm(F.conv2d(x, block[0].weight, stride=2, padding=1), i))
    x = skips.pop()
    for i, block in enumerate(generator.ups, len(generator.downs)):
        x = norm(F.conv_transpose2d(x.clamp(min=0), block[1].weight, block[1].bias, stride=2, padding=1), i)
        x = torch.cat([skips.pop(), x], 1) if skips else x
    return x.tanh()


@pytest.mark.parametrize("depth", [1, 2, 4, 6])
def test_the_order_of_layers_is_the_published_one(depth):
    generator = shaken(unet((3, 64, 64), depth=depth)).double()
    y = random(2, 2, 64, 64).double()
    torch.testing.assert_close(generator(NOTHING, y), published(generator, y))
    normed = [any(isinstance(m, nn.BatchNorm2d) for m in block) for block in (*generator.downs, *generator.ups)]
    ends = {0, depth - 1, 2 * depth - 1}  # the first and the innermost on the way down, the last on the way up
    assert normed == [i not in ends for i in range(2 * depth)]


@pytest.mark.parametrize("size", [(16, 16), (15, 18)])
def test_a_last_look_sees_every_pixel_of_y(size):
    """What is at full size needs no way through the halvings: a step there is a step in x."""
    torch.manual_seed(0)
    generator = shaken(unet((3, *size), refine=5, depth=2))
    kernels = 16 * (2 * 4 + 4 * 8) + 9 * (8 * 4 + 8 * 5 + (5 + 2) * 5 + 5 * 3)
    assert numbers(generator) == kernels + 2 * (4 + 5) + 5 + 3  # batch norm after each doubling, biases after the last
    for stage in (*generator.downs, *generator.ups):
        stage.register_forward_hook(lambda module, given, made: torch.zeros_like(made))
    y = random(1, 2, *size).requires_grad_()
    (slope,) = torch.autograd.grad(generator(NOTHING, y)[0, :, 7, 8].sum(), y)
    seen = slope[0].abs().sum(0).nonzero()
    assert seen.amin(0).tolist() == [5, 6] and seen.amax(0).tolist() == [9, 10]  # two 3x3 convolutions, to the pixel


def test_instance_norm_makes_of_an_image_the_same_whatever_is_beside_it():
    torch.manual_seed(0)
    y, norms = random(3, 2, 16, 16), {norm: unet((1, 16, 16), norm=norm, dropout=0.0) for norm in ("batch", "instance")}
    one, other = (G(NOTHING, y)[:1] for G in norms.values())
    torch.testing.assert_close(norms["instance"].eval()(NOTHING, y[:1]), other)
    assert not torch.allclose(norms["batch"](NOTHING, torch.cat([y[:1], -y[1:]]))[:1], one)


@pytest.mark.parametrize("refine", [0, 4])
def test_a_residual_adds_y_before_the_last_tanh(refine):
    torch.manual_seed(0)
    plain, adding = (shaken(unet((2, 15, 18), refine=refine, residual=r)).double() for r in (0.0, 1.5))
    adding.load_state_dict(plain.state_dict())
    y = random(2, 2, 15, 18).double().clamp(-1, 1)
    torch.testing.assert_close(adding(NOTHING, y), (plain(NOTHING, y).atanh() + 1.5 * y).tanh(), rtol=0, atol=1e-6)


def test_bilinear_doublings_draw_no_grid():
    """Of an even y the published network may make a pattern with the period of its doublings; this one cannot."""
    torch.manual_seed(0)
    y = torch.full((1, 2, 192, 192), 0.3)
    for refine, even in ((5, True), (0, False)):
        generator = unet((3, 192, 192), width=8, refine=refine, depth=3).eval().double()
        for weight in generator.parameters():
            weight.data.mul_(4)
        x = generator(NOTHING, y.double())[..., 88:104, 88:104]
        assert 1e-3 < x.abs().max() < 1 and (x.std((2, 3)).max() < 1e-12) == even


@pytest.mark.parametrize("size", [(33, 50), (63, 64), (40, 97)])
def test_other_sizes_are_padded_with_their_edges_and_cropped(size):
    odd = shaken(unet((3, *size), depth=5))
    sides = [-(-side // 32) * 32 for side in size]
    even = unet((3, *sides), depth=5).eval()
    even.load_state_dict(odd.state_dict())
    y, before = random(2, 2, *size), [(full - side) // 2 for full, side in zip(sides, size, strict=True)]
    at = [(torch.arange(n) - b).clamp(0, s - 1) for n, b, s in zip(sides, before, size, strict=True)]
    (top, left), (height, width) = before, size
    whole = even(NOTHING, y[..., at[0][:, None], at[1]])
    assert torch.equal(odd(NOTHING, y), whole[..., top : top + height, left : left + width])


@pytest.mark.parametrize(
    ("size", "depth"), [(2, 1), (3, 1), (4, 2), (28, 4), (31, 4), (32, 5), (33, 5), (256, 8), (1024, 8)]
)
def test_the_smaller_side_of_a_power_of_two_goes_to_one(size, depth):
    with torch.device("meta"):
        generator = UNetGenerator((1, size, 2 * size), (1, size, 2 * size), 1)
        deepest = UNetGenerator((1, size, size), (1, size, size), 1, depth=min(8, (size - 1).bit_length()))
    assert generator.depth == depth == len(generator.downs) == len(generator.ups)
    assert 2 ** (deepest.depth - 1) < size  # less than half of what it sees is repeated edge


@pytest.mark.parametrize("depth", range(1, 9))
def test_dropout_is_in_at_most_three_inner_blocks_of_8_width(depth):
    with torch.device("meta"):
        generator = UNetGenerator((3, 256, 256), (3, 256, 256), 2, depth=depth)
    dropped = [any(isinstance(m, nn.Dropout) for m in block) for block in generator.ups]
    n = min(3, max(0, depth - 4))
    assert dropped == [True] * n + [False] * (depth - n)


def test_dropout_is_the_only_chance():
    shape, y = (1, 32, 32), random(4, 2, 32, 32)
    for settings, same in (({}, False), ({"dropout": 0.0}, True), ({"depth": 4}, True)):
        generator = unet(shape, **settings)
        assert torch.equal(generator(NOTHING, y), generator(NOTHING, y)) == same


def test_one_example_of_256_trains():
    """The innermost map is 1x1, where batch norm of a single example would have nothing to measure."""
    generator = unet((3, 256, 256), 3, 2)
    innermost = []
    generator.downs[-1].register_forward_hook(lambda module, given, x: innermost.append(x.shape))
    generator(NOTHING[:1], random(1, 3, 256, 256)).square().sum().backward()
    assert innermost == [(1, 16, 1, 1)]
    assert all(weight.grad.isfinite().all() for weight in generator.parameters())


def test_initialisation_is_normal():
    torch.manual_seed(0)
    generator = unet((3, 32, 32), width=16)
    for network in (generator, PatchDiscriminator((3, 32, 32), width=16)):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 10_000:
                weight = module.weight.detach()
                assert weight.std() == pytest.approx(0.02, rel=0.05) and weight.mean().abs() < 1e-3
            if isinstance(module, nn.BatchNorm2d) and module.num_features > 60:
                scale = module.weight.detach()
                assert scale.std() == pytest.approx(0.02, rel=0.4) and (scale.mean() - 1).abs() < 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_a_drawing_begins_with_the_colours_of_y_and_takes_them_from_where_the_flow_points(channels):
    drawing, y = Drawing(2, 5, 3, channels, colours=4, reach=8.0), random(2, channels, 9, 12).clamp(-1, 1)
    x, summary = random(2, 2, 9, 12), random(2, 5)
    nn.init.zeros_(drawing.places.weight)
    with torch.no_grad():  # all of y, from three pixels to the right and two above
        drawing.places.bias.copy_(torch.tensor([30.0, 0, 0, 0, 0, math.atanh(3 / 8), math.atanh(-2 / 8)]))
    rows, columns = (torch.arange(9) - 2).clamp(0), (torch.arange(12) + 3).clamp(max=11)
    assert torch.allclose(drawing(x, summary, y), y[..., rows[:, None], columns].expand(-1, 3, -1, -1), atol=1e-5)


def test_a_drawing_by_its_formula_pixel_by_pixel():
    """With any weights, against torch's grid_sample, whose coordinates are -1 and 1 at the image's borders."""
    torch.manual_seed(0)
    drawing, x, summary, y = Drawing(3, 5, 2, 4, colours=3, reach=4.0), *(random(2, *s) for s in SEEN)
    for weight in drawing.parameters():
        nn.init.normal_(weight, std=0.5)
    h, v = (part.detach() for part in drawing.places(x).split([4, 2], 1))
    flow, p = 4 * v.tanh(), h.softmax(1)
    at = [(2 * (k + flow[:, i]) + 1) / n - 1 for i, (k, n) in enumerate([(torch.arange(7), 7), (ROWS, 6)])]
    moved = F.grid_sample(y, torch.stack(at, 3), padding_mode="border", align_corners=False)
    made = drawing(x, summary, y)
    for i, table in enumerate(drawing.colours(summary).view(2, 2, 8)):
        A, b, c = table[:, :4], table[:, 4], table[:, 5:].tanh()
        for row in range(6):
            for column in range(7):
                seen = (A @ moved[i, :, row, column] + b).clamp(-1, 1)
                wanted = p[i, 0, row, column] * seen + c @ p[i, 1:, row, column]
                assert torch.allclose(made[i, :, row, column], wanted, atol=1e-5)


def test_a_drawing_has_second_derivatives_and_full_precision_of_place():
    drawing, y = Drawing(2, 5, 3, 3, colours=2, reach=5.0).double(), random(1, 3, 6, 7).double()
    x, summary = random(1, 2, 6, 7).double().requires_grad_(), random(1, 5).double()
    assert torch.autograd.gradgradcheck(lambda x: drawing(x, summary, y), x)
    drawing, x = drawing.float(), 3 * x.float().detach()
    with torch.autocast("cpu", torch.bfloat16):
        rough = drawing(x, summary.float(), y.float())
    assert (rough - drawing(x, summary.float(), y.float())).abs().max() < 0.05


def test_a_drawing_mixes_the_colours_that_the_image_has():
    """Where y does not enter, each pixel is a mean of the K colours: of two, a point of the line between them."""
    torch.manual_seed(0)
    drawing, y = Drawing(2, 5, 3, 3, colours=2), random(4, 3, 6, 7)
    nn.init.normal_(drawing.colours.weight)
    with torch.no_grad():
        drawing.places.bias[0] = -100
    x = drawing(random(4, 2, 6, 7), random(4, 5, seed=1), y)
    values = torch.linalg.svdvals((x - x.mean((2, 3), keepdim=True)).flatten(2))  # (4, 3)
    assert values[:, 0].min() > 0.01 and values[:, 1].max() < 1e-4 * values[:, 0].max()
    first = x[:, :, 0, 0]
    assert (first[0] - first[1]).abs().max() > 0.1  # each image has its own


def test_a_drawing_is_sharpened_in_use_alone():
    """As if the logits' weights were so many times as large: the likeliest part of each pixel becomes likelier."""
    torch.manual_seed(0)
    drawing, x, summary, y = Drawing(3, 5, 2, 4, 3, 4.0, sharpen=1.5), *(random(2, *s) for s in SEEN)
    nn.init.normal_(drawing.places.weight)
    trained, used = drawing(x, summary, y), drawing.eval()(x, summary, y)
    assert (used - trained).abs().max() > 0.01
    with torch.no_grad():
        drawing.places.weight[:4] *= 1.5
        drawing.places.bias[:4] *= 1.5
    assert torch.allclose(drawing.train()(x, summary, y), used, atol=1e-5)


# D.


def test_the_published_discriminator_has_2_769_million_parameters():
    with torch.device("meta"):
        discriminator = PatchDiscriminator((3, 256, 256), (3, 256, 256))
    widths = [6, 64, 128, 256, 512, 1]
    kernels = 16 * sum(a * b for a, b in pairwise(widths))
    assert numbers(discriminator) == kernels + 64 + 1 + 2 * (128 + 256 + 512)
    assert round(numbers(discriminator) / 1e6, 3) == 2.769
    convolutions = [m for m in discriminator.layers if isinstance(m, nn.Conv2d)]
    assert [m.bias is not None for m in convolutions] == [True, False, False, False, True]
    assert [m.stride[0] for m in convolutions] == [2, 2, 2, 1, 1]


def test_the_pixel_discriminator_is_three_maps_of_each_pixel():
    discriminator = PatchDiscriminator((3, 5, 4), (3, 5, 4), layers=0)
    assert numbers(discriminator) == 6 * 64 + 64 + 64 * 128 + 2 * 128 + 128 + 1
    assert discriminator(random(2, 3, 5, 4), random(2, 3, 5, 4)).shape == (2, 5, 4)


@pytest.mark.parametrize(("layers", "patch"), [(0, 1), (1, 16), (2, 34), (3, 70), (5, 286)])
def test_a_logit_sees_exactly_its_patch(layers, patch):
    side, step = patch + 4 * 2**layers, 2**layers
    discriminator = PatchDiscriminator((1, side, side), width=2, layers=layers, norm="none").double()
    x = random(1, 1, side, side).double().requires_grad_()
    logits = discriminator(x)
    middle = logits.shape[1] // 2
    windows = []
    for row, column in ((middle, middle), (middle, middle + 1)):
        (slope,) = torch.autograd.grad(logits[0, row, column], x, retain_graph=True)
        seen = slope[0, 0] != 0
        rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
        assert len(rows) == len(columns) == patch and int(seen.sum()) == patch**2
        assert min(rows[0], columns[0]) > 0 and max(rows[-1], columns[-1]) < side - 1
        windows.append((int(rows[0]), int(columns[0])))
    assert windows[1] == (windows[0][0], windows[0][1] + step)


@pytest.mark.parametrize(("shape", "layers"), [((1, 28, 28), 3), ((3, 33, 50), 3), ((3, 24, 49), 3), ((2, 6, 9), 1)])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_there_is_a_logit_for_each_patch(shape, layers, norm):
    discriminator = PatchDiscriminator(shape, (2, *shape[1:]), 4, layers, norm)
    x, y = (random(3, c, *shape[1:]).requires_grad_() for c in (shape[0], 2))
    logits = discriminator(x, y)
    assert logits.shape == (3, *(side // 2**layers - 2 for side in shape[1:]))
    (logits * random(*logits.shape, seed=1)).sum().backward()
    for name, weight in [("x", x), ("y", y), *discriminator.named_parameters()]:
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


def test_without_condition_y_is_ignored():
    discriminator = PatchDiscriminator((1, 28, 28), width=2).eval()
    x = random(2, 1, 28, 28)
    assert torch.equal(discriminator(x), discriminator(x, random(2, 5)))
    discriminator = PatchDiscriminator((1, 28, 28), (3, 28, 28), 2)
    with pytest.raises(ValueError, match=r"needs a condition of shape \(3, 28, 28\)"):
        discriminator(x)


# Together, and what is refused.


def test_they_play_pix2pix():
    shape = (1, 32, 32)
    objective, terms = NonSaturating(), [Reconstruction(100.0)]
    D = PatchDiscriminator(shape, (2, 32, 32), 4)
    game = Game(unet(shape), D, Normal(0), objective, terms, conditional=True)
    draw = Draw(torch.Generator().manual_seed(0), 3)
    batch = Batch(random(3, *shape).clamp(-1, 1), random(3, 2, 32, 32), draw, 0, 0)
    for turn, network in game.players.items():
        game.zero_grad()
        round = game.look(batch, *game.generate(batch), turn)
        assert round.fake_verdict.logits.shape == (3, 2, 2)
        game.loss(round, turn).backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: UNetGenerator((10,), (1, 28, 28)), "condition=(10,): must be (channels, height, width)"),
        (lambda: UNetGenerator((3, 28, 28), (28, 28)), "shape=(28, 28): must be (channels, height, width)"),
        (lambda: UNetGenerator((3, 28, 30), (1, 28, 28)), "must have the sides of shape=(1, 28, 28)"),
        (lambda: unet((1, 1, 28)), "both sides must be 2 or more"),
        (lambda: unet((1, 28, 64), depth=6), "depth=6: must be from 1 to 5 for 28 x 64, or 0 to choose"),
        (lambda: unet((1, 28, 28), depth=-1), "depth=-1"),
        (lambda: unet((1, 28, 28), colours=4), "colours=4: needs refine above 0 and residual=0, got 0 and 0.0"),
        (lambda: unet((1, 28, 28), refine=4, colours=-1), "colours=-1: must be 1 or more, or 0 for none"),
        (lambda: unet((1, 28, 28), refine=4, colours=4, reach=-1.0), "reach=-1.0: must be 0 or more pixels"),
        (lambda: unet((1, 28, 28), refine=4, colours=4, sharpen=0.0), "sharpen=0.0: must be above 0"),
        (lambda: unet((1, 28, 28), refine=-1), "refine=-1: must be 0 or more"),
        (lambda: unet((1, 28, 28), residual=1.5), "residual=1.5: y has 2 channels and x 1; must be 0"),
        (lambda: unet((2, 28, 28), residual=float("nan")), "residual=nan: must be 0 or more"),
        (lambda: unet((1, 28, 28), norm="layer"), "norm='layer': must be one of batch, instance, none"),
        (lambda: unet((1, 28, 28), dropout=1.0), "dropout=1.0: must be at least 0 and below 1"),
        (lambda: PatchDiscriminator((1, 23, 64)), "with layers=3 both sides must be 24 or more"),
        (lambda: PatchDiscriminator((1, 64, 64), layers=-1), "layers=-1: must be 0 or more"),
        (lambda: PatchDiscriminator((1, 64)), "must be (channels, height, width)"),
        (lambda: PatchDiscriminator((1, 64, 64), (1, 64, 32)), "condition=(1, 64, 32): must have the sides"),
    ],
)
def test_mistakes_are_named(make, said):
    with pytest.raises(ValueError) as caught:
        make()
    assert said in str(caught.value)
