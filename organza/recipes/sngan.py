"""SNGAN: spectral normalisation."""

from __future__ import annotations

from organza.data import Spec
from organza.moves import Alternating
from organza.nn import ResNetDiscriminator, ResNetGenerator
from organza.objective import Hinge
from organza.optimizer import Adam
from organza.plan import Plan, part
from organza.prior import Normal
from organza.recipes.images import pictures
from organza.schedule import Linear
from organza.training import Training

__all__ = ["sngan"]


def sngan(data: Spec, images: int = 16_000_000) -> Plan:
    """SNGAN: every layer of D divided by its largest singular value; residual networks and the hinge objective.

    z ~ N(0, 1)^128; 256 channels in G, 128 in D; 5 moves of D for one of G, D's batch 64, G's 128; Adam 2e-4 with betas
    0 and 0.9, the rate falling linearly to 0 at the end of the run (50,000 moves of G, as published for CIFAR-10).
    One power iteration follows each move, where the paper's code makes one in every pass through D.

    These networks are heavy for a CPU: ``--set generator.width=32 --set discriminator.width=32``.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 200 images/s with a width of 32; strokes and rough
    digits after ten minutes.

    References:
        Spectral Normalization for Generative Adversarial Networks (Miyato, Kataoka, Koyama, Yoshida, 2018)
    """
    pictures("sngan", data)
    rule = Adam(Linear(2e-4, 0.0, images=images), 0.0, 0.9)
    return Plan.of(
        recipe="sngan",
        generator=part(ResNetGenerator, latent=128, shape=data.shape, width=256),
        discriminator=part(ResNetDiscriminator, shape=data.shape, width=128),
        prior=Normal(128),
        objective=Hinge(),
        joint=True,
        training=Training(
            images=images,
            batch=64,
            generator_batch=128,
            moves=Alternating(5),
            generator_optimizer=rule,
            discriminator_optimizer=rule,
            half_life=0,
        ),
    )
