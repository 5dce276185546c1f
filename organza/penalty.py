r"""Penalties on the slope of D, and constraints on weights.

With the slope :math:`\nabla_x D(x)` taken per example over all of x, before augmentation, penalties are terms of D's
loss.  R1 and R2 follow the gamma/2 convention of StyleGAN and R3GAN: weight gamma means gamma/2 times the mean
squared norm.  A constraint acts on the weights after the mover's step instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from organza.round import Player, Round
from organza.term import Term

__all__ = ["DRAGAN", "R1", "R2", "Clip", "GradientPenalty", "MaxColumnNorm"]


def _squared_norm(slope: Tensor) -> Tensor:
    """The squared Euclidean norm of each example's slope, (B,)."""
    return slope.flatten(1).square().sum(1)


def _norm(slope: Tensor) -> Tensor:
    """The Euclidean norm of each example's slope, (B,), with derivatives 0 (not NaN) where the slope vanishes."""
    squared = _squared_norm(slope)
    return torch.where(squared > 0, squared.where(squared > 0, 1.0).sqrt(), 0.0)


def _slope_at(round: Round, x: Tensor) -> Tensor:
    """The slope of D at x, (B, ...), differentiable; x is new, so that to ask for its gradient changes no other."""
    (slope,) = torch.autograd.grad(round.critic(x.requires_grad_()).logits.sum(), x, create_graph=True)
    return slope


class R1(Term):
    r"""Zero-centred penalty on real examples: :math:`\frac{\gamma}{2} E\|\nabla D(x)\|^2`.

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder, Geiger, Nowozin, 2018)

    Arguments:
        weight: gamma, a number or a schedule of images.
    """

    def discriminator(self, round: Round) -> Tensor:
        return 0.5 * _squared_norm(round.slope("real"))


class R2(Term):
    r"""Zero-centred penalty on generated examples: :math:`\frac{\gamma}{2} E\|\nabla D(G(z))\|^2`.

    References:
        Which Training Methods for GANs do actually Converge? (Mescheder, Geiger, Nowozin, 2018)

    Arguments:
        weight: gamma, a number or a schedule of images.
    """

    def discriminator(self, round: Round) -> Tensor:
        return 0.5 * _squared_norm(round.slope("fake"))


class GradientPenalty(Term):
    r"""WGAN-GP: :math:`\lambda E(\|\nabla D(\hat x)\| - 1)^2` between real and fake.

    :math:`\hat x = \epsilon x + (1 - \epsilon) G(z)`, one :math:`\epsilon \sim U(0, 1)` an example.

    References:
        Improved Training of Wasserstein GANs (Gulrajani et al., 2017)

    Arguments:
        weight: lambda, a number or a schedule of images.
        target: The norm that the slope should have.
    """

    def __init__(self, weight: float | Callable[[int], float] = 10.0, target: float = 1.0) -> None:
        super().__init__(weight)
        self.target = target

    def discriminator(self, round: Round) -> Tensor:
        real, fake = round.real.detach(), round.fake  # on which G depends, where it looks ahead
        shape = [1] * (real.ndim - 1)
        epsilon = round.draw(lambda n, g: torch.rand(n, *shape, generator=g, device=g.device, dtype=real.dtype))
        slope = _slope_at(round, torch.lerp(fake, real, epsilon))
        return (_norm(slope) - self.target) ** 2


class DRAGAN(Term):
    r"""The penalty of WGAN-GP around real examples: :math:`\lambda E(\|\nabla D(x + \delta)\| - 1)^2`.

    :math:`\delta = c \operatorname{std}(x) u`, with one :math:`u \sim U(0, 1)` an element and the standard deviation
    over the whole micro-batch (a batch statistic: accumulation changes it).  The paper has normal noise.

    References:
        On Convergence and Stability of GANs (Kodali, Abernethy, Hays, Kira, 2017)

    Arguments:
        weight: lambda, a number or a schedule of images.
        spread: c, the width of the noise in standard deviations of the data.
    """

    def __init__(self, weight: float | Callable[[int], float] = 10.0, spread: float = 0.5) -> None:
        super().__init__(weight)
        self.spread = spread

    def discriminator(self, round: Round) -> Tensor:
        real = round.real.detach()
        shape = real.shape[1:]
        u = round.draw(lambda n, g: torch.rand(n, *shape, generator=g, device=g.device, dtype=real.dtype))
        slope = _slope_at(round, real + self.spread * real.std() * u)
        return (_norm(slope) - 1.0) ** 2


class Clip:
    """Clip every weight of D to [-bound, bound] after its step: the crude Lipschitz constraint of the first WGAN.

    References:
        Wasserstein GAN (Arjovsky, Chintala, Bottou, 2017)

    Arguments:
        bound: The largest absolute value, above 0.
    """

    players: tuple[Player, ...] = ("discriminator",)

    def __init__(self, bound: float = 0.01) -> None:
        if bound <= 0:
            raise ValueError(f"Clip(bound={bound}): must be above 0")
        self.bound = bound

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> None:
        for weight in network.parameters():
            weight.clamp_(-self.bound, self.bound)


class MaxColumnNorm:
    """Scale down, after a step, the incoming weights of each unit of a linear map or convolution whose Euclidean norm
    exceeds ``bound``.

    What pylearn2 calls a column is a row of PyTorch's (out, in) matrix.

    References:
        Improving neural networks by preventing co-adaptation of feature detectors (Hinton et al., 2012)

    Arguments:
        bound: The largest norm; the TFD nets of Goodfellow et al. 2014 use 1.9365.
        player: Whose weights: "generator", "discriminator" or "both".
    """

    def __init__(self, bound: float = 1.9365, player: Literal["generator", "discriminator", "both"] = "both") -> None:
        if bound <= 0:
            raise ValueError(f"MaxColumnNorm(bound={bound}): must be above 0")
        if player not in ("generator", "discriminator", "both"):
            raise ValueError(f"MaxColumnNorm(player={player!r}): must be generator, discriminator or both")
        self.bound = bound
        self.player = player
        self.players: tuple[Player, ...] = ("generator", "discriminator") if player == "both" else (player,)

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> None:
        transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)  # weights (in, out, ...)
        for module in network.modules():
            if isinstance(module, nn.Linear | _ConvNd):  # a bias for each pixel is no incoming weight
                weight = module.weight
                weight.copy_(weight.renorm(2, int(isinstance(module, transposed)), self.bound))
