"""DCGAN, and least squares on its networks."""

from __future__ import annotations

from typing import Any

from organza.data import Spec
from organza.nn import DCGANDiscriminator, DCGANGenerator
from organza.objective import LeastSquares, NonSaturating, Objective
from organza.optimizer import Adam
from organza.plan import Plan, part
from organza.prior import Uniform
from organza.recipes.images import pictures
from organza.training import Training

__all__ = ["dcgan", "lsgan", "networks"]


def dcgan(data: Spec, images: int = 10_000_000) -> Plan:
    """DCGAN: the first convolutional networks that trained well, by batch norm and Adam with beta1 = 0.5.

    z ~ U(-1, 1)^100 (the paper and its code; later programs take the normal law); strided convolutions only, batch
    norm but at G's output and D's input, ReLU and tanh in G, LeakyReLU 0.2 in D, weights from N(0, 0.02^2); Adam 2e-4,
    beta1 0.5, beta2 0.999, batch 128, no moving average.  Maps have 128 channels before the last layer at 64 x 64 and
    above (so G begins with 1024, as published), 64 below.  Kernels are 4 x 4, as in later programs, where the paper's
    were 5 x 5; the weight decay 2.5e-5 of the paper's MNIST code is left out.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 440 images/s; digits of all kinds after six minutes.

    References:
        Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks
        (Radford, Metz, Chintala, 2016)
    """
    return _plan("dcgan", data, images, NonSaturating(), batch=128)


def lsgan(data: Spec, images: int = 10_000_000) -> Plan:
    """LSGAN: D regresses to -1 (fake) and 1 (real), and G to 0 between them, which is Pearson's chi-squared.

    The targets a, b, c = -1, 1, 0 are those of the paper's theorem; its other choice, 0, 1, 1, is
    ``--set objective.a=0 --set objective.c=1``.  Adam 2e-4 (the paper's for characters; 1e-3 for scenes), beta1 0.5,
    batch 64, on the networks of ``dcgan``.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 390 images/s; digits of all kinds after five
    minutes.

    References:
        Least Squares Generative Adversarial Networks (Mao, Li, Xie, Lau, Wang, Smolley, 2017)
    """
    return _plan("lsgan", data, images, LeastSquares(-1.0, 1.0, 0.0), batch=64)


def networks(data: Spec, latent: int, norm: bool = True) -> dict[str, Any]:
    """Return DCGAN's pair for this data, D with batch norm or without."""
    width = 128 if min(data.shape[1:]) >= 64 else 64
    return {
        "generator": part(DCGANGenerator, latent=latent, shape=data.shape, width=width),
        "discriminator": part(DCGANDiscriminator, shape=data.shape, width=width, norm=norm),
    }


def _plan(name: str, data: Spec, images: int, objective: Objective, batch: int) -> Plan:
    pictures(name, data)
    return Plan.of(
        recipe=name,
        **networks(data, 100),
        prior=Uniform(100, -1.0, 1.0),
        objective=objective,
        training=Training(
            images=images,
            batch=batch,
            generator_optimizer=Adam(2e-4, 0.5, 0.999),
            discriminator_optimizer=Adam(2e-4, 0.5, 0.999),
            half_life=0,
        ),
    )
