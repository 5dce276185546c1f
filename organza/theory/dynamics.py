r"""How games move: the smallest ones, played by the very moves, objectives and terms that train networks.

The Dirac-GAN: the data are the point 0, G is a point theta and D(x) = psi . A x.  Both players descend their own
losses; together they follow the vector field

.. math:: v(\psi, \theta) = - (\nabla_\psi L_D, \nabla_\theta L_G),

whose zero is the equilibrium (0, 0).  Its Jacobian's eigenvalues tell what happens near it in continuous time: towards
it if all real parts are below 0, around it if they are 0.  A discrete move with learning rate h is a map F of
(psi, theta), and what counts is the largest modulus of its Jacobian's eigenvalues, the spectral radius: below 1 it
converges.  For simultaneous steps the eigenvalues of F are 1 + h lambda, so that with a purely imaginary lambda they
always leave the equilibrium; how far is not told by eigenvalues.

With the objective of Wasserstein the game is bilinear, min_theta max_psi psi . A theta.

References:
    Which Training Methods for GANs do actually Converge? (Mescheder, Geiger, Nowozin, 2018)
    The Numerics of GANs (Mescheder, Nowozin, Geiger, 2017)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from organza.game import Game
from organza.moves import Moves, Simultaneous
from organza.objective import Objective
from organza.prior import Normal
from organza.round import Batch, Draw, Player, Round
from organza.term import Term

__all__ = ["Play", "dirac", "eigenvalues", "field", "jacobian", "orbit", "place", "position", "radius", "update"]


class _Point(nn.Module):
    """G: the point theta, whatever z is."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(d, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.theta.expand(len(z), -1)  # (B, d)


class _Slope(nn.Module):
    """D: x -> psi . A x."""

    A: Tensor

    def __init__(self, A: Tensor) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.zeros(len(A), dtype=torch.float64))
        self.register_buffer("A", A)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.A.T @ self.psi  # (B, d) -> (B,)


class _Noise:
    """Instance noise of two equally likely values, +-sigma: the rule of Gauss and Hermite with two nodes.

    It is exact where D's loss is quadratic in x, and so for every eigenvalue at the equilibrium.  The two of
    a pair that is judged together get the same noise.
    """

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, x: Tensor, y: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor | None]:
        sign = x.new_tensor([1.0, -1.0]).repeat(len(x) // 2)
        return x + self.sigma * sign[:, None], y


def dirac(objective: Objective, terms: Sequence[Term] = (), noise: float = 0.0, A: Tensor | None = None) -> Game:
    """Return the Dirac-GAN of an objective with any terms, at its equilibrium (0, 0).

    Arguments:
        objective: V(D, G).
        terms: Penalties and the like.
        noise: The standard deviation of the instance noise that real and fake alike get before D sees them.
        A: How D looks at x, (m, d); the number 1 if not given.  With Wasserstein's objective it is the matrix of the
            bilinear game.
    """
    matrix = torch.ones(1, 1, dtype=torch.float64) if A is None else A.double()
    augment = _Noise(noise) if noise else None
    return Game(_Point(matrix.shape[1]), _Slope(matrix), Normal(0), objective, terms, augment)


class Play:
    """A table at which a small game is played by gradient descent (see :class:`~organza.moves.Table`).

    Arguments:
        game: The game, of :func:`dirac`.
        lr: The learning rate h: one number, or those of D and of G.
    """

    def __init__(self, game: Game, lr: float | tuple[float, float] = 0.1) -> None:
        rates = lr if isinstance(lr, tuple) else (lr, lr)
        self.game, self.steps = game, 0
        self.d = sum(w.numel() for w in game.generator.parameters())
        self.lr: dict[Player, float] = dict(zip(game.players, rates, strict=True))
        self.learnt: dict[Player, list[Tensor]] = {}

    def stream(self, player: Player) -> Iterator[Batch]:
        """Yield the data: the point 0, twice, for the two signs of the noise."""
        draw = Draw(torch.Generator().manual_seed(0), 2)
        yield Batch(torch.zeros(2, self.d, dtype=torch.float64), None, draw, 0, self.steps)

    def learn(self, player: Player, loss: Tensor, *rounds: Round, keep: bool = False) -> None:
        weights = list(self.game.players[player].parameters())
        # The graph is kept: the Jacobian of what was learnt is asked for.
        gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        self.learnt[player] = [-gradient for gradient in gradients]

    def move(self, player: Player) -> None:
        if self.lr[player]:  # else the graph of what was learnt stays whole
            with torch.no_grad():
                for weight, v in zip(self.game.players[player].parameters(), self.learnt[player], strict=True):
                    weight.add_(v, alpha=self.lr[player])
        self.steps += player == "generator"


def position(game: Game) -> Tensor:
    """Return where the players stand, (psi, theta), as one vector."""
    return torch.cat([w.detach().flatten() for net in game.players.values() for w in net.parameters()])


def place(game: Game, point: Tensor | Sequence[float]) -> Game:
    """Put the players at a point (psi, theta), and return the game."""
    rest = torch.as_tensor(point, dtype=torch.float64)
    with torch.no_grad():
        for net in game.players.values():
            for w in net.parameters():
                w.copy_(rest[: w.numel()].view_as(w))
                rest = rest[w.numel() :]
    return game


def _flow(game: Game, moves: Moves) -> Tensor:
    """What both players learn at this point, with its graph: v, (n,)."""
    table = Play(game, 0.0)
    moves(table, table.stream)
    return torch.cat([v.flatten() for player in game.players for v in table.learnt[player]])


def field(game: Game, moves: Moves | None = None) -> Tensor:
    """Return the vector field v at the players' place, (n,).

    Arguments:
        game: The game.
        moves: By which both move from the same look: ``Simultaneous`` (default), or ``Consensus``, whose field is that
            of the losses it adds to.
    """
    return _flow(game, moves or Simultaneous()).detach()


def jacobian(game: Game, moves: Moves | None = None) -> Tensor:
    """Return the Jacobian of the vector field at the players' place, (n, n), exact up to rounding."""
    v = _flow(game, moves or Simultaneous())
    weights = [w for net in game.players.values() for w in net.parameters()]
    rows = [torch.autograd.grad(each, weights, retain_graph=True, materialize_grads=True) for each in v]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def update(game: Game, moves: Moves, lr: float | tuple[float, float], step: float = 1e-3) -> Tensor:
    """Return the Jacobian of one round of moves as a map of (psi, theta), at the players' place, (n, n).

    Whatever the moves do inside is played, by differences of sixth order: the error is about 1e-12 where the losses
    are smooth.
    """
    here = position(game)
    rows = []
    for axis in torch.eye(len(here), dtype=torch.float64):
        ends = [
            _moved(game, here + k * step * axis, moves, lr) - _moved(game, here - k * step * axis, moves, lr)
            for k in (1, 2, 3)
        ]
        rows.append((45 * ends[0] - 9 * ends[1] + ends[2]) / (60 * step))
    return torch.stack(rows, 1)


def _moved(game: Game, start: Tensor, moves: Moves, lr: float | tuple[float, float]) -> Tensor:
    """Where one round of moves from ``start`` ends."""
    table = Play(place(copy.deepcopy(game), start), lr)
    moves(table, table.stream)
    return position(table.game)


def eigenvalues(game: Game, moves: Moves | None = None) -> Tensor:
    """Return the eigenvalues of the vector field's Jacobian, (n,) complex, sorted by imaginary and real part."""
    found = torch.linalg.eigvals(jacobian(game, moves)).tolist()
    found.sort(key=lambda value: (round(value.imag, 9), round(value.real, 9)))
    return torch.tensor(found, dtype=torch.complex128)


def radius(game: Game, moves: Moves, lr: float | tuple[float, float]) -> float:
    """Return the spectral radius of one round of moves at the players' place: below 1 it converges to there."""
    return float(torch.linalg.eigvals(update(game, moves, lr)).abs().max())


def orbit(game: Game, moves: Moves, lr: float | tuple[float, float], steps: int, start: Sequence[float]) -> Tensor:
    """Play from a point on, and return all positions (psi, theta), (steps + 1, n).  The game itself does not move."""
    table = Play(place(copy.deepcopy(game), start), lr)
    path = [position(table.game)]
    for _ in range(steps):
        moves(table, table.stream)
        path.append(position(table.game))
    return torch.stack(path)
