"""Networks that compute in bfloat16: all else stays in float32, and nothing else changes."""

import pytest
import torch
from test_recipes import OTHERS, trainable
from test_seam import copy, differing
from torch import nn

from organza.data import open_data
from organza.game import Game
from organza.nn import bilinear
from organza.nn.layers import Fourier, SpectralLinear
from organza.plan import PlanError
from organza.prior import Normal
from organza.recipes import RECIPES, reduced
from organza.round import Batch, Draw
from organza.training import State

pytestmark = pytest.mark.usefixtures("as_trained")

FAST = ("quick", "mlp", "dcgan", "wgan-gp", "began", "infogan", "pix2pix-small")
NAMES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in RECIPES]


def built(name, device, precision, **changes):
    trainable(name)
    data = open_data(OTHERS.get(name, "digits[:40]"))
    plan = reduced(RECIPES[name](data.spec, 6400)).set({"precision": precision, **changes})
    return State(plan.game(), plan.play(), data, device)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_cut_and_continued_comes_to_the_same_bits(name, device) -> None:
    states = [built(name, device, "bfloat16") for _ in range(2)]
    for _ in range(2):
        states[0].training.moves(states[0], states[0].stream)
    line, saved = states[0].means(), copy(states[0])
    kinds = {tensor.dtype for group in states[0].tensors().values() for tensor in group.values()}
    assert torch.bfloat16 not in kinds and all(abs(value) < 1e6 for value in line.values())
    states[1].restore(*saved)
    for state in states:
        state.training.moves(state, state.stream)
    assert differing(copy(states[0])[0], copy(states[1])[0]) == []


@pytest.mark.parametrize("name", ["quick", "r3gan-tiny"])
def test_slopes_are_those_of_float32_but_for_rounding(name, device) -> None:
    """Those of both players, R1 and R2 included.  (At first those of real and fake images are nearly opposite.)"""
    slopes = {}
    for precision in ("float32", "bfloat16"):
        state = built(name, device, precision)
        for player in state.game.players:
            (batch,) = state.stream(player)
            z, fake = state.game.generate(batch)
            round = state.game.look(batch, z, fake, player)
            assert fake.dtype == round.fake_verdict.logits.dtype == torch.float32
            loss = state.game.loss(round, player)
            state.learn(player, loss, round)
            grads = [w.grad.flatten() for w in state.weights[player] if w.grad is not None]
            slopes[precision, player] = torch.cat(grads)
            assert loss.dtype == slopes[precision, player].dtype == torch.float32
    for player in ("discriminator", "generator"):
        exact, lower = slopes["float32", player], slopes["bfloat16", player]
        assert not torch.allclose(exact, lower, rtol=1e-4, atol=0), player
        assert torch.cosine_similarity(exact, lower, dim=0) > 0.97, player


def test_terms_that_ask_g_again_ask_it_in_bfloat16(device) -> None:
    state, kinds = built("cyclegan", device, "bfloat16"), []
    for module in state.game.generator.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, given, made: kinds.append(made.dtype))
    state.training.moves(state, state.stream)
    assert len(kinds) > 0 and set(kinds) == {torch.bfloat16}


@pytest.mark.parametrize("layer", [Fourier(2, 8), SpectralLinear(3, 4)])
def test_what_needs_all_digits_keeps_them(layer) -> None:
    """The phases of waves, and the largest singular value, are those of float32."""
    seen = []
    if isinstance(layer, Fourier):
        x = torch.randn(64, 2)
        with torch.autocast("cpu", torch.bfloat16):
            seen = [layer(x)]
        seen.append(layer(x))
    else:
        sigma = next(m for m in layer.modules() if type(m).__name__ == "_LargestSingularValue")
        with torch.autocast("cpu", torch.bfloat16):
            seen = [sigma(layer.weight)]
        seen.append(sigma(layer.weight))
    assert seen[0].dtype == torch.float32 and torch.equal(*seen)


def test_networks_of_your_own_compute_so_too(device) -> None:
    kinds = []

    class Spy(nn.Module):
        def forward(self, x):
            kinds.append(x.dtype)
            return x

    G = nn.Sequential(nn.Linear(3, 8), Spy(), nn.ReLU(), nn.Linear(8, 2)).to(device)
    D = nn.Sequential(nn.Linear(2, 8), Spy(), nn.ReLU(), nn.Linear(8, 1)).to(device)
    game = Game(G, D, Normal(3), precision="bfloat16")
    batch = Batch(torch.randn(4, 2, device=device), None, Draw(torch.Generator(device), 4), 0, 0)
    z, fake = game.generate(batch)
    game.loss(game.look(batch, z, fake, "generator"), "generator").backward()
    assert kinds == [torch.bfloat16] * 2 and fake.dtype == torch.float32
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in G.parameters())


def test_another_precision_is_refused() -> None:
    G, D = nn.Linear(3, 2), nn.Linear(2, 1)
    with pytest.raises(ValueError, match="precision='half': must be float32 or bfloat16"):
        Game(G, D, Normal(3), precision="half")
    with pytest.raises(PlanError, match=r"precision: .*'float32' or 'bfloat16'.*'half'"):
        RECIPES["mlp"](open_data("digits[:40]").spec, 64).set({"precision": "half"})


def test_a_convolution_of_one_pixel_is_a_product_of_matrices(monkeypatch, device) -> None:
    """As on a GPU in bfloat16: the value, and derivatives of the first and second order."""
    torch.manual_seed(0)
    x = torch.randn(3, 8, 5, 6, dtype=torch.float64).to(device, memory_format=torch.channels_last).requires_grad_()
    w, b = (torch.randn(*shape, dtype=torch.float64, device=device).requires_grad_() for shape in ((4, 8, 1, 1), (4,)))

    def derivatives():
        y = bilinear.conv2d(x, w, b)
        (slope,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        return y, *torch.autograd.grad(slope.square().sum(), (x, w, b))

    found = {}
    for product in (False, True):
        monkeypatch.setattr(bilinear, "_by_product", lambda x, form, product=product: product)
        found[product] = derivatives()
    for one, other in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(one, other)
    assert found[True][0].is_contiguous(memory_format=torch.channels_last)
