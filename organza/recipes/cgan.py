"""The first conditional GAN, and a small modern one."""

from __future__ import annotations

from organza.data import Spec
from organza.moves import Simultaneous
from organza.nn import (
    CGANDiscriminator,
    CGANGenerator,
    DCGANDiscriminator,
    DCGANGenerator,
)
from organza.objective import NonSaturating, Scaled
from organza.optimizer import SGD
from organza.penalty import R1
from organza.plan import Plan, part
from organza.prior import Normal, Uniform
from organza.recipes.images import conditioned, pictures
from organza.recipes.quick import brief
from organza.schedule import Exponential, Linear
from organza.term import Classification, Lazy, Term
from organza.training import Training

__all__ = ["acgan", "cgan2014", "conditional"]

_EPOCH = 50_000  # MNIST without its last 10,000 training images


def cgan2014(data: Spec, images: int = 250 * _EPOCH) -> Plan:
    """The first conditional GAN, of Mirza and Osindero: noise and label by layers of their own, then a joint one.

    z ~ U(0, 1)^100; G: z -> 200 and y -> 1000 rectifiers, both -> 1200, then 784 sigmoids; D: x -> 240 maxout units of
    5 pieces and y -> 50, both -> 240 of 4 pieces; 2,413,984 and 1,224,351 parameters.  Dropout of a half in both
    players; batch 100; learning rate .1 divided by 1.00004 at every update, at least 1e-6; momentum from .5 to .7.

    Dropout stays on in use, its masks part of z, which has 2,400 numbers for them after the 100 (see
    :class:`~organza.nn.CGANGenerator`): whether the authors sampled so, they do not say, but without it there is no
    variety to sample.

    What the paper leaves open is as in ``goodfellow2014``: both move at once, G's loss does not saturate, weights from
    U(-.05, .05) and U(-.005, .005), output biases at the logits of the mean pixels.

    References:
        Conditional Generative Adversarial Nets (Mirza and Osindero, 2014)
    """
    classes = conditioned("cgan2014", data)
    picture = len(data.shape) == 3
    rule = SGD(Exponential(0.1, 1 / 1.00004, 100, 1e-6), Linear(0.5, 0.7, images=249 * _EPOCH, hold=_EPOCH))
    output = "sigmoid" if picture else "linear"
    latent = 100 + 200 + 1000 + 1200  # the paper's, and a mask for each hidden unit
    return Plan.of(
        recipe="cgan2014",
        generator=part(CGANGenerator, latent=latent, shape=data.shape, classes=classes, output=output),
        discriminator=part(CGANDiscriminator, shape=data.shape, classes=classes, pixels=picture),
        prior=Uniform(latent, 0.0, 1.0),
        objective=Scaled(NonSaturating(), d=0.5),
        conditional=True,
        joint=True,
        training=Training(
            images=images,
            batch=100,
            moves=Simultaneous(),
            generator_optimizer=rule,
            discriminator_optimizer=rule,
            half_life=0,
        ),
    )


def conditional(data: Spec, images: int = 500_000) -> Plan:
    """The networks of ``quick`` with labels: beside z in G, by a projection in D.

    References:
        cGANs with Projection Discriminator (Miyato and Koyama, 2018)
        Which Training Methods for GANs do actually Converge? (Mescheder, Geiger, Nowozin, 2018)
    """
    return _plan("conditional", data, images, "projection", ())


def acgan(data: Spec, images: int = 500_000) -> Plan:
    """AC-GAN: D does not see the label but names it, of real and of fake, and G is to make that name right.

    The networks of ``quick``, the label beside z.

    References:
        Conditional Image Synthesis with Auxiliary Classifier GANs (Odena, Olah, Shlens, 2017)
    """
    return _plan("acgan", data, images, "auxiliary", (Classification(1.0),))


def _plan(name: str, data: Spec, images: int, condition: str, terms: tuple[Term, ...]) -> Plan:
    pictures(name, data)
    classes = conditioned(name, data)
    small = {"shape": data.shape, "width": 32, "classes": classes}
    return Plan.of(
        recipe=name,
        generator=part(DCGANGenerator, latent=64, **small),
        discriminator=part(DCGANDiscriminator, **small, norm=False, dense=128, kernel=3, condition=condition),
        prior=Normal(64),
        objective=NonSaturating(),
        terms=(Lazy(R1(0.5), every=8), *terms),
        conditional=True,
        joint=True,
        training=brief(images),
    )
