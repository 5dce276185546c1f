"""BEGAN as your own objective: D is an autoencoder, and k_t balances the two players.

L(x) = |D(x) - x|; D lowers L(x) - k L(G(z)), G lowers L(G(z)), and k <- clip(k + lambda (gamma L(x) - L(G(z)))).
The buffer k is part of the game's state, so it survives a resume without another line.

BEGAN: Boundary Equilibrium Generative Adversarial Networks (Berthelot, Schumm, Metz, 2017)
"""

import torch
from torch import nn

import organza as oz


class Autoencoder(nn.Module):
    """D(x): minus the reconstruction error of each example, so that higher is more real."""

    def __init__(self, pixels: int, code: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, code), nn.ELU(), nn.Linear(code, pixels))

    def forward(self, x):
        return -(self.layers(x) - x.flatten(1)).abs().mean(1)  # (B, C, H, W) -> (B,)


class Equilibrium(oz.Objective):
    anchored = False

    def __init__(self, gamma: float = 0.5, rate: float = 1e-3) -> None:
        super().__init__()
        self.gamma, self.rate = gamma, rate
        self.register_buffer("k", torch.zeros(()))

    def discriminator(self, real_logits, fake_logits):
        return -real_logits + self.k * fake_logits

    def generator(self, real_logits, fake_logits):
        return -fake_logits

    def adapt(self, evidence):
        if "discriminator/real_logits" in evidence:  # D's move
            real, fake = -evidence["discriminator/real_logits"], -evidence["discriminator/fake_logits"]
            self.k = (self.k + self.rate * (self.gamma * real - fake)).clamp(0, 1)


def main(run: str = "runs/began", images: int = 200_000) -> oz.Model:
    G = nn.Sequential(nn.Linear(32, 256), nn.ELU(), nn.Linear(256, 28 * 28), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
    game = oz.Game(G, Autoencoder(28 * 28), prior=oz.Uniform(32), objective=Equilibrium())
    return oz.fit(game, data="digits", images=images, batch=16, run=run)


if __name__ == "__main__":
    main()
