"""What will be trained: a recipe's plan for the data, its length and its cost, each choice with its reason."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from organza import auto
from organza.auto import Choice
from organza.data import Data
from organza.device import capacity, pick_device, undisturbed
from organza.distributed import agreed, first
from organza.evaluation import usual_features
from organza.metrics.catalogue import METRICS, chosen
from organza.plan import Plan
from organza.recipes import MINUTES
from organza.recipes import recipe as named_recipe
from organza.schedule import at
from organza.training import State, enough_memory
from organza.training.state import check

__all__ = ["Decision", "decide", "fastest", "fitting", "lengthened", "measure", "one_length", "prepare"]


def prepare(
    data: Data,
    recipe: str = "quick",
    images: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Plan:
    """Return a recipe's plan for this data, with changes, checked to fit.

    Arguments:
        data: The data set.
        recipe: A name in ``organza.recipes.RECIPES``.
        images: The length of the run; the recipe's own if None.
        changes: New values by dotted key (``{"training.batch": 32}``).

    Raises:
        ValueError: One line for each mistake.
    """
    make = named_recipe(recipe)
    for fixed in ("data", "labels", "values", "recipe"):
        if any(name.partition(".")[0] == fixed for name in changes or {}):
            how = (
                "is read from the data" if fixed in ("labels", "values") else "organza train DATA --recipe NAME says it"
            )
            raise ValueError(f"{fixed} is no setting: {how}")
    plan = make(data.spec) if images is None else make(data.spec, images)
    labels = data.labels or [str(k) for k in range(data.spec.classes)]
    facts = {"data": data.name, "labels": list(labels), "values": data.values.json()}
    plan = plan.set({**(changes or {}), **facts})
    judge = plan.evaluation
    if judge is not None and not judge["features"] and not METRICS[chosen([judge["metric"]])[0]].sees:
        plan = plan.set({"evaluation.features": usual_features(data)})  # named, so that a resume judges by the same
    plan.fits(data.spec)
    with torch.device("meta"):
        check(plan.game(), plan.play(), data)
    return plan


def measure(plan: Plan, data: Data, device: str = "auto", seconds: float = 2.0) -> float:
    """Return how many images a second this plan shows to D here, by playing a throw-away game for some seconds."""
    training, where = plan.play(), pick_device(device)
    with undisturbed(where, training.threads), enough_memory(training, lambda: "while the speed was measured"):
        state = State(plan.game(), training, data, where)
        state.steps = 1001  # past the rounds in which D moves a hundred times, with which WGAN begins
        begin, images = time.monotonic(), 0
        for rounds in itertools.count(1):
            state.training.moves(state, state.stream)
            float(next(iter(state.sums.values())))  # wait for the device
            spent = time.monotonic() - begin
            if agreed(spent > seconds)[0]:
                break
            if rounds == 3:  # warm
                begin, images = time.monotonic(), state.images
        return first(lambda: (state.images - images) / spent)


def fastest(plan: Plan, data: Data, device: str = "auto", seconds: float = 2.0) -> tuple[int, float]:
    """Return the number of CPU threads that plays the plan fastest here, and its images a second.

    From one thread it doubles while that pays.  Threads of a small network wait for each other more than they work,
    all the more on a machine that is busy otherwise.
    """
    if pick_device(device).type != "cpu" or plan.training["threads"]:
        return int(plan.training["threads"]), measure(plan, data, device, seconds)
    best = (0, 0.0)
    for threads in (2**i for i in range(torch.get_num_threads().bit_length())):
        speed = measure(plan.set({"training.threads": threads}), data, device, seconds)
        if speed < 1.05 * best[1]:
            break
        best = (threads, speed)
    return best


@dataclass(frozen=True)
class Decision:
    """What will be trained: the final plan, and each choice with its reason.

    Arguments:
        plan: The plan, with its length in images.
        choices: What was chosen, and what it will take: parameters, memory, time.
        notes: What is unusual about the data, and how many files were left out.
    """

    plan: Plan
    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()


def decide(
    data: Data,
    recipe: str | None = None,
    *,
    images: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
    timed: bool = True,
) -> Decision:
    """Decide what :func:`train` with the same arguments would train; the speed here is measured where it is needed.

    Arguments:
        data: The data set.
        recipe: The recipe's name; chosen from the data and the device if None.
        images: The length of the run in images shown to D; the recipe's own if neither is given.
        minutes: Its length in minutes instead.
        seed: Of everything.
        device: "auto", "cpu", "cuda" or "mps".
        changes: New values of the plan by dotted key.
        timed: Whether to measure how long it will take even if ``images`` is known.

    Raises:
        ValueError: One line for each mistake.
    """
    changes = {"training.seed": seed, **(changes or {})}
    if isinstance(changes.get("training.images"), int):
        if images not in (None, changes["training.images"]):
            raise ValueError(
                f"got images={images} and training.images={changes['training.images']}: give one of the two"
            )
        images = changes["training.images"]  # so that schedules which span the run agree with it
    one_length(images, minutes)
    if images is not None and not 0 < images <= _MOST:
        raise ValueError(f"images={images}: must be above 0 and at most {_MOST:,}")
    if len(data) < 2:
        raise ValueError(f"{data.name} holds one example: G would only copy it; give at least 2, better thousands")
    where = pick_device(device)
    reasons: tuple[Choice, ...] = ()
    if recipe is None:
        chosen = auto.choose(data.spec, where)
        reasons = tuple(choice for choice in chosen.reasons if choice.stands(changes))
        recipe, changes = chosen.recipe, {**chosen.changes, **changes}
        if images is None and minutes is None:
            images, minutes = chosen.images, chosen.minutes
        else:
            reasons = tuple(choice for choice in reasons if choice.name != "length")
    if images is None and minutes is None:
        minutes = MINUTES.get(recipe)
    plan = prepare(data, recipe, images, changes)
    room = first(lambda: capacity(where))
    if reasons and "training.accumulate" not in changes:
        parts = auto.micro_batches(plan, data.spec, room)
        plan, changes = plan.set({"training.accumulate": parts}), {**changes, "training.accumulate": parts}
        fits = Choice("accumulate", f"{parts} micro-batches", f"to fit into {room / 2**30:,.1f} GiB")
        reasons = (*reasons, fits) if parts > 1 else reasons
    speed: float | None = None
    begin = time.monotonic()
    if minutes is not None:
        plan, speed = _filling(plan, data, device, minutes, changes)
    augmented = plan.augment is not None and any(choice.name == "augmentation" for choice in reasons)
    if augmented and not auto.by_heart(plan, data.spec):
        plan, changes = plan.set({"augment": None}), {**changes, "augment": None}
        reasons = tuple(auto.SELDOM if choice.name == "augmentation" else choice for choice in reasons)
        if minutes is not None:  # more images fit without
            left = max(minutes / 2, minutes - (time.monotonic() - begin) / 60)
            plan, speed = _filling(plan, data, device, left, changes)
    held = auto.memory(plan, data.spec)
    if speed is None and timed and held < room:
        speed = measure(plan, data, device)
    return Decision(plan, (*reasons, *_costs(plan, data, where, held, room, speed)), _notes(plan, data))


def _filling(plan: Plan, data: Data, device: str, minutes: float, changes: Mapping[str, Any]) -> tuple[Plan, float]:
    """The plan that fills so many minutes here, measuring included, and its speed.

    A recipe may give a long run larger networks: they are kept, and it becomes as long as they are slow.
    """
    begin = time.monotonic()
    threads, length, speed = fitting(plan, data, device, minutes)
    longer = prepare(data, plan.recipe, length, {**changes, "training.threads": threads})
    networks = {"generator": longer.generator, "discriminator": longer.discriminator}
    if networks != {"generator": plan.generator, "discriminator": plan.discriminator}:
        as_asked = longer.set({"training.threads": plan.training["threads"]})
        threads, length, speed = fitting(as_asked, data, device, minutes - (time.monotonic() - begin) / 60)
        longer = prepare(data, plan.recipe, length, {**changes, **networks, "training.threads": threads})
    return longer, speed


def fulfils(plan: Plan, recipe: str | None, images: int | None, changes: Mapping[str, Any]) -> bool:
    """Whether a run with this plan is what is asked for, as far as that goes."""
    named = recipe is None or plan.recipe == recipe
    wanted = plan.set(changes)
    if wanted.evaluation and plan.evaluation and not wanted.evaluation["features"]:
        wanted = wanted.set({"evaluation.features": plan.evaluation["features"]})
    return named and images in (None, plan.training["images"]) and wanted == plan


_MOST, _YEAR = 10**15, 366 * 24 * 60  # images of a run, and minutes
_VIEWS = 200  # of each example, below which a generator of small pictures is far from what it can be


def _notes(plan: Plan, data: Data) -> tuple[str, ...]:
    """What is unusual about the data, and what of them the plan has no use for."""
    notes = [*data.notes]
    if data.left_out:
        notes.append(f"left out {len(data.left_out)}: {data.left_out[0]}")
    if data.spec.classes and len(data.files) and not (plan.conditional or plan.training.get("labelled")):
        notes.append(
            f"the labels of {data.spec.classes} classes are not used: --recipe conditional makes samples by label"
        )
    views, side = plan.training["images"] / len(data), min(data.spec.shape[1:], default=0)
    if data.files and side >= 64 and views < _VIEWS:
        notes.append(
            f"each is seen {views:,.0f} times, which is little: train longer, or faster with --resize {side // 2}"
        )
    return tuple(notes)


def _costs(plan: Plan, data: Data, device: torch.device, held: int, room: float, speed: float | None) -> list[Choice]:
    """What the plan takes: parameters, memory and time."""
    with torch.device("meta"):
        players = plan.game().players
    sizes = {name: sum(weight.numel() for weight in network.parameters()) for name, network in players.items()}
    what = "weights, gradients, moments, average and one turn's graph, at least"
    if held > room:
        parts = auto.micro_batches(plan, data.spec, room)
        fits = auto.memory(plan.set({"training.accumulate": parts}), data.spec) <= room
        advice = (
            f"try --set training.accumulate={parts}" if fits else "take smaller networks or a smaller training.batch"
        )
        what = f"more than the {room / 2**30:,.1f} GiB there are; {advice}"
    costs = [
        Choice("parameters", f"G {sizes['generator']:,}, D {sizes['discriminator']:,}", plan.generator["kind"]),
        Choice("memory", f"{held / 2**20:,.0f} MiB", what),
    ]
    if speed is not None:
        seconds, shown = plan.training["images"] / speed, f"{plan.training['images']:,} images"
        threads = f", {plan.training['threads']} threads" if plan.training["threads"] else ""
        took = timedelta(seconds=round(seconds))
        costs.append(Choice("time", f"{took} for {shown}", f"{speed:,.0f} images/s measured on {device}{threads}"))
    return costs


def one_length(images: int | None, minutes: float | None) -> None:
    """Refuse two lengths at once."""
    if images is not None and minutes is not None:
        raise ValueError(f"got images={images} and minutes={minutes}: give one of the two")


def lengthened(plan: Plan, done: int, images: int, most: bool = False) -> Plan:
    """The plan of a run that has seen ``done`` images and shall see so many in all, or as many as teach, at ``most``.

    Raises:
        ValueError: If it has seen more, or its learning rates have fallen to 0 by then: nothing more would be learnt.
    """
    if images < done:
        raise ValueError(f"images={images}: the run has already seen {done}; give a larger total")
    training, end = plan.play(), plan.training["images"]
    rules = (training.generator_optimizer, training.discriminator_optimizer)

    def taught(images: int) -> bool:
        return any(at(rule.lr, images) != 0 for rule in rules)

    begins = taught(done) or taught(images)  # a rate that rises from 0 is no end
    if images > done and (not begins or (images > end > done and not taught(end) and not most)):
        raise ValueError(
            f"the learning rates are 0 from image {max(done, end)} on, and nothing more would be learnt; "
            f"a longer run is a new one: organza train ... --images {images}"
        )
    images = end if images > end > done and not taught(end) else images
    return plan.set({"training.images": images})


def fitting(plan: Plan, data: Data, device: str, minutes: float) -> tuple[int, int, float]:
    """The best number of threads, the images that fit into so many minutes here (measuring included), and the speed."""
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes}: must be above 0 and finite")
    if minutes > _YEAR:
        raise ValueError(f"minutes={minutes}: must be at most {_YEAR:,}, a year")
    begin, batch = time.monotonic(), int(plan.training["batch"])
    threads, speed = fastest(plan, data, device, min(2.0, 3.0 * minutes))
    left = max(0.0, 60.0 * minutes - (time.monotonic() - begin))
    length = first(lambda: max(1, int(speed * left / batch)) * batch)  # clocks differ, and plans by length
    return threads, length, speed
