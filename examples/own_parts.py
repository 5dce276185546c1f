"""Your own networks and objective, in 15 lines."""

import torch
from torch import nn

import organza as oz


class Exponential(oz.Objective):
    def discriminator(self, real_logits, fake_logits):
        return torch.exp(-real_logits) + torch.exp(fake_logits)

    def generator(self, real_logits, fake_logits):
        return torch.exp(-fake_logits)


def main(run: str = "runs/own-parts", images: int = 100_000) -> oz.Model:
    G = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))
    D = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    game = oz.Game(G, D, prior=oz.Normal(2), objective=Exponential(), terms=[oz.R1(0.1)])
    return oz.fit(game, data="ring", images=images, run=run)


if __name__ == "__main__":
    print(main().sample(4))
