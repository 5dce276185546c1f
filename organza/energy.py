r"""Objectives for a D that is an energy L, low on data: its logits are -L, so that higher is still more real.

L is at least 0, as the error of an autoencoder is; nothing here forces it to be.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import relu

from organza.objective import Objective

__all__ = ["BoundaryEquilibrium", "EnergyMargin"]


class BoundaryEquilibrium(Objective):
    r"""BEGAN: k balances the players, so that the energy of fakes stays the share gamma of that of data.

    .. math:: L_D = L(x) - k L(G(z)), \qquad L_G = L(G(z)), \qquad
              k \leftarrow \mathrm{clip}(k + \lambda (\gamma \, E[L(x)] - E[L(G(z))]), 0, 1)

    k begins at 0, so that D first learns to reconstruct data alone, and moves after each move of D.

    References:
        BEGAN: Boundary Equilibrium Generative Adversarial Networks (Berthelot, Schumm, Metz, 2017), section 3.4

    Attributes:
        k: How much D heeds the fakes, a scalar in [0, 1].

    Arguments:
        gamma: The ratio E[L(G(z))] / E[L(x)] to hold, in (0, 1]: lower for sharper, higher for more diverse samples.
        rate: The rate lambda at which k moves, per move of D.

    Raises:
        ValueError: If ``gamma`` lies outside (0, 1] or ``rate`` is not above 0.
    """

    anchored = False
    k: Tensor

    def __init__(self, gamma: float = 0.5, rate: float = 1e-3) -> None:
        super().__init__()
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"BoundaryEquilibrium(gamma={gamma}): must lie in (0, 1], e.g. 0.5")
        if not rate > 0.0:
            raise ValueError(f"BoundaryEquilibrium(rate={rate}): must be above 0, e.g. 0.001")
        self.gamma, self.rate = gamma, rate
        self.register_buffer("k", torch.zeros(()))

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self.k * fake_logits - real_logits

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        if "discriminator/real_logits" in evidence:  # else it was G's move alone
            real, fake = evidence["discriminator/real_logits"], evidence["discriminator/fake_logits"]
            self.k = (self.k + self.rate * (fake - self.gamma * real)).clamp(0.0, 1.0)  # L is minus the logit

    def measures(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        r"""Return k and the paper's global measure of convergence: lower is better, 0 if all is reconstructed.

        .. math:: M = E[L(x)] + | \gamma \, E[L(x)] - E[L(G(z))] |
        """
        real, fake = -real_logits.mean(), -fake_logits.mean()
        return {"convergence": real + (self.gamma * real - fake).abs(), "k": self.k}


class EnergyMargin(Objective):
    r"""EBGAN: D lifts the energy of fakes up to a margin m, and G lowers it.

    .. math:: L_D = L(x) + \max(0, m - L(G(z))), \qquad L_G = L(G(z))

    Among energies of at least 0 the best is L* = m where q > p, else 0, and min L_D = m (1 - TV(p, q)).  At p = q any
    constant from 0 to m is as good.

    References:
        Energy-based Generative Adversarial Network (Zhao, Mathieu, LeCun, 2017), lemma 1 and theorem 1

    Arguments:
        margin: The margin m, in the units of L.

    Raises:
        ValueError: If ``margin`` is not above 0.
    """

    anchored = False

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin > 0.0:
            raise ValueError(f"EnergyMargin(margin={margin}): must be above 0")
        self.margin = margin

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(self.margin + fake_logits) - real_logits

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits

    def optimum(self, p: Tensor, q: Tensor) -> Tensor:
        return torch.zeros_like(p).masked_fill(p < q, -self.margin)

    def divergence(self, p: Tensor, q: Tensor) -> Tensor:
        return 0.5 * self.margin * (p - q).abs().sum(-1)
