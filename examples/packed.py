"""PacGAN: D judges m examples at once, so that a G without variety is seen at a glance.

PacGAN: The power of two samples in generative adversarial networks (Lin, Khetan, Fanti, Oh, 2018)
"""

from torch import nn

import organza as oz


class Packed(nn.Module):
    """D(x_1, ..., x_m): each run of m rows of the batch is one input."""

    def __init__(self, network: nn.Module, m: int) -> None:
        super().__init__()
        self.network, self.m = network, m

    def forward(self, x):
        return self.network(x.reshape(len(x) // self.m, -1))  # (B, d) -> (B / m, m d) -> (B / m, 1)


def main(run: str = "runs/packed", images: int = 400_000, m: int = 2) -> oz.Model:
    G = nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    D = nn.Sequential(nn.Linear(2 * m, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
    game = oz.Game(G, Packed(D, m), prior=oz.Normal(2))
    return oz.fit(game, data="ring", images=images, batch=64, run=run)


if __name__ == "__main__":
    main()
