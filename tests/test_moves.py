"""organza.moves: beside Algorithm 1, and on the Dirac-GAN, where what every rule does is known.

The Dirac-GAN (Mescheder, Geiger, Nowozin 2018): the data are a point at 0, G(z) = theta, D(x) = psi x.  Near (0, 0)
the field of V is a rotation with f'(0) = 1/2.
"""

import inspect
import math

import pytest
import torch
from torch import nn

from organza import moves as module
from organza.game import Game
from organza.moves import Alternating, Consensus, Moves, Simultaneous, Unrolled
from organza.objective import Minimax, NonSaturating, RelativisticLogistic
from organza.penalty import R1, GradientPenalty
from organza.prior import Normal
from organza.round import Batch, Draw, Verdict
from organza.schedule import Bursts
from organza.term import FeatureMatching

EVERY = [
    Alternating(),
    Alternating(3),
    Alternating(2, fresh_noise=False),
    Simultaneous(),
    Unrolled(3, 0.2),
    Consensus(0.3),
]
every = pytest.mark.parametrize("moves", EVERY, ids=repr)
H = 0.1  # the learning rate


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Point(nn.Module):
    """G(z) = theta."""

    def __init__(self, theta=1.0):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([[theta]]))
        self.calls = 0

    def forward(self, z):
        self.calls += 1
        return self.theta.expand(len(z), 1)


class Table:
    """A whole table for theory: plain gradient descent, and a list of all that happens at it."""

    def __init__(self, game, data=None, micro=1, lr=H):
        self.game, self.steps, self.lr, self.micro = game, 0, lr, micro
        self.data = torch.zeros(1, 1) if data is None else data
        self.events, self.turns = [], 0
        self.gradients = {player: [torch.zeros_like(w) for w in self.weights(player)] for player in game.players}

    def weights(self, player):
        return list(self.game.players[player].parameters())

    def stream(self, player):
        self.events.append(("data", player))
        self.turns += 1
        n, chance = len(self.data), self.turns
        for i in range(self.micro):
            rows = slice(i * n // self.micro, (i + 1) * n // self.micro)
            draw = Draw(torch.Generator().manual_seed(chance), n, rows)
            yield Batch(self.data[rows], None, draw, images=0, step=self.steps)

    def learn(self, player, loss, *rounds, keep=False):
        self.events.append(("learn", player))
        gradients = torch.autograd.grad(loss, self.weights(player), retain_graph=keep)
        for total, gradient in zip(self.gradients[player], gradients, strict=True):
            total += gradient.detach()

    @torch.no_grad()
    def move(self, player):
        self.events.append(("move", player))
        for weight, gradient in zip(self.weights(player), self.gradients[player], strict=True):
            weight -= self.lr * gradient
            gradient.zero_()
        self.steps += player == "generator"


def dirac(objective=None, terms=(), theta=1.0, psi=0.0, **settings):
    D = nn.Linear(1, 1, bias=False)
    nn.init.constant_(D.weight, psi)
    return Table(Game(Point(theta), D, Normal(1), objective or Minimax(), terms), **settings)


def position(table):
    return torch.tensor([table.game.generator.theta.item(), table.game.discriminator.weight.item()])


def step(moves, start, **settings):
    table = dirac(theta=start[0].item(), psi=start[1].item(), **settings)
    moves(table, table.stream)
    return position(table)


def jacobian(moves, eps=1e-4, **settings):
    """The derivative at (0, 0) of one round, by central differences."""
    columns = [(step(moves, e, **settings) - step(moves, -e, **settings)) / (2 * eps) for e in eps * torch.eye(2)]
    return torch.stack(columns, 1)


# On the Dirac-GAN.

OBJECTIVES = pytest.mark.parametrize(
    "objective", [Minimax(), NonSaturating(), RelativisticLogistic()], ids=lambda o: type(o).__name__
)


@OBJECTIVES
def test_simultaneous_moves_spiral_out(objective):
    """The radius grows by sqrt(1 + h^2 / 4) a step for every h > 0, at the angle of a rotation by h / 2."""
    for h in (0.1, 1.0):
        eigenvalues = torch.linalg.eigvals(jacobian(Simultaneous(), objective=objective, lr=h))
        assert eigenvalues.abs() == pytest.approx(math.sqrt(1 + h**2 / 4), abs=1e-7)
        assert sorted(eigenvalues.imag) == pytest.approx([-h / 2, h / 2], abs=1e-7)


@OBJECTIVES
@pytest.mark.parametrize("k", [1, 2, 5])
def test_alternating_moves_orbit(objective, k):
    """The eigenvalues are 1 - a^2/2 +- sqrt((1 - a^2/2)^2 - 1) with a = sqrt(k) h / 2: of modulus 1."""
    eigenvalues = torch.linalg.eigvals(jacobian(Alternating(k), objective=objective))
    assert eigenvalues.abs() == pytest.approx(1.0, abs=1e-7)
    assert eigenvalues.real == pytest.approx(1 - k * H**2 / 8, abs=1e-7)


@pytest.mark.parametrize(
    ("moves", "terms", "radius"),
    [(Simultaneous(), [], 1.7558), (Alternating(), [], 0.9935), (Simultaneous(), [R1(0.3)], 9.69e-4)],
    ids=["simultaneous", "alternating", "simultaneous with R1"],
)
def test_trajectories(moves, terms, radius):
    """From (1, 0), h = 0.1, after 500 moves of each; the number for alternating ones is of G first, whose first move

    from (1, 0) is none: that is one move of G less.
    """
    table = dirac(terms=terms)
    for _ in range(500):
        before = position(table)
        moves(table, table.stream)
    end = position(table)
    if isinstance(moves, Alternating):
        end[0] = before[0]
    assert table.steps == 500
    assert end.norm().item() == pytest.approx(radius, rel=1e-3 if terms else 5e-5)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_r1_damps(gamma):
    """The field with R1 has eigenvalues -g/2 +- sqrt(g^2/4 - 1/4)."""
    field = (jacobian(Simultaneous(), terms=[R1(gamma)]) - torch.eye(2)) / H
    assert field.trace() == pytest.approx(-gamma, abs=1e-6)
    assert field.det() == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("c", [0.0, 0.3, 2.0])
def test_consensus_damps(c):
    """The field has eigenvalues -c/4 +- i/2: both players shorten it."""
    field = (jacobian(Consensus(c)) - torch.eye(2)) / H
    eigenvalues = torch.linalg.eigvals(field)
    assert eigenvalues.real == pytest.approx(-c / 4, abs=1e-6)
    assert sorted(eigenvalues.imag) == pytest.approx([-0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_unrolled_damps_through_the_imagined_steps(depth):
    """To first order psi_K = psi - K lr theta / 2 and -log s(psi_K theta) = const - psi_K theta / 2, so that

    dL_G / dtheta = -psi / 2 + K lr theta / 2; with psi_K held constant the last term would be half as large.
    """
    lr = 0.2
    seen = jacobian(Unrolled(depth, lr), objective=NonSaturating())
    d_move = torch.tensor([[1.0, 0.0], [-H / 2, 1.0]])
    g_move = torch.tensor([[1.0 - H * depth * lr / 2, H / 2], [0.0, 1.0]])
    torch.testing.assert_close(seen, g_move @ d_move, rtol=0, atol=1e-7)


# Beside the papers.


def test_alternating_is_algorithm_1():
    """for k steps: minibatches of noise and examples, update D; then a minibatch of noise, update G."""
    table = dirac()
    Alternating(k=3)(table, table.stream)
    d, g = ([(verb, player) for verb in ("data", "learn", "move")] for player in ("discriminator", "generator"))
    assert table.events == 3 * d + g
    assert table.game.generator.calls == 4  # each on fresh noise


def test_shared_noise_saves_a_pass_through_g():
    table = dirac()
    Alternating(k=3, fresh_noise=False)(table, table.stream)
    d = [(verb, "discriminator") for verb in ("data", "learn", "move")]
    assert table.events == 3 * d + [("learn", "generator"), ("move", "generator")]
    assert table.game.generator.calls == 3


@pytest.mark.parametrize("moves", [Simultaneous(), Consensus(1.0)], ids=repr)
def test_simultaneous_moves_learn_before_either_moves(moves):
    table = dirac()
    moves(table, table.stream)
    players = ("discriminator", "generator")
    assert table.events == [("data", players[0]), *[(verb, p) for verb in ("learn", "move") for p in players]]
    assert table.game.generator.calls == 1  # one look for both


def test_k_is_a_function_of_gs_moves():
    table = dirac()
    counts = []
    for _ in range(8):
        before = table.events.count(("move", "discriminator"))
        Alternating(Bursts(2, 5, first=2, every=4))(table, table.stream)
        counts.append(table.events.count(("move", "discriminator")) - before)
    assert counts == [5, 5, 2, 2, 5, 2, 2, 2]
    assert table.events.count(("move", "generator")) == 8


# On a small game with noise: dim 2, 6 examples.


def small(micro=1):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        G = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
        D = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
        data = torch.randn(6, 2)
    return Table(Game(G, D, Normal(2), NonSaturating(0.9), [R1(0.5)]), data, micro)


def after(moves, micro=1, rounds=2):
    table = small(micro)
    for _ in range(rounds):
        moves(table, table.stream)
    return [w.detach().clone() for player in table.game.players for w in table.weights(player)]


def test_every_move_is_tested():
    kinds = {k for _, k in inspect.getmembers(module, inspect.isclass) if issubclass(k, Moves)} - {Moves}
    assert kinds == {type(moves) for moves in EVERY}


@every
def test_micro_batches_add_up_to_the_whole(moves):
    begun = [w for player in small().game.players for w in small().weights(player)]
    whole = after(moves)
    assert not any(torch.equal(old, new) for old, new in zip(begun, whole, strict=True))
    for micro in (2, 3):
        torch.testing.assert_close(after(moves, micro), whole, rtol=1e-12, atol=1e-13)


def test_unrolled_by_nothing_is_alternating():
    torch.testing.assert_close(after(Unrolled(depth=0)), after(Alternating()), rtol=0, atol=0)
    torch.testing.assert_close(after(Unrolled(5, lr=0.0)), after(Alternating()), rtol=1e-12, atol=1e-14)
    assert not torch.equal(after(Unrolled(1, 0.1))[0], after(Alternating())[0])


class Features(nn.Module):
    """D of one weight: logits w x, features (w x, (w x)^2)."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        found = self.w * x
        return Verdict(found.squeeze(1), {"features": torch.cat([found, found.square()], 1)})


@pytest.mark.parametrize("term", [FeatureMatching(3.0), GradientPenalty(2.0)], ids=lambda term: term.name)
def test_looking_ahead_goes_through_all_of_a_term(term):
    """G's gradient is the derivative of what it pays by central differences, also where D's imagined steps lead to
    features of real examples, or to points between them and the fakes."""

    def paid(theta):
        torch.manual_seed(0)
        game = Game(Point(theta), Features(), Normal(1), NonSaturating(), (term,))
        table = Table(game, torch.linspace(-1.0, 2.0, 8)[:, None])
        losses, learn = {}, table.learn

        def note(player, loss, *rounds, **keep):
            losses[player] = float(loss.detach())
            learn(player, loss, *rounds, **keep)

        table.learn, table.move = note, lambda player: None
        Unrolled(3, 0.1)(table, table.stream)
        return losses["generator"], float(table.gradients["generator"][0])

    gradient, h = paid(0.4)[1], 1e-5
    assert gradient == pytest.approx((paid(0.4 + h)[0] - paid(0.4 - h)[0]) / (2 * h), rel=1e-6)


def test_unrolling_leaves_d_where_its_own_move_put_it():
    table, plain = small(), small()
    Unrolled(4, 0.5)(table, table.stream)
    Alternating()(plain, plain.stream)
    torch.testing.assert_close(table.weights("discriminator"), plain.weights("discriminator"), rtol=0, atol=0)
    assert not torch.equal(table.weights("generator")[0], plain.weights("generator")[0])


def test_consensus_of_nothing_is_simultaneous():
    torch.testing.assert_close(after(Consensus(0.0)), after(Simultaneous()), rtol=1e-12, atol=1e-14)


@every
def test_equal_moves_read_equal(moves):
    """Two runs are compared by the text of their settings."""
    again = type(moves)(*vars(moves).values())
    assert repr(again) == repr(moves)
    assert len({repr(m) for m in EVERY}) == len(EVERY)
