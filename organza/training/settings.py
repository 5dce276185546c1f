"""The settings of a training: how a game is played."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from organza.game import Augment
from organza.moves import Alternating, Moves
from organza.optimizer import Adam, Optimizer
from organza.schedule import Schedule

__all__ = ["Training"]


@dataclass(frozen=True)
class Training:
    """How a game is played: by whom, how long, and what is kept on the way.  Frozen; numbers are checked.

    Arguments:
        images: The length of the run: images shown to D.
        batch: The examples in each player's turn (the global batch).
        generator_batch: Those in G's turn, where it draws its own; 0 for ``batch``.
        accumulate: The micro-batches into which a turn is cut to save memory; must divide both.
        moves: Who moves when.
        generator_optimizer: The rule of G's step.
        discriminator_optimizer: The rule of D's step.
        half_life: Of G's moving average, in images: a number or a schedule; 0 follows G itself.
        labelled: Whether as many examples whose label is known are drawn beside each batch, for terms that classify.
        jitter: What examples and their conditions go through before either player sees them; none if not given.
        replacement: Whether real examples are drawn with replacement instead of in shuffled epochs.
        seed: Of everything: initial order, noise, dropout.
        log_every: Images from one line of the log to the next.
        sample_every: Images from one picture of the same z to the next; 0 for the first and the last alone.
        save_every: Images from one checkpoint to the next; 0 for by the clock alone.
        threads: CPU threads; 0 leaves PyTorch's number.  Few suit small networks; the last bits depend on it.
        nonfinite: What to do about a move whose loss or gradient is not finite: "stop", or "skip" it (no more than ten
            in a row), which on a GPU costs the wait for every move.
        channels_last: Whether images and kernels are laid out channels last in memory, if a network convolves.

    Raises:
        ValueError: If a number is out of its range.
    """

    images: int = 1_000_000
    batch: int = 64
    generator_batch: int = 0
    accumulate: int = 1
    moves: Moves = Alternating()
    generator_optimizer: Optimizer = Adam()
    discriminator_optimizer: Optimizer = Adam()
    half_life: float | Schedule = 10_000
    labelled: bool = False
    jitter: Augment | None = None
    replacement: bool = False
    seed: int = 0
    log_every: int = 2_000
    sample_every: int = 50_000
    save_every: int = 0
    threads: int = 0
    nonfinite: str = "stop"
    channels_last: bool = True

    def __post_init__(self) -> None:
        for name in ("generator_optimizer", "discriminator_optimizer"):
            if not hasattr(getattr(self, name), "build"):
                got = type(getattr(self, name)).__name__
                raise ValueError(f"{name}: got {got}, needs the settings of one, as organza.optimizer.Adam(lr=2e-4)")
        least = dict.fromkeys(("images", "batch", "accumulate", "log_every"), 1)
        for name in (*least, "generator_batch", "sample_every", "save_every", "threads"):
            if getattr(self, name) < least.get(name, 0):
                raise ValueError(f"{name}={getattr(self, name)}: must be {least.get(name, 0)} or more")
        for name in ("batch", "generator_batch"):
            if getattr(self, name) % self.accumulate:
                raise ValueError(f"accumulate={self.accumulate}: must divide {name}={getattr(self, name)}")
        if getattr(self.jitter, "adaptive", False):
            raise ValueError(f"jitter={type(self.jitter).__name__}: its p does not adapt here; give it, e.g. p=0.2")
        if callable(getattr(self.jitter, "p", None)):
            raise ValueError(
                f"jitter={type(self.jitter).__name__}: its p cannot change here; give a number, e.g. p=0.2"
            )
        if not callable(self.half_life) and not self.half_life >= 0:
            raise ValueError(f"half_life={self.half_life}: must be 0 or more images")
        if self.nonfinite not in ("stop", "skip"):
            raise ValueError(f"nonfinite={self.nonfinite!r}: must be stop or skip")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: must be between 0 and 2**63 - 1")

    def describe(self) -> dict[str, str]:
        """The settings as text, to compare two runs by; of a function, not where it lies in memory."""
        return {f.name: re.sub(r" at 0x[0-9a-fA-F]+", "", repr(getattr(self, f.name))) for f in fields(self)}
