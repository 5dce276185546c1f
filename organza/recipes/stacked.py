"""Stacked MNIST: a thousand modes, which a GAN reaches or loses."""

from __future__ import annotations

from dataclasses import replace

from organza.data import Spec
from organza.nn import DCGANDiscriminator, DCGANGenerator
from organza.objective import RelativisticLogistic
from organza.penalty import R1, R2
from organza.plan import Plan, part
from organza.prior import Normal
from organza.recipes.images import pictures
from organza.recipes.quick import brief
from organza.term import Lazy

__all__ = ["stacked_mnist"]


def stacked_mnist(data: Spec, images: int = 3_000_000) -> Plan:
    """Three digits as the colours of an image, 1,000 modes: the small networks of ``quick``, playing RpGAN.

    The data are ``mnist[stacked=128000]``; the networks mix the colours in every layer and see no labels.  R1 and R2
    are taken at every 8th move of G: so short a run comes further with twice as many, smaller batches than with both
    penalties at every move, and further than with ``quick``'s own objective (docs/log.md).

    References:
        Unrolled Generative Adversarial Networks (Metz, Poole, Pfau, Sohl-Dickstein, 2017)
        PacGAN: The power of two samples in generative adversarial networks (Lin, Khetan, Fanti, Oh, 2018)
        The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
    """
    pictures("stacked-mnist", data)
    return Plan.of(
        recipe="stacked-mnist",
        generator=part(DCGANGenerator, latent=64, shape=data.shape, width=32),
        discriminator=part(DCGANDiscriminator, shape=data.shape, width=32, norm=False, dense=128, kernel=3),
        prior=Normal(64),
        objective=RelativisticLogistic(),
        terms=(Lazy(R1(0.5), every=8), Lazy(R2(0.5), every=8)),
        joint=True,
        training=replace(brief(images), sample_every=100_000),
    )
