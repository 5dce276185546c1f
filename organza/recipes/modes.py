"""For points whose law lies in many narrow pieces, none of which may be lost."""

from __future__ import annotations

import math

from organza.data import Spec
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import RelativisticLogistic
from organza.optimizer import Adam
from organza.penalty import R1, R2
from organza.plan import Plan, part
from organza.prior import Codes
from organza.schedule import Cosine, Linear
from organza.training import Training

__all__ = ["modes"]


def modes(data: Spec, images: int = 1_500_000) -> Plan:
    """Points of the plane and a little beyond, whose law may be a hundred narrow modes: a z in pieces, coarse to fine.

    - z is 14 bits and d normal numbers.  A continuous G maps a connected prior to a connected set, so that part of the
      samples must lie between modes (Khayatkhoei et al., 2018); the law of the bits is in pieces itself.
    - D is given waves of x beside x, without which its perceptrons learn a mode's place long before its width.
    - RpGAN with R1 and R2, whose weight falls from gamma = d / 2 to a 10,000th of it over the first half: first every
      mode is found, then the slopes may grow as steep as a narrow mode's border is.
    - At the end G is ten times slower than D.  With both as slow, modes come out narrower than they are.

    ``quick`` is better for laws in one piece (docs/log.md).  Other data than vectors are taken as long vectors.

    Cost and result, one CPU thread: 32,000 points a second.  The ring of 8 and the grid of 25 take 50 seconds and the
    grid of 100, with ``--images 5000000``, 3 minutes, where it still loses modes in some seeds (docs/log.md).

    References:
        Disconnected Manifold Learning for Generative Adversarial Networks (Khayatkhoei, Singh, Elgammal, 2018)
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains (Tancik et al., 2020)
        The GAN is dead; long live the GAN! A Modern Baseline GAN (Huang, Gokaslan, Kuleshov, Tompkin, 2024)
    """
    d, half, most = math.prod(data.shape), max(1, images // 2), max(1, images * 9 // 10)
    gamma = Linear(0.5 * d, 5e-5 * d, images=half)
    z = Codes((2,) * 14, continuous=0, noise=d, height=2.0)
    output = "tanh" if len(data.shape) == 3 else "linear"
    return Plan.of(
        recipe="modes",
        generator=part(MLPGenerator, latent=z.dim, shape=data.shape, widths=(128, 128, 128), output=output),
        discriminator=part(MLPDiscriminator, shape=data.shape, widths=(128, 128, 128), waves=64),
        prior=z,
        objective=RelativisticLogistic(),
        terms=(R1(gamma), R2(gamma)),
        joint=True,
        training=Training(
            images=images,
            batch=256,
            generator_optimizer=Adam(Cosine(1e-3, 1e-5, most), 0.0, 0.99),
            discriminator_optimizer=Adam(Cosine(1e-3, 1e-4, most), 0.0, 0.99),
            half_life=500,
            sample_every=200_000,
        ),
    )
