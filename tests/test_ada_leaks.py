"""organza.ada: whether transforms that D is shown come to be drawn by G."""

import pytest
import torch
from torch import nn
from toys import mlp, toy

from organza.ada import ADA
from organza.data import Data
from organza.moves import Alternating
from organza.objective import RelativisticLogistic
from organza.optimizer import Adam
from organza.penalty import R1, R2
from organza.prior import Normal
from organza.training import State


def prototypes():
    """A third of the picture in one of three colours, at one of its four edges, (12, 3, 8, 8)."""
    x = torch.full((3, 3, 8, 8), -0.4)
    x[:, :, 3:] = -0.6
    x[range(3), range(3), :3] = 0.8
    return torch.stack([each.rot90(k, (1, 2)) for each in x for k in range(4)])


def shares(x):
    """How many are nearest to each prototype."""
    nearest = (x[:, None] - prototypes()).square().flatten(2).sum(2).argmin(1)
    return torch.bincount(nearest, minlength=12) / len(x)


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.6, 1.0])
def test_what_d_is_shown_does_not_leak_below_p_of_one(p):
    """70 % red above, 30 % blue below: so are the samples at p = .6, and at p = 1 nothing tells G which way is up."""
    torch.default_generator.manual_seed(0)
    which = torch.where(torch.rand(2000) < 0.7, 0, 10)
    x = (prototypes()[which] + 0.05 * torch.randn(2000, 3, 8, 8)).clamp(-1, 1)
    law = shares(x)
    torch.testing.assert_close(law, torch.bincount(which, minlength=12) / 2000)
    made = toy(
        RelativisticLogistic(),
        G=nn.Sequential(mlp(8, 64, 64, 192), nn.Tanh(), nn.Unflatten(1, (3, 8, 8))),
        D=nn.Sequential(
            nn.Flatten(),
            nn.Linear(192, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 1),
        ),
        prior=Normal(8),
        terms=[R1(0.5), R2(0.5)],
        augment=ADA(["turn", "hue"], p),
        joint=True,
        data=Data("bars", x),
        play={"batch": 64, "accumulate": 1, "moves": Alternating(1), "half_life": 5000}
        | {f"{player}_optimizer": Adam(1e-3, 0.0, 0.99) for player in ("generator", "discriminator")},
    )
    state = State(made.game, made.training, made.data, torch.device("cpu"))
    while state.images < 80_000:
        state.training.moves(state, state.stream)
    distance = (shares(state.model().sample(1000, seed=1)) - law).abs().sum() / 2
    assert distance < 0.06 if p < 1 else distance > 0.3
