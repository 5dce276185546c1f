r"""The records that flow through one step of the game.

A player's turn reads one :class:`Batch` after another.  For each, G maps z to a fake, D gives its :class:`Verdict`
on the real and the fake, and the whole look is kept in one :class:`Round`, which the objective, the terms, the log
and the diagnosis all read.

Legend: B = examples in a micro-batch, x = data in [-1, 1], z = noise, y = condition (label, vector or image).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch", "Draw", "Player", "Round", "Verdict", "key"]

Player = Literal["generator", "discriminator"]


def key(*parts: object) -> int:
    """Hash the parts to a seed in [0, 2**63), the same on every machine.

    All chance is drawn from generators seeded by such keys, so that a run continues exactly from two integers.
    """
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


class Draw:
    """Per-example chance: drawn for the whole global batch, of which this micro-batch keeps its rows.

    Any split of a batch into micro-batches or ranks therefore sees the same numbers for the same example.

    Arguments:
        generator: The random generator, in the same state in every micro-batch of the turn.
        total: The number of examples in the global batch.
        rows: The rows of the global batch that this micro-batch holds.
    """

    def __init__(self, generator: torch.Generator, total: int, rows: slice | None = None) -> None:
        self.generator = generator
        self.total = total
        self.rows = slice(0, total) if rows is None else rows

    def __call__(self, sample: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """Return this micro-batch's rows of ``sample(total, generator)``, with shape (B, ...)."""
        return sample(self.total, self.generator)[self.rows]

    @property
    def share(self) -> float:
        """The micro-batch's share B / total of the global batch, its weight in every mean."""
        return (self.rows.stop - self.rows.start) / self.total


class Verdict(NamedTuple):
    """What D says of a batch.

    Arguments:
        logits: Higher is more real: (B,), (B, h, w) for patches, (B/m,) for packs, minus the energy of an autoencoder.
        heads: Whatever else D says, by name ("classes", "features", "codes"); each begins with the batch.
    """

    logits: Tensor
    heads: Mapping[str, Tensor] = {}

    @classmethod
    def of(cls, output: Any) -> Verdict:
        """Read what D returned: a plain tensor is a verdict with no heads, and (B, 1) becomes (B,).

        Without the latter, (B, 1) against (B,) would silently broadcast to (B, B).
        """
        verdict = output if isinstance(output, Verdict) else cls(output)
        logits = verdict.logits
        if not isinstance(logits, Tensor):
            raise ValueError(
                f"D returned {type(logits).__name__}; it must return a tensor of logits or a Verdict(logits, heads)"
            )
        return verdict._replace(logits=logits.squeeze(1)) if logits.ndim == 2 and logits.shape[1] == 1 else verdict

    def head(self, name: str, given_by: str) -> Tensor:
        """Return what else D says, by name.

        Raises:
            ValueError: If D does not say it, with what would make it: ``given_by``.
        """
        if name not in self.heads:
            says = ", ".join(self.heads) or "nothing beside its logits"
            raise ValueError(f"D says nothing of {name} ({given_by}): it says {says}")
        return self.heads[name]

    def float(self) -> Verdict:
        """The verdict in float32."""
        return Verdict(self.logits.float(), {name: head.float() for name, head in self.heads.items()})

    def halves(self) -> tuple[Verdict, Verdict]:
        """Split the verdict on a joined batch (2B, ...) into that on its first and its second half."""
        first = Verdict(self.logits.chunk(2)[0], {name: head.chunk(2)[0] for name, head in self.heads.items()})
        second = Verdict(self.logits.chunk(2)[1], {name: head.chunk(2)[1] for name, head in self.heads.items()})
        return first, second


class Batch(NamedTuple):
    """One micro-batch from the data stream.

    Arguments:
        x: The real examples, (B, ...), in [-1, 1].
        y: The condition of each row, (B, ...), or None; the label -1 is "unlabelled".
        draw: The chance of these rows.
        images: The images shown to D before this turn.
        step: The moves of G so far.
        labelled: As many labelled examples (x, y), if the training draws them beside the batch; else None.
    """

    x: Tensor
    y: Tensor | None
    draw: Draw
    images: int
    step: int
    labelled: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Round:
    """All that one look shows.

    Arguments:
        real: The real examples before augmentation, (B, ...).  In D's turn both ``real`` and ``fake`` carry
            gradients, so that slopes pass through the augmentation.
        fake: The generated examples before augmentation, (B, ...).
        y: One condition per row, for real and fake alike, or None.
        z: The noise of ``fake``, (B, ...).
        real_verdict: D's verdict on the real; None in G's turn unless the objective or a term is ``paired``.
        fake_verdict: D's verdict on the fake.
        critic: x -> the verdict of D on augmented x, for terms that ask elsewhere (WGAN-GP, DRAGAN); with ``y=``
            another condition.
        generator: G, for terms that ask it again (cycle, identity).
        draw: The chance of these rows.
        images: The images shown to D before this turn.
        step: The moves of G so far.
        joint: Whether D saw real and fake in one call, in its own turn.
        labelled: Labelled examples (x, y) beside the batch, for terms that classify, or None.
        evidence: Named scalars: what the log prints, ``adapt`` reads and diagnosis judges.  A vector is for ``adapt``
            alone.
    """

    real: Tensor
    fake: Tensor
    y: Tensor | None
    z: Tensor
    real_verdict: Verdict | None
    fake_verdict: Verdict
    critic: Callable[..., Verdict]
    generator: Callable[..., Tensor]
    draw: Draw
    images: int
    step: int
    joint: bool = False
    labelled: tuple[Tensor, Tensor] | None = None
    evidence: dict[str, Tensor] = field(default_factory=dict)
    slopes: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def slope(self, side: Literal["real", "fake"]) -> Tensor:
        """Return the gradient of the summed logits in ``real`` or ``fake``, (B, ...), kept for the next to ask.

        The gradient is itself differentiable.  A joint look differentiates both sides in one call, since the
        backward pass through the joined batch costs the same for one as for two.
        """
        if side not in self.slopes:
            sides = ("real", "fake") if self.joint else (side,)
            logits = [self._verdict(s).logits.sum() for s in sides]
            inputs = [getattr(self, s) for s in sides]
            slopes = torch.autograd.grad(logits, inputs, create_graph=True)
            self.slopes.update(zip(sides, slopes, strict=True))
        return self.slopes[side]

    def _verdict(self, side: str) -> Verdict:
        verdict = self.real_verdict if side == "real" else self.fake_verdict
        assert verdict is not None, "a slope on the real needs D's verdict on the real: declare the term `paired`"
        return verdict
