r"""R3GAN in three sizes: a relativistic objective, two zero-centred penalties, and networks without normalisation."""

from __future__ import annotations

import math

from organza.data import Spec
from organza.nn import R3GANDiscriminator, R3GANGenerator
from organza.nn.layers import pyramid
from organza.objective import RelativisticLogistic
from organza.optimizer import Adam
from organza.penalty import R1, R2
from organza.plan import Plan, part
from organza.prior import Normal
from organza.recipes.images import pictures
from organza.schedule import Cosine
from organza.training import Training

__all__ = ["gamma", "r3gan", "r3gan_small", "r3gan_tiny", "widths"]


def r3gan(data: Spec, images: int = 200_000_000) -> Plan:
    """R3GAN, today's simplest strong GAN, at its published size: 23 million parameters a network, for GPUs.

    z ~ N(0, I_64); RpGAN with R1 and R2 at every step; maps of 768 channels up to 32 x 32, then 384, 192, 96; batch
    256; Adam with beta1 0.  Over the first tenth of the run, along half a cosine: the learning rate 2e-4 -> 5e-5,
    beta2 0.9 -> 0.99, gamma to a tenth, the moving average's half-life 0 -> 500,000 images.

    gamma starts at 2 (side / 64)^3 * 256 / batch (of the recipe's own batch), which the paper's FFHQ-64 and FFHQ-256
    follow (2 and 128; published 2 and 150).  Its CIFAR-10 takes 0.05, Stacked MNIST 1, both with batch 512:
    ``--set terms.0.weight.start=...``.  G's own real examples are fresh ones, as in the code.  Left out are the paper's
    horizontal flips of the data and its augmentation, an adaptive pipeline with a probability of 0.3 to 0.55 at the
    end: see ``--set augment=ADA`` or ``augment=DiffAugment`` for small data.

    Cost on MNIST, one CPU thread (docs/recipes.md): 0.3 images/s: not for CPUs.  One H200 trains 437 images/s of
    64 x 64 with ``--set precision=bfloat16 --set training.accumulate=4`` (docs/gpu.md); no run to its end was made.

    References:
        The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
    """
    return _plan("r3gan", data, images, batch=256, top=768, budget=24_576)


def r3gan_small(data: Spec, images: int = 20_000_000) -> Plan:
    """R3GAN with a third to a sixth of its channels and batch 64, for one GPU: 2.3 million parameters a network.

    Maps of 256 channels up to 16 x 16, then 128, 64, 32, 16; all else as in ``r3gan``.  The parameters are those at
    32 x 32 and above.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 3 images/s: not for CPUs.  It was not run on a GPU.

    References:
        The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
    """
    return _plan("r3gan-small", data, images, batch=64, top=256, budget=4_096)


def r3gan_tiny(data: Spec, images: int = 2_000_000) -> Plan:
    """R3GAN small enough for CPUs: 64 channels at the smallest map, 16 at 32 x 32, batch 64.

    The learning rates are ten times the published ones, 2e-3 -> 5e-4: networks so small bear them, and short runs need
    them (docs/log.md).  All else as in ``r3gan``.

    Cost and result on MNIST, one CPU thread (docs/recipes.md): 63 images/s; rough digits after nine minutes, 543
    moves of G.

    References:
        The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
    """
    return _plan("r3gan-tiny", data, images, batch=64, top=64, budget=512, lr=2e-3)


def widths(shape: tuple[int, ...], top: int, budget: int) -> tuple[int, ...]:
    """Return the channels of each stage: at most ``top``, and ``budget`` / side, in steps of 8 (at least 8)."""
    return tuple(max(8, min(top, budget // min(size)) // 8 * 8) for size in pyramid(shape))


def gamma(shape: tuple[int, ...], batch: int) -> float:
    r"""Return the first weight of R1 and R2, :math:`2 (s / 64)^3 \cdot 256 / B`, s the root of the pixels.

    The power of the side is the one between FFHQ-64 and FFHQ-256 in the paper; the share of the batch is StyleGAN2's.
    """
    side = math.sqrt(shape[1] * shape[2])
    return float(f"{2 * (side / 64) ** 3 * 256 / batch:.2g}")


def _plan(name: str, data: Spec, images: int, batch: int, top: int, budget: int, lr: float = 2e-4) -> Plan:
    pictures(name, data)
    channels, weight, burn_in = widths(data.shape, top, budget), gamma(data.shape, batch), max(1, images // 10)
    rule = Adam(Cosine(lr, lr / 4, burn_in), 0.0, Cosine(0.9, 0.99, burn_in))
    return Plan.of(
        recipe=name,
        generator=part(R3GANGenerator, latent=64, shape=data.shape, widths=channels),
        discriminator=part(R3GANDiscriminator, shape=data.shape, widths=channels),
        prior=Normal(64),
        objective=RelativisticLogistic(),
        terms=(R1(Cosine(weight, weight / 10, burn_in)), R2(Cosine(weight, weight / 10, burn_in))),
        joint=True,
        training=Training(
            images=images,
            batch=batch,
            generator_optimizer=rule,
            discriminator_optimizer=rule,
            half_life=Cosine(0, min(500_000, images // 20), burn_in),
        ),
    )
