"""organza.augment: slow references, crops and boxes, two derivatives, laws of what is drawn, micro-batches, a game."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import pad
from toys import mlp, pictures, toy

from organza.augment import DiffAugment, Jitter
from organza.objective import RelativisticLogistic
from organza.penalty import R1
from organza.round import Draw
from organza.training import State

NAMES = ("color", "translation", "affine", "cutout")
SHAPES = [(1, 8, 8), (3, 8, 13), (4, 9, 5), (3, 1, 2)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_policy = pytest.mark.parametrize("policy", [(name,) for name in NAMES] + [NAMES], ids="+".join)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def images(n, *shape, seed=0, dtype=torch.float64, device="cpu"):
    return (2 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 1).to(device)


def chance(n, rows=None, seed=5, device="cpu"):
    return Draw(torch.Generator(device).manual_seed(seed), n, rows)


def augmented(x, *policy, seed=5, **arguments):
    return DiffAugment(policy, **arguments)(x, None, chance(len(x), seed=seed, device=x.device))[0]


class Recorded(Draw):
    """Keeps the numbers of each example in the order they are drawn."""

    def __call__(self, sample):
        numbers = super().__call__(sample)
        self.numbers = [
            mine + its.flatten().tolist()
            for mine, its in zip(getattr(self, "numbers", [[]] * len(numbers)), numbers, strict=True)
        ]
        return numbers


def recorded(x, name, seed=5, **arguments):
    """The augmented images, and what was drawn for each."""
    draw = Recorded(torch.Generator(x.device).manual_seed(seed), len(x))
    return DiffAugment([name], **arguments)(x, None, draw)[0], draw.numbers


def nearest(side, share):
    return int(side * share + 0.5)


def test_no_policy_is_the_identity():
    x, y, draw = images(4, 3, 5, 6), torch.arange(4), Recorded(torch.Generator(), 4)
    same = DiffAugment(())(x, y, draw)
    assert same[0] is x and same[1] is y and not hasattr(draw, "numbers")


@every_shape
def test_color_is_brightness_then_saturation_then_contrast(shape, device):
    x = images(7, *shape, device=device)
    got, drawn = recorded(x, "color")
    for image, its, (b, s, c) in zip(x, got, drawn, strict=True):
        image = image + (b - 0.5)
        if len(image) > 1:
            mean = sum(image) / len(image)
            image = torch.stack([(channel - mean) * (2 * s) + mean for channel in image])
        mean = image.sum() / image.numel()
        torch.testing.assert_close(its, (image - mean) * (c + 0.5) + mean)


def test_colors_are_not_clamped(device):
    assert (augmented(torch.ones(64, 3, 2, 2, device=device), "color").amax((1, 2, 3)) > 1).sum() > 16


@every_shape
@pytest.mark.parametrize("shift", [0.125, 0.5, 1.0])
@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_translation_is_a_roll_without_what_came_around(shape, shift, fill, device):
    x = images(20, *shape, device=device)
    got, drawn = recorded(x, "translation", shift=shift, fill=fill)
    _, H, W = shape
    for image, its, (u, v) in zip(x, got, drawn, strict=True):
        assert abs(u) <= nearest(H, shift) and abs(v) <= nearest(W, shift)
        outside = torch.ones(H, W, dtype=torch.bool, device=device)
        for i, j in itertools.product(range(H), range(W)):
            if 0 <= i - u < H and 0 <= j - v < W:
                outside[i, j] = False
        assert torch.equal(its, image.roll((u, v), (1, 2)).masked_fill(outside, fill))
        if abs(u) < H and abs(v) < W:
            assert torch.equal(its, pad(image, (v, -v, u, -u), value=fill))  # a crop and a pad


@every_shape
@pytest.mark.parametrize("cutout", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("fill", [0.0, -1.5])
def test_cutout_fills_one_box_and_nothing_else(shape, cutout, fill, device):
    x = images(20, *shape, device=device)
    got, drawn = recorded(x, "cutout", cutout=cutout, fill=fill)
    _, H, W = shape
    h, w = nearest(H, cutout), nearest(W, cutout)
    for image, its, (top, left) in zip(x, got, drawn, strict=True):
        expected, filled = image.clone(), 0
        for i, j in itertools.product(range(top, top + h), range(left, left + w)):
            if 0 <= i < H and 0 <= j < W:
                expected[:, i, j], filled = fill, filled + 1
        assert torch.equal(its, expected)
        assert ((h + 1) // 2) * ((w + 1) // 2) <= filled <= h * w  # the border clips at most half of each side


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 13), (4, 9, 5)], ids=str)
def test_affine_is_what_grid_sample_does(shape):
    """The same map of coordinates in torch's own sampler, which has no second derivatives; fill 0 is its padding."""
    x = images(6, *shape)
    got, drawn = recorded(x, "affine")
    turn, tall, wide = (2 * torch.tensor([row[i] for row in drawn], dtype=x.dtype) - 1 for i in range(3))
    turn, tall, wide = math.radians(15) * turn, 1.25**tall, 1.25**wide
    H, W = shape[1:]
    ratio = (H - 1) / (W - 1)  # its coordinates end at -1 and 1, whatever the sides
    zero = torch.zeros_like(turn)
    theta = torch.stack(
        [turn.cos() / wide, turn.sin() * ratio / wide, zero, -turn.sin() / ratio / tall, turn.cos() / tall, zero], 1
    ).view(6, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=True)
    wanted = torch.nn.functional.grid_sample(x, grid, "bilinear", "zeros", align_corners=True)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(got, x)


def test_shares_of_nothing_change_nothing():
    x = images(9, 3, 6, 7)
    assert torch.equal(augmented(x, "translation", "cutout", shift=0.0, cutout=0.0), x)


def test_a_policy_is_its_transforms_one_after_another(device):
    x, y = images(6, 3, 8, 9, device=device), torch.arange(6)
    for policy in itertools.permutations(NAMES):
        draw, one_by_one = chance(6, device=device), x
        for name in policy:
            one_by_one, _ = DiffAugment((name,))(one_by_one, y, draw)
        together, same = DiffAugment(policy)(x, y, chance(6, device=device))
        assert torch.equal(together, one_by_one) and same is y


@every_policy
@pytest.mark.parametrize("channels", [1, 3])
def test_first_and_second_derivatives_are_finite_differences(policy, channels):
    x = images(2, channels, 3, 4).requires_grad_()
    arguments = {"shift": 0.4, "cutout": 0.5}
    assert (augmented(x, *policy, **arguments) != x).any()
    assert gradcheck(lambda x: augmented(x, *policy, **arguments), (x,))
    # The transforms are affine in x, and a slope that depends on x needs D's curvature behind them.
    assert gradgradcheck(lambda x: augmented(x, *policy, **arguments).sin(), (x,))


@every_policy
def test_each_example_keeps_to_itself(policy):
    """So that the sum of logits has each example's own slope in it."""
    x = images(3, 3, 6, 5).requires_grad_()
    (slope,) = torch.autograd.grad(augmented(x, *policy)[1].square().sum(), x)
    assert slope[1].any() and not slope[[0, 2]].any()


@every_policy
def test_micro_batches_see_the_same_augmentations(policy, device):
    """Of the real and then of the fake, which get other ones."""
    real, fake = images(8, 3, 8, 6, device=device), images(8, 3, 8, 6, seed=1, device=device)

    def play(rows):
        T, draw = DiffAugment(policy), chance(8, rows, device=device)
        return [T(x[rows], None, draw)[0] for x in (real, fake, real)]

    whole = play(slice(0, 8))
    for cuts in ((0, 4, 8), (0, 1, 6, 8)):
        parts = [play(slice(*ends)) for ends in itertools.pairwise(cuts)]
        for wanted, got in zip(whole, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(got), wanted)
    assert not torch.equal(whole[0], whole[2])


def test_chance_comes_from_the_draw_alone():
    x, before = images(5, 3, 8, 8), torch.get_rng_state()
    one = augmented(x, *NAMES)
    assert torch.equal(torch.get_rng_state(), before)
    torch.default_generator.manual_seed(9)
    assert torch.equal(augmented(x, *NAMES), one)
    assert not torch.equal(augmented(x, *NAMES, seed=6), one)


def distance(sample, low, high):
    """Kolmogorov's distance to U(low, high) times sqrt(n): above 1.95 one time in a thousand."""
    steps = torch.arange(len(sample) + 1) / len(sample)
    F = (sample.sort().values - low) / (high - low)
    return len(sample) ** 0.5 * torch.maximum(F - steps[:-1], steps[1:] - F).max()


def test_the_law_of_the_colors():
    """An image is a level, shades of grey and colours: what each is multiplied by, or added to it, is uniform."""

    def apart(x):
        grey = x.mean(1, keepdim=True)
        level = grey.mean((2, 3), keepdim=True)
        return level, grey - level, x - grey

    x = images(1, 3, 4, 4).expand(4000, -1, -1, -1)
    (old_level, old_shades, old_colours), (level, shades, colours) = apart(x), apart(augmented(x, "color"))
    b = (level - old_level).flatten()
    c = ((shades * old_shades).sum((1, 2, 3)) / old_shades.square().sum((1, 2, 3))).flatten()
    s = ((colours * old_colours).sum((1, 2, 3)) / old_colours.square().sum((1, 2, 3))).flatten() / c
    for factor, low, high in ((b, -0.5, 0.5), (s, 0.0, 2.0), (c, 0.5, 1.5)):
        assert low - 1e-9 <= factor.min() and factor.max() <= high + 1e-9
        assert distance(factor, low, high) < 1.95
    assert (torch.corrcoef(torch.stack([b, s, c])) - torch.eye(3)).abs().max() < 4 / 4000**0.5


def uniform(values, low, high):
    """Whether the integers are uniform on low ... high, each within 4 of its standard deviations."""
    counts = torch.bincount(values - low, minlength=high - low + 1).double()
    expected = len(values) / (high - low + 1)
    return len(counts) == high - low + 1 and bool(((counts - expected).abs() < 4 * expected**0.5).all())


def test_the_laws_of_the_corners():
    """Both coordinates are uniform and independent; the centre of a hole falls everywhere in the image."""
    x = images(1, 1, 16, 24).expand(6000, -1, -1, -1)
    for name, (top, bottom), (left, right) in (
        ("translation", (-2, 2), (-3, 3)),
        ("cutout", (-4, 12), (-6, 18)),  # holes of 8 x 12
    ):
        corners = torch.tensor(recorded(x, name)[1])
        assert uniform(corners[:, 0], top, bottom) and uniform(corners[:, 1], left, right)
        assert torch.corrcoef(corners.T.double())[0, 1].abs() < 4 / 6000**0.5
    corners = torch.tensor(recorded(x, "cutout", cutout=1 / 24)[1])  # of one pixel: each row and column alike
    assert uniform(corners[:, 0], 0, 15) and uniform(corners[:, 1], 0, 23)


@every_policy
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_images_come_back_as_they_came(policy, dtype, device):
    """In type and device, and with the same numbers drawn for every type; however they lie in memory."""
    x = images(4, 3, 6, 9, dtype=torch.float32).to(device, dtype)
    got = augmented(x, *policy)
    assert got.dtype == dtype and got.device == x.device and got.shape == x.shape
    exact = augmented(x.double(), *policy)
    steps = 8 if device.type == "cpu" else 10
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=steps * torch.finfo(dtype).eps)
    for other in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.testing.assert_close(augmented(other, *policy), got)


def test_nothing_is_asked_of_the_numbers():
    """It runs where there are none, with a generator elsewhere: no loop over examples, no waiting for a device."""
    x = torch.empty(4, 3, 6, 9, device="meta")
    got, _ = DiffAugment()(x, None, chance(4))
    assert got.shape == x.shape and got.is_meta


def test_it_says_what_it_is():
    T = DiffAugment(["cutout"], fill=-1.0)
    assert repr(T) == "DiffAugment(policy=['cutout'], shift=0.125, cutout=0.5, fill=-1.0)"
    assert not T.state_dict()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"policy": ["colour"]}, "'colour'; did you mean color?"),
        ({"policy": ["color", "translate"]}, "'translate'; did you mean translation?"),
        ({"policy": ["flip"]}, "'flip'; known are color, translation, affine, cutout"),
        ({"policy": "color,cutout"}, "must be a list of names, as ['color', 'cutout']"),
        ({"shift": -0.1}, "shift=-0.1): must be a share of the side, from 0 to 1"),
        ({"cutout": 16}, "cutout=16): must be a share of the side, from 0 to 1"),
        ({"cutout": float("nan")}, "cutout=nan): must be a share"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, said):
    with pytest.raises(ValueError) as caught:
        DiffAugment(**arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 2), (5, 8, 8), (5, 1, 2, 8, 8)], ids=str)
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"^DiffAugment: got x of shape \(5, .*needs images \(B, C, H, W\)$"):
        augmented(torch.zeros(shape), *NAMES)


def played(joint, accumulate):
    """A small game with R1 through the augmentation, after two rounds."""
    torch.default_generator.manual_seed(0)
    made = toy(
        RelativisticLogistic(),
        G=nn.Sequential(mlp(3, 8, 192), nn.Tanh(), nn.Unflatten(1, (3, 8, 8))),
        D=nn.Sequential(nn.Flatten(), mlp(192, 8, 1)),
        terms=[R1(1.0)],
        augment=DiffAugment(),
        joint=joint,
        data=pictures(3),
        play={"accumulate": accumulate},
    )
    state = State(made.game, made.training, made.data, torch.device("cpu"))
    start = [w.detach().clone() for w in made.game.parameters()]
    for _ in range(2):
        state.training.moves(state, state.stream)
    return start, list(made.game.parameters()), state.means()


@pytest.mark.parametrize("joint", [False, True])
def test_a_game_with_r1_is_played_through_it(joint, double):
    """Both players move, all stays finite, D pays for its slope, and a batch in four parts is the same batch."""
    start, weights, means = played(joint, accumulate=1)
    assert all(w.isfinite().all() and not torch.equal(w, old) for w, old in zip(weights, start, strict=True))
    assert 0 < means["discriminator/R1"] < float("inf")
    torch.testing.assert_close(weights, played(joint, accumulate=4)[1], rtol=0, atol=1e-12)


def jittered(x, y=None, draw=None, **arguments):
    return Jitter(**arguments)(x, y, draw or chance(len(x)))


def test_jitter_mirrors_half_of_the_examples():
    x = images(1000, 2, 3, 5)
    got, _ = jittered(x)
    kept, turned = ((got == way).flatten(1).all(1) for way in (x, x.flip(3)))
    assert bool((kept ^ turned).all()) and 450 < int(turned.sum()) < 550
    assert torch.equal(jittered(x, mirror=False)[0], x)


def test_jitter_moves_evenly_and_repeats_the_edge():
    x = images(500, 1, 8, 12)
    got, _ = jittered(x, mirror=False, shift=0.25)
    wide = pad(x, (3, 3, 2, 2), mode="replicate")
    found = [
        [torch.equal(one, big[:, down : down + 8, right : right + 12]) for down in range(5) for right in range(7)]
        for one, big in zip(got, wide, strict=True)
    ]
    counts = torch.tensor(found).sum(0)
    assert int(counts.sum()) == 500 and bool((counts > 0).all())


def test_jitter_takes_an_image_condition_along_and_no_other():
    x, seen, label = images(6, 3, 8, 8), images(6, 1, 8, 8), torch.arange(6)
    made, with_it = jittered(x, torch.cat([x[:, :1], seen], 1), shift=0.5)
    assert torch.equal(made[:, :1], with_it[:, :1]) and not torch.equal(made, x)
    assert jittered(x, label)[1] is label
    smaller = seen[..., :4]
    assert jittered(x, smaller)[1] is smaller


def test_jitter_of_a_micro_batch_is_that_of_the_batch():
    x = images(8, 3, 6, 6)
    parts = [jittered(x[rows], draw=chance(8, rows), shift=0.5)[0] for rows in (slice(0, 3), slice(3, 8))]
    assert torch.equal(torch.cat(parts), jittered(x, shift=0.5)[0])


def test_jitter_says_what_it_is_and_refuses_what_it_cannot():
    assert repr(Jitter(shift=0.1)) == "Jitter(mirror=True, shift=0.1)"
    with pytest.raises(ValueError, match=r"^Jitter\(shift=2\): must be a share of the side, from 0 to 1$"):
        Jitter(shift=2)
    with pytest.raises(ValueError, match=r"^Jitter: got x of shape \(5, 2\), needs images \(B, C, H, W\)$"):
        jittered(torch.zeros(5, 2))


def test_a_training_shows_both_players_jittered_examples():
    """The same views at every reading, as a resumed run needs them."""
    made = toy(data=pictures(3), play={"batch": 4, "accumulate": 1, "jitter": Jitter(shift=0.25)})
    state = State(made.game, made.training, made.data, torch.device("cpu"))
    plain = State(made.game, replace(made.training, jitter=None), made.data, torch.device("cpu"))
    for player in ("discriminator", "generator"):
        (batch,), (same,), (before,) = (list(s.stream(player)) for s in (state, state, plain))
        assert torch.equal(batch.x, same.x) and not torch.equal(batch.x, before.x)
