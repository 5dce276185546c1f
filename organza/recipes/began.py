"""BEGAN: an autoencoder for a discriminator."""

from __future__ import annotations

from organza.data import Spec
from organza.energy import BoundaryEquilibrium
from organza.nn import BEGANDiscriminator, BEGANGenerator
from organza.optimizer import Adam
from organza.plan import Plan, part
from organza.prior import Uniform
from organza.recipes.images import pictures
from organza.schedule import Exponential
from organza.training import Training

__all__ = ["began"]


def began(data: Spec, images: int = 5_000_000) -> Plan:
    """BEGAN: D is an autoencoder, and a factor k_t keeps its errors on real and fake in the ratio gamma.

    z ~ U(-1, 1)^64 and a code of 64; 128 filters; gamma 0.5, lambda_k 1e-3, batch 16; each player draws its own z, and
    k follows D's (the paper: G's).  Adam 1e-4 with betas 0.5 and 0.999, halved at every 100,000th step, is a widespread
    TensorFlow program's; the paper lowers the rate when its measure of convergence stalls.

    These networks are heavy for a CPU: ``--set generator.filters=32 --set discriminator.filters=32``.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 65 images/s with 32 filters; one blot after six
    minutes.

    References:
        BEGAN: Boundary Equilibrium Generative Adversarial Networks (Berthelot, Schumm, Metz, 2017)
    """
    pictures("began", data)
    rule = Adam(Exponential(1e-4, 0.5, per=16 * 100_000, stairs=True), 0.5, 0.999)
    return Plan.of(
        recipe="began",
        generator=part(BEGANGenerator, latent=64, shape=data.shape, filters=128),
        discriminator=part(BEGANDiscriminator, shape=data.shape, hidden=64, filters=128),
        prior=Uniform(64, -1.0, 1.0),
        objective=BoundaryEquilibrium(0.5, 1e-3),
        joint=True,
        training=Training(
            images=images,
            batch=16,
            generator_optimizer=rule,
            discriminator_optimizer=rule,
            half_life=0,
        ),
    )
