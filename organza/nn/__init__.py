"""Networks: each is a plain ``nn.Module`` that knows no loss.  G(z) returns x in [-1, 1], D(x) returns logits."""

from organza.nn.dcgan import DCGANDiscriminator, DCGANGenerator
from organza.nn.mlp import MLPDiscriminator, MLPGenerator

__all__ = ["DCGANDiscriminator", "DCGANGenerator", "MLPDiscriminator", "MLPGenerator"]
