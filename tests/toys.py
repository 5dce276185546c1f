"""Toy games: every method that the seam must carry, as small as it can be.

A `Toy` is built by a function without arguments, which draws the networks' weights from torch's default generator
and all else from none. A new method is one entry of a table: `PLAIN` here, `CONDITIONAL` in `toys_conditional`.

Legend: B = examples in a micro-batch; z has 3 dimensions, points have 2, pictures are 8 x 8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear, normalize, one_hot

from organza.ada import ADA
from organza.data import Data
from organza.game import Game
from organza.mixture import Cells, Mixture
from organza.moves import Alternating, Consensus, Simultaneous, Unrolled
from organza.objective import (
    FGAN,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Objective,
    RelativisticLogistic,
    Scaled,
    Wasserstein,
)
from organza.optimizer import SGD, Adam, RMSprop
from organza.penalty import DRAGAN, R1, R2, Clip, GradientPenalty, MaxColumnNorm
from organza.prior import Normal, Prior, Uniform
from organza.round import Verdict
from organza.schedule import Bursts, Constant, Cosine, Exponential, Linear
from organza.term import Lazy, Term
from organza.training import Training
from organza.weighing import Advantage, Responsibilities


@dataclass
class Toy:
    """A game, how it is played and on what; and why a cut of the batch changes it, empty if it must not."""

    game: Game
    training: Training
    data: Data
    varies: str = ""


PLAY = {
    "batch": 8,
    "accumulate": 2,
    "moves": Alternating(2),
    "generator_optimizer": Adam(1e-2),
    "discriminator_optimizer": Adam(1e-2),
    "half_life": 50,
}


def toy(objective=None, G=None, D=None, prior=None, data=None, play=None, varies="", **parts) -> Toy:
    """Two perceptrons on points in the plane, except for what is given."""
    game = Game(G or mlp(3, 8, 2), D or mlp(2, 8, 1), prior or Normal(3), objective, **parts)
    return Toy(game, Training(**{**PLAY, **(play or {})}), data or points(), varies)


def mlp(*widths: int) -> nn.Sequential:
    """Linear maps with tanh between them; a logit has no bias, to which most objectives are blind."""
    layers = [(nn.Linear(a, b, bias=b > 1), nn.Tanh()) for a, b in pairwise(widths)]
    return nn.Sequential(*chain(*layers))[:-1]


def points(labelled: int = 20) -> Data:
    """20 points of 3 classes, so that batches of 8 wrap around epochs; the first are labelled, the rest not."""
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(20))
    return Data("points", x, (torch.arange(20) % 3).where(torch.arange(20) < labelled, -1))


def pictures(channels: int = 1) -> Data:
    """20 pictures of 8 x 8 in bytes."""
    shape, chance = (20, channels, 8, 8), torch.Generator().manual_seed(21)
    return Data("pictures", torch.randint(256, shape, generator=chance, dtype=torch.uint8))


class Translate:
    """Each example moved by up to one pixel each way, around the edges."""

    def __call__(self, x, y, draw):
        shift = draw(lambda n, g: torch.randint(-1, 2, (n, 2), generator=g, device=g.device))  # (B, 2)
        rows, columns = (torch.arange(8, device=x.device) + shift[:, i, None] for i in (0, 1))  # (B, 8)
        x = x.take_along_dim(rows[:, None, :, None] % 8, 2)  # (B, C, 8, 8)
        return x.take_along_dim(columns[:, None, None, :] % 8, 3), y


class Adaptive(nn.Module):
    """Flips examples with a probability p that rises while D is sure of the real ones (Karras et al., 2020)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("p", torch.tensor(0.3))

    def forward(self, x, y, draw):
        flip = draw(lambda n, g: torch.rand(n, 1, generator=g, device=g.device)) < self.p  # (B, 1)
        return x.where(~flip, -x), y

    def adapt(self, evidence):
        if "discriminator/real_score" in evidence:
            self.p = (self.p + 0.05 * (evidence["discriminator/real_score"] - 0.5).sign()).clamp(0, 1)


class Spectral(nn.Linear):
    """A linear map over its largest singular value, found by one power iteration a move (Miyato et al., 2018)."""

    def __init__(self, fan_in: int, fan_out: int):
        super().__init__(fan_in, fan_out)
        self.register_buffer("u", normalize(torch.randn(fan_out), dim=0))
        self.register_buffer("v", torch.zeros(fan_in))
        self.adapt({})

    def forward(self, x):
        return linear(x, self.weight / (self.u @ self.weight @ self.v), self.bias)

    @torch.no_grad()
    def adapt(self, evidence):
        self.v = normalize(self.weight.T @ self.u, dim=0)  # a new tensor: a shared fake's graph may hold the old
        self.u = normalize(self.weight @ self.v, dim=0)


class Judge(nn.Module):
    """D with heads: name = width. It ignores the condition, and shows its features."""

    def __init__(self, **heads: int):
        super().__init__()
        self.body, self.logit = nn.Sequential(mlp(2, 8), nn.Tanh()), mlp(8, 1)
        self.heads = nn.ModuleDict({name: nn.Linear(8, width) for name, width in heads.items()})

    def forward(self, x, y=None):
        h = self.body(x)  # (B, 8)
        return Verdict(self.logit(h), {name: head(h) for name, head in self.heads.items()})


class Codes(Prior):
    """z = (one of 3 categories as one-hot, one code in [-1, 1], 2 of noise)."""

    def draw(self, n, generator):
        where = {"generator": generator, "device": generator.device}
        category = one_hot(torch.randint(3, (n,), **where), 3)
        return torch.cat([category, 2 * torch.rand(n, 1, **where) - 1, torch.randn(n, 2, **where)], 1)  # (n, 6)


class MutualInformation(Term):
    """-E log Q(c | G(z)), Q a head of D: Q learns in D's turn, G in its own (Chen et al., 2016)."""

    def discriminator(self, round):
        said = round.fake_verdict.heads["codes"]  # (B, 4)
        return cross_entropy(said[:, :3], round.z[:, :3], reduction="none") + (said[:, 3] - round.z[:, 3]) ** 2

    generator = discriminator


class Autoencoder(nn.Module):
    """BEGAN's D: minus the error of an autoencoder."""

    def __init__(self):
        super().__init__()
        self.net = mlp(2, 8, 2)

    def forward(self, x):
        return -(self.net(x) - x).abs().mean(1)  # (B,)


class Equilibrium(Objective):
    """BEGAN: D's L(x) - k L(G(z)), where k holds L(G(z)) at gamma L(x) (Berthelot, Schumm, Metz, 2017)."""

    anchored = False

    def __init__(self, gamma: float = 0.5, rate: float = 0.1):
        super().__init__()
        self.gamma, self.rate = gamma, rate
        self.register_buffer("k", torch.tensor(0.0))

    def discriminator(self, real_logits, fake_logits):
        return self.k * fake_logits - real_logits

    def generator(self, real_logits, fake_logits):
        return -fake_logits

    def adapt(self, evidence):
        if "discriminator/real_logits" in evidence:
            real, fake = (-evidence[f"discriminator/{side}_logits"] for side in ("real", "fake"))
            self.k = (self.k + self.rate * (self.gamma * real - fake)).clamp(0, 1)


class Packed(nn.Module):
    """D judges two examples at a time (Lin et al., 2018)."""

    def __init__(self):
        super().__init__()
        self.net = mlp(4, 8, 1)

    def forward(self, x):
        return self.net(x.reshape(-1, 4))  # (B/2, 1)


class PathLength(Term):
    """How far the length of G's slope at z, along random noise, is from its running mean (Karras et al., 2020)."""

    def __init__(self, weight: float = 1.0):
        super().__init__(weight)
        self.register_buffer("mean", torch.tensor(0.0))

    def generator(self, round):
        z = round.z.detach().requires_grad_()
        x = round.generator(z)
        noise = round.draw(lambda n, g: torch.randn(n, *x.shape[1:], generator=g, device=g.device))
        (slope,) = torch.autograd.grad((x * noise).sum(), z, create_graph=True)
        lengths = slope.norm(dim=1)  # (B,)
        round.evidence["generator/path_length"] = lengths.mean().detach()
        return (lengths - self.mean) ** 2

    def adapt(self, evidence):
        if "generator/path_length" in evidence:
            self.mean = self.mean.lerp(evidence["generator/path_length"], 0.1)


def dropout() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.5), mlp(8, 1))


def batch_norm(*widths: int) -> nn.Sequential:
    first, *rest = mlp(*widths)
    return nn.Sequential(first, nn.BatchNorm1d(widths[1]), *rest)


def rpgan() -> Toy:
    """As R3GAN is trained: one look at both sides through an augmentation, and everything on a schedule."""
    return toy(
        RelativisticLogistic(),
        G=nn.Sequential(mlp(3, 8, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))),
        D=nn.Sequential(nn.Flatten(), mlp(64, 8, 1)),
        terms=[R1(Cosine(2.0, 0.2, 100)), R2(Cosine(2.0, 0.2, 100))],
        augment=Translate(),
        joint=True,
        data=pictures(),
        play={
            "half_life": Linear(0, 100, 80),
            "discriminator_optimizer": Adam(Cosine(1e-2, 1e-3, 100), 0.0, Linear(0.9, 0.99, 100)),
        },
    )


def ada() -> Toy:
    """p moves at every third move of D, and is at 0 now and then."""
    return toy(
        G=nn.Sequential(mlp(3, 8, 192), nn.Tanh(), nn.Unflatten(1, (3, 8, 8))),
        D=nn.Sequential(nn.Flatten(), mlp(192, 8, 1)),
        terms=[R1(1.0)],
        augment=ADA(("blit", "geometric", "color", "cutout"), target=0.4, ramp=100, every=3),
        data=pictures(3),
    )


def spectral() -> Toy:
    """Both players bounded, on one fake, so that G's graph outlives D's move."""
    G = nn.Sequential(Spectral(3, 8), nn.Tanh(), nn.Linear(8, 2))
    D = nn.Sequential(Spectral(2, 8), nn.Tanh(), Spectral(8, 8), nn.Tanh(), mlp(8, 1))
    return toy(Hinge(), G, D, play={"moves": Alternating(1, fresh_noise=False)})


def wgan() -> Toy:
    """k = 5, but 8 before G's first move and each tenth."""
    play = {"moves": Alternating(Bursts(5, burst=8, first=1, every=10))}
    play |= {f"{player}_optimizer": RMSprop(5e-3) for player in ("generator", "discriminator")}
    return toy(Wasserstein(), constraints=[Clip(0.3)], play=play)


def pylearn2() -> Toy:
    """The settings of the code of 2014: momentum that rises while the rate falls, norms bounded, one fake for both."""
    rule = SGD(Exponential(0.1, 1 / 1.01, 8, 1e-2), Linear(0.0, 0.7, 100))
    return toy(
        Minimax(),
        constraints=[MaxColumnNorm(0.8)],
        prior=Uniform(3, -1.7, 1.7),
        play={
            "moves": Alternating(1, fresh_noise=False),
            "generator_optimizer": rule,
            "discriminator_optimizer": rule,
            "replacement": True,
        },
    )


def callables() -> Toy:
    """Plain functions for the number of D's moves, a weight, a rate and the half-life."""
    return toy(
        terms=[R1(lambda images: 1.0 + images / 100)],
        play={
            "moves": Alternating(lambda step: 1 + step % 3),
            "generator_optimizer": Adam(lambda images: 1e-2 / (1 + images / 100)),
            "half_life": lambda images: images / 4,
        },
    )


PLAIN: dict[str, Callable[[], Toy]] = {
    "minimax": lambda: toy(Minimax()),
    "non-saturating": lambda: toy(NonSaturating(smoothing=0.9)),
    "simultaneous": lambda: toy(Minimax(), D=dropout(), play={"moves": Simultaneous()}, varies="dropout"),
    "2014": pylearn2,
    "lsgan": lambda: toy(LeastSquares()),
    "hinge": lambda: toy(Hinge()),
    "f-gan": lambda: toy(FGAN("hellinger")),
    "wgan": wgan,
    "wgan-gp": lambda: toy(Wasserstein(), terms=[GradientPenalty(10.0)]),
    "dragan": lambda: toy(Minimax(), terms=[DRAGAN(1.0)], varies="std(x) is of the micro-batch"),
    "rpgan": rpgan,
    "spectral norm": spectral,
    "infogan": lambda: toy(G=mlp(6, 8, 2), D=Judge(codes=4), prior=Codes(), terms=[MutualInformation(0.5)]),
    "mixture": lambda: toy(
        G=mlp(5, 8, 2),
        D=Judge(components=3),
        prior=Mixture(3, 2, half_life=50, after=16),
        terms=[Responsibilities()],
        joint=True,
    ),
    "cells": lambda: toy(
        G=mlp(7, 8, 2), prior=Cells((2, 3), 2, rate=0.05, after=16), terms=[Advantage((2, 3))], joint=True
    ),
    "began": lambda: toy(Equilibrium(), D=Autoencoder()),
    "pacgan": lambda: toy(D=Packed()),
    "unrolled": lambda: toy(play={"moves": Unrolled(depth=2, lr=0.1)}),
    "consensus": lambda: toy(Minimax(), play={"moves": Consensus(c=0.5)}),
    "path length": lambda: toy(terms=[PathLength(Constant(0.5))]),
    "lazy": lambda: toy(terms=[Lazy(R1(0.5), every=3), Lazy(PathLength(0.5), every=2)]),
    "adaptive": lambda: toy(augment=Adaptive(), joint=True),
    "ada": ada,
    "shared fakes": lambda: toy(play={"moves": Alternating(2, fresh_noise=False)}),
    "accumulation": lambda: toy(Scaled(Hinge(), d=0.5), terms=[R1(1.0), R1(Constant(2.0))], play={"accumulate": 4}),
    "whole batch": lambda: toy(play={"accumulate": 1, "half_life": 0}),
    "batch norm": lambda: toy(G=batch_norm(3, 8, 2), D=batch_norm(2, 8, 1), varies="batch statistics"),
    "callables": callables,
}
