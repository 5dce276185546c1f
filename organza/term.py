r"""Terms: all that enters a player's loss beside the objective.

A term reads the :class:`~organza.round.Round` and returns numbers of any shape, whose mean, times the weight, is
added to the loss of the player it speaks to.  A penalty is a term of D alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from organza.round import Round, Verdict

__all__ = [
    "Classification",
    "Cycle",
    "FeatureMatching",
    "Identity",
    "Lazy",
    "Mismatch",
    "MutualInformation",
    "Reconstruction",
    "Term",
]


class Term(nn.Module):
    """A part of the loss of D, of G, or of both.  Override one of the two parts, or both.

    Attributes:
        paired: Whether G's part needs D's verdict on real examples.
        noise: Whether D's part needs the z of each fake that D is shown, which an old fake no longer has.
        conditional: Whether D must be shown the conditions.
        bounded: Whether conditions that are numbers must lie in 0 ... 1.
        teaches: The evidence from which the prior is to learn, where it is there for that.
        name: Its name in the log: the class's, unless changed.

    Arguments:
        weight: The factor of the term's mean: a number, or a function of the images shown to D.
    """

    paired: bool = False
    noise: bool = False
    conditional: bool = False
    bounded: bool = False
    teaches: str = ""

    def __init__(self, weight: float | Callable[[int], float] = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.name = type(self).__name__

    def discriminator(self, round: Round) -> Tensor | None:
        """Return D's part, of any shape, whose mean is the term; None adds nothing."""
        return None

    def generator(self, round: Round) -> Tensor | None:
        """Return G's part, of any shape, whose mean is the term; None adds nothing."""
        return None

    def check(self, shape: Sequence[int]) -> None:
        """Refuse examples of a shape that it cannot read, or a machine that lacks what it needs.  Default: nothing.

        Raises:
            ValueError: In such a case; asked before a run writes anything.
        """

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
        self.term, self.every, self.name = term, every, term.name
        self.paired, self.noise = term.paired, term.noise
        self.conditional, self.bounded, self.teaches = term.conditional, term.bounded, term.teaches

    def check(self, shape: Sequence[int]) -> None:
        self.term.check(shape)

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


def _both_ways(term: Term, round: Round) -> Tensor:
    """The pair y = (a, b) that G leads both ways."""
    if round.y is None or round.y.shape != round.fake.shape:
        raise ValueError(f"{term.name}: needs data 'A and B', and a G of both directions, as recipe cyclegan has")
    return round.y


class Cycle(Term):
    r"""How far the way there and back leads from where it began, :math:`|G(G(y)) - y|` per element.

    For a G of two directions at once: from the joined pair y = (a, b) it makes :math:`G(z, y) = (G_A(b), G_B(a))`, and
    from these :math:`(G_A(G_B(a)), G_B(G_A(b)))`.  The weight is that of either domain: the mean over the pair halves
    it as it halves the objective.

    References:
        Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu, Park, Isola, Efros, 2017),
        equation 2

    Arguments:
        weight: lambda, the weight of the mean over all elements.
    """

    def __init__(self, weight: float | Callable[[int], float] = 10.0) -> None:
        super().__init__(weight)

    def generator(self, round: Round) -> Tensor:
        y = _both_ways(self, round)
        back: Tensor = round.generator(round.z, round.fake)  # (B, 2C, H, W)
        return (back - y).abs()


class Identity(Term):
    r"""What is of the wanted domain already should stay: :math:`|G_A(a) - a|` and :math:`|G_B(b) - b|` per element.

    For the G of :class:`Cycle`, which is asked again with the halves of y = (a, b) exchanged.  It keeps colours.

    References:
        Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks (Zhu, Park, Isola, Efros, 2017),
        section 5.2

    Arguments:
        weight: The weight of the mean over all elements; the authors take half of the cycle's.
    """

    def __init__(self, weight: float | Callable[[int], float] = 5.0) -> None:
        super().__init__(weight)

    def generator(self, round: Round) -> Tensor:
        y = _both_ways(self, round)
        a, b = y.chunk(2, 1)
        same: Tensor = round.generator(round.z, torch.cat([b, a], 1))  # (B, 2C, H, W)
        return (same - y).abs()


class Classification(Term):
    r"""D names the condition, in its head "classes": the cross-entropy :math:`-\log P(y | x)`, of each example.

    With ``fakes`` it is AC-GAN's: D names y of real and of fake examples in its own turn, and G is to make what D names
    right.  Without them it is the supervised part of the semi-supervised GAN: D names the real examples whose label is
    known, which are the batch's or, if the training draws labelled examples beside it (``training.labelled``), those.

    Unlabelled examples, y = -1, count as 0.  For vectors y of numbers from 0 to 1 it is the mean binary cross-entropy.

    References:
        Conditional Image Synthesis with Auxiliary Classifier GANs (Odena, Olah, Shlens, 2017)
        Improved Techniques for Training GANs (Salimans et al., 2016), section 5

    Arguments:
        weight: The weight of the mean over the batch.
        fakes: Whether fakes are classified too.
    """

    bounded = True  # the cross-entropy of other numbers has no lower bound

    def __init__(self, weight: float | Callable[[int], float] = 1.0, fakes: bool = True) -> None:
        super().__init__(weight)
        self.fakes = fakes

    def discriminator(self, round: Round) -> Tensor:
        if round.labelled is not None:
            x, y = round.labelled
            real = _cross_entropy(round.critic(x), y)
        else:
            assert round.real_verdict is not None
            real = _cross_entropy(round.real_verdict, round.y)
        return real + _cross_entropy(round.fake_verdict, round.y) if self.fakes else real

    def generator(self, round: Round) -> Tensor | None:
        return _cross_entropy(round.fake_verdict, round.y) if self.fakes else None


def _cross_entropy(verdict: Verdict, y: Tensor | None) -> Tensor:
    """The cross-entropy of each example, (B,)."""
    logits = verdict.head("classes", 'condition="auxiliary" or "one-more" gives one')  # (B, K)
    if y is None:
        raise ValueError("Classification: the data have no labels")
    if y.is_floating_point():
        return binary_cross_entropy_with_logits(logits, y, reduction="none").mean(1)
    return cross_entropy(logits, y, reduction="none", ignore_index=-1)


class Mismatch(Term):
    r"""Real examples with the condition of another are fakes to D: its loss gains :math:`-\log(1 - s(D(x_i, y_j)))`.

    Without it D may judge x alone, where fakes give themselves away by their looks.  j is the row before in the
    micro-batch, of the first the last (a batch statistic: accumulation changes it).  Where it has the same condition,
    or either is unlabelled, and in a micro-batch of one row, nothing is added.  It is for objectives of probabilities
    (non-saturating, minimax).

    References:
        Generative Adversarial Text to Image Synthesis (Reed, Akata, Yan, Logeswaran, Schiele, Lee, 2016), section 4.2

    Arguments:
        weight: The weight of the mean over the batch.
    """

    conditional = True

    def discriminator(self, round: Round) -> Tensor | None:
        assert round.y is not None
        if len(round.y) < 2:
            return None
        y, other = round.y, round.y.roll(1, 0)
        foreign = (y != other).flatten(1).any(1) if y.ndim > 1 else (y != other) & (y >= 0) & (other >= 0)  # (B,)
        surprise = softplus(round.critic(round.real, y=other).logits)
        foreign = foreign.view(len(surprise), -1).all(1)  # of a pack every row
        return surprise.where(foreign.view(-1, *[1] * (surprise.ndim - 1)), 0.0)


class FeatureMatching(Term):
    r"""G matches the mean of D's features: :math:`(E f_j(x) - E f_j(G(z)))^2` for each feature j, (F,).

    f is D's head "features".  The means are those of the micro-batch, a batch statistic: accumulation changes them.

    References:
        Improved Techniques for Training GANs (Salimans et al., 2016), section 3.1

    Arguments:
        weight: The weight of the mean over the features.
    """

    paired = True

    def generator(self, round: Round) -> Tensor:
        assert round.real_verdict is not None
        verdicts = (round.real_verdict, round.fake_verdict)
        real, fake = (v.head("features", "a D with classes, codes or components has one").mean(0) for v in verdicts)
        return (real - fake).square()  # G moves the first too, where it looks ahead


class MutualInformation(Term):
    r"""InfoGAN's bound on the information between codes c and G(z, c): :math:`-\log Q(c | G(z, c))`, of each example.

    .. math:: I(c; G(z, c)) \ge E[\log Q(c | x)] + H(c)

    The codes are the first numbers of z, as :class:`~organza.prior.Codes` lays them out, and Q is D's head "codes":
    logits for each category, and means of normal laws of standard deviation ``sigma`` for continuous codes (whose
    constant is left out).  Both players lower it.

    References:
        InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets
        (Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel, 2016)

    Arguments:
        weight: The weight lambda of the mean over the batch.
        categories: The number of categories of each categorical code.
        continuous: The number of continuous codes.
        sigma: The standard deviation of Q for continuous codes.
    """

    noise = True

    def __init__(
        self,
        weight: float | Callable[[int], float] = 1.0,
        categories: Sequence[int] = (10,),
        continuous: int = 2,
        sigma: float = 1.0,
    ) -> None:
        super().__init__(weight)
        if sigma <= 0:
            raise ValueError(f"MutualInformation(sigma={sigma}): must be above 0")
        self.categories, self.continuous, self.sigma = tuple(categories), continuous, sigma

    def discriminator(self, round: Round) -> Tensor:
        return self._surprise(round)

    def generator(self, round: Round) -> Tensor:
        return self._surprise(round)

    def _surprise(self, round: Round) -> Tensor:
        """-log Q(c | G(z, c)), (B,)."""
        sizes = [*self.categories, self.continuous]
        n = sum(sizes)
        said = round.fake_verdict.head("codes", f"codes={n} gives one")  # (B, n)
        if said.shape[1] != n or round.z.shape[1] < n:
            got = f"D reads {said.shape[1]}, z has {round.z.shape[1]} numbers"
            raise ValueError(f"MutualInformation: the codes are {n} numbers, but {got}")
        *categories, (means, codes) = zip(said.split(sizes, 1), round.z[:, :n].split(sizes, 1), strict=True)
        surprise: Tensor = 0.5 * ((means - codes) / self.sigma).square().sum(1)
        for logits, code in categories:
            surprise = surprise + cross_entropy(logits, code.argmax(1), reduction="none")
        return surprise
