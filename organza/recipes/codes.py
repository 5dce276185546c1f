"""GANs that learn what labels mean: InfoGAN without any, the semi-supervised GAN from a few."""

from __future__ import annotations

from organza.data import Spec
from organza.joint import ROWS
from organza.nn import DCGANDiscriminator, DCGANGenerator, JointGenerator, MLPDiscriminator
from organza.objective import NonSaturating, Scaled
from organza.penalty import R1
from organza.plan import Plan, part
from organza.prior import Codes, Normal
from organza.recipes.images import conditioned, pictures
from organza.recipes.quick import brief
from organza.term import Classification, FeatureMatching, Lazy, MutualInformation

__all__ = ["infogan", "joint", "semi_supervised"]


def infogan(data: Spec, images: int = 600_000) -> Plan:
    """InfoGAN: G keeps a categorical and two continuous codes readable, and they come to mean something.

    z = (Cat(10), 2 U(-1, 1), noise), the codes of the paper on MNIST.  D reads them back by a hidden layer of its own,
    and both players lower -log Q(c | G(z, c)).  ``organza interpolate RUN --code 0`` shows what a code does.

    The networks and the pace are those of ``quick``.  The 1 of the category stands as 5 and the noise, 62 numbers, has
    a standard deviation of 0.6: where both are 1, G does not hear the category for the noise.  Q has a standard
    deviation of 0.3 for the continuous codes, in a term that weighs 0.3; with 1 and 1 they followed neither slant nor
    width (docs/log.md).  On MNIST the category agreed with the digit in 82 to 85 % (three seeds; docs/conditions.md).

    References:
        InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets
        (Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel, 2016)
        ClusterGAN: Latent Space Clustering in Generative Adversarial Networks (Mukherjee et al., 2019), for small noise
    """
    pictures("infogan", data)
    prior = Codes((10,), continuous=2, noise=62, spread=0.6, height=5.0)
    codes = sum(prior.categories) + prior.continuous
    small = {"shape": data.shape, "width": 32}
    return Plan.of(
        recipe="infogan",
        generator=part(DCGANGenerator, latent=prior.dim, **small),
        discriminator=part(DCGANDiscriminator, **small, norm=False, dense=128, kernel=3, codes=codes),
        prior=prior,
        objective=NonSaturating(),
        terms=(Lazy(R1(0.5), every=8), MutualInformation(0.3, prior.categories, prior.continuous, sigma=0.3)),
        joint=True,
        training=brief(images),
    )


def semi_supervised(data: Spec, images: int = 300_000) -> Plan:
    """The semi-supervised GAN: D knows K classes and "fake"; G matches the means of D's features.

    A few labels are enough: ``organza train 'mnist[labels=100]' --recipe semi-supervised``.  D's examples without a
    label are to be of any class, generated ones of none; as many labelled examples as a batch has are drawn beside it.
    D is the paper's for MNIST, 1000-500-250-250-250 rectifiers with normal noise of .3 on x and .5 on the units, here
    with plain weights for its weight norm; batch 100, Adam 1e-3, beta1 0.5.  G is that of ``quick``.

    References:
        Improved Techniques for Training GANs (Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen, 2016)
    """
    pictures("semi-supervised", data)
    classes = conditioned("semi-supervised", data)
    widths = (1000, 500, 250, 250, 250)
    head = {"hidden": "relu", "noise": 0.5, "classes": classes, "condition": "one-more"}
    return Plan.of(
        recipe="semi-supervised",
        generator=part(DCGANGenerator, latent=64, shape=data.shape, width=32),
        discriminator=part(MLPDiscriminator, shape=data.shape, widths=widths, **head),
        prior=Normal(64),
        objective=Scaled(NonSaturating(), g=0.0),
        terms=(Classification(1.0, fakes=False), FeatureMatching(1.0)),
        joint=True,
        training=brief(images, batch=100, betas=(0.5, 0.999), labelled=True),
    )


def joint(data: Spec, images: int = 500_000, classes: int = 10) -> Plan:
    """The joint game: G emits an example together with its label, and D judges whether the two belong together.

    The data are examples with their labels in them: ``organza train 'mnist[joint]' --recipe joint``; a strip of cells
    below each image shows the label (:mod:`organza.joint`).  For another number of classes than 10, set
    ``generator.labels`` and ``generator.generator.classes``.

    References:
        Generative Adversarial Nets (Goodfellow et al., 2014), section 6: all conditionals from one model
        Adversarially Learned Inference (Dumoulin et al., 2017), for D on joint pairs
    """
    pictures("joint", data)
    inner = (data.shape[0], data.shape[1] - ROWS, data.shape[2])
    single = part(DCGANGenerator, latent=64, shape=inner, width=32, classes=classes)
    return Plan.of(
        recipe="joint",
        generator=part(JointGenerator, generator=single, latent=64, labels=classes),
        discriminator=part(DCGANDiscriminator, shape=data.shape, width=32, norm=False, dense=128, kernel=3),
        prior=Normal(64),
        objective=NonSaturating(),
        terms=(Lazy(R1(0.5), every=8),),
        joint=True,
        training=brief(images),
    )
