"""For points whose law lies in many narrow pieces, none of which may be lost."""

from __future__ import annotations

import math

from organza.data import Spec
from organza.mixture import Cells
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import RelativisticLogistic
from organza.optimizer import Adam
from organza.penalty import R1, R2
from organza.plan import Plan, part
from organza.schedule import Cosine, Exponential
from organza.training import Training
from organza.weighing import Advantage

__all__ = ["modes"]


def modes(data: Spec, images: int = 850_000) -> Plan:
    """Points of the plane and a little beyond, whose law may be a hundred narrow modes: a z in pieces, coarse to fine.

    - z is two codes of 64 values and normal numbers.  A continuous G maps a connected prior to a connected set, so that
      part of the samples must lie between modes (Khayatkhoei et al., 2018); the law of a code is in pieces itself.
      Of 14 bits G makes rows and columns as of binary numbers, in shares that are powers of two (docs/log.md); the
      values of a code it can place one by one.
    - How often each pair of values is drawn follows how well its fakes do, in the second half, when D sees all modes:
      pairs that were left between modes die out, and modes get their shares, where G cannot move a pair from one to
      another.
    - The normal numbers, 8 or more, enter G's last layer as well as its first.  Otherwise most of a mode's width comes
      from where its pairs are, and no pair is in the tails (docs/log.md).
    - D is given waves of x beside x, without which its perceptrons learn a mode's place long before its width.
    - RpGAN with R1 and R2, whose weight falls from gamma = d / 20 to a 10,000th of it, by the same factor from image to
      image over the first six tenths: modes part from each other slowly enough for G to fill each as it should, and
      then the slopes may grow as steep as a narrow mode's border is.
    - G slows down over these six tenths, to a hundredth of D's rate.  As fast as D while modes are found, it may lose
      some, and makes them narrower than they are, as it closes up before D sees how wide that is (docs/log.md).

    ``quick`` is better for laws in one piece (docs/log.md).  Other data than vectors are taken as long vectors.

    Cost and result, one CPU thread: 9,000 to 20,000 points a second.  The ring of 8 and the grid of 25 take one to two
    minutes, by the machine, the grid of 100, with ``--images 2500000``, two to five; all modes, each in its share and
    as wide as it is, in each of sixty runs (``python benchmarks/modes.py``, docs/log.md).

    References:
        Disconnected Manifold Learning for Generative Adversarial Networks (Khayatkhoei, Singh, Elgammal, 2018)
        Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning (Williams, 1992)
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020)
        The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
    """
    d, coarse, most = math.prod(data.shape), max(1, images * 6 // 10), max(1, images * 9 // 10)
    gamma = Exponential(0.05 * d, 1e-4, per=coarse, floor=5e-6 * d)
    z = Cells((64, 64), noise=max(8, d), after=images // 2)
    widths, output = (128, 128, 128), "tanh" if len(data.shape) == 3 else "linear"
    return Plan.of(
        recipe="modes",
        generator=part(MLPGenerator, latent=z.dim, shape=data.shape, widths=widths, output=output, skip=z.noise),
        discriminator=part(MLPDiscriminator, shape=data.shape, widths=widths, waves=64),
        prior=z,
        objective=RelativisticLogistic(),
        terms=(R1(gamma), R2(gamma), Advantage(z.categories)),
        joint=True,
        training=Training(
            images=images,
            batch=256,
            generator_optimizer=Adam(Cosine(1e-3, 3e-6, coarse), 0.0, 0.99),
            discriminator_optimizer=Adam(Cosine(1e-3, 3e-4, most), 0.0, 0.99),
            half_life=500,
            sample_every=200_000,
        ),
    )
