r"""Who moves when.

A move is a step of one player's optimizer along the gradient of its own loss, to its own parameters alone.  Moves are
given a :class:`Table`, which holds the game and the optimizers, and a stream of micro-batches for each player's turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import functional_call

from organza.game import Game
from organza.round import Batch, Player, Round
from organza.schedule import at

__all__ = ["Alternating", "Consensus", "Moves", "Simultaneous", "Table", "Unrolled"]

Stream = Callable[[Player], Iterable[Batch]]


class Table(Protocol):
    """Where the game is played: what moves need of a training state (and theory of its own)."""

    game: Game
    steps: int

    def learn(self, player: Player, loss: Tensor, *rounds: Round, keep: bool = False) -> None:
        """Add the gradient of the loss to the player's own parameters, and the rounds' evidence to the move's.

        ``keep`` keeps the graph for another call.
        """

    def move(self, player: Player) -> None:
        """Take the player's step along the gradient it has learnt."""


class Moves(ABC):
    """One round of the game, from D's first move to G's last.

    Attributes:
        whole: Whether a turn must see the whole batch at once, so that several processes cannot share it.
        through: Whether G learns through what D is shown in D's turn, so that these must be G's own newest fakes.
    """

    whole = False
    through = False

    @abstractmethod
    def __call__(self, table: Table, data: Stream) -> None: ...

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in vars(self).items())})"


class Alternating(Moves):
    """Algorithm 1: k moves of D, each on fresh examples and noise, then one move of G.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), Algorithm 1

    Arguments:
        k: D's moves per move of G, at least 1: a number, or a function of G's moves so far.
        fresh_noise: G's move draws its own z (Algorithm 1, line 7).  If False it takes the fakes that D has just
            seen, which saves a pass through G: the rule of the 2014 code and of many programs since.
    """

    def __init__(self, k: int | Callable[[int], float] = 1, fresh_noise: bool = True) -> None:
        if not callable(k) and k < 1:
            raise ValueError(f"Alternating(k={k}): D must move at least once before G")
        self.k, self.fresh_noise = k, fresh_noise

    def __call__(self, table: Table, data: Stream) -> None:
        game = table.game
        for _ in range(max(1, int(at(self.k, table.steps)))):  # for k steps do
            seen = []
            for batch in data("discriminator"):  # examples x, and noise z
                with torch.set_grad_enabled(not self.fresh_noise):
                    z, fake = game.generate(batch)
                round = game.look(batch, z, fake.detach(), "discriminator")
                table.learn("discriminator", game.loss(round, "discriminator"), round)
                if not self.fresh_noise:
                    seen.append((batch, z, fake))
            table.move("discriminator")  # ascend its stochastic gradient
        fresh = ((batch, *game.generate(batch)) for batch in data("generator"))
        for batch, z, fake in fresh if self.fresh_noise else seen:
            round = game.look(batch, z, fake, "generator")
            table.learn("generator", game.loss(round, "generator"), round)
        table.move("generator")  # descend its own


class Simultaneous(Moves):
    """Both players move at once, from the same look: the same examples, noise and dropout masks.

    The step of the 2014 code (cost ``AdversaryCost2``), and the one whose linearisation theory studies.
    """

    through = True

    def __call__(self, table: Table, data: Stream) -> None:
        game = table.game
        for batch in data("discriminator"):
            z, fake = game.generate(batch)
            round = game.look(batch, z, fake, "discriminator")
            table.learn("discriminator", game.loss(round, "discriminator"), keep=True)
            table.learn("generator", game.loss(round, "generator"), round)
        table.move("discriminator")
        table.move("generator")


class Unrolled(Moves):
    """G moves against the D that D would become in ``depth`` more steps, and differentiates through those steps.

    References:
        Unrolled Generative Adversarial Networks (Metz, Poole, Pfau, Sohl-Dickstein, 2017)

    Arguments:
        depth: The steps of D that G looks ahead, 0 or more.
        lr: The learning rate of these imagined steps of gradient descent.
    """

    whole = through = True  # the steps ahead follow the gradient of all examples

    def __init__(self, depth: int = 5, lr: float = 1e-2) -> None:
        if depth < 0:
            raise ValueError(f"Unrolled(depth={depth}): must be 0 or more")
        self.depth, self.lr = depth, lr

    def __call__(self, table: Table, data: Stream) -> None:
        game = table.game
        for batch in data("discriminator"):
            with torch.no_grad():
                z, fake = game.generate(batch)
            round = game.look(batch, z, fake, "discriminator")
            table.learn("discriminator", game.loss(round, "discriminator"), round)
        table.move("discriminator")
        made = [(batch, *game.generate(batch)) for batch in data("generator")]
        weights: dict[str, Tensor] = {n: w for n, w in game.discriminator.named_parameters() if w.requires_grad}
        for _ in range(self.depth):
            rounds = [game.look(*each, "discriminator", _with_weights(game.discriminator, weights)) for each in made]
            loss = _paid(game, rounds, "discriminator")
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
            weights = {name: w - self.lr * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
        rounds = [game.look(*each, "generator", _with_weights(game.discriminator, weights)) for each in made]
        table.learn("generator", _paid(game, rounds, "generator"), *rounds)
        table.move("generator")


def _paid(game: Game, rounds: list[Round], player: Player) -> Tensor:
    """What the player pays for all micro-batches together."""
    return torch.stack([game.loss(round, player) for round in rounds]).sum()


def _with_weights(network: torch.nn.Module, weights: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The network as a function, with other weights."""
    return lambda *inputs: functional_call(network, dict(weights), inputs)


class Consensus(Moves):
    r"""Simultaneous moves that also shorten the game's vector field v: each loss gains :math:`c \tfrac12 \|v\|^2`.

    References:
        The Numerics of GANs (Mescheder, Nowozin, Geiger, 2017)

    Arguments:
        c: The weight of the squared length.
    """

    whole = through = True  # a square of sums

    def __init__(self, c: float = 10.0) -> None:
        self.c = c

    def __call__(self, table: Table, data: Stream) -> None:
        game = table.game
        weights = {p: [w for w in network.parameters() if w.requires_grad] for p, network in game.players.items()}
        rounds = [game.look(b, *game.generate(b), "discriminator") for b in data("discriminator")]
        losses = {p: _paid(game, rounds, p) for p in weights}
        field = [torch.autograd.grad(losses[p], weights[p], create_graph=True, materialize_grads=True) for p in weights]
        length = 0.5 * torch.stack([v.square().sum() for part in field for v in part]).sum()
        table.learn("discriminator", losses["discriminator"] + self.c * length, keep=True)
        table.learn("generator", losses["generator"] + self.c * length, *rounds)
        table.move("discriminator")
        table.move("generator")
