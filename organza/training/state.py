"""The settings of a training, and its state: all that changes between two rounds, and nothing else.

All chance is re-derived from (seed, images, steps), so that a restored state continues exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from organza.data import Data, Order
from organza.device import seed_networks
from organza.ema import average, averaged
from organza.game import Augment, Game
from organza.model import Model
from organza.moves import Alternating, Moves
from organza.optimizer import Adam, Optimizer
from organza.round import Batch, Draw, Player, Round, key
from organza.schedule import Schedule, at

__all__ = ["Diverged", "State", "Training"]


class Diverged(ValueError):
    """A loss or a weight is no longer finite; what was saved before is whole."""


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
        sample_every: Images from one picture of the same z to the next; 0 for none.
        save_every: Images from one checkpoint to the next; 0 for by the clock alone.
        threads: CPU threads; 0 leaves PyTorch's number.  Few suit small networks; the last bits depend on it.
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
    channels_last: bool = True

    def __post_init__(self) -> None:
        least = dict.fromkeys(("images", "batch", "accumulate", "log_every"), 1)
        for name in (*least, "generator_batch", "sample_every", "save_every", "threads"):
            if getattr(self, name) < least.get(name, 0):
                raise ValueError(f"{name}={getattr(self, name)}: must be {least.get(name, 0)} or more")
        for name in ("batch", "generator_batch"):
            if getattr(self, name) % self.accumulate:
                raise ValueError(f"accumulate={self.accumulate}: must divide {name}={getattr(self, name)}")
        if getattr(self.jitter, "adaptive", False):
            raise ValueError(f"jitter={type(self.jitter).__name__}: its p does not adapt here; give it, e.g. p=0.2")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: must be between 0 and 2**63 - 1")

    def describe(self) -> dict[str, str]:
        """The settings as text, to compare two runs by; of a function, not where it lies in memory."""
        return {f.name: re.sub(r" at 0x[0-9a-fA-F]+", "", repr(getattr(self, f.name))) for f in fields(self)}


class State:
    """A game in play: everything that changes, and the two verbs that change it (see :class:`~organza.moves.Table`).

    Arguments:
        game: The game; moved to the device.
        training: How it is played.
        data: The real examples; moved to the device.
        device: Where to play.
    """

    def __init__(self, game: Game, training: Training, data: Data, device: torch.device) -> None:
        self.game = game.to(device).train()
        self.channels_last = training.channels_last and any(weight.ndim == 4 for weight in game.parameters())
        if self.channels_last:
            game.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training = training
        self.data = data.to(device)
        self.device = device
        game.prime(lambda: data.mean)
        self.average = averaged(game.generator)
        rules = {"discriminator": training.discriminator_optimizer, "generator": training.generator_optimizer}
        self.rules: dict[Player, Optimizer] = {p: rules[p] for p in game.players}
        self.weights = {p: [w for w in net.parameters() if w.requires_grad] for p, net in game.players.items()}
        self.optimizers = {p: self.rules[p].build(self.weights[p]) for p in game.players}
        self.orders = {
            p: Order(len(data), key(training.seed, "order", p) >> 1, training.replacement) for p in game.players
        }
        self.labels = self._labelled() if training.labelled else None
        self.images = 0  # shown to D
        self.steps = 0  # moves of G
        self.averaged_at = 0  # images at the last step of the average
        self.evidence: dict[str, Tensor] = {}  # of the move in the making
        self.sums: dict[str, Tensor] = {}  # of evidence, since the last line of the log
        self.counts: dict[str, int] = {}
        self.latest: dict[str, float] = {}  # the last line of the log

    def stream(self, player: Player) -> Iterator[Batch]:
        """Yield the micro-batches of the player's next turn: a function of (seed, images, steps, player) alone.

        D's real examples are the next in its order; G's, where it looks at any, come from an order of its own.
        """
        total = (player == "generator" and self.training.generator_batch) or self.training.batch
        size = total // self.training.accumulate
        position = self.images if player == "discriminator" else self.steps * total
        index = self.orders[player].indices(position, total).to(self.device)
        chance = key(self.training.seed, self.images, self.steps, player)
        for micro in range(self.training.accumulate):
            rows = slice(micro * size, (micro + 1) * size)
            x, y = self.data.gather(index[rows])
            x = x.to(torch.get_default_dtype())
            y = y.to(x.dtype) if y is not None and y.is_floating_point() else y
            draw = Draw(torch.Generator(self.device).manual_seed(chance), total, rows)
            if self.training.jitter is not None:
                x, y = self.training.jitter(x, y, draw)
            if self.channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            seed_networks(key(chance, micro), self.device)
            beside = self._beside(position, draw) if player == "discriminator" else None
            yield Batch(x, y, draw, self.images, self.steps, beside)

    def _labelled(self) -> tuple[Tensor, Order]:
        """The examples whose label is known, and the order in which they are drawn."""
        y = self.data.y
        known = torch.empty(0) if y is None or y.ndim > 1 else (y >= 0).nonzero().squeeze(1)
        if not len(known):
            raise ValueError(
                "labelled=True: the data have no labelled examples; give labels, or name them -1 if unknown"
            )
        return known, Order(len(known), key(self.training.seed, "labelled") >> 1)

    def _beside(self, position: int, draw: Draw) -> tuple[Tensor, Tensor] | None:
        """As many labelled examples as the micro-batch has, from an order of their own."""
        if self.labels is None:
            return None
        known, order = self.labels
        x, y = self.data.gather(known[order.indices(position, draw.total)[draw.rows].to(known.device)])
        x = x.to(torch.get_default_dtype())
        if self.training.jitter is not None:
            x, y = self.training.jitter(x, y, draw)
        assert y is not None
        return x, y

    def learn(self, player: Player, loss: Tensor, *rounds: Round, keep: bool = False) -> None:
        """Add the loss's gradient to the player's parameters and the rounds' evidence to the move's."""
        loss.backward(inputs=self.weights[player], retain_graph=keep)
        for round in rounds:
            for name, value in round.evidence.items():
                share = round.draw.share * value
                self.evidence[name] = self.evidence[name] + share if name in self.evidence else share

    def move(self, player: Player) -> None:
        """Take the player's step, let what adapts adapt, and count."""
        optimizer = self.optimizers[player]
        self.rules[player].set(optimizer, self.images)
        if self.steps % 4 == 0:  # often enough for a mean, and a pass over all weights less
            slopes = [weight.grad for weight in self.weights[player] if weight.grad is not None]
            self.evidence[f"{player}/gradient"] = torch.stack(torch._foreach_norm(slopes)).norm()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for constraint in self.game.constraints:
            if player in constraint.players:
                constraint(self.game.players[player])
        evidence, self.evidence = self.evidence, {}
        self.game.adapt(evidence)
        for name, value in evidence.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        if player == "discriminator":
            self.images += self.training.batch
        else:
            self.steps += 1
            half_life = at(self.training.half_life, self.images)
            average(self.average, self.game.generator, self.images - self.averaged_at, half_life)
            self.averaged_at = self.images

    def means(self) -> dict[str, float]:
        """Return the mean evidence since the last call, and begin anew.

        Raises:
            Diverged: If one of them is not finite.
        """
        means = {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        for name, value in means.items():
            if not math.isfinite(value):
                advice = "lower the learning rate, or raise the weight of R1 (gamma)"
                raise Diverged(f"{name} became {value} before image {self.images}: training diverged; {advice}")
        self.latest = means
        return means

    def model(self, run: Path | None = None) -> Model:
        """Return the generator with the averaged weights."""
        return Model(self.average, self.game.prior, self.game.conditional, run, values=self.data.values)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors of the state, by group and name.

        Raises:
            Diverged: If a weight is not finite, so that no checkpoint is ever poisoned.
        """
        groups: dict[str, dict[str, Tensor]] = {
            "game": self.game.state_dict(),
            "ema": self.average.state_dict(),
            "evidence": self.sums,
        }
        for player, optimizer in self.optimizers.items():
            groups[f"{player}_optimizer"] = {
                f"{i}.{name}": value
                for i, weight in enumerate(self.weights[player])
                for name, value in optimizer.state[weight].items()
                if isinstance(value, Tensor)
            }
        for group in ("game", "ema"):
            for name, value in groups[group].items():
                if value.is_floating_point() and not bool(value.isfinite().all()):
                    raise Diverged(f"{name} is not finite at image {self.images}: the last good checkpoint is kept")
        return groups

    def record(self) -> dict[str, Any]:
        """Return the rest of the state, as JSON."""
        return {name: getattr(self, name) for name in ("images", "steps", "averaged_at", "counts")} | {
            "training": self.training.describe(),
            "data": self.data.digest,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def restore(self, groups: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            ValueError: If it belongs to other data, another game or another training.
        """
        _compare(record, self.record())
        _load(self.game, groups["game"])
        _load(self.average, groups["ema"])
        for player, optimizer in self.optimizers.items():
            optimizer.state.clear()
            for name, value in groups[f"{player}_optimizer"].items():
                index, entry = name.split(".", 1)
                weight = self.weights[player][int(index)]
                # A moment lies in memory as its weight does: fused optimizers walk both in step.
                moment = torch.empty_like(weight) if value.shape == weight.shape else torch.empty_like(value)
                optimizer.state[weight][entry] = moment.to(self.device, value.dtype).copy_(value)
        self.sums = {name: value.to(self.device) for name, value in groups["evidence"].items()}
        self.counts = dict(record["counts"])
        self.images, self.steps, self.averaged_at = record["images"], record["steps"], record["averaged_at"]


def _load(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the checkpoint does not fit this game: {reason}") from None


def _compare(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a state that was made otherwise; a longer run and other intervals are no difference."""
    free = {"images", "log_every", "sample_every", "save_every"}
    if saved["data"] != now["data"]:
        raise ValueError("the run was trained on other data (the digests differ); resume with the same data")
    for name, value in now["training"].items():
        if name not in free and saved["training"].get(name, value) != value:
            was = f"{name}={saved['training'][name]}"
            raise ValueError(f"the run was trained with {was}, not {value}; resume with the same settings")
