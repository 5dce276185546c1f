"""Every recipe: complete, honest in its first line, and in little it trains, resumes to the same bits and samples."""

import json
from itertools import pairwise

import pytest
import torch

from organza.data import Data, Spec, open_data
from organza.game import Game
from organza.plan import Plan
from organza.recipes import MINUTES, RECIPES, recipe, reduced
from organza.recipes.r3gan import gamma, widths
from organza.run import Run
from organza.training import fit

DIGITS, COLOUR = Spec((1, 28, 28), 100, 10), Spec((3, 32, 32), 100, 2)
ODD, POINTS = Spec((3, 33, 20), 50, 0, (4,)), Spec((2,), 100, 3)  # with labels, or four numbers, as conditions
SIGNALS = Spec((2, 50), 100, 3)
PICTURES = {"goodfellow2014-cifar10-conv", "dcgan", "lsgan", "wgan", "wgan-gp", "sngan", "began"}
PICTURES |= {"r3gan-tiny", "r3gan-small", "r3gan", "conditional", "acgan", "infogan", "semi-supervised", "joint"}
every = pytest.mark.parametrize("name", RECIPES)


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


@every
def test_trains_resumes_to_the_same_bits_and_samples(name: str, pictures: Data, tmp_path) -> None:
    """In little, with every part and schedule: cut after three rounds and continued, against never stopped."""
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
    drawn = model.sample(5, seed=1, y=pictures.y[:5])
    assert drawn.shape == (5, 1, 28, 28) and drawn.isfinite().all()
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
