"""Networks: each is a plain ``nn.Module`` that knows no loss.  G(z) returns x in [-1, 1], D(x) returns logits.

Images of any height, width and channel count are taken, square or not, powers of two or not: a side is halved upwards
where it is odd, and G crops what it doubles (:func:`organza.nn.layers.pyramid`).
"""

from organza.nn.began import BEGANDiscriminator, BEGANGenerator
from organza.nn.cgan import CGANDiscriminator, CGANGenerator
from organza.nn.cyclegan import Translator, TranslatorPair
from organza.nn.dcgan import DCGANDiscriminator, DCGANGenerator
from organza.nn.joint import JointGenerator
from organza.nn.maxout import MaxoutConvDiscriminator, MaxoutDiscriminator, RectifierConvGenerator, RectifierGenerator
from organza.nn.mlp import MLPDiscriminator, MLPGenerator
from organza.nn.r3gan import R3GANDiscriminator, R3GANGenerator
from organza.nn.resnet import ResNetDiscriminator, ResNetGenerator
from organza.nn.unet import PatchDiscriminator, PatchPair, UNetGenerator, UNetPair

__all__ = [
    "BEGANDiscriminator",
    "BEGANGenerator",
    "CGANDiscriminator",
    "CGANGenerator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "JointGenerator",
    "MLPDiscriminator",
    "MLPGenerator",
    "MaxoutConvDiscriminator",
    "MaxoutDiscriminator",
    "PatchDiscriminator",
    "PatchPair",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "RectifierConvGenerator",
    "RectifierGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "Translator",
    "TranslatorPair",
    "UNetGenerator",
    "UNetPair",
]
