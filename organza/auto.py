r"""What to train when nobody says: a recipe and its numbers, chosen from the data and the device, each with a reason.

Rules of thumb, not a search: they are meant to give a first generator that works, and a plan to improve on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from organza.data import Spec
from organza.plan import Plan
from organza.recipes.r3gan import gamma
from organza.round import Batch, Draw

__all__ = ["Choice", "Choices", "choose", "memory", "micro_batches"]

_FEW = 5_000  # images, below which D soon knows them by heart
_SMALL = 28 * 28  # pixels of the images for which `quick` was tuned


@dataclass(frozen=True)
class Choice:
    """One thing that was chosen: what, its value in words, and why."""

    name: str
    value: str
    reason: str


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
    """
    if len(data.shape) != 3 or min(data.shape[1:]) < 8:
        return _vectors(data)
    return _on_cpu(data) if device.type == "cpu" else _on_gpu(data, device)


def _vectors(data: Spec) -> Choices:
    what = f"examples of shape {data.shape} are no images of 8 x 8 pixels or more"
    reasons = (
        Choice("recipe", "quick", f"perceptrons with RpGAN, R1 and R2: {what}, and this pair loses no modes"),
        Choice("length", "2.1 minutes", "enough for laws in the plane"),
    )
    return Choices("quick", {}, 2.1, None, reasons)


def _on_cpu(data: Spec) -> Choices:
    channels, height, width = data.shape
    pixels = height * width
    weight = float(f"{0.5 * pixels / _SMALL:.2g}")
    changes: dict[str, Any] = {} if pixels == _SMALL else {"terms.0.term.weight": weight}
    minutes = 2.1 if pixels <= 1024 and channels == 1 else 15.0 if pixels <= 1024 else 60.0
    length = "a default that ends while you watch" if minutes == 2.1 else "more to learn than in small grey images"
    reasons = [
        Choice("recipe", "quick", "on a CPU small convolutions and batches learn most in a minute"),
        Choice("batch", "32", "more moves of G for the same images (docs/log.md)"),
        Choice("gamma", f"R1 {weight:g}, every 8th move", "0.5 at 28 x 28, in proportion to the pixels"),
        Choice("length", f"{minutes:g} minutes", length + "; --minutes or --images set it"),
    ]
    return _augmented(Choices("quick", changes, minutes, None, tuple(reasons)), data)


def _on_gpu(data: Spec, device: torch.device) -> Choices:
    pixels = data.shape[1] * data.shape[2]
    large = device.type == "cuda" and data.count >= 20_000 and pixels >= 64 * 64
    recipe, batch = ("r3gan", 256) if large else ("r3gan-small", 64)
    why = f"{data.count:,} images of {data.shape[1]} x {data.shape[2]}"
    images = min(20_000_000, max(2_000_000, 200 * data.count))
    weight = gamma(data.shape, batch)
    reasons = (
        Choice(
            "recipe", recipe, ("23 million parameters a network pay for " if large else "a small pair suits ") + why
        ),
        Choice("batch", str(batch), "the paper's" if large else "a quarter of the paper's, for one device"),
        Choice(
            "gamma", f"R1 and R2 {weight:g} to {weight / 10:g}", "2 (side / 64)^3 * 256 / batch, falling to a tenth"
        ),
        Choice("length", f"{images:,} images", "200 views of each, at least 2 and at most 20 million"),
    )
    return _augmented(Choices(recipe, {}, None, images, reasons), data)


def _augmented(choices: Choices, data: Spec) -> Choices:
    """With augmentation where the images are few."""
    if data.count >= _FEW:
        chosen = Choice("augmentation", "none", f"{data.count:,} images are not few (fewer than {_FEW:,} would be)")
        changes = choices.changes
    else:
        chosen = Choice("augmentation", "DiffAugment", f"D would soon know {data.count:,} images by heart")
        changes = {**choices.changes, "augment": {"kind": "DiffAugment"}}
    reasons = (*choices.reasons[:-1], chosen, choices.reasons[-1])
    return Choices(choices.recipe, changes, choices.minutes, choices.images, reasons)


def micro_batches(plan: Plan, data: Spec, free: int) -> int:
    """Return into how many micro-batches a turn must be cut, doubling, to hold at most 80 % of the free bytes."""
    parts = 1
    while (
        plan.training["batch"] % (2 * parts) == 0
        and memory(plan.set({"training.accumulate": parts}), data) > 0.8 * free
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
    with torch.device("meta"):
        game = plan.game()
        micro = plan.training["batch"] // plan.training["accumulate"]
        y = torch.zeros(micro, dtype=torch.long) if plan.conditional else None
        batch = Batch(torch.empty(micro, *data.shape), y, _Shapes(torch.Generator("cpu"), micro), 0, 0)
        kept = {}
        for player in game.players:
            held: dict[int, int] = {}

            def pack(tensor: Tensor, held: dict[int, int] = held) -> Tensor:
                held[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                z = torch.empty(micro, plan.prior.get("dim", 1))
                fake = game.generator(z, y) if plan.conditional else game.generator(z)
                round = game.look(batch, z, fake.detach() if player == "discriminator" else fake, player)
                loss = game.loss(round, player)
                loss.backward(inputs=[w for w in game.players[player].parameters() if w.requires_grad])
            kept[player] = sum(held.values())
        sizes = {p: sum(w.numel() * w.element_size() for w in net.parameters()) for p, net in game.players.items()}
    return 4 * sum(sizes.values()) + sizes["generator"] + max(kept.values())
