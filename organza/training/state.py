"""The state of a training: all that changes between two rounds, and nothing else.

All chance is re-derived from (seed, images, steps), so that a restored state continues exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from organza.data import Data, Order
from organza.device import capacity, seed_networks, undisturbed
from organza.distributed import add, agreed, gather, rank, spread, world
from organza.ema import average, averaged
from organza.game import Game
from organza.model import Model
from organza.optimizer import Optimizer
from organza.pretrained import fill
from organza.round import Batch, Draw, Player, Round, key
from organza.schedule import at
from organza.training.settings import Training

__all__ = ["Diverged", "State", "changed", "check"]


_ADVICE = "lower the learning rates, or raise the weight of R1 (gamma) where there is one"
_MOST_SKIPPED = 10  # moves in a row


class Diverged(ValueError):
    """A loss or a weight is no longer finite; what was saved before is whole."""


class State:
    """A game in play: everything that changes, and the two verbs that change it (see :class:`~organza.moves.Table`).

    Arguments:
        game: The game; moved to the device.
        training: How it is played.
        data: The real examples; moved to the device.
        device: Where to play.
    """

    def __init__(self, game: Game, training: Training, data: Data, device: torch.device) -> None:
        check(game, training, data)
        self.game = game.to(device).train()
        # Not on MPS, whose batch norm goes wrong in it (pytorch#175189).
        wanted = training.channels_last and device.type != "mps"
        self.channels_last = wanted and any(weight.ndim == 4 for weight in game.parameters())
        if self.channels_last:
            game.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training = training
        self.data = data.to(device) if data.nbytes <= capacity(device) / 2 else data  # or it goes there by the batch
        self.device = device
        if training.jitter is not None:  # what it cannot take is told before anything is written
            with undisturbed(device):
                self._examples(torch.zeros(2, dtype=torch.int64), Draw(torch.Generator(device), 2))
        game.prime(lambda: data.mean)
        _follow(dict(game.named_parameters()) | dict(game.named_buffers()))  # a program's own are each process's own
        self.average = averaged(game.generator)
        self.rules: dict[Player, Optimizer] = {p: getattr(training, f"{p}_optimizer") for p in game.players}
        self.weights = {p: [w for w in net.parameters() if w.requires_grad] for p, net in game.players.items()}
        self.optimizers = {p: self.rules[p].build(self.weights[p]) for p in game.players}
        self.orders = {
            p: Order(len(data), key(training.seed, "order", p) >> 1, training.replacement) for p in game.players
        }
        self.labelled = self._labelled() if training.labelled else None
        self.images = 0  # shown to D
        self.steps = 0  # moves of G
        self.averaged_at = 0  # images at the last step of the average
        self.evidence: dict[str, Tensor] = {}  # of the move in the making
        self.paid: dict[Player, Tensor] = {}  # the loss of each player's move in the making
        self.skipped: dict[Player, int] = {}  # moves in a row
        self.sums: dict[str, Tensor] = {}  # of evidence, since the last line of the log
        self.counts: dict[str, int] = {}
        self.latest: dict[str, float] = {}  # the last line of the log

    def stream(self, player: Player) -> Iterator[Batch]:
        """Yield the micro-batches of the player's next turn: a function of (seed, images, steps, player) alone.

        D's real examples are the next in its order; G's, where it looks at any, come from an order of its own.  Several
        processes share the rows of a turn as more micro-batches would.
        """
        total = (player == "generator" and self.training.generator_batch) or self.training.batch
        parts = world() * self.training.accumulate
        size = total // parts
        position = self.images if player == "discriminator" else self.steps * total
        index = self.orders[player].indices(position, total)
        chance = key(self.training.seed, self.images, self.steps, player)
        for micro in range(rank(), parts, world()):  # one process would take them in the same order
            rows = slice(micro * size, (micro + 1) * size)
            draw = Draw(torch.Generator(self.device).manual_seed(chance), total, rows)
            x, y = self._examples(index[rows], draw)
            if self.channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            seed_networks(key(chance, micro), self.device)
            beside = self._beside(position, draw) if player == "discriminator" else None
            yield Batch(x, y, draw, self.images, self.steps, beside)

    def _examples(self, index: Tensor, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """The examples of these numbers and their conditions, on the device, as the players are given them."""
        x, y = self.data.gather(index, self.device)
        x = x.to(torch.get_default_dtype())
        y = y.to(x.dtype) if y is not None and y.is_floating_point() else y
        return (x, y) if self.training.jitter is None else self.training.jitter(x, y, draw)

    def _labelled(self) -> tuple[Tensor, Order]:
        """The examples whose label is known, and the order in which they are drawn."""
        known = _known(self.data)
        return known, Order(len(known), key(self.training.seed, "labelled") >> 1)

    def _beside(self, position: int, draw: Draw) -> tuple[Tensor, Tensor] | None:
        """As many labelled examples as the micro-batch has, from an order of their own."""
        if self.labelled is None:
            return None
        known, order = self.labelled
        x, y = self._examples(known[order.indices(position, draw.total)[draw.rows]], draw)
        assert y is not None
        return x, y

    def learn(self, player: Player, loss: Tensor, *rounds: Round, keep: bool = False) -> None:
        """Add the loss's gradient to the player's parameters and the rounds' evidence to the move's."""
        loss.backward(inputs=self.weights[player], retain_graph=keep)
        self.paid[player] = self.paid.get(player, 0.0) + loss.detach()
        for round in rounds:
            for name, value in round.evidence.items():
                part = round.draw.share * value
                self.evidence[name] = self.evidence[name] + part if name in self.evidence else part

    def move(self, player: Player) -> None:
        """Take the player's step along the gradient of all processes, let what adapts adapt, and count."""
        optimizer = self.optimizers[player]
        self.rules[player].set(optimizer, self.images)
        gradients = [weight.grad for weight in self.weights[player] if weight.grad is not None]
        paid = self.paid.pop(player)
        add([*gradients, *self.evidence.values(), paid])
        skip = self.training.nonfinite == "skip"
        if skip or self.steps % 4 == 0:  # often enough for a mean, and a pass over all weights less
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            self.evidence[f"{player}/gradient"] = norm
            paid = paid + norm
        if (skip or self.device.type == "cpu") and not math.isfinite(paid):
            self._spoilt(player)
            self._count(player)
            return
        self.skipped[player] = 0
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for constraint in self.game.constraints:
            if player in constraint.players:
                constraint(self.game.players[player])
        evidence, self.evidence = self.evidence, {}
        self.game.adapt(evidence)
        for name, value in evidence.items():
            if value.numel() > 1:
                continue  # several numbers are for what adapts alone
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        self._count(player)

    def _spoilt(self, player: Player) -> None:
        """Give up the move in the making, whose loss or gradient is not finite.

        Raises:
            Diverged: Unless such moves are to be skipped, they were few, and no weight or buffer is spoilt.
        """
        kept = _not_finite(self.game.state_dict())
        gradients = {n: w.grad for n, w in self.game.players[player].named_parameters() if w.grad is not None}
        found = kept + _not_finite(self.evidence)
        found += [f"the gradient of {player}.{n}" for n in _not_finite(gradients)]
        self.evidence = {}
        self.optimizers[player].zero_grad(set_to_none=True)
        self.skipped[player] = self.skipped.get(player, 0) + 1
        whole = not agreed(bool(kept))[0]  # a process's own statistics may be spoilt: then all stop
        if self.training.nonfinite == "skip" and whole and self.skipped[player] <= _MOST_SKIPPED:
            self.sums["skipped"] = self.sums.get("skipped", torch.zeros((), device=self.device)) + 1
            self.counts["skipped"] = 1  # their number, not their mean
            return
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        said = ", ".join(found[:3]) + more
        raise Diverged(f"{said}: not finite in move {self.steps} of the {player}, at image {self.images}; {_ADVICE}")

    def _count(self, player: Player) -> None:
        """Go on by one move."""
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
                raise Diverged(f"{name} became {value} before image {self.images}: training diverged; {_ADVICE}")
        self.latest = means
        return means

    def agree(self) -> None:
        """Check that all processes hold the same weights, and let all take the buffers of rank 0.

        Batch norm's means are each process's own until then; no training depends on them.

        Raises:
            RuntimeError: If the weights differ.
        """
        if world() == 1:
            return
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}
        weights = [*self.game.parameters(), *self.average.parameters()]
        sums = torch.stack([w.detach().view(bits[w.element_size()]).sum(dtype=torch.int64) for w in weights])
        if any(not torch.equal(sums, theirs) for theirs in gather(sums)):
            raise RuntimeError(f"the processes' weights differ at image {self.images}: the last checkpoint is kept")
        for module in (self.game, self.average):
            _follow(dict(module.named_buffers()))

    def model(self, run: Path | None = None) -> Model:
        """Return the generator with the averaged weights."""
        return Model(self.average, self.game.prior, self.game.conditional, run, values=self.data.values)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors of the state, by group and name.

        Raises:
            Diverged: If a weight or a moment is not finite, so that no checkpoint is ever poisoned.
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
        bad = [*_not_finite(groups["game"]), *_not_finite(groups["ema"])]
        bad += [f"{name} of {p}'s optimizer" for p in self.optimizers for name in _not_finite(groups[f"{p}_optimizer"])]
        if bad:
            raise Diverged(f"{bad[0]} is not finite at image {self.images}: the last good checkpoint is kept")
        return groups

    def record(self) -> dict[str, Any]:
        """Return the rest of the state, as JSON."""
        return {name: getattr(self, name) for name in ("images", "steps", "averaged_at", "counts", "skipped")} | {
            "training": self.training.describe(),
            "data": self.data.digest,
            "threads": torch.get_num_threads(),
            "processes": world(),
            "batch_statistics": "per process" if _has_statistics(self.game) else "none",
            "torch": torch.__version__,
            "device": self.device.type,
        }

    def restore(self, groups: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            ValueError: If it belongs to other data, networks or parts of other sizes, or another training.
        """
        _compare(record, self.record())
        fill(self.game, groups["game"], "the checkpoint")
        fill(self.average, groups["ema"], "the checkpoint")
        for player, optimizer in self.optimizers.items():
            optimizer.state.clear()
            for name, value in groups[f"{player}_optimizer"].items():
                index, entry = name.split(".", 1)
                weight = self.weights[player][int(index)]
                # A moment lies in memory as its weight does: fused optimizers walk both in step.
                moment = torch.empty_like(weight) if value.shape == weight.shape else torch.empty_like(value)
                # Only fused optimizers count their steps on the device.
                counts = entry == "step" and not optimizer.defaults.get("fused")
                place = torch.device("cpu") if counts else self.device
                optimizer.state[weight][entry] = moment.to(place, value.dtype).copy_(value)
        self.sums = {name: value.to(self.device) for name, value in groups["evidence"].items()}
        self.counts, self.skipped = dict(record["counts"]), dict(record.get("skipped", {}))
        self.images, self.steps, self.averaged_at = record["images"], record["steps"], record["averaged_at"]


@torch.no_grad()
def _follow(tensors: Mapping[str, Tensor]) -> None:
    """Let all processes take the numbers of rank 0."""
    if world() > 1:
        for name, value in spread(tensors).items():
            tensors[name].copy_(value)


def check(game: Game, training: Training, data: Data) -> None:
    """Refuse what does not go together.

    Raises:
        ValueError: If the batch cannot be cut so, or game, moves, terms and data do not suit each other.
    """
    for name in ("batch", "generator_batch"):
        if getattr(training, name) % (world() * training.accumulate):
            raise ValueError(
                f"{name}={getattr(training, name)}: must be a multiple of {world()} processes times "
                f"accumulate={training.accumulate}"
            )
    moves = type(training.moves).__name__
    if world() > 1 and training.moves.whole:
        raise ValueError(f"moves={moves}: needs the whole batch in one process, there are {world()}")
    if game.replay is not None and training.moves.through:
        pool = type(game.replay).__name__
        raise ValueError(
            f"replay={pool}: with moves={moves} G learns through what D is shown, its newest fakes; leave one out"
        )
    if game.conditional and data.y is None:
        raise ValueError("the game is conditional, but the data have no labels or other conditions y")
    if training.labelled and not len(_known(data)):
        raise ValueError("training.labelled: the data have no labelled examples; give labels, or set it to false")
    for term in game.terms:
        term.check(data.spec.shape)  # type: ignore[operator]
    bounded = [term.name for term in game.terms if term.bounded]
    if bounded and data.y is not None and data.y.ndim == 2:
        low, high = (float(end) for end in data.y.aminmax())
        if low < 0 or high > 1:
            raise ValueError(f"{bounded[0]}: the conditions go from {low:g} to {high:g}; scale them to 0 ... 1")


def _known(data: Data) -> Tensor:
    """The numbers of the examples whose label is known."""
    return torch.empty(0) if data.y is None or data.y.ndim > 1 else (data.y >= 0).nonzero().squeeze(1).cpu()


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    return [n for n, x in tensors.items() if x.is_floating_point() and not bool(x.isfinite().all())]


def _has_statistics(game: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in game.modules())


def changed(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a line for each thing by which a run that goes on may differ from one that was never stopped."""
    lines = []
    for name in ("threads", "torch", "processes"):
        if saved.get(name, now[name]) != now[name]:
            lines.append(f"the run goes on with {name} {now[name]}, not {saved[name]}: the last bits may differ")
    if saved.get("device", now["device"]) != now["device"]:
        lines.append(f"the run goes on with device {now['device']}, not {saved['device']}, which draws other numbers")
    was, parts = (record["training"].get("accumulate", "1") for record in (saved, now))
    if was != parts:
        lines.append(f"the run goes on with accumulate={parts}, not {was}: the last bits may differ")
    if now["batch_statistics"] != "none" and (was != parts or saved.get("processes", 1) != now["processes"]):
        lines.append("batch norm sees a part of the batch, which is now of another size")
    return lines


def _compare(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a state that was made otherwise; a longer run and other intervals are no difference."""
    free = {"images", "log_every", "sample_every", "save_every", "accumulate", "threads", "nonfinite"}
    if saved["data"] != now["data"]:
        raise ValueError("the run was trained on other data (the digests differ); resume with the same data")
    for name, value in now["training"].items():
        if name not in free and saved["training"].get(name, value) != value:
            was = f"{name}={saved['training'][name]}"
            raise ValueError(f"the run was trained with {was}, not {value}; resume with the same settings")
