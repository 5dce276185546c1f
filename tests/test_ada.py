"""organza.ada: plain references of each transform, derivatives, laws of what is drawn, p that adapts, and leaks."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import pad
from toys import mlp, pictures, toy

from organza import ada
from organza.ada import ADA
from organza.objective import NonSaturating, RelativisticLogistic, Wasserstein
from organza.penalty import R1
from organza.plan import PlanError
from organza.recipes import example, recipe
from organza.round import Draw
from organza.schedule import Linear
from organza.training import State, Training

GROUPS = tuple(ada._GROUPS)
SHAPES = [(1, 4, 4), (2, 5, 9), (3, 16, 16), (3, 8, 13), (4, 4, 7), (5, 9, 5), (3, 1, 2)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_group = pytest.mark.parametrize("policy", [(name,) for name in GROUPS] + [GROUPS], ids="+".join)


def images(n, *shape, seed=0, dtype=torch.float64, device="cpu"):
    return (2 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 1).to(device)


def chance(n, rows=None, seed=5, device="cpu"):
    return Draw(torch.Generator(device).manual_seed(seed), n, rows)


def augmented(x, *policy, p=1.0, seed=5):
    return ADA(policy, p).to(x.device)(x, None, chance(len(x), seed=seed, device=x.device))[0]


class Recorded(Draw):
    """Keeps what is drawn, call by call; or hands out what it is given in its place."""

    def __init__(self, total, given=(), seed=5):
        super().__init__(torch.Generator().manual_seed(seed), total)
        self.given, self.numbers = list(given), []

    def __call__(self, sample):
        self.numbers.append(self.given.pop(0) if self.given else super().__call__(sample).double())
        return self.numbers[-1]


def recorded(x, *policy):
    draw = Recorded(len(x))
    return ADA(policy, 1.0)(x, None, draw)[0], draw.numbers


def forced(x, *policy, uniform=None, normal=None):
    """The images with p = 1 and these numbers: for each column its value, 0.5 and 0 elsewhere."""
    given = []
    for columns, width, rest in ((uniform, 7, 0.5), (normal, 4, 0.0)):
        each = torch.full((len(x), width), rest, dtype=torch.float64)
        for column, value in (columns or {}).items():
            each[:, column] = torch.as_tensor(value, dtype=torch.float64)
        given.append(each)
    return ADA(policy, 1.0)(x, None, Recorded(len(x), given))[0]


@every_shape
def test_without_chance_an_image_is_what_it_was(shape, device):
    """The very tensor where p is known to be 0, and the same bits where it is not."""
    x, y = images(5, *shape, dtype=torch.float32, device=device), torch.arange(5)
    for T in (ADA(GROUPS, 0.0), ADA((), 0.7), ADA(GROUPS)):
        same = T(x, y, chance(5))
        assert same[0] is x and same[1] is y
    for change, names in zip((ada._blit, ada._geometric, ada._color, ada._cutout), ada._GROUPS.values(), strict=True):
        assert torch.equal(change(x, torch.zeros(len(names), device=device), chance(5, device=device)), x)


@every_shape
def test_a_blit_is_flip_then_rot90_then_a_crop_of_the_reflected(shape):
    x = images(40, *shape)
    got, (u,) = recorded(x, "blit")
    _, H, W = shape
    for image, its, numbers in zip(x, got, u.tolist(), strict=True):
        _, _, _, flip, turn, down, right = numbers
        wanted = image.flip(2) if flip < 0.5 else image
        wanted = wanted.rot90(int(4 * turn) if H == W else 2 * int(2 * turn), (1, 2))
        down, right = round((2 * down - 1) * 0.125 * H), round((2 * right - 1) * 0.125 * W)
        assert abs(down) <= round(H / 8) and abs(right) <= round(W / 8)
        if H > 1:
            wanted = pad(wanted, (2, 2, 2, 2), "reflect") if min(H, W) > 2 else pad(wanted, (2, 2, 2, 2), "replicate")
            wanted = wanted[:, 2 - down : 2 - down + H, 2 - right : 2 - right + W]
        assert torch.equal(its, wanted)


def test_each_way_of_a_square_is_as_likely():
    x = torch.arange(4.0).view(1, 1, 2, 2).expand(4000, -1, -1, -1)
    got = augmented(x, "turn").flatten(1)
    for k in range(4):
        count = int((got == x[0].rot90(k, (1, 2)).flatten()).all(1).sum())
        assert abs(count - 1000) < 4 * 750**0.5
    assert abs(int((augmented(x, "flip") != x).flatten(1).any(1).sum()) - 2000) < 4 * 1000**0.5


def waves(rows, columns, H, W):
    """A smooth image, (N, 2, ...), that reflections at the middle of its outermost pixels continue."""
    v, w = math.pi * rows / (H - 1), math.pi * columns / (W - 1)
    return torch.stack([v.cos() + (2 * w).cos() * v.cos(), (3 * w).cos() - (2 * v).cos()], 1)


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)], ids=str)
@pytest.mark.parametrize("name", ["scale", "rotate", "stretch", "move", "geometric"])
def test_a_warp_of_waves_is_the_waves_there(name, shape):
    """Each transform undone one after another, in the plainest words, and the same image asked at that place."""
    n, (H, W) = 12, shape
    i, j = (t.double().expand(n, H, W) for t in torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij"))
    got, (u, v) = recorded(waves(i, j, H, W), name)
    first, last = (2 * math.pi * (u[:, k, None, None] - 0.5) for k in (5, 6))
    size, wide, down, right = (a[:, None, None] for a in v.T)
    row, column = i - (H - 1) / 2, j - (W - 1) / 2
    if name in ("move", "geometric"):
        row, column = row - down * H / 8, column - right * W / 8
    if name in ("rotate", "geometric"):
        row, column = row * last.cos() + column * last.sin(), column * last.cos() - row * last.sin()
    if name in ("stretch", "geometric"):
        row, column = row * 2 ** (0.2 * wide), column / 2 ** (0.2 * wide)
    if name in ("rotate", "geometric"):
        row, column = row * first.cos() + column * first.sin(), column * first.cos() - row * first.sin()
    if name in ("scale", "geometric"):
        row, column = row / 2 ** (0.2 * size), column / 2 ** (0.2 * size)
    wanted = waves(row + (H - 1) / 2, column + (W - 1) / 2, H, W)
    assert (got - wanted).abs().max() < 0.1 and (got - wanted).square().mean().sqrt() < 0.02
    assert (got - waves(i, j, H, W)).square().mean().sqrt() > 0.1


@pytest.mark.parametrize("side", [1, 4, 5, 32])
def test_the_wavelet_gives_back_what_it_took(side):
    """A warp to where everything is already loses nothing but at the border, where reflected samples stand for those of
    the reflected image."""
    up, down, points = ada._filters(side, torch.device("cpu"), torch.float64)
    torch.testing.assert_close(up.sum(1), torch.ones(2 * side).double())  # a constant stays
    torch.testing.assert_close(down.sum(1), torch.ones(side).double())
    assert len(points) == 2 * side + 10
    if side == 32:
        inner = down[6:-6, 5 : 2 * side + 5] @ up
        torch.testing.assert_close(inner, torch.eye(side).double()[6:-6], rtol=0, atol=1e-9)


def homogeneous(offset=0.0, M=None):
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = T[:3, :3] if M is None else M
    T[:3, 3] = offset
    return T


def test_the_colours_of_three_channels_are_the_papers_matrices():
    x = images(30, 3, 2, 3)
    got, (u, v) = recorded(x, "color")
    grey, I = torch.full((3, 3), 1 / 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    for image, its, numbers, (b, c, s) in zip(x, got, u, v.tolist(), strict=True):
        theta, k = math.pi * (2 * float(numbers[6]) - 1), 1 / math.sqrt(3)
        cross = torch.tensor([[0, -k, k], [k, 0, -k], [-k, k, 0]], dtype=torch.float64)
        steps = [
            homogeneous(0.2 * b),
            homogeneous(M=I * 2 ** (0.5 * c)),
            homogeneous(M=I - 2 * grey * float(numbers[5] < 0.5)),
            homogeneous(M=torch.linalg.matrix_exp(theta * cross)),
            homogeneous(M=grey + (I - grey) * 2.0**s),
        ]
        T = steps[4] @ steps[3] @ steps[2] @ steps[1] @ steps[0]
        pixels = torch.cat([image.flatten(1), torch.ones(1, 6, dtype=torch.float64)])
        torch.testing.assert_close(its.flatten(1), (T @ pixels)[:3])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_what_each_colour_keeps(channels):
    x = images(6, channels, 4, 7)

    def apart(x):
        grey = x.mean(1, keepdim=True)
        return grey, x - grey

    grey, chroma = apart(x)
    close = torch.testing.assert_close
    close(forced(x, "brightness", normal={0: 1.5}), x + 0.3)
    close(forced(x, "contrast", normal={1: 2.0}), 2 * x)
    mirrored = forced(x, "luma", uniform={5: 0.1})
    close(apart(mirrored)[0], -grey)
    close(apart(mirrored)[1], chroma)
    close(forced(mirrored, "luma", uniform={5: 0.1}), x)  # an involution
    close(forced(x, "luma", uniform={5: 0.9}), x)
    close(forced(x, "saturation", normal={2: -1e9}), grey.expand_as(x))  # no colour
    close(forced(x, "saturation", normal={2: 1.0}), grey + 2 * chroma)
    turned = forced(x, "hue", uniform={6: 0.8})
    close(apart(turned)[0], grey)
    close(apart(turned)[1].norm(dim=1), chroma.norm(dim=1))
    if channels == 3:
        cosine = (apart(turned)[1] * chroma).sum(1) / chroma.square().sum(1)
        close(cosine, torch.full_like(cosine, math.cos(0.6 * math.pi)))
    else:
        assert torch.equal(turned, x)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 8, 13), (2, 16, 16)], ids=str)
def test_a_hole_is_a_box_of_half_the_sides(shape):
    x = images(200, *shape)
    got, (u,) = recorded(x, "cutout")
    _, H, W = shape
    for image, its, (_, cy, cx) in zip(x, got, u.tolist(), strict=True):
        wanted = image.clone()
        for i, j in itertools.product(range(H), range(W)):
            if abs((i + 0.5) / H - cy) < 0.25 and abs((j + 0.5) / W - cx) < 0.25:
                wanted[:, i, j] = 0
        assert torch.equal(its, wanted)


@pytest.mark.parametrize("p", [0.1, 0.6])
def test_the_share_of_changed_images_is_p(p):
    """Of those that may be drawn as they were (a flip or none) the part that was not; the rest bit for bit."""
    n, x = 1500, images(1, 3, 16, 16, dtype=torch.float32).expand(1500, -1, -1, -1)
    parts = {"flip": 1 / 2, "turn": 3 / 4, "shift": 15 / 16, "luma": 1 / 2}
    for name in (name for names in ada._GROUPS.values() for name in names):
        share, count = p * parts.get(name, 1.0), int((augmented(x, name, p=p) != x).flatten(1).any(1).sum())
        assert abs(count - n * share) < 4 * (n * share * (1 - share)) ** 0.5 + 1, name


CASES = [((n,), 3 if n == "color" else 1, 1) for n in GROUPS] + [(GROUPS, 1, 1), (GROUPS, 3, 1), (GROUPS[1:2], 1, 0.1)]


@pytest.mark.parametrize(("policy", "channels", "p"), CASES, ids=str)
def test_first_and_second_derivatives_are_finite_differences(policy, channels, p):
    x = images(4 if p < 1 else 2, channels, 4, 5).requires_grad_()
    assert (augmented(x, *policy, p=p) != x).any()
    assert gradcheck(lambda x: augmented(x, *policy, p=p), (x,))  # colours mix channels; p = .1 warps some images
    assert gradgradcheck(lambda x: augmented(x, *policy, p=p).sin(), (x,))  # affine in x: a curvature behind them


@every_group
def test_each_example_keeps_to_itself(policy):
    x = images(3, 3, 6, 5).requires_grad_()
    (slope,) = torch.autograd.grad(augmented(x, *policy)[1].square().sum(), x)
    assert slope[1].any() and not slope[[0, 2]].any()


@every_group
def test_micro_batches_see_the_same_augmentations(policy, device):
    """Of the real and then of the fake, which get other ones."""
    real, fake = images(8, 3, 8, 6, device=device), images(8, 3, 8, 6, seed=1, device=device)

    def play(rows):
        T, draw = ADA(policy, 0.7).to(device), chance(8, rows, device=device)
        return [T(x[rows], None, draw)[0] for x in (real, fake, real)]

    whole = play(slice(0, 8))
    for cuts in ((0, 4, 8), (0, 1, 6, 8)):
        parts = [play(slice(*ends)) for ends in itertools.pairwise(cuts)]
        for wanted, got in zip(whole, zip(*parts, strict=True), strict=True):
            torch.testing.assert_close(torch.cat(got), wanted, rtol=0, atol=1e-14)
    assert not torch.equal(whole[0], whole[2])


@every_group
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_images_come_back_as_they_came(policy, dtype, device):
    """In type and device, with the same numbers drawn for every type, however they lie in memory."""
    x = images(4, 3, 6, 9, dtype=torch.float32).to(device, dtype)
    before, got = torch.get_rng_state(), augmented(x, *policy)
    assert torch.equal(torch.get_rng_state(), before)  # chance comes from the draw alone
    assert got.dtype == dtype and got.device == x.device and got.shape == x.shape
    exact = augmented(x.double(), *policy)
    scale = exact.abs().max()
    assert ((got.double() - exact).abs() <= 32 * torch.finfo(dtype).eps * scale).all()
    for other in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.testing.assert_close(augmented(other, *policy), got)


def test_nothing_is_asked_of_the_numbers():
    """It runs, and is differentiated, where there are none: no loop over examples, no waiting for a device."""
    x = torch.empty(4, 3, 6, 9, device="meta", requires_grad=True)
    got, _ = ADA(GROUPS, 0.5).to("meta")(x, None, chance(4))
    (slope,) = torch.autograd.grad(got.square().sum(), x, create_graph=True)
    assert got.shape == slope.shape == x.shape and slope.is_meta


def said(real, **more):
    return {"discriminator/real_logits": torch.tensor(0.0), "discriminator/real_accuracy": torch.tensor(real), **more}


def test_p_follows_how_sure_d_is():
    """Up by the images of 4 moves over the ramp where r_t is above .6, else down; from 0 to the most."""
    T, x = ADA(ramp=1000), images(50, 1, 4, 4)
    for real, steps, wanted in ((0.9, 3, 0.0), (0.9, 1, 0.2), (0.9, 40, 0.8), (0.75, 4, 0.6), (0.3, 100, 0.0)):
        for _ in range(steps):
            T(x[:25], None, chance(50, slice(0, 25)))  # of the global batch
            T.adapt(said(real))
            T.adapt({"generator/fake_logits": torch.tensor(0.0)})  # G's move says nothing
        assert float(T.probability) == pytest.approx(wanted, abs=1e-6)
    for real in (1.0, 0.7, 1.0, 0.7):  # a mean of four, above .6
        T.adapt(said(real))
    assert float(T.probability) == pytest.approx(0.2)
    assert int(T.images) == 50 * 152


def test_p_may_be_given():
    T, x = ADA(p=Linear(0.1, 0.5, images=400)), images(100, 1, 4, 4)
    for wanted in (0.1, 0.2, 0.3, 0.4, 0.5, 0.5):
        assert float(T.probability) == pytest.approx(wanted)
        T(x, None, chance(100))
        T.adapt({"discriminator/real_logits": torch.tensor(0.0)})
    with pytest.raises(ValueError, match=r"is 2.0 at image 3, must lie in \[0, 1\]"):
        ADA(p=Linear(0, 2, images=3))._given(3)


def played(objective, joint=True, accumulate=1, p=None, rounds=3, **parts):
    torch.default_generator.manual_seed(0)
    made = toy(
        objective,
        G=nn.Sequential(mlp(3, 8, 192), nn.Tanh(), nn.Unflatten(1, (3, 8, 8))),
        D=nn.Sequential(nn.Flatten(), mlp(192, 8, 1)),
        terms=[R1(1.0)],
        augment=ADA(GROUPS, p, ramp=200, every=1, **parts),
        joint=joint,
        data=pictures(3),
        play={"accumulate": accumulate},
    )
    state = State(made.game, made.training, made.data, torch.device("cpu"))
    for _ in range(rounds):
        state.training.moves(state, state.stream)
    return state


@pytest.mark.parametrize("objective", [NonSaturating, RelativisticLogistic])
@pytest.mark.parametrize("joint", [False, True])
def test_a_game_with_r1_adapts_through_it(objective, joint):
    """The log has p and, of pairs, how often they are right; a batch in four parts is the same batch."""
    state = played(objective(), joint, target=0.01)
    p, means = float(state.game.augment.probability), state.means()
    assert p > 0 and means["discriminator/augment_p"] > 0 and math.isfinite(means["discriminator/R1"])
    assert ("discriminator/pairs_right" in means) == objective().paired
    parts = played(objective(), joint, accumulate=4, target=0.01)
    assert float(parts.game.augment.probability) == pytest.approx(p)
    for one, other in zip(state.game.parameters(), parts.game.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_an_objective_without_a_border_needs_p():
    with pytest.raises(ValueError, match=r"^ADA\(p=None\): .*, which Wasserstein's logits do not tell; .* e.g. p=0.2$"):
        played(Wasserstein())
    wgan = recipe("wgan")(example("wgan"))
    with pytest.raises(
        ValueError, match="which Wasserstein's logits do not tell"
    ):  # before anything is trained or written
        wgan.set({"augment": "ADA"}).fits(example("wgan"))
    wgan.set({"augment": {"kind": "ADA", "p": 0.2}}).fits(example("wgan"))
    assert float(played(Wasserstein(), p=0.3).game.augment.probability) == pytest.approx(0.3)


def test_a_plan_names_it():
    plan = recipe("dcgan")(example("dcgan")).set({"augment": "ADA"})
    assert repr(plan.game().augment) == repr(ADA()) and plan.augment["p"] is None
    p = {"kind": "Linear", "start": 0.0, "end": 0.3, "images": 1000}
    T = plan.set({"augment.p": p, "augment.policy": ["blit", "hue"]}).game().augment
    assert T.policy == ("blit", "hue") and T.p(500) == 0.15
    with pytest.raises(PlanError, match="did you mean geometric"):
        plan.set({"augment.policy": ["geometry"]})


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"policy": ["colour"]}, "'colour'; did you mean color?"),
        ({"policy": ["warp"]}, "'warp'; known are blit, flip, turn"),
        ({"policy": "blit,color"}, "must be a list of names, as ['blit', 'color']"),
        ({"p": 1.5}, "is 1.5 at image 0, must lie in [0, 1]"),
        ({"p": float("nan")}, "must lie in [0, 1]"),
        ({"target": 1.0}, "target=1.0"),
        ({"most": 0.0}, "most=0.0"),
        ({"ramp": 0}, "ramp=0"),
        ({"every": 0}, "every=0"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, wrong):
    with pytest.raises(ValueError) as caught:
        ADA(**arguments)
    assert str(caught.value).startswith("ADA(") and wrong in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 2), (5, 8, 8)], ids=str)
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"^ADA: got x of shape \(5, .*needs images \(B, C, H, W\)$"):
        ADA()(torch.zeros(shape), None, chance(5))


def test_p_cannot_adapt_before_either_player_sees_the_examples():
    with pytest.raises(ValueError, match=r"jitter=ADA: its p does not adapt here; give it, e.g. p=0.2"):
        Training(jitter=ADA())
    with pytest.raises(ValueError, match=r"jitter=ADA: its p cannot change here; give a number"):
        Training(jitter=ADA(p=Linear(0.0, 0.5, 1000)))
    assert Training(jitter=ADA(p=0.2)).jitter is not None
