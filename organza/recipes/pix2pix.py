"""pix2pix and CycleGAN: images from images, with pairs and without."""

from __future__ import annotations

from organza.augment import Jitter
from organza.data import Spec
from organza.moves import Alternating
from organza.nn import PatchDiscriminator, PatchPair, TranslatorPair, UNetGenerator
from organza.objective import LeastSquares, NonSaturating, Scaled
from organza.optimizer import Adam
from organza.plan import Plan, part
from organza.prior import Normal
from organza.recipes.images import paired, pictures
from organza.replay import ImagePool
from organza.schedule import Linear
from organza.term import Cycle, Identity, Reconstruction
from organza.training import Training

__all__ = ["cyclegan", "pix2pix"]

EPOCHS = 200  # of either paper, the rate falling over the latter half


def pix2pix(data: Spec, images: int | None = None) -> Plan:
    """pix2pix: an image from an image, by examples of both ("X from Y"): L1 says where, D what is sharp and likely.

    U-Net C64-C128-C256-C512... down to 1 x 1 and dropout 0.5 in G; D judges patches of 70 x 70 beside the condition (34
    or 16 where the image is smaller than 24 or 12); batch norm, of single images; -log D(G(y)) + 100 L1, D's loss
    halved; Adam 2e-4, beta1 0.5, batch 1, both players on the same example; 200 epochs, the rate falling linearly to 0
    over the latter hundred.  Both players see examples mirrored by chance and moved by up to a twentieth of the side
    (the paper enlarges 256 pixels to 286 and crops, which moves as far); as they are: ``--set training.jitter=null``.

    L1 alone, the paper's baseline, is ``--set objective.g=0``; smaller patches ``--set discriminator.layers=2``; a
    larger batch, of steadier batch norm, ``--set training.batch=8``.

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola, Zhu, Zhou, Efros, 2017)
    """
    pictures("pix2pix", data)
    paired("pix2pix", data)
    return Plan.of(
        recipe="pix2pix",
        generator=part(UNetGenerator, condition=data.condition, shape=data.shape),
        discriminator=part(
            PatchDiscriminator, shape=data.shape, condition=data.condition, layers=_layers(data), norm="batch"
        ),
        prior=Normal(0),
        objective=Scaled(NonSaturating(), d=0.5),
        terms=[Reconstruction(100.0)],
        conditional=True,
        training=_training(data, images),
    )


def cyclegan(data: Spec, images: int | None = None) -> Plan:
    """CycleGAN: images of one kind from those of another and back, from two unpaired sets ("A and B").

    Two translators c7s1-64, d128, d256, residual blocks (9 from 256 pixels on, else 6), u128, u64, c7s1-3, and two D of
    patches of 70 x 70 (34 or 16 where the image is smaller than 24 or 12), all with instance norm, play as one game on
    joined pairs.  Least squares with targets 0, 1, 1 (D's halved), cycle 10, identity 5, a pool of 50 old fakes for D;
    Adam 2e-4, beta1 0.5, batch 1; 200 epochs, the rate falling linearly to 0 over the latter hundred.  Examples are
    mirrored and moved as in :func:`pix2pix`, a joined pair alike; D moves before G, and the pool keeps both fakes of a
    pair together.

    References:
        Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu, Park, Isola, Efros, 2017)
    """
    pictures("cyclegan", data)
    paired("cyclegan", data)
    return Plan.of(
        recipe="cyclegan",
        generator=part(TranslatorPair, shape=data.shape),
        discriminator=part(PatchPair, shape=data.shape, layers=_layers(data)),
        prior=Normal(0),
        objective=Scaled(LeastSquares(0.0, 1.0, 1.0), g=2.0),  # whose halves are the paper's for D, not for G
        terms=[Cycle(10.0), Identity(5.0)],
        replay=ImagePool(50),
        conditional=True,
        training=_training(data, images),
    )


def _layers(data: Spec) -> int:
    """The halvings of D: three, or as many as the image allows."""
    return max(layers for layers in (1, 2, 3) if layers == 1 or min(data.shape[1:]) >= 3 * 2**layers)


def _training(data: Spec, images: int | None) -> Training:
    images = EPOCHS * data.count if images is None else images
    late = max(1, images // 2)
    rule = Adam(Linear(2e-4, 0.0, images=late, hold=images - late), 0.5, 0.999)
    return Training(
        images=images,
        batch=1,
        moves=Alternating(fresh_noise=False),
        generator_optimizer=rule,
        discriminator_optimizer=rule,
        half_life=0,
        jitter=Jitter(shift=0.05),
    )
