r"""The first GAN: the code of 2014 to the letter, and Algorithm 1 as printed, on the same networks.

Where the paper and its code differ, the two recipes take one side each:

===================  =======================================  ==============================================
\                    ``goodfellow2014`` (the code)            ``algorithm1`` (the paper)
===================  =======================================  ==============================================
who moves when       both at once, from the same minibatch    D k times, then G with fresh noise
G's loss             -log D(G(z)), non-saturating             log(1 - D(G(z))), the zero-sum game's own
D's loss             the mean of its two terms                their sum, -V
dropout in D         one mask for both players' gradients     a mask for each pass
G's learning rate    0.1, that of D                           2 (our choice; the paper gives none)
===================  =======================================  ==============================================

References:
    Generative Adversarial Nets (Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio, 2014)
"""

from __future__ import annotations

from typing import Any

from organza.data import Spec
from organza.moves import Alternating, Moves, Simultaneous
from organza.nn import MaxoutConvDiscriminator, MaxoutDiscriminator, RectifierConvGenerator, RectifierGenerator
from organza.objective import Minimax, NonSaturating, Objective, Scaled
from organza.optimizer import SGD
from organza.penalty import MaxColumnNorm
from organza.plan import Part, Plan, part
from organza.prior import Normal, Prior, Uniform
from organza.recipes.images import pictures
from organza.schedule import Exponential, Linear
from organza.training import Training

__all__ = [
    "algorithm1",
    "goodfellow2014",
    "goodfellow2014_cifar10",
    "goodfellow2014_cifar10_conv",
    "goodfellow2014_tfd",
]

_EPOCH = 50_000  # MNIST without its last 10,000 training images, on which the code chose the Parzen width
_CIFAR, _FACES = 40_000, 100_000  # CIFAR-10 without its last 10,000; TFD's unlabelled faces, about 100,000


def goodfellow2014(data: Spec, images: int = 250 * _EPOCH) -> Plan:
    """The first GAN, as its code trains MNIST: maxout D with dropout, both players moving at once.

    z ~ U(-sqrt 3, sqrt 3)^100; G 100-1200-1200-784, rectifiers and a sigmoid, weights from U(-.05, .05), output biases
    at the logits of the mean pixels; D 784-240-240-1, maxout of 5 pieces, weights from U(-.005, .005), its input kept
    with probability .8 and its hidden units with .5.  Batch 100; learning rate .1 divided by 1.000004 at every update,
    at least 1e-6; momentum from .5 to .7 over epochs 1 to 250 (of 50,000; here smoothly, in the code epoch by epoch).

    The code trains on the first 50,000 images: ``organza train 'mnist[:50000]' --recipe goodfellow2014``.  It has no
    end; the default length is that of the momentum's schedule.  Table 1 reports 225 +- 2 nats by Parzen windows; seed 1
    came to 181 +- 2 after the whole of it, and its moving average (``--set training.half_life=1000000``), which the
    code does not keep, to 243 +- 2 at its best, by validation, in a run of 4.1 million images (``python
    benchmarks/parzen.py``, docs/log.md).

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 1,800 images/s; digits of all kinds after ten
    minutes with seed 1, while seed 0 broke down in the second.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014)
    """
    return _mnist(data, images, "goodfellow2014", Scaled(NonSaturating(), d=0.5), Simultaneous())


def algorithm1(data: Spec, images: int = 250 * _EPOCH, k: int = 1) -> Plan:
    """Algorithm 1 as printed: the saturating game, D's k moves and then G's, on the networks of goodfellow2014.

    k = 1 as in the paper's experiments (``--set training.moves.k=2``), fresh noise for G's move, momentum, and D
    descends -V, the sum of its two terms, where the code takes their mean.  G's learning rate, which the paper does not
    give, is 2, twenty times D's: at the code's .1 D wins in the first epoch and G's gradient vanishes, as section 3 of
    the paper warns (docs/log.md).  All other numbers are those of ``goodfellow2014``.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 1,500 images/s; digits after three to six minutes,
    then D gets away and they decay.  On another machine seeds 1 and 2 broke down within 50,000 images (docs/log.md).

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), Algorithm 1
    """
    return _mnist(data, images, "algorithm1", Minimax(), Alternating(k), faster=20.0)


def goodfellow2014_tfd(data: Spec, images: int = 50 * _FACES) -> Plan:
    """The first GAN's networks for the Toronto Face Database, 48 x 48: the code's first stage.

    z ~ N(0, 1)^100; G 100-8000-8000-2304, rectifiers, sigmoids with biases of -2 at first, and a sigmoid of which each
    unit starts with 100 incoming weights from N(0, 1); D of two layers of 1200 maxout units of 5 pieces.  Incoming
    weights of every unit of at most 1.9365 in norm, batch 100, learning rate .05, the rest as in ``goodfellow2014``.

    The code's second stage, a new bottom of 100-8000-100 under the trained G, is not part of this recipe.  The data
    are not free; bring your own as an array of (N, 1, 48, 48).  Table 1 reports 2057 +- 26 nats, after both stages.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 46 images/s; nothing to see in minutes.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014)
    """
    sigmoids: dict[str, Any] = {"hidden": ("relu", "sigmoid"), "sparse": 100, "bias": -2.0}
    return _plan(
        "goodfellow2014-tfd",
        generator=part(RectifierGenerator, **_shaped(data), widths=(8000, 8000), **sigmoids),
        discriminator=part(MaxoutDiscriminator, shape=data.shape, units=(1200, 1200), pixels=_is_image(data)),
        prior=Normal(100),
        images=images,
        epoch=_FACES,
        lr=0.05,
        constraints=(MaxColumnNorm(1.9365),),
    )


def goodfellow2014_cifar10(data: Spec, images: int = 250 * _CIFAR) -> Plan:
    """The first GAN's fully connected networks for CIFAR-10.

    z ~ N(0, 1)^100; G 100-8000-8000-3072, rectifiers, sigmoids and a linear output with weights from U(-.5, .5), the
    others from U(-.05, .05); D of two layers of 1600 maxout units of 5 pieces.  Batch 100, learning rate .025, the rest
    as in ``goodfellow2014``.  The code trains on the first 40,000 images, after global contrast normalisation to a
    scale of 55; here they are in [-1, 1] unless you bring them normalised.  Bring an array of (N, 3, 32, 32).

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 49 images/s; nothing to see in minutes.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014)
    """
    linear: dict[str, Any] = {"hidden": ("relu", "sigmoid"), "output": "linear", "output_irange": 0.5}
    return _plan(
        "goodfellow2014-cifar10",
        generator=part(RectifierGenerator, latent=100, shape=data.shape, widths=(8000, 8000), **linear),
        discriminator=part(MaxoutDiscriminator, shape=data.shape, units=(1600, 1600), pixels=False),
        prior=Normal(100),
        images=images,
        epoch=_CIFAR,
        lr=0.025,
    )


def goodfellow2014_cifar10_conv(data: Spec, images: int = 250 * _CIFAR) -> Plan:
    """The first GAN's convolutional networks for CIFAR-10: a deconvolution in G, maxout convolutions in D.

    z ~ N(0, 1)^100; G 100-8000-8000 as 80 maps of 10 x 10, then a deconvolution of kernel 5 and stride 3; D of three
    convolutional maxout layers of 2 pieces with max pooling and a dense one of 500 units of 5.  Batch 128, learning
    rate .004, the rest as in ``goodfellow2014-cifar10``, also of the data.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 44 images/s; nothing to see in minutes.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014)
    """
    pictures("goodfellow2014-cifar10-conv", data)
    return _plan(
        "goodfellow2014-cifar10-conv",
        generator=part(RectifierConvGenerator, latent=100, shape=data.shape),
        discriminator=part(MaxoutConvDiscriminator, shape=data.shape),
        prior=Normal(100),
        images=images,
        epoch=_CIFAR,
        lr=0.004,
        batch=128,
    )


def _mnist(data: Spec, images: int, name: str, objective: Objective, moves: Moves, faster: float = 1.0) -> Plan:
    return _plan(
        name,
        generator=part(RectifierGenerator, **_shaped(data)),
        discriminator=part(MaxoutDiscriminator, shape=data.shape, pixels=_is_image(data)),
        prior=Uniform(100, -(3**0.5), 3**0.5),  # of unit variance
        images=images,
        objective=objective,
        moves=moves,
        faster=faster,
    )


def _plan(
    name: str,
    generator: Part,
    discriminator: Part,
    prior: Prior,
    images: int,
    epoch: int = _EPOCH,
    lr: float = 0.1,
    batch: int = 100,
    objective: Objective | None = None,
    moves: Moves | None = None,
    constraints: tuple[MaxColumnNorm, ...] = (),
    faster: float = 1.0,
) -> Plan:
    """``faster`` is G's learning rate as a multiple of D's."""

    def rule(rate: float) -> SGD:
        decay = Exponential(rate, 1 / 1.000004, batch, 1e-6)
        return SGD(decay, Linear(0.5, 0.7, images=249 * epoch, hold=epoch))

    return Plan.of(
        recipe=name,
        generator=generator,
        discriminator=discriminator,
        prior=prior,
        objective=objective or Scaled(NonSaturating(), d=0.5),
        constraints=constraints,
        joint=True,
        training=Training(
            images=images,
            batch=batch,
            moves=moves or Simultaneous(),
            generator_optimizer=rule(faster * lr),
            discriminator_optimizer=rule(lr),
            half_life=0,
        ),
    )


def _is_image(data: Spec) -> bool:
    return len(data.shape) == 3


def _shaped(data: Spec) -> dict[str, Any]:
    """G's ends: vectors have no pixels, so their output is linear."""
    return {"latent": 100, "shape": data.shape, "output": "sigmoid" if _is_image(data) else "linear"}
