"""The default for small images and points: a good generator within three minutes on two cores."""

from __future__ import annotations

import math

from organza.data import Spec
from organza.mixture import Mixture
from organza.moves import Alternating
from organza.nn import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from organza.objective import NonSaturating, RelativisticLogistic
from organza.optimizer import Adam
from organza.penalty import R1, R2
from organza.plan import Plan, part
from organza.prior import Normal
from organza.recipes.images import are_pictures
from organza.schedule import Linear
from organza.term import Lazy
from organza.training import Training
from organza.weighing import Responsibilities

__all__ = ["brief", "quick"]

_LONG = 600_000  # images, from which wider networks have learned more than narrow ones in the time both take


def quick(data: Spec, images: int = 200_000) -> Plan:
    """The default: small networks that make digits within three minutes on two cores.

    Images: a small DCGAN pair, the non-saturating objective with lazy R1, one batch of fakes for both players' steps,
    small batches, a moving average of G, and a learning rate that falls to 2 % over the last quarter.  z says which of
    64 pieces to draw and, by 64 normal numbers, how: what lies between the pieces of the data need not be drawn.  How
    often each is drawn follows how often it is needed: D also tells the pieces apart, and is asked of real examples.
    From 600,000 images the networks are twice as wide; so they are in a run by the clock in which narrow ones would
    see as many.
    Other data, such as points of the plane, vectors, signals, or images below 8 x 8: perceptrons and RpGAN with R1 and
    R2, which loses no modes.

    On the built-in digits 138,000 to 150,000 images (2 minutes, two cores) gave every class 7.7 % to 13.6 % of
    1,000 samples, at a median confidence of 0.999 or more (three seeds; ``python benchmarks/digits.py --seeds 0 1 2``).
    A classifier told samples from fresh data in 50.4 % to 51.5 % of the cases for vectors of five columns, and in
    50.5 % to 50.7 % for signals of 64 steps, after 17 and 63 seconds of one core (three seeds; ``python
    examples/vectors.py SEED``, ``python examples/signals.py SEED``).

    References:
        Unsupervised Representation Learning with Deep Convolutional GANs (Radford, Metz, Chintala, 2016)
        Disconnected Manifold Learning for Generative Adversarial Networks (Khayatkhoei, Singh, Elgammal, 2018), for
        why one piece of z cannot make several of x, and for learnt weights
        Which Training Methods for GANs do actually Converge? (Mescheder, Geiger, Nowozin, 2018)
    """
    if not are_pictures(data):
        return _points(data, images)
    width = 32 if images < _LONG else 64
    small = {"shape": data.shape, "width": width}
    prior = Mixture(64, noise=64, height=5.0)
    return Plan.of(
        recipe="quick",
        generator=part(DCGANGenerator, latent=prior.dim, **small),
        discriminator=part(DCGANDiscriminator, **small, norm=False, dense=128, kernel=3, components=prior.components),
        prior=prior,
        objective=NonSaturating(),
        terms=(Lazy(R1(0.5), every=8), Responsibilities()),
        joint=True,
        training=brief(images, sample_every=20_000, held=0.75),
    )


def brief(
    images: int,
    batch: int = 32,
    betas: tuple[float, float] = (0.0, 0.99),
    labelled: bool = False,
    sample_every: int = 50_000,
    held: float = 0.5,
) -> Training:
    """How ``quick`` plays, and small networks like its own: small batches, one of fakes for both players' steps.

    The learning rate falls to 2e-5 when that share of the images has been ``held``.
    """
    hold = int(held * images)
    rule = Adam(Linear(1e-3, 2e-5, images=images - hold, hold=hold), *betas)
    return Training(
        images=images,
        batch=batch,
        moves=Alternating(fresh_noise=False),
        generator_optimizer=rule,
        discriminator_optimizer=rule,
        half_life=Linear(0, 10_000, images=100_000),
        labelled=labelled,
        sample_every=min(sample_every, max(batch, images // 8)),
    )


_FEW = 8  # coordinates, for which narrow perceptrons will do


def _points(data: Spec, images: int) -> Plan:
    rule = Adam(Linear(1e-3, 2e-5, images=images - images // 2, hold=images // 2), beta1=0.0, beta2=0.99)
    images_of_few_pixels, d = len(data.shape) == 3, math.prod(data.shape)
    output = "tanh" if images_of_few_pixels else "linear"
    # Squared distances between standardised examples grow as d does, and slopes, squared, fall so.
    gamma = 0.02 if images_of_few_pixels else 0.01 * d
    widths = (128 if images_of_few_pixels or d <= _FEW else 256,) * 3
    return Plan.of(
        recipe="quick",
        generator=part(MLPGenerator, latent=16, shape=data.shape, widths=widths, output=output),
        discriminator=part(MLPDiscriminator, shape=data.shape, widths=widths),
        prior=Normal(16),
        objective=RelativisticLogistic(),
        terms=(R1(gamma), R2(gamma)),
        joint=True,
        training=Training(
            images=images,
            batch=128,
            generator_optimizer=rule,
            discriminator_optimizer=rule,
            half_life=Linear(0, 20_000, images=200_000),
            sample_every=100_000,
        ),
    )
