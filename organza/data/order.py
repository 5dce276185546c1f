r"""The order of a stream: which example stands at position k, for every k >= 0.

With N examples, position k lies in epoch :math:`e = \lfloor k / N \rfloor` and

.. math:: i(k) = \pi_e(k \bmod N),

where :math:`\pi_e` is a uniform permutation, or N independent uniform indices with replacement, drawn from a
generator seeded with :math:`(s + e) \bmod 2^{63}`.  So i(k) depends on (N, s, k) alone: not on how the stream
was cut into batches, on how many processes read it, or on where it was stopped and taken up again.
"""

import torch
from torch import Tensor

__all__ = ["Order"]


class Order:
    """An endless order over ``count`` examples, a pure function of the seed and the position.

    Arguments:
        count: The number of examples N, at least 1.
        seed: The seed s, any integer; taken modulo 2**63.
        replacement: Whether each index is drawn independently of all others.  Otherwise each epoch, a run of
            N positions from a multiple of N on, shows every example exactly once.

    Raises:
        ValueError: If ``count`` is below 1.
    """

    def __init__(self, count: int, seed: int, replacement: bool = False) -> None:
        if count < 1:
            raise ValueError(f"Order(count={count}): an order needs at least 1 example")
        self.count = count
        self.seed = seed
        self.replacement = replacement
        self._epochs: dict[int, Tensor] = {}

    def indices(self, position: int, n: int) -> Tensor:
        """The indices at positions ``position`` to ``position + n - 1``: int64, (n,), on the CPU.

        They may span the end of an epoch, and of several when ``n`` exceeds the number of examples.
        """
        parts = [torch.empty(0, dtype=torch.int64)]
        while n > 0:
            epoch, start = divmod(position, self.count)
            part = self._epoch(epoch)[start : start + n]
            parts.append(part)
            position += len(part)
            n -= len(part)
        return torch.cat(parts)  # a copy: the caller may write to it without harm to the epochs kept here

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed((self.seed + epoch) % 2**63)
            if self.replacement:
                drawn = torch.randint(self.count, (self.count,), generator=generator)
            else:
                drawn = torch.randperm(self.count, generator=generator)
            # Two are kept, because batches at the end of an epoch go back and forth between it and the next.
            while len(self._epochs) > 1:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[epoch] = drawn
        return self._epochs[epoch]

    def __repr__(self) -> str:
        return f"Order(count={self.count}, seed={self.seed}, replacement={self.replacement})"
