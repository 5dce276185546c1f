"""Moves of your own: G looks ahead at the D that D would become in a few more steps, but by a rule you write.

The package has ``oz.Unrolled``; this one takes a single step ahead and shows all that a new rule needs.

Unrolled Generative Adversarial Networks (Metz, Poole, Pfau, Sohl-Dickstein, 2017)
"""

from functools import partial

import torch
from torch import nn
from torch.func import functional_call

import organza as oz


class LookAhead(oz.Moves):
    def __init__(self, lr: float = 0.1) -> None:
        self.lr = lr

    def __call__(self, table, data):
        game = table.game
        for batch in data("discriminator"):
            z, fake = game.generate(batch)
            round = game.look(batch, z, fake.detach(), "discriminator")
            table.learn("discriminator", game.loss(round, "discriminator"), round)
        table.move("discriminator")
        weights = dict(game.discriminator.named_parameters())
        for batch in data("generator"):
            z, fake = game.generate(batch)
            now = game.loss(game.look(batch, z, fake, "discriminator"), "discriminator")
            slopes = torch.autograd.grad(now, list(weights.values()), create_graph=True)
            ahead = {name: w - self.lr * s for (name, w), s in zip(weights.items(), slopes, strict=True)}
            round = game.look(batch, z, fake, "generator", partial(functional_call, game.discriminator, ahead))
            table.learn("generator", game.loss(round, "generator"), round)
        table.move("generator")


def main(run: str = "runs/unrolled", images: int = 200_000) -> oz.Model:
    G = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2))
    D = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1))
    return oz.fit(oz.Game(G, D, prior=oz.Normal(2)), data="ring", images=images, moves=LookAhead(), run=run)


if __name__ == "__main__":
    main()
