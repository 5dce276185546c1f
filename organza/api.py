"""The commands as functions: train, resume, load.  The command line is a thin shell around them."""

from __future__ import annotations

import inspect
import itertools
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn

from organza import __version__, auto, pretrained, report
from organza.auto import Choice
from organza.data import Data, open_data
from organza.device import pick_device, undisturbed
from organza.game import Game
from organza.model import Model
from organza.plan import Plan
from organza.recipes import MINUTES, RECIPES
from organza.recipes import recipe as named_recipe
from organza.run import Run
from organza.training import Diverged, State, fit

__all__ = ["Decision", "decide", "fastest", "free_folder", "load", "measure", "prepare", "resume", "train"]

Watch = Callable[[State], bool | None]


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
    for fixed in ("data", "recipe"):
        if fixed in (changes or {}):
            raise ValueError(f"{fixed} is no setting: name it as an argument, organza train DATA --recipe NAME")
    plan = make(data.spec) if images is None else make(data.spec, images)
    plan = plan.set({**(changes or {}), "data": data.name})
    plan.fits(data.spec)
    return plan


def measure(plan: Plan, data: Data, device: str = "auto", seconds: float = 2.0) -> float:
    """Return how many images a second this plan shows to D here, by playing a throw-away game for some seconds."""
    state = State(plan.game(), plan.play(), data, pick_device(device))
    state.steps = 1001  # past the rounds in which D moves a hundred times, with which WGAN begins
    with undisturbed(state.device, state.training.threads):
        begin, images = time.monotonic(), 0
        for rounds in itertools.count(1):
            state.training.moves(state, state.stream)
            float(next(iter(state.sums.values())))  # wait for the device
            if (spent := time.monotonic() - begin) > seconds:
                break
            if rounds == 3:  # warm
                begin, images = time.monotonic(), state.images
        return (state.images - images) / spent


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


def free_folder(data: Data, recipe: str) -> Path:
    """Return the first unused ``runs/DATA-RECIPE-NUMBER``."""
    name = re.sub(r"(?:\.np[yz]\b|[^\w.-])+", "-", Path(data.name).name).strip("-")  # mnist[:50000] -> mnist-50000
    stem = f"{name or 'data'}-{recipe}"
    return next(path for n in itertools.count(1) if not (path := Path("runs") / f"{stem}-{n}").exists())


@dataclass(frozen=True)
class Decision:
    """What will be trained: the final plan, and each choice with its reason.

    Arguments:
        plan: The plan, with its length in images.
        choices: What was chosen, and what it will take: parameters, memory, time.
    """

    plan: Plan
    choices: tuple[Choice, ...]


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
    _one_length(images, minutes)
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
    room = auto.capacity(where)
    if reasons and "training.accumulate" not in changes:
        parts = auto.micro_batches(plan, data.spec, room)
        plan, changes = plan.set({"training.accumulate": parts}), {**changes, "training.accumulate": parts}
        fits = Choice("accumulate", f"{parts} micro-batches", f"to fit into {room / 2**30:,.1f} GiB")
        reasons = (*reasons, fits) if parts > 1 else reasons
    held = auto.memory(plan, data.spec)
    speed: float | None = None
    if minutes is not None:
        threads, length, speed = _length(plan, data, device, minutes)
        plan = prepare(data, recipe, length, {"training.threads": threads, **changes})
    elif timed and held < room:
        speed = measure(plan, data, device)
    return Decision(plan, (*reasons, *_costs(plan, data, where, held, room, speed)))


def _costs(plan: Plan, data: Data, device: torch.device, held: int, room: float, speed: float | None) -> list[Choice]:
    """What the plan takes: parameters, memory and time."""
    with torch.device("meta"):
        players = plan.game().players
    sizes = {name: sum(weight.numel() for weight in network.parameters()) for name, network in players.items()}
    what = "weights, gradients, moments, average and one turn's graph, at least"
    if held > room:
        parts = auto.micro_batches(plan, data.spec, room)
        what = f"more than the {room / 2**30:,.1f} GiB there are; try --set training.accumulate={parts}"
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


def train(
    data: Any = "digits",
    recipe: str | None = None,
    *,
    run: str | Path | None = None,
    images: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    tell: Callable[[Decision], None] | None = None,
) -> Model:
    """Train a GAN on data, keep the run in a folder, and return the model.

    Arguments:
        data: Whatever :func:`~organza.data.open_data` takes.
        recipe: The recipe's name; chosen from the data and the device if None.
        run: The run folder; ``runs/DATA-RECIPE-NUMBER`` if None.  It must not exist yet.
        images: The length of the run in images shown to D; the recipe's own if neither is given.
        minutes: Its length in minutes instead: the speed is measured first, which then fixes ``images``.
        seed: Of everything.
        device: "auto", "cpu", "cuda" or "mps".
        changes: New values of the plan by dotted key.
        watch: Called after every round; ends the training by returning True.
        tell: Called with the decision before anything is written.

    Raises:
        ValueError: One line for each mistake; nothing is written then.
    """
    data = open_data(data)
    if run is not None:
        Run.check_free(run)
    decision = decide(
        data,
        recipe,
        images=images,
        minutes=minutes,
        seed=seed,
        device=device,
        changes=changes,
        timed=recipe is None,
    )
    plan = decision.plan
    if tell is not None:
        tell(decision)
    folder = Run.create(run or free_folder(data, plan.recipe), {"organza": __version__, **plan.json()})
    return _play(plan, data, folder, device, watch)


def _one_length(images: int | None, minutes: float | None) -> None:
    """Refuse two lengths at once."""
    if images is not None and minutes is not None:
        raise ValueError(f"got images={images} and minutes={minutes}: give one of the two")


def _length(plan: Plan, data: Data, device: str, minutes: float) -> tuple[int, int, float]:
    """The best number of threads, the images that fit into so many minutes here (measuring included), and the speed."""
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes}: must be above 0 and finite")
    begin, batch = time.monotonic(), int(plan.training["batch"])
    threads, speed = fastest(plan, data, device, min(2.0, 3.0 * minutes))
    left = max(0.0, 60.0 * minutes - (time.monotonic() - begin))
    return threads, max(1, int(speed * left / batch)) * batch, speed


def resume(
    run: str | Path,
    *,
    data: Any = None,
    images: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    watch: Watch | None = None,
) -> Model:
    """Continue a run exactly where its last checkpoint was made, and return the model.

    Arguments:
        run: The run folder.
        data: The data, if it was an array or its file has moved; the plan's if None.
        images: The new total length; the plan's if None.
        minutes: Minutes to go on for instead, by the speed measured here.
        device: "auto", "cpu", "cuda" or "mps".
        watch: Called after every round; ends the training by returning True.

    Raises:
        ValueError: If there is no such run, it was made by a program's own modules, or its data changed.
    """
    folder = Run(run)
    plan = _plan(folder)
    data = open_data(plan.data if data is None else data)
    pick_device(device)
    done = max(folder.checkpoints(), default=0)
    threads = int(plan.training["threads"]) or torch.get_num_threads()
    _one_length(images, minutes)
    if minutes is not None:
        images = done + _length(plan.set({"training.threads": threads}), data, device, minutes)[1]
    if images is not None:
        if images < done:
            raise ValueError(f"images={images}: the run has already seen {done}; give a larger total")
        plan = plan.set({"training.images": images})

    def replanned(state: State) -> bool | None:
        nonlocal images
        if images is not None:  # once the checkpoint has been accepted, so that a next resume goes on to there
            folder.replan({**folder.plan, **plan.json()})
            images = None
        return watch(state) if watch is not None else None

    return _play(plan, data, folder, device, replanned)


def _play(plan: Plan, data: Data, folder: Run, device: str, watch: Watch | None) -> Model:
    game = plan.game()
    try:
        model = fit(game, data, plan.play(), run=folder, device=device, watch=watch)
    except Diverged:
        report.write(folder, game.equilibrium())
        raise
    report.write(folder, game.equilibrium())
    model.config = _config(plan, max(folder.checkpoints(), default=0))
    return model


def _config(plan: Plan, images: int) -> dict[str, Any]:
    """What a model is made of, and the facts of its run: see :func:`organza.pretrained.write`."""
    names = ("generator", "prior", "conditional", "recipe", "data", "objective", "terms")
    facts = {name: value for name, value in plan.json().items() if name in names}
    return {**facts, "images": images, "seed": plan.training["seed"], "references": _references(plan.recipe)}


def _references(recipe: str) -> list[str]:
    """The references that a recipe's docstring gives, a line each."""
    given = inspect.getdoc(RECIPES[recipe]) if recipe in RECIPES else None
    section = (given or "").partition("References:\n")[2].partition("\n\n")[0]
    lines = " ".join(section.split())  # one of several lines ends, as each does, with its year
    return [each.strip() for each in re.findall(r".+?\d{4}\)", lines)]


def load(
    run: str | Path,
    generator: nn.Module | None = None,
    prior: Any = None,
    conditional: bool = False,
    device: str = "auto",
) -> Model:
    """Return the generator of a run, with averaged weights, or one that was passed on by ``save_pretrained``.

    Arguments:
        run: The run folder, or the folder of a pretrained model.
        generator: G itself, for a run of a program's own modules, which no plan can rebuild.
        prior: Its prior, for such a run.
        conditional: Whether it takes the condition y, for such a run.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ValueError: If there is no such run, or its weights do not fit.
    """
    if pretrained.is_pretrained(run):
        return Model.from_pretrained(run, generator, prior, device)
    folder, plan = Run(run), None
    if generator is None:
        plan = _plan(folder)
        game: Game = plan.game()
        generator, prior, conditional = game.generator, game.prior, game.conditional
    elif prior is None:
        raise ValueError("load(generator=...): the run's prior is needed too, e.g. prior=organza.Normal(64)")
    groups, state, _ = folder.load()
    try:
        generator.load_state_dict(groups["ema"])
    except RuntimeError as error:
        raise ValueError(f"{run}: the weights do not fit: {' '.join(str(error).split())}") from None
    config = None if plan is None else _config(plan, state["images"])
    return Model(generator.to(pick_device(device)).eval(), prior, conditional, folder.path, config)


def _plan(folder: Run) -> Plan:
    plan = folder.plan
    if "python" in plan:
        raise ValueError(
            f"{folder.path} was trained by a program's own modules: continue it with oz.fit(game, data, run=...), "
            "or load it with oz.load(run, generator=..., prior=...)"
        )
    return Plan.read(plan)
