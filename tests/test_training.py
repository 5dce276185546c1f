"""Settings of a training that only the whole loop shows: G's own batch, the gradients it logs, older checkpoints."""

import pytest
import torch
from torch import nn
from toys import points

from organza.data import open_data
from organza.device import pick_device
from organza.game import Game
from organza.moves import Alternating
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.optimizer import SGD
from organza.prior import Normal
from organza.training import State, Training, fit


class Counts(nn.Linear):
    """A network that remembers how many rows it was given."""

    def forward(self, x):
        self.rows = [*getattr(self, "rows", []), len(x)]
        return super().forward(x)


def state(**changes) -> State:
    torch.manual_seed(0)
    game = Game(Counts(3, 2), Counts(2, 1), Normal(3))
    rule = SGD(0.1)
    settings = {"batch": 8, "generator_optimizer": rule, "discriminator_optimizer": rule, "half_life": 0, **changes}
    return State(game, Training(images=1000, **settings), points(), pick_device("cpu"))


def test_g_has_a_batch_of_its_own() -> None:
    """SNGAN: 5 moves of D with 8 examples, then one of G with 12; only D's are counted as images."""
    s = state(generator_batch=12, moves=Alternating(5))
    s.training.moves(s, s.stream)
    assert s.game.generator.rows == [8] * 5 + [12]
    assert s.game.discriminator.rows == [8] * 10 + [12]
    assert (s.images, s.steps) == (40, 1)


def test_g_s_batch_may_be_cut() -> None:
    """The shares of three micro-batches of G add up to its whole batch."""
    whole, cut = (state(generator_batch=12, accumulate=parts) for parts in (1, 4))
    for each in (whole, cut):
        each.training.moves(each, each.stream)
    assert cut.game.generator.rows == [2] * 4 + [3] * 4
    for a, b in zip(whole.game.parameters(), cut.game.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"generator_batch": -1}, "generator_batch=-1: must be 0 or more"),
        ({"generator_batch": 10, "accumulate": 4}, "accumulate=4: must divide generator_batch=10"),
    ],
)
def test_a_wrong_batch_of_g_is_one_line(changes, said) -> None:
    with pytest.raises(ValueError, match=said):
        state(**changes)


def test_the_log_has_the_norm_of_each_gradient() -> None:
    """By plain gradient descent the step is the rate times the gradient."""
    s = state()
    before = {p: [w.detach().clone() for w in net.parameters()] for p, net in s.game.players.items()}
    s.training.moves(s, s.stream)
    for player, network in s.game.players.items():
        moved = [(a - b).flatten() for a, b in zip(network.parameters(), before[player], strict=True)]
        torch.testing.assert_close(s.sums[f"{player}/gradient"], torch.cat(moved).norm().detach() / 0.1)


def test_the_average_is_only_read() -> None:
    """The players are the same to the last bit whatever half-life their average has."""
    plain, averaged = state(), state(half_life=1e6)
    for each in (plain, averaged):
        for _ in range(5):
            each.training.moves(each, each.stream)
    for a, b in zip(plain.game.parameters(), averaged.game.parameters(), strict=True):
        assert torch.equal(a, b)
    for follows, lags in zip(plain.average.parameters(), averaged.average.parameters(), strict=True):
        assert not torch.equal(follows, lags)


def test_a_checkpoint_from_before_a_setting_existed_is_taken() -> None:
    s = state()
    record = s.record()
    del record["training"]["generator_batch"]
    state().restore(s.tensors(), record)
    with pytest.raises(ValueError, match="generator_batch=4, not 0"):
        record["training"]["generator_batch"] = "4"
        state().restore(s.tensors(), record)


@pytest.mark.parametrize("shape", [(3,), (2, 16)])
def test_networks_of_a_program_see_its_own_numbers(shape: tuple[int, ...]) -> None:
    """`fit` scales no vectors and signals, unless they come as a `Data` that says so."""
    x = 100 + 5 * torch.randn(64, *shape, generator=torch.Generator().manual_seed(0))

    def seen(data: object) -> torch.Tensor:
        found: list[torch.Tensor] = []
        game = Game(MLPGenerator(2, shape, (4,), output="linear"), MLPDiscriminator(shape, (4,)), Normal(2))
        game.discriminator.register_forward_pre_hook(lambda module, given: found.append(given[0].detach()))
        fit(game, data, images=64, batch=64, device="cpu", sample_every=0)
        return found[0]

    order = seen(x).flatten(1)
    assert torch.equal(order[order[:, 0].argsort()], x.flatten(1)[x.flatten(1)[:, 0].argsort()])
    assert float(seen(open_data(x)).mean().abs()) < 0.1


def test_an_optimizer_of_pytorch_is_told() -> None:
    with pytest.raises(ValueError, match=r"generator_optimizer: got Adam, needs the settings of one, as organza"):
        Training(generator_optimizer=torch.optim.Adam([torch.zeros(1, requires_grad=True)]))
