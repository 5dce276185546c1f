"""The multilayer perceptrons that courses and tutorials train on MNIST."""

from __future__ import annotations

from organza.data import Spec
from organza.moves import Alternating
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import NonSaturating, Scaled
from organza.optimizer import Adam
from organza.plan import Plan, part
from organza.prior import Normal
from organza.training import Training

__all__ = ["mlp", "mlp_literal", "tiny"]


def mlp(data: Spec, images: int = 6_000_000) -> Plan:
    """The lecture's Keras program: perceptrons 100-256-512-1024-784 against 784-1024-512-256-1.

    LeakyReLU 0.2, tanh, dropout 0.3 in D, Glorot's initialisation, z ~ N(0, 1)^100 shared by both players' steps,
    targets 0.9 and 0, reals drawn with replacement, D's loss the mean over the joined 2B examples, Adam with
    learning rate 2e-4 and beta1 0.5 for both, batch 128.  G is not averaged, as in the program.

    The lecture's code gives G another optimizer (see ``mlp_literal``); this is the one its text means.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 1,100 images/s on a busy machine; speckled digits of
    all kinds after nine minutes.
    """
    return _program(data, images, Adam(2e-4, 0.5, 0.999, 1e-7), "mlp")


def mlp_literal(data: Spec, images: int = 6_000_000) -> Plan:
    """The same program as its code stands: G's Adam keeps Keras's defaults 1e-3 and 0.9, and modes collapse.

    Kept as a patient: total collapse was seen within 10 minutes on 2 cores.
    """
    return _program(data, images, Adam(1e-3, 0.9, 0.999, 1e-7), "mlp-literal")


def tiny(data: Spec, images: int = 6_000_000) -> Plan:
    """The tiny program of tutorials: one hidden layer each, 100-256-784 against 784-256-1.

    ReLU in both, sigmoid outputs, z ~ N(0, 1)^100 drawn once for both players' steps, Adam 2e-4 for both with the
    usual betas 0.9 and 0.999, batch 128, no smoothing, no dropout, no averaging.  Weights are Glorot's; programs of
    this kind differ here.  D is shown x in [-1, 1], where theirs sees [0, 1].

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 10,400 images/s; rough, speckled digits after three
    minutes.
    """
    return Plan.of(
        recipe="tiny",
        generator=part(
            MLPGenerator,
            latent=100,
            shape=data.shape,
            widths=(256,),
            hidden="relu",
            output="sigmoid" if len(data.shape) == 3 else "linear",
        ),
        discriminator=part(MLPDiscriminator, shape=data.shape, widths=(256,), hidden="relu"),
        prior=Normal(100),
        objective=NonSaturating(),
        joint=True,
        training=Training(
            images=images,
            batch=128,
            moves=Alternating(fresh_noise=False),
            generator_optimizer=Adam(2e-4, 0.9, 0.999),
            discriminator_optimizer=Adam(2e-4, 0.9, 0.999),
            half_life=0,
        ),
    )


def _program(data: Spec, images: int, generator_optimizer: Adam, name: str) -> Plan:
    return Plan.of(
        recipe=name,
        generator=part(
            MLPGenerator,
            latent=100,
            shape=data.shape,
            widths=(256, 512, 1024),
            output="tanh" if len(data.shape) == 3 else "linear",
        ),
        discriminator=part(MLPDiscriminator, shape=data.shape, widths=(1024, 512, 256), dropout=0.3),
        prior=Normal(100),
        objective=Scaled(NonSaturating(smoothing=0.9), d=0.5),
        joint=True,
        training=Training(
            images=images,
            batch=128,
            moves=Alternating(k=1, fresh_noise=False),
            generator_optimizer=generator_optimizer,
            discriminator_optimizer=Adam(2e-4, 0.5, 0.999, 1e-7),
            half_life=0,
            replacement=True,
        ),
    )
