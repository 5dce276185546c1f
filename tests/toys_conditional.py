"""Toy games in which y matters: labels, some of them unknown, and pictures. See `toys`."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from toys import PLAIN, Judge, Toy, mlp, pictures, points, toy

from organza.data import Data
from organza.objective import Hinge, LeastSquares, NonSaturating, Scaled
from organza.prior import Normal
from organza.replay import ImagePool
from organza.round import Verdict
from organza.term import Cycle, Identity, Reconstruction, Term


class Concatenated(nn.Module):
    """A network of its input and the label as one-hot (Mirza and Osindero, 2014)."""

    def __init__(self, *widths: int):
        super().__init__()
        self.net = mlp(widths[0] + 3, *widths[1:])

    def forward(self, x, y):
        return self.net(torch.cat([x, one_hot(y, 3).to(x)], 1))


class Projected(nn.Module):
    """D(x, y) = a(h) + <b_y, h>, h the features of x (Miyato and Koyama, 2018)."""

    def __init__(self):
        super().__init__()
        self.body, self.a, self.b = nn.Sequential(mlp(2, 8), nn.Tanh()), mlp(8, 1), nn.Embedding(3, 8)

    def forward(self, x, y):
        h = self.body(x)  # (B, 8)
        return self.a(h) + (self.b(y) * h).sum(1, keepdim=True)  # (B, 1)


class Classification(Term):
    """The cross-entropy of the labels that are known, on the real, or also on the fake (AC-GAN: Odena et al., 2017)."""

    def __init__(self, fakes: bool):
        super().__init__()
        self.fakes = fakes

    def discriminator(self, round):
        real = self.entropy(round.real_verdict, round.y)
        return real + self.entropy(round.fake_verdict, round.y) if self.fakes else real

    def generator(self, round):
        return self.entropy(round.fake_verdict, round.y) if self.fakes else None

    def entropy(self, verdict, y):
        return cross_entropy(verdict.heads["classes"], y, reduction="none", ignore_index=-1)  # (B,), 0 if unlabelled


class OneMore(nn.Module):
    """D over K classes and "fake", whose logit is fixed at 0 (Salimans et al., 2016)."""

    def __init__(self):
        super().__init__()
        self.body, self.classes = nn.Sequential(mlp(2, 8), nn.Tanh()), nn.Linear(8, 3)

    def forward(self, x):
        h = self.body(x)  # (B, 8)
        classes = self.classes(h)  # (B, K)
        return Verdict(classes.logsumexp(1), {"classes": classes, "features": h})


class FeatureMatching(Term):
    """The squared distance of D's mean features on real and fake (Salimans et al., 2016)."""

    paired = True

    def generator(self, round):
        real, fake = (v.heads["features"].mean(0) for v in (round.real_verdict, round.fake_verdict))
        return (real - fake) ** 2


class UNet(nn.Module):
    """Down to 4 x 4, up again beside what was seen on the way down; its only chance is dropout."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 4, 2, 1), nn.ConvTranspose2d(4, 3, 4, 2, 1)
        self.last = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, z, y):
        h = self.up(nn.functional.dropout(self.down(y).tanh(), 0.5, self.training)).tanh()  # (B, 3, 8, 8)
        return self.last(torch.cat([h, y], 1)).tanh()


class Patches(nn.Module):
    """One logit a patch of (x, y)."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 4, 4, 2, 1), nn.Tanh(), nn.Conv2d(4, 1, 2))

    def forward(self, x, y):
        return self.net(torch.cat([x, y], 1)).squeeze(1)  # (B, 3, 3)


class Translators(nn.Module):
    """From the pair y = (a, b) the pair (G_A(b), G_B(a)): the product game's one generator."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 1)) for _ in "ab")

    def forward(self, z, y):
        a, b = y.chunk(2, 1)
        return torch.cat([self.a(b), self.b(a)], 1)  # (B, 2, 8, 8)


class Judges(nn.Module):
    """D_A on the first of the pair, D_B on the second."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Conv2d(1, 3, 4, 2, 1), nn.Tanh(), nn.Conv2d(3, 1, 2)) for _ in "ab")

    def forward(self, x, y):
        a, b = x.chunk(2, 1)
        return torch.cat([self.a(a), self.b(b)], 1)  # (B, 2, 3, 3)


def pairs(channels: int) -> Data:
    """Pictures x with a picture each as condition."""
    x = pictures(channels).gather(torch.arange(20))[0].to(torch.get_default_dtype())
    return Data("pairs", x, x.roll(3, 0))


def semisupervised() -> Toy:
    return toy(
        Scaled(NonSaturating(), g=0.0),
        D=OneMore(),
        terms=[Classification(fakes=False), FeatureMatching()],
        data=points(labelled=12),
        varies="the distance of means is not linear in the batch",
    )


def pix2pix() -> Toy:
    return toy(
        NonSaturating(),
        UNet(),
        Patches(),
        Normal(0),
        pairs(1),
        terms=[Reconstruction(10.0)],
        conditional=True,
        varies="dropout",
    )


def cyclegan() -> Toy:
    return toy(
        LeastSquares(0, 1, 1),
        Translators(),
        Judges(),
        Normal(0),
        pairs(2),
        terms=[Cycle(10.0), Identity(5.0)],
        replay=ImagePool(20),
        conditional=True,
    )


CONDITIONAL: dict[str, Callable[[], Toy]] = {
    "concatenated": lambda: toy(G=Concatenated(3, 8, 2), D=Concatenated(2, 8, 1), conditional=True),
    "projected": lambda: toy(Hinge(), Concatenated(3, 8, 2), Projected(), conditional=True, joint=True),
    "ac-gan": lambda: toy(
        Hinge(), Concatenated(3, 8, 2), Judge(classes=3), terms=[Classification(fakes=True)], conditional=True
    ),
    "semi-supervised": semisupervised,
    "pix2pix": pix2pix,
    "cyclegan": cyclegan,
}
TOYS = PLAIN | CONDITIONAL
