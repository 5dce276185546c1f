"""Every recipe: complete, honest in its first line, and in little it trains, resumes to the same bits and samples."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from organza import perceptual
from organza.data import Data, Spec, open_data
from organza.game import Game
from organza.plan import Plan
from organza.pretrained import translates
from organza.recipes import MINUTES, RECIPES, example, recipe, reduced
from organza.recipes.r3gan import gamma, widths
from organza.round import Batch, Draw
from organza.run import Run
from organza.training import fit

DIGITS, COLOUR = Spec((1, 28, 28), 100, 10), Spec((3, 32, 32), 100, 2)
ODD, POINTS = Spec((3, 33, 20), 50, 0, (4,)), Spec((2,), 100, 3)  # with labels, or four numbers, as conditions
SIGNALS = Spec((2, 50), 100, 3)
PICTURES = {"goodfellow2014-cifar10-conv", "dcgan", "lsgan", "wgan", "wgan-gp", "sngan", "began"}
PICTURES |= {"r3gan-tiny", "r3gan-small", "r3gan", "conditional", "acgan", "infogan", "semi-supervised", "joint"}
PAIRS = ("pix2pix", "pix2pix-small", "pix2pix-perceptual")
JOINED = ("cyclegan", "cyclegan-small")
PICTURES |= {*PAIRS, *JOINED, "stacked-mnist"}
every = pytest.mark.parametrize("name", RECIPES)


def of_its_kind(name: str, data: Spec) -> Spec:
    """The data as the recipe asks for them: with an image each as condition, or two sets joined."""
    if name in PAIRS:
        return replace(data, condition=(2, *data.shape[1:]))
    both = (2 * data.shape[0], *data.shape[1:])
    return replace(data, shape=both, condition=both, joined=True) if name in JOINED else data


def sizes(plan: Plan) -> tuple[int, int]:
    """The parameters of G and D."""
    with torch.device("meta"):
        game: Game = plan.game()
    return sum(w.numel() for w in game.generator.parameters()), sum(w.numel() for w in game.discriminator.parameters())


@every
@pytest.mark.parametrize(
    "data", [DIGITS, COLOUR, ODD, POINTS, SIGNALS], ids=["digits", "colour", "odd", "points", "signals"]
)
def test_every_recipe_fits_every_kind_of_data(name: str, data: Spec) -> None:
    if len(data.shape) < 3 and name in PICTURES:
        with pytest.raises(ValueError, match=rf"recipe {name} is for images .* the data are .*; try --recipe quick"):
            RECIPES[name](data)
        return
    data = of_its_kind(name, data)
    plan = RECIPES[name](data, 6400)
    plan.fits(data)
    assert plan.recipe == name and plan.training["images"] == 6400
    assert Plan.read(json.loads(json.dumps(plan.json()))) == plan


def test_quick_plays_harder_for_more_coordinates() -> None:
    def of(*shape: int) -> tuple[float, int]:
        plan = RECIPES["quick"](Spec(shape, 100))
        assert plan.terms[0]["weight"] == plan.terms[1]["weight"]
        return plan.terms[0]["weight"], plan.generator["widths"][0]

    assert of(2) == of(1, 4, 4) == (0.02, 128)
    assert of(5) == (pytest.approx(0.05), 128) and of(1, 64) == (pytest.approx(0.64), 256)


def test_modes_fills_as_many_dimensions_as_the_data_and_goes_from_coarse_to_fine() -> None:
    plan = RECIPES["modes"](Spec((3,), 100), 1000)
    gamma = plan.terms[0]["weight"]
    assert gamma == plan.terms[1]["weight"] and gamma["per"] == 600  # a 10,000th after six tenths of the images
    assert gamma["start"] * gamma["factor"] == pytest.approx(gamma["floor"]) == 1.5e-5
    assert plan.prior["noise"] == plan.generator["skip"] == 8 and gamma["start"] == pytest.approx(0.15)
    assert RECIPES["modes"](Spec((12,), 100), 1000).prior["noise"] == 12


def test_modes_slows_g_down_before_it_weighs() -> None:
    plan = RECIPES["modes"](Spec((2,), 100), 1000)
    G, D = (plan.training[f"{player}_optimizer"]["lr"] for player in ("generator", "discriminator"))
    assert G["images"] == 600 < D["images"] == 900 and D["end"] == pytest.approx(100 * G["end"])
    assert plan.prior["after"] == 500


@every
def test_the_docstring_says_what_it_is(name: str) -> None:
    text = RECIPES[name].__doc__ or ""
    first = text.split("\n")[0]
    assert 20 < len(first) < 120 and first.endswith(".")
    assert "References:" in text or name in ("tiny", "mlp", "mlp-literal")
    assert set(MINUTES) <= set(RECIPES)


def test_a_wrong_name_is_one_line() -> None:
    with pytest.raises(ValueError, match="recipe 'wgan_gp' is unknown; did you mean wgan-gp"):
        recipe("wgan_gp")


@pytest.fixture(scope="module")
def pictures() -> Data:
    """40 digits, so that epochs wrap; as images the digits' own size."""
    return open_data("digits[:40]")


def trainable(name: str) -> None:
    """Skip the test of a recipe whose weights, those of a network that teaches, are not installed."""
    if name == "pix2pix-perceptual":
        try:
            perceptual.network(torch.device("cpu"))
        except ValueError as missing:
            pytest.skip(str(missing))


OTHERS = dict.fromkeys(PAIRS, "digits[:4] from edges") | dict.fromkeys(JOINED, "digits[:4] and digits[4:7]")


@every
def test_trains_resumes_to_the_same_bits_and_samples(name: str, pictures: Data, tmp_path) -> None:
    """In little, with every part and schedule: cut after three rounds and continued, against never stopped."""
    trainable(name)
    pictures = open_data(OTHERS[name]) if name in OTHERS else pictures
    plan = reduced(RECIPES[name](pictures.spec, 6400)).set({"training.log_every": 8, "training.sample_every": 0})
    rounds = 0

    def cut(after: int):
        def watch(state) -> bool:
            nonlocal rounds
            rounds += 1
            return rounds >= after

        return watch

    ends = {}
    for folder, cuts in (("whole", (6,)), ("cut", (3, 3))):
        for after in cuts:
            rounds = 0
            model = fit(plan.game(), pictures, plan.play(), run=tmp_path / folder, watch=cut(after), device="cpu")
        groups, record, damage = Run(tmp_path / folder).load()
        assert not damage and record["steps"] == 6
        ends[folder] = {f"{g}/{n}": value for g, tensors in groups.items() for n, value in tensors.items()}
    assert ends["whole"].keys() == ends["cut"].keys()
    assert all(torch.equal(value, ends["cut"][n]) for n, value in ends["whole"].items())
    y = pictures.gather(torch.arange(4))[1]
    drawn = model.sample(4, seed=1, y=y)
    assert drawn.shape == (4, *pictures.spec.shape) and drawn.isfinite().all()
    start = plan.game().generator.state_dict()
    assert any(not torch.equal(value, start[n]) for n, value in model.generator.state_dict().items())


def test_the_networks_of_2014_have_their_published_sizes() -> None:
    """MNIST by the paper's code (recipes.md A3); the others by arithmetic from their layers."""
    assert sizes(RECIPES["goodfellow2014"](DIGITS)) == sizes(RECIPES["algorithm1"](DIGITS)) == (2_503_984, 1_231_441)

    def dense(*layers: int) -> int:
        return sum(a * b + b for a, b in pairwise(layers))

    def maxout(inside: int, units: int) -> int:
        return dense(inside, 5 * units) + dense(units, 5 * units) + dense(units, 1)

    faces = Spec((1, 48, 48), 100)
    assert sizes(RECIPES["goodfellow2014-tfd"](faces)) == (dense(100, 8000, 8000, 2304), maxout(2304, 1200))
    assert sizes(RECIPES["goodfellow2014-cifar10"](COLOUR)) == (dense(100, 8000, 8000, 3072), maxout(3072, 1600))
    # 33 -> 16 -> 15 -> 7 -> 9 -> 5: the code's own partial sums, 33 and 15, are the sides of its convolutions
    conv = 64 * 3 * 64 + 64 + 64 * 32 * 64 + 64 + 384 * 32 * 25 + 384 + dense(192 * 5 * 5, 2500) + dense(500, 1)
    up = dense(100, 8000, 8000) + 80 * 3 * 5 * 5 + 3 * 32 * 32  # with a bias at every pixel
    assert sizes(RECIPES["goodfellow2014-cifar10-conv"](COLOUR)) == (up, conv)


def test_sngan_has_its_published_size() -> None:
    g = 128 * 4096 + 4096 + 3 * (2 * (9 * 256**2 + 256) + 256**2 + 256 + 4 * 256) + 2 * 256 + 9 * 256 * 3 + 3
    first = 9 * 3 * 128 + 128 + 9 * 128**2 + 128 + 3 * 128 + 128
    d = first + 3 * 2 * (9 * 128**2 + 128) + 128**2 + 128 + 128 + 1
    assert sizes(RECIPES["sngan"](COLOUR)) == (g, d) == (4_276_739, 1_053_825)


def test_r3gan_has_the_published_widths_and_size() -> None:
    assert widths((3, 256, 256), 768, 24_576) == (768, 768, 768, 768, 384, 192, 96)
    assert sizes(RECIPES["r3gan"](Spec((3, 256, 256), 70_000))) == (23_057_952, 23_009_568)
    assert sizes(RECIPES["r3gan"](Spec((3, 64, 64), 70_000))) == (22_429_824, 22_381_440)
    assert gamma((3, 64, 64), 256) == 2.0 and gamma((3, 256, 256), 256) == pytest.approx(150, rel=0.2)


def test_numbers_of_the_papers() -> None:
    """Those that a reader would look up, in the plans as they are built."""
    p = RECIPES["goodfellow2014"](DIGITS)
    rule, prior = p.play().generator_optimizer, p.game().prior
    assert rule.lr(0) == 0.1 and rule.lr(100 * 173_287) == pytest.approx(0.05, rel=1e-6)  # type: ignore[attr-defined]
    assert [rule.momentum(50_000 * e) for e in (0, 1, 250, 300)] == pytest.approx([0.5, 0.5, 0.7, 0.7])  # type: ignore[attr-defined]
    z = prior.draw(100_000, torch.Generator().manual_seed(0))
    assert z.var() == pytest.approx(1.0, abs=0.01) and z.abs().max() <= 3**0.5
    assert RECIPES["algorithm1"](DIGITS).objective == {"kind": "Minimax", "smoothing": 1.0}
    k = RECIPES["wgan"](DIGITS).play().moves.k  # type: ignore[attr-defined]
    assert [k(i) for i in (0, 24, 25, 499, 500)] == [100, 100, 5, 5, 100]
    half = RECIPES["sngan"](DIGITS, 1000).play().generator_optimizer.lr(500)  # type: ignore[attr-defined]
    assert half == pytest.approx(1e-4)
    rate = RECIPES["began"](DIGITS).play().generator_optimizer.lr  # type: ignore[attr-defined]
    assert [rate(16 * i) for i in (0, 99_999, 100_000)] == [1e-4, 1e-4, 5e-5]


def test_an_untrained_generator_of_2014_makes_the_mean_image(pictures: Data) -> None:
    """Its output biases start at the logits of the mean pixels."""
    from organza.device import pick_device
    from organza.training import State

    plan = RECIPES["goodfellow2014"](pictures.spec)
    state = State(plan.game(), plan.play(), pictures, pick_device("cpu"))
    end = state.game.generator.end
    torch.testing.assert_close(2 * end.bias.sigmoid() - 1, pictures.mean.flatten(), rtol=0, atol=1e-5)  # type: ignore[union-attr]
    torch.testing.assert_close(state.average.end.bias, end.bias)  # type: ignore[union-attr]
    state.game.prime(lambda: torch.zeros(1, 28, 28))  # a G that is no longer fresh is left alone
    torch.testing.assert_close(2 * end.bias.sigmoid() - 1, pictures.mean.flatten(), rtol=0, atol=1e-5)  # type: ignore[union-attr]


def test_pix2pix_and_cyclegan_have_their_published_sizes() -> None:
    assert sizes(RECIPES["pix2pix"](example("pix2pix")))[1] == 2_768_705
    assert sizes(RECIPES["cyclegan"](example("cyclegan"))) == (2 * 11_378_179, 2 * 2_764_737)
    plan = RECIPES["pix2pix"](example("pix2pix"))
    rate = plan.play().generator_optimizer.lr  # type: ignore[attr-defined]
    assert [rate(400 * epoch) for epoch in (0, 100, 150, 200)] == pytest.approx([2e-4, 2e-4, 1e-4, 0])
    assert plan.training["images"] == 200 * 400 and plan.training["batch"] == 1


def test_l1_alone_is_a_setting() -> None:
    """Then D's verdict leaves no trace in G's loss."""
    data = Spec((1, 28, 28), 4, condition=(1, 28, 28))
    game = reduced(RECIPES["pix2pix"](data)).set({"objective.g": 0}).game()
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = Batch(x, -x, Draw(torch.Generator(), 2), 0, 0)
    z, fake = game.generate(batch)
    loss = game.loss(game.look(batch, z, fake, "generator"), "generator")
    torch.testing.assert_close(loss, 100 * (fake - x).abs().mean())


def test_cyclegan_weighs_as_the_paper_does() -> None:
    """Half the sum over domains of (D(G) - 1)^2 + 10 |cycle| + 5 |identity|, and for D of the mean of its squares."""
    data = Spec((2, 28, 28), 4, condition=(2, 28, 28), joined=True)
    game = reduced(RECIPES["cyclegan"](data)).game()
    y = torch.rand(2, 2, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = Batch(y, y, Draw(torch.Generator().manual_seed(0), 2), 0, 0)
    z, fake = game.generate(batch)
    G, D = game.generator, game.discriminator
    (a, b), (fake_a, fake_b) = y.chunk(2, 1), fake.chunk(2, 1)
    loss = game.loss(game.look(batch, z, fake, "generator"), "generator")
    cycle = (G.a(z, fake_b) - a).abs().mean() + (G.b(z, fake_a) - b).abs().mean()
    same = (G.a(z, a) - a).abs().mean() + (G.b(z, b) - b).abs().mean()
    fooled = (D.a(fake_a) - 1).square().mean() + (D.b(fake_b) - 1).square().mean()
    torch.testing.assert_close(loss, 0.5 * (fooled + 10 * cycle + 5 * same))
    loss = game.loss(game.look(batch, z, fake, "discriminator"), "discriminator")
    real = (D.a(a) - 1).square().mean() + (D.b(b) - 1).square().mean()
    false = D.a(fake_a).square().mean() + D.b(fake_b).square().mean()
    torch.testing.assert_close(loss, 0.5 * 0.5 * (real + false))
    assert len(game.replay.fakes) == 2  # type: ignore[union-attr]


def test_the_dropout_of_the_first_conditional_gan_is_drawn_with_z() -> None:
    plan = RECIPES["cgan2014"](replace(DIGITS, classes=10))
    masks = sum(plan.game().generator.sizes[1:])  # type: ignore[arg-type, misc]
    assert plan.prior == {"kind": "Uniform", "dim": 100 + masks, "low": 0.0, "high": 1.0} and masks == 2400


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("pix2pix", "digits[:4]", "recipe pix2pix is for pairs of images, 'X from Y', as in 'photos from maps'"),
        ("pix2pix", "digits[:4] and digits[4:8]", "the data are two unpaired sets; try --recipe cyclegan"),
        ("cyclegan", "digits[:4] from edges", "'photos and maps'; the data are pairs; try --recipe pix2pix"),
        ("cyclegan-small", "digits[:4] from edges", "the data are pairs; try --recipe pix2pix-small"),
        ("cyclegan", "digits[:4]", "recipe cyclegan is for two sets of images, 'A and B'"),
    ],
)
def test_data_of_another_kind_are_refused_in_one_line(name: str, source: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        RECIPES[name](open_data(source).spec)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@every
def test_only_those_from_images_to_images_translate(name: str) -> None:
    """By the plan, which a report and a model card go by, and by the network itself, which `organza translate` asks."""
    data = of_its_kind(name, DIGITS)
    plan = RECIPES[name](data)
    with torch.device("meta"):
        live = getattr(plan.game().generator, "condition", None)
    assert translates(plan.generator) == (live is not None) == (name in (*PAIRS, *JOINED))


@every
@pytest.mark.slow
def test_every_generator_is_exported_for_batches_of_any_size(name: str) -> None:
    """And what it keeps from one call to the next is none of the compiler's: it is called as before afterwards."""
    data = example(name)
    game = reduced(recipe(name)(data)).game()

    def given(n: int) -> tuple[torch.Tensor, ...]:
        y = data.blank(n) if game.conditional else None
        z = game.prior.draw(n, torch.Generator().manual_seed(n))
        return (z,) if y is None else (z, y)

    G, batch = game.generator.eval(), torch.export.Dim("batch")
    program = torch.export.export(G, given(4), dynamic_shapes=({0: batch},) * len(given(4)))
    torch.testing.assert_close(program.module()(*given(7)), G(*given(7)))
