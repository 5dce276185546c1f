r"""What D is shown in the place of G's newest fakes: fakes of some time ago, against which it must go on to win."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from organza.distributed import gather, rank
from organza.round import Draw

__all__ = ["ImagePool"]


class ImagePool(nn.Module):
    """A history of fakes: once it is full, D is shown an old fake in the place of each second new one.

    Each new fake, in the order of the batch, goes into the pool while there is room, and is shown.  Then, with
    probability 1/2, one of the pool, drawn uniformly, is shown instead and gives its place to the new one.

    The pool is a buffer, so that a run continues exactly, and what happens to a fake is a function of the chance of
    its row.  It holds fakes without their conditions: for a D that looks at the fake alone.  Joined pairs, as CycleGAN
    makes them here, are kept and shown together, where the authors' code has a pool for each of the two.

    References:
        Learning from Simulated and Unsupervised Images through Adversarial Training (Shrivastava et al., 2017)
        Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu, Park, Isola, Efros, 2017)

    Arguments:
        size: The number of fakes that are kept, at least 1.

    Raises:
        ValueError: If ``size`` is below 1.
    """

    fakes: Tensor

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"ImagePool(size={size}): must be 1 or more")
        self.size = size
        self.register_buffer("fakes", torch.zeros(0))  # (n, ...), n <= size; the shape of a fake is not known yet

    @torch.no_grad()
    def forward(self, fake: Tensor, draw: Draw) -> Tensor:
        """Return what D is shown, of the shape of the fakes, (B, ...), without G's graph.

        Several processes have one pool, which all the fakes pass in the order of the processes.
        """
        slots = draw(lambda n, g: torch.randint(2 * self.size, (n,), generator=g, device=g.device))
        fakes = torch.cat(gather(fake))
        shown = fakes.clone()
        pool = fake.new_zeros(0, *fake.shape[1:]) if len(self.fakes) == 0 else self.fakes.clone()
        for row, slot in enumerate(torch.cat(gather(slots)).tolist()):
            if len(pool) < self.size:
                pool = torch.cat([pool, fakes[row : row + 1]])
            elif slot < self.size:
                shown[row], pool[slot] = pool[slot].clone(), fakes[row]
        self.fakes = pool
        return shown[rank() * len(fake) : (rank() + 1) * len(fake)]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: object) -> None:
        saved = state_dict.get(f"{prefix}fakes")
        if saved is not None:  # as many as were kept when it was saved
            self.fakes = self.fakes.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
