r"""A generator of the joint law p(x, y): it emits the example together with its label."""

from __future__ import annotations

from torch import Tensor, nn

from organza.joint import join
from organza.nn.bilinear import Linear

__all__ = ["JointGenerator"]


class JointGenerator(nn.Module):
    r"""z -> (x, y): a small net draws the label from z, and a conditional G the example from z and that label.

    .. math:: e = \mathrm{softmax}((z_{1 \dots K} + W_2\, a(W_1 z)) / \tau), \qquad x = G(z, e)

    e is soft, so that gradients reach the label, and D, which sees only whole labels in the data, drives it to a whole
    one.  Each label has a number of z to itself, by which it is drawn now and then unless the net puts it several
    standard deviations behind: a label that is never drawn would get no gradient to come back by.

    Arguments:
        generator: G(z, y), with ``classes`` numbers of e(y).
        latent: The dimension of z.
        labels: K, at most ``latent``.
        hidden: The units of the net that draws the label.
        temperature: tau, lower for labels that are whole from the start.

    Raises:
        ValueError: If z has fewer numbers than there are labels.
    """

    def __init__(
        self, generator: nn.Module, latent: int, labels: int, hidden: int = 128, temperature: float = 0.1
    ) -> None:
        super().__init__()
        if not 1 <= labels <= latent:
            raise ValueError(f"labels={labels}: must be from 1 to latent={latent}, as each has a number of z to itself")
        self.generator, self.temperature = generator, temperature
        self.logits = nn.Sequential(Linear(latent, hidden), nn.LeakyReLU(0.2), Linear(hidden, labels))

    def forward(self, z: Tensor) -> Tensor:
        logits = self.logits(z)  # (B, K)
        e = ((z[:, : logits.shape[1]] + logits) / self.temperature).softmax(1)  # (B, K)
        return join(self.generator(z, e), e)  # (B, *grown)
