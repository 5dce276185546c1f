"""Wasserstein GANs: by clipping, and by a penalty on the slope."""

from __future__ import annotations

from organza.data import Spec
from organza.moves import Alternating
from organza.objective import Wasserstein
from organza.optimizer import Adam, RMSprop
from organza.penalty import Clip, GradientPenalty
from organza.plan import Plan
from organza.prior import Normal
from organza.recipes.dcgan import networks
from organza.recipes.images import pictures
from organza.schedule import Bursts
from organza.training import Training

__all__ = ["wgan", "wgan_gp"]


def wgan(data: Spec, images: int = 20_000_000) -> Plan:
    """WGAN: a critic with clipped weights estimates the Wasserstein distance; 5 moves of D for one of G.

    z ~ N(0, 1)^100, the networks of ``dcgan`` (batch norm in D too, as in the code), RMSprop 5e-5, batch 64, weights
    clipped to [-0.01, 0.01], and in the code 100 moves of D in each of the first 25 rounds and every 500th.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 760 images/s; four minutes are 104 moves of G, and
    grey still.

    References:
        Wasserstein GAN (Arjovsky, Chintala, Bottou, 2017)
    """
    pictures("wgan", data)
    return Plan.of(
        recipe="wgan",
        **networks(data, 100),
        prior=Normal(100),
        objective=Wasserstein(),
        constraints=(Clip(0.01),),
        training=Training(
            images=images,
            batch=64,
            moves=Alternating(Bursts(5, 100, 25, 500)),
            generator_optimizer=RMSprop(5e-5),
            discriminator_optimizer=RMSprop(5e-5),
            half_life=0,
        ),
    )


def wgan_gp(data: Spec, images: int = 20_000_000) -> Plan:
    """WGAN-GP: the critic's slope is held near 1 between real and generated images, without clipping.

    z ~ N(0, 1)^128, lambda 10, 5 moves of D for one of G, Adam 1e-4 with betas 0.5 and 0.9, batch 64 (the code's MNIST
    program takes 50), no batch norm in D.  These are the numbers of the code's convolutional programs; its residual
    one for CIFAR-10 takes 2e-4, 0 and 0.9 with a linear decay.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 320 images/s; rough digits after nine minutes.

    References:
        Improved Training of Wasserstein GANs (Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, 2017)
    """
    pictures("wgan-gp", data)
    return Plan.of(
        recipe="wgan-gp",
        **networks(data, 128, norm=False),
        prior=Normal(128),
        objective=Wasserstein(),
        terms=(GradientPenalty(10.0),),
        joint=True,
        training=Training(
            images=images,
            batch=64,
            moves=Alternating(5),
            generator_optimizer=Adam(1e-4, 0.5, 0.9),
            discriminator_optimizer=Adam(1e-4, 0.5, 0.9),
            half_life=0,
        ),
    )
