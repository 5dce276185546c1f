r"""Terms by which a prior learns how often each of its components is to be drawn (:mod:`organza.mixture`).

They leave their counts in the round's evidence, as sums over the whole batch: its parts and processes add up to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from organza.round import Round
from organza.term import Term

__all__ = ["Advantage", "Responsibilities"]


class Responsibilities(Term):
    r"""How many real examples each component of a mixture answers for: D's head "components" tells fakes of one from
    those of another, and is asked of real examples.

    .. math:: -\log Q(c | G(z, c)), \qquad N_k = \textstyle\sum_i Q(k | x_i)

    The first is D's loss, a cross-entropy whose gradient stops at D's features
    (:class:`~organza.nn.condition.Head`).  By the counts the weights of :class:`~organza.mixture.Mixture` follow: the
    E-step of expectation maximisation, with Q in the place of the posterior, which it is where fakes are like real
    examples.

    References:
        Disconnected Manifold Learning for Generative Adversarial Networks (Khayatkhoei, Singh, Elgammal, 2018)

    Arguments:
        weight: The weight of the mean over the batch.
    """

    noise = True
    teaches = "prior/counts"

    def discriminator(self, round: Round) -> Tensor:
        assert round.real_verdict is not None
        of_fake, of_real = (
            verdict.head("components", "components=K gives one") for verdict in (round.fake_verdict, round.real_verdict)
        )  # (B, K) each
        counts = of_real.detach().softmax(1).mean(0)
        round.evidence[self.teaches] = round.draw.total * counts  # of the whole batch: its parts' shares add up to it
        return cross_entropy(of_fake, round.z[:, : of_fake.shape[1]].argmax(1), reduction="none")


class Advantage(Term):
    r"""How well the fakes of each cell of :class:`~organza.mixture.Cells` do, by pairs of a real example and a fake.

    .. math:: a_i = 2 \sigma(D(G(z_i)) - D(x_i)) - 1, \qquad N_k = |\{i: z_i \in k\}|, \quad
        A_k = \textstyle\sum_{i: z_i \in k} a_i

    It adds no loss, and costs next to nothing: D has judged both already.  Of a D that judges places apart the mean is
    taken, and one that judges several examples at once cannot say how well each does.

    References:
        Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning (Williams, 1992)
        The relativistic discriminator: a key element missing from standard GAN (Jolicoeur-Martineau, 2018), for a

    Arguments:
        categories: The values of each code, as the prior has them.

    Raises:
        ValueError: Where it is asked, if z is too short for these codes, or D judges several examples at once.
    """

    noise = True
    teaches = "prior/advantages"

    def __init__(self, categories: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self.categories = tuple(categories)

    def discriminator(self, round: Round) -> None:
        assert round.real_verdict is not None
        z, n = round.z.flatten(1), sum(self.categories)
        apart = round.fake_verdict.logits.detach() - round.real_verdict.logits.detach()
        if z.shape[1] < n:
            raise ValueError(
                f"Advantage(categories={[*self.categories]}): needs {n} numbers of z, which has {z.shape[1]}"
            )
        if len(apart) != len(z):
            raise ValueError(
                f"Advantage: D judges {len(z)} fakes by {len(apart)} logits; it must judge each by its own"
            )
        a = (apart.flatten(1).mean(1) if apart.ndim > 1 else apart).mul(0.5).tanh()  # 2 sigmoid(u) - 1 = tanh(u / 2)
        codes = (z[:, :n] > 0).to(a).split([*self.categories], 1)  # one-hot
        half = len(codes) // 2
        rows, columns = _together(codes[:half], len(z), a), _together(codes[half:], len(z), a)
        # As products, for sums that are the same each time: scattered ones on a GPU are not.
        scale = round.draw.total / len(z)
        round.evidence["prior/fakes"] = scale * (rows.T @ columns).flatten()  # (K,)
        round.evidence[self.teaches] = scale * (rows.T @ (a[:, None] * columns)).flatten()


def _together(codes: Sequence[Tensor], n: int, like: Tensor) -> Tensor:
    """One-hot codes, (n, K_1), (n, K_2), ..., as one of all their values, (n, K_1 K_2 ...)."""
    cells = torch.ones(n, 1, device=like.device, dtype=like.dtype)
    for code in codes:
        cells = (cells[:, :, None] * code[:, None]).flatten(1)
    return cells
