r"""Terms: all that enters a player's loss beside the objective.

A term reads the :class:`~organza.round.Round` and returns numbers of any shape, whose mean, times the weight, is
added to the loss of the player it speaks to.  A penalty is a term of D alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor, nn

from organza.round import Round

__all__ = ["Lazy", "Reconstruction", "Term"]


class Term(nn.Module):
    """A part of the loss of D, of G, or of both.  Override one of the two parts, or both.

    Attributes:
        paired: Whether G's part needs D's verdict on real examples.
        name: Its name in the log: the class's, unless changed.

    Arguments:
        weight: The factor of the term's mean: a number, or a function of the images shown to D.
    """

    paired: bool = False

    def __init__(self, weight: float | Callable[[int], float] = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.name = type(self).__name__

    def discriminator(self, round: Round) -> Tensor | None:
        """Return D's part, of any shape with the batch first; None adds nothing."""
        return None

    def generator(self, round: Round) -> Tensor | None:
        """Return G's part, of any shape with the batch first; None adds nothing."""
        return None

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        """Change the term's buffers by the global means of a move just made.  Default: nothing."""


class Lazy(Term):
    """A term taken at every ``every``-th move of G only, with ``every`` times its weight.

    Saves the term's cost at the price of noise.  R3GAN's authors found that it fails altogether on hard cases
    (Stacked MNIST, 2-D toys), so it is no default.

    References:
        Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), lazy regularization

    Arguments:
        term: The term to thin out.
        every: The number of G's moves from one use to the next, at least 1.

    Raises:
        ValueError: If ``every`` is below 1.
    """

    def __init__(self, term: Term, every: int = 16) -> None:
        if every < 1:
            raise ValueError(f"Lazy(every={every}): must be 1 or more")
        weight = term.weight
        super().__init__((lambda images: every * weight(images)) if callable(weight) else every * weight)
        self.term, self.every, self.paired, self.name = term, every, term.paired, term.name

    def discriminator(self, round: Round) -> Tensor | None:
        return self._thinned(round, self.term.discriminator)

    def generator(self, round: Round) -> Tensor | None:
        return self._thinned(round, self.term.generator)

    def _thinned(self, round: Round, part: Callable[[Round], Tensor | None]) -> Tensor | None:
        return None if round.step % self.every else part(round)


class Reconstruction(Term):
    r"""How far G's output is from the real example of the same row, :math:`|G(z, y) - x|` or its square, per element.

    The L1 term of pix2pix, with weight 100, where x is the wanted picture for the condition y.

    References:
        Image-to-Image Translation with Conditional Adversarial Networks (Isola et al., 2017), equation 3

    Arguments:
        weight: The weight of the mean over all elements.
        norm: "l1" or "l2".
    """

    def __init__(self, weight: float | Callable[[int], float] = 100.0, norm: Literal["l1", "l2"] = "l1") -> None:
        if norm not in ("l1", "l2"):
            raise ValueError(f"Reconstruction(norm={norm!r}): must be 'l1' or 'l2'")
        super().__init__(weight)
        self.norm = norm

    def generator(self, round: Round) -> Tensor:
        difference = round.fake - round.real
        return difference.abs() if self.norm == "l1" else difference**2
