r"""A trained generator: what is left of the game when it is over.

A :class:`Model` is G (its moving average) with its prior; it turns a seed into samples, the same for ever.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from organza.device import seed_networks, undisturbed
from organza.prior import Prior
from organza.round import key

__all__ = ["Model"]


class Model:
    """A generator that samples.

    Arguments:
        generator: G(z), or G(z, y) if ``conditional``.
        prior: The law of z.
        conditional: Whether G takes the condition y.
        run: The folder of the run it comes from, if any.
    """

    def __init__(self, generator: nn.Module, prior: Prior, conditional: bool = False, run: Path | None = None) -> None:
        self.generator = generator
        self.prior = prior
        self.conditional = conditional
        self.run = run

    @property
    def device(self) -> torch.device:
        """Where the generator's weights are."""
        return next((p.device for p in self.generator.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def sample(self, n: int = 64, seed: int = 0, y: Tensor | None = None, batch: int = 256) -> Tensor:
        """Return n samples, (n, ...), images in [-1, 1]; the same for the same seed.

        Arguments:
            n: How many, at least 1.
            seed: The seed of z.
            y: The condition of each sample, (n, ...), if the model is conditional.
            batch: How many to generate at once.

        Raises:
            ValueError: If n is below 1, or y is missing or of another length.
        """
        if n < 1:
            raise ValueError(f"sample(n={n}): at least 1 sample must be asked for")
        if self.conditional and (y is None or len(y) != n):
            got = "none" if y is None else str(len(y))
            raise ValueError(f"this model is conditional: it needs {n} conditions y, got {got}")
        device = self.device
        z = self.prior.draw(n, torch.Generator(device).manual_seed(seed))
        modes = {module: module.training for module in self.generator.modules()}
        self.generator.eval()
        try:
            with undisturbed(device):
                seed_networks(key(seed, "networks"), device)  # for layers that add noise whenever they are called
                if self.conditional:
                    assert y is not None
                    parts = zip(z.split(batch), y.to(device).split(batch), strict=True)
                    return torch.cat([self.generator(*part) for part in parts])
                return torch.cat([self.generator(part) for part in z.split(batch)])
        finally:
            for module, training in modes.items():
                module.training = training
