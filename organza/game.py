r"""The game: a prior p_z, a generator G and a discriminator D, an objective V(D, G) and terms beside it.

.. math:: \min_G \max_D V(D, G) = E_{x \sim p_{data}}[\log D(x)] + E_{z \sim p_z}[\log(1 - D(G(z)))]

A game knows how to make fakes, how to look at a batch and what each player then pays; it does not know who moves
when (``moves``) nor by which rule (``optimizer``).

References:
    Generative Adversarial Nets (Goodfellow et al., 2014)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor, nn

from organza.objective import NonSaturating, Objective
from organza.prior import Prior
from organza.round import Batch, Draw, Player, Round, Verdict
from organza.schedule import at
from organza.term import Term

__all__ = ["Augment", "Constraint", "Game", "Precision", "Replay"]

Precision = Literal["float32", "bfloat16"]
T = TypeVar("T")


class Augment(Protocol):
    """A differentiable augmentation of what D sees: (x, y, draw) -> (x, y).

    It may also have ``measures() -> {name: scalar}``, for the log of D's turn, and ``adaptive``: whether it needs to
    know how often D is right, of real examples or of pairs.
    """

    def __call__(self, x: Tensor, y: Tensor | None, draw: Draw) -> tuple[Tensor, Tensor | None]: ...


class Replay(Protocol):
    """What D is shown in its own turn in the place of new fakes: (fake, draw) -> fake."""

    def __call__(self, fake: Tensor, draw: Draw) -> Tensor: ...


class Constraint(Protocol):
    """What is done to the weights of ``players`` after their step."""

    @property
    def players(self) -> tuple[Player, ...]: ...

    def __call__(self, network: nn.Module) -> None: ...


class Game(nn.Module):
    """The two players and what they play for.  Every part can be the user's own.

    All that adapts during training (BEGAN's k, ADA's p, a mixture's weights, spectral norm's vectors, an image pool)
    is a buffer of the game, so that its ``state_dict`` is the whole of its state.

    Arguments:
        generator: G(z), or G(z, y) if ``conditional``; returns x, (B, ...), images in [-1, 1].
        discriminator: D(x), or D(x, y) if ``conditional``; returns logits or a :class:`~organza.round.Verdict`.
        prior: The law of z.
        objective: V(D, G); non-saturating if not given.
        terms: What else enters the losses (penalties, reconstruction, mutual information ...).
        augment: What D sees instead of x, differentiable, applied to real and fake alike.
        replay: The fakes D is shown instead of G's newest: (fake, draw) -> fake.
        constraints: What is done to weights after a step (clipping, largest norm).
        conditional: Whether the networks take the condition y.
        joint: Whether D sees real and fake in one call in its own turn.  The same mathematics, and faster, unless D
            uses batch statistics.
        precision: What the networks compute with, forth and back.  With "bfloat16" (8 bits of precision) their products
            and convolutions are several times faster where the processor has it; weights, logits, losses, penalties
            and optimizers stay in float32.

    Raises:
        ValueError: If a part is not what it should be.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        prior: Prior,
        objective: Objective | None = None,
        terms: Iterable[Term] = (),
        augment: Augment | None = None,
        replay: Replay | None = None,
        constraints: Iterable[Constraint] = (),
        conditional: bool = False,
        joint: bool = False,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        terms, constraints = _listed("terms", terms), _listed("constraints", constraints)
        for part in (prior, objective, *terms, *constraints):
            if isinstance(part, type):
                raise ValueError(f"Game(...): got the class {part.__name__}, needs an instance: {part.__name__}(...)")
        for name, network in (("generator", generator), ("discriminator", discriminator)):
            if not isinstance(network, nn.Module):
                raise ValueError(f"Game({name}=...): got {type(network).__name__}, needs an nn.Module instance")
        self.generator = generator
        self.discriminator = discriminator
        self.prior = prior
        self.objective = NonSaturating() if objective is None else objective
        if getattr(augment, "adaptive", False) and not (self.objective.anchored or self.objective.paired):
            name = type(self.objective).__name__
            raise ValueError(
                f"{type(augment).__name__}(p=None): p adapts to how often D is right, which {name}'s logits do not "
                "tell; give p a number, e.g. p=0.2"
            )
        if replay is not None and (of_noise := [term.name for term in terms if term.noise]):
            raise ValueError(
                f"replay={type(replay).__name__}(...): {of_noise[0]} asks D for the z of each fake it is shown, which "
                "an old fake no longer has; leave out one of the two"
            )
        learns = getattr(prior, "learns", "")
        if idle := [term for term in terms if term.teaches not in ("", learns)]:
            what = f"the prior {type(prior).__name__} does not learn from {idle[0].teaches!r}, which this term gives it"
            raise ValueError(f"{idle[0].name}: {what}; take one that does, or leave the term out")
        if not conditional and (blind := [term.name for term in terms if term.conditional]):
            raise ValueError(f"{blind[0]}: D must be shown the conditions: conditional=True, and networks that take y")
        if precision not in get_args(Precision):
            raise ValueError(f"precision={precision!r}: must be {' or '.join(get_args(Precision))}")
        self.terms = nn.ModuleList(terms)
        self.augment = augment
        self.replay = replay
        self.constraints = constraints
        self.conditional = conditional
        self.joint = joint
        self.precision = precision
        self.paired = self.objective.paired or any(term.paired for term in terms)

    @property
    def players(self) -> dict[Player, nn.Module]:
        """The two networks by name, D first: the order of Algorithm 1."""
        return {"discriminator": self.discriminator, "generator": self.generator}

    def generate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Draw z from the prior and return z and G(z), one for each row of the batch."""
        if self.conditional and batch.y is None:
            raise ValueError("the game is conditional, but the data have no labels or other conditions y")
        z = batch.draw(self.prior.draw)  # (B, ...)
        fake: Tensor = self._said(self.generator, *((z, batch.y) if self.conditional else (z,)))
        return z, fake

    def look(
        self,
        batch: Batch,
        z: Tensor,
        fake: Tensor,
        turn: Player,
        D: Callable[..., Any] | None = None,
    ) -> Round:
        """Let D judge the fakes and, in its own turn or if the game is ``paired``, the real examples.

        Arguments:
            batch: The real examples and their conditions.
            z: The noise of the fakes.
            fake: The fakes, (B, ...): fresh, shared or pooled, with or without G's graph.
            turn: Whose turn it is.
            D: Judges instead of the game's own discriminator (an unrolled one).
        """
        judge = self.discriminator if D is None else D
        own = turn == "discriminator"
        if own and self.replay is not None:
            fake = self.replay(fake, batch.draw)
        if fake.shape != batch.x.shape:
            raise ValueError(f"G made {tuple(fake.shape)} for data of shape {tuple(batch.x.shape)}: they must agree")
        real = batch.x.detach().requires_grad_(own)
        fake = fake if fake.requires_grad or not own else fake.detach().requires_grad_()

        def critic(*xs: Tensor, y: Tensor | None = batch.y) -> Verdict:
            views = zip(*(self._view(x, y, batch.draw) for x in xs), strict=True)
            seen = (torch.cat(parts) if len(xs) > 1 else parts[0] for parts in views)
            return Verdict.of(self._said(judge, *seen))

        real_verdict = None
        if own and self.joint:
            real_verdict, fake_verdict = critic(real, fake).halves()
        elif own:
            real_verdict, fake_verdict = critic(real), critic(fake)
        else:
            if self.paired:  # what D says of real examples depends on G only through an unrolled D
                with torch.set_grad_enabled(D is not None):
                    real_verdict = critic(real)
            fake_verdict = critic(fake)
        return Round(
            real=real,
            fake=fake,
            y=batch.y,
            z=z,
            real_verdict=real_verdict,
            fake_verdict=fake_verdict,
            critic=critic,
            generator=partial(self._said, self.generator),
            draw=batch.draw,
            images=batch.images,
            step=batch.step,
            joint=self.joint and own,
            labelled=batch.labelled,
            evidence=self._read(turn, "real", real_verdict)
            | self._read(turn, "fake", fake_verdict)
            | (self._compare(real_verdict, fake_verdict) if own else {}),
        )

    def _said(self, network: Callable[..., Any], *inputs: Any) -> Any:
        """What a network returns, in float32 whatever it computes with."""
        if self.precision == "float32" or inputs[0].is_meta:
            return network(*inputs)
        # No cache of rounded weights: between two uses they may have moved.
        with torch.autocast(inputs[0].device.type, torch.bfloat16, cache_enabled=False):
            said = network(*inputs)
        return said.float() if isinstance(said, Tensor | Verdict) else said

    def _view(self, x: Tensor, y: Tensor | None, draw: Draw) -> tuple[Tensor, ...]:
        """What D is given for x: its augmentation, and the condition if the game is conditional."""
        if self.augment is not None:
            x, y = self.augment(x, y, draw)
        return (x, y) if self.conditional and y is not None else (x,)

    def _read(self, turn: Player, side: str, verdict: Verdict | None) -> dict[str, Tensor]:
        """The evidence in a verdict: the mean logit, the mean of what a person reads as D(x), and how often D is right
        (in its own turn, where zero is its border)."""
        if verdict is None:
            return {}
        logits, name = verdict.logits.detach(), f"{turn}/{side}"
        read = {f"{name}_logits": logits.mean(), f"{name}_score": self.objective.score(logits).mean()}
        if turn == "discriminator" and self.objective.anchored:
            right = logits > 0 if side == "real" else logits < 0
            read[f"{name}_accuracy"] = right.to(logits.dtype).mean()
        return read

    def _compare(self, real: Verdict | None, fake: Verdict) -> dict[str, Tensor]:
        """The rest of the evidence of D's turn: how often it is right of pairs, if the objective judges these, and what
        the augmentation says of itself."""
        assert real is not None
        read: dict[str, Tensor] = getattr(self.augment, "measures", dict)()
        if self.objective.paired:
            read = {**read, "pairs_right": (real.logits > fake.logits).to(real.logits.dtype).mean()}
        return {f"discriminator/{name}": value for name, value in read.items()}

    def losses(self, round: Round, player: Player) -> dict[str, tuple[float, Tensor]]:
        """Return all that the player pays, as {unique name: (weight, unreduced tensor)}."""
        real_logits = None if round.real_verdict is None else round.real_verdict.logits
        fake_logits = round.fake_verdict.logits
        if player == "discriminator":
            assert real_logits is not None
            losses = {"objective": (1.0, self.objective.discriminator(real_logits, fake_logits))}
            measures = self.objective.measures(real_logits.detach(), fake_logits.detach())
            round.evidence.update({f"{player}/{name}": value for name, value in measures.items()})
        else:
            losses = {"objective": (1.0, self.objective.generator(real_logits, fake_logits))}
        for name, term in zip(self._names(), self.terms, strict=True):
            value = getattr(term, player)(round)
            if value is not None:
                if name in losses:
                    raise ValueError(f"two losses are named {name!r}: give one of the terms another name")
                losses[name] = (at(term.weight, round.images), value)  # type: ignore[arg-type]
        return losses

    def _names(self) -> list[str]:
        """The terms' names, numbered where one comes twice."""
        names = [str(term.name) for term in self.terms]
        return [f"{n}{names[:i].count(n) + 1}" if names.count(n) > 1 else n for i, n in enumerate(names)]

    def loss(self, round: Round, player: Player) -> Tensor:
        """Return this micro-batch's share of the player's loss, a scalar; the shares of a global batch add up to it.

        Each part is reduced before they are added: patches, packs and examples differ in shape.
        """
        total = torch.zeros((), device=round.fake.device)
        for name, (weight, value) in self.losses(round, player).items():
            mean = value.mean()
            round.evidence[f"{player}/{name}"] = mean.detach()
            total = total + weight * mean
        return round.draw.share * total

    def equilibrium(self) -> dict[str, float]:
        """Return what the evidence would be if G's law were the data's and D the best against it.

        Empty if the objective's optimum is not known; where other logits are as good (relativistic objectives, hinge),
        only what is the same for all of them.  Terms are left out.
        """
        one = torch.ones(1, device=next((tensor.device for tensor in self.objective.buffers()), None))
        logits = self.objective.optimum(one, one)
        if logits is None:
            return {}

        def reading(logits: Tensor) -> dict[str, float]:
            score = float(self.objective.score(logits))
            return {
                "discriminator/objective": float(self.objective.discriminator(logits, logits)),
                "generator/objective": float(self.objective.generator(logits, logits)),
                "discriminator/real_score": score,
                "discriminator/fake_score": score,
            }

        here, elsewhere = reading(logits), reading(logits + 1)
        if here["discriminator/objective"] != elsewhere["discriminator/objective"]:
            return here
        return {name: value for name, value in here.items() if value == elsewhere[name]}

    def prime(self, mean: Callable[[], Tensor]) -> None:
        """Let every part that starts from the data do so, by the data's mean example in [-1, 1]."""
        for module in self.modules():
            if module is not self and hasattr(module, "prime"):
                module.prime(mean())  # type: ignore[operator]

    def adapt(self, evidence: Mapping[str, Tensor]) -> None:
        """Let every part that adapts do so, by the global means of the move just made.

        A part must assign its buffers anew rather than write into them: the graph of fakes that both players' steps
        share is still alive at D's move.
        """
        for part in self.modules():
            # The class is asked: a module's own search for a name that it lacks is slow.
            if part is not self and hasattr(type(part), "adapt"):
                part.adapt(evidence)  # type: ignore[operator]


def _listed(name: str, parts: Iterable[T]) -> tuple[T, ...]:
    """The parts, whatever holds them: an iterator could be read but once."""
    if not isinstance(parts, Iterable):
        one = type(parts).__name__
        raise ValueError(f"Game({name}=...): got one {one}, needs a list: [{one}(...)]")
    return tuple(parts)
