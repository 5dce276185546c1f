"""The commands as functions: train, resume, load, evaluate, compare.  The command line is a thin shell around them."""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from organza import __version__, auto, evaluation, pretrained, report
from organza import scores as of_a_run
from organza.data import Data, open_data
from organza.decision import Decision, decide, fastest, fitting, fulfils, lengthened, measure, one_length, prepare
from organza.device import keep_freed, pick_device
from organza.distributed import first, join, rank, restarts
from organza.evaluation import Evaluation
from organza.game import Game
from organza.metrics.catalogue import METRICS
from organza.metrics.score import Score
from organza.model import Model
from organza.plan import Plan
from organza.recipes import references
from organza.run import Run
from organza.training import Diverged, Judge, State, fit
from organza.values import AS_THEY_ARE, Values

__all__ = [
    "Decision",
    "compare",
    "decide",
    "evaluate",
    "fastest",
    "free_folder",
    "game",
    "load",
    "measure",
    "prepare",
    "resume",
    "train",
]

Watch = Callable[[State], bool | None]

# What changes no result, but for the last bits, and may so change between two parts of a run.
FREE = tuple(
    f"training.{name}" for name in ("accumulate", "threads", "nonfinite", "log_every", "sample_every", "save_every")
)


def free_folder(data: Data, recipe: str) -> Path:
    """Return the first unused ``runs/DATA-RECIPE-NUMBER``: of mnist[:50000], mnist-50000-quick-1."""
    name = re.sub(r"(?:\.(?:np[yz]|zip|tar|parquet)\b|[^\w.-])+", "-", pretrained.brief(data.name))
    stem = f"{name.strip('-') or 'data'}-{recipe}"
    return next(path for n in itertools.count(1) if not (path := Path("runs") / f"{stem}-{n}").exists())


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
    join()
    again, may = restarts()
    if may and run is None:
        raise ValueError("with --max-restarts give --run too, so that what is started anew finds what it had begun")
    asked = {"training.seed": seed, **(changes or {})}
    if (
        again
        and run is not None
        and first(lambda: Path(run, "plan.json").exists() and fulfils(_plan(Run(run)), recipe, images, asked))
    ):
        return resume(run, data=data, device=device, watch=watch)
    data = open_data(data)
    if run is not None:
        first(lambda: Run.check_free(run))
    settings: dict[str, Any] = {"images": images, "minutes": minutes, "seed": seed, "device": device}
    decision = decide(data, recipe, **settings, changes=changes, timed=recipe is None)
    plan = Plan.read(first(decision.plan.json))  # measured on several machines, the length is that of one of them
    if tell is not None:
        tell(decision)
    judge = _judge(plan, data, device)
    made = {"organza": __version__, **plan.json()}
    path = first(lambda: str(Run.create(run or free_folder(data, plan.recipe), made).path))
    folder = None if rank() else Run(path)
    return _play(plan, data, folder, judge, device, watch)


def resume(
    run: str | Path,
    *,
    data: Any = None,
    images: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Model:
    """Continue a run exactly where its last checkpoint was made, and return the model.

    Arguments:
        run: The run folder.
        data: The data, if it was an array or its file has moved; the plan's if None.
        images: The new total length; the plan's if None.
        minutes: Minutes to go on for instead, by the speed measured here.
        device: "auto", "cpu", "cuda" or "mps".
        changes: New values of what may change on the way, by dotted key: see :data:`FREE`.
        watch: Called after every round; ends the training by returning True.

    Raises:
        ValueError: If there is no such run, it was made by a program's own modules, its data changed, or it is to go
            on beyond where its learning rates have fallen to 0.
    """
    join()
    plan = Plan.read(first(lambda: _plan(Run(run)).json()))
    for name in changes or {}:
        if name not in FREE:
            raise ValueError(f"--set {name}: a run goes on as it began; what may change is {', '.join(FREE)}")
    plan = plan.set(changes or {})
    folder = None if rank() else Run(run)
    data = _given(plan, run) if data is None else open_data(data)
    # Named as the plan names them; and also of a plan from before there were values.
    data = data.but(name=plan.data, values=Values.read(plan.values) or AS_THEY_ARE)
    pick_device(device)
    done = first(lambda: max(Run(run).checkpoints(), default=0))
    one_length(images, minutes)
    if minutes is not None:
        threads = int(plan.training["threads"]) or torch.get_num_threads()
        images = done + fitting(plan.set({"training.threads": threads}), data, device, minutes)[1]
    if images is not None:
        plan = lengthened(plan, done, images, most=minutes is not None)
    replan = bool(changes) or images is not None
    auto.memory(plan, data.spec)  # a turn without numbers: what a term lacks here is told before anything is written

    def replanned(state: State) -> bool | None:
        nonlocal replan
        if replan:  # once the checkpoint has been accepted, so that a next resume goes on so
            if folder is not None:
                folder.replan({**folder.plan, **plan.json()})
            replan = False
        return watch(state) if watch is not None else None

    return _play(plan, data, folder, _judge(plan, data, device), device, replanned)


def _given(plan: Plan, run: str | Path) -> Data:
    """The data that a run was begun with."""
    try:
        return open_data(plan.data)
    except ValueError as error:
        raise ValueError(f"{run} was trained on {plan.data}: {error}; give the data again, by --data") from None


def _judge(plan: Plan, data: Data, device: str) -> Judge | None:
    """What judges the samples by the way, if the plan asks for it."""
    if plan.evaluation is None:
        return None
    asked = Evaluation(**{name: value for name, value in plan.evaluation.items() if name != "kind"})
    score = evaluation.scorer(asked, data, plan.conditional, plan.training["seed"], pick_device(device))
    return Judge(score, asked.every, asked.key, asked.best == "high")


def _play(plan: Plan, data: Data, folder: Run | None, judge: Judge | None, device: str, watch: Watch | None) -> Model:
    """Train; of several processes that of rank 0 alone has a folder, and writes."""
    made = plan.game()

    def tell() -> None:
        if folder is not None:
            report.write(folder, made.equilibrium())

    try:
        model = fit(made, data, plan.play(), run=folder, device=device, watch=watch, judge=judge)
    except Diverged:
        tell()
        raise
    tell()
    done = first(lambda: max(folder.checkpoints(), default=0) if folder is not None else 0)
    model.config = {**plan.facts(done, data.digest, model.prior), "references": references(plan.recipe)}
    return model


def load(
    run: str | Path,
    generator: nn.Module | None = None,
    prior: Any = None,
    conditional: bool = False,
    device: str = "auto",
    best: bool = False,
) -> Model:
    """Return the generator of a run, with averaged weights, or one that was passed on by ``save_pretrained``.

    Arguments:
        run: The run folder, or the folder of a pretrained model.
        generator: G itself, for a run of a program's own modules, which no plan can rebuild.
        prior: Its prior, for such a run.
        conditional: Whether it takes the condition y, for such a run.
        device: "auto", "cpu", "cuda" or "mps".
        best: Whether to take the checkpoint that was the best by the score of ``plan.evaluation``, not the last.

    Raises:
        ValueError: If there is no such run, or its weights do not fit.
    """
    if pretrained.is_pretrained(run):
        if best:
            raise ValueError(f"best: {run} is a pretrained model, which has no checkpoints to choose from")
        return Model.from_pretrained(run, generator, prior, device)
    folder, plan = Run(run), None
    if generator is None:
        plan = _plan(folder)
        built: Game = plan.game()
        generator, prior, conditional = built.generator, built.prior, built.conditional
    elif prior is None:
        raise ValueError("load(generator=...): the run's prior is needed too, e.g. prior=organza.Normal(64)")
    marked = folder.best if best else None
    if best and marked is None:
        raise ValueError(f"{run} has no best checkpoint: train with --evaluate frechet, which keeps it")
    groups, state, damage = folder.load(None if marked is None else marked["images"])
    for line in damage:
        warnings.warn(f"{run}: {line}; that at {state['images']} is taken", stacklevel=2)
    pretrained.fill(generator, groups["ema"], str(run))
    if isinstance(prior, nn.Module):
        learnt = {name.removeprefix("prior."): w for name, w in groups["game"].items() if name.startswith("prior.")}
        pretrained.fill(prior, learnt, str(run))
    config = values = None
    if plan is not None:
        config = {**plan.facts(state["images"], state["data"], prior), "references": references(plan.recipe)}
        values = Values.read(plan.values)
    return Model(generator.to(pick_device(device)).eval(), prior, conditional, folder.path, config, values)


def game(run: str | Path, device: str = "auto") -> Game:
    """Return the whole game of a run, D as well, as it stood at the last checkpoint, in evaluation mode.

    Raises:
        ValueError: If there is no such run, it was made by a program's own modules, or its weights do not fit.
    """
    folder = Run(run)
    whole = _plan(folder).game()
    groups, state, damage = folder.load()
    for line in damage:
        warnings.warn(f"{run}: {line}; that at {state['images']} is taken", stacklevel=2)
    pretrained.fill(whole, groups["game"], str(run))
    return whole.to(pick_device(device)).eval()


def evaluate(
    model: str | Path | Model | None = None,
    *,
    fake: Any = None,
    data: Any = None,
    split: str | None = None,
    metrics: Sequence[str] | None = None,
    features: str | nn.Module | None = None,
    n: int = 10_000,
    seed: int = 0,
    device: str = "auto",
    best: bool = False,
    floors: bool = True,
    watch: evaluation.Watch | None = None,
) -> list[Score]:
    """Judge a generator, or samples that another program made, against real data; a run keeps its scores.

    Arguments:
        model: A run folder, the folder of a pretrained model, or a model.
        fake: Samples instead: a folder of pictures, an .npz or .npy file, or an array; then ``data`` is needed.
        data: The real data; what the model was trained on if None.
        split: "train" or "test"; "test" where the data has one.
        metrics: Names of metrics, see ``organza.metrics.METRICS``; the usual ones that apply if None.
        features: An extractor's name, see :mod:`organza.metrics.features`, or a network; as suits the data if None.
        n: How many samples to draw, or to use of ``fake`` at most.
        seed: Of the samples and of all chance in the metrics.
        device: "auto", "cpu", "cuda" or "mps".
        best: Whether to judge the run's best checkpoint instead of its last.
        floors: Whether to measure the floors too.
        watch: Called with (what is done, how much of it, of how much).

    Raises:
        ValueError: One line for each mistake; nothing is written then.
    """
    if (model is None) == (fake is None):
        got = "neither" if model is None else "both"
        raise ValueError(
            f"give a run to draw samples from, or the samples themselves (--fake, with --real DATA): got {got}"
        )
    if not isinstance(n, int) or not isinstance(seed, int):
        raise ValueError(f"n={n!r}, seed={seed!r}: both must be whole numbers")
    if n < evaluation.LEAST:
        raise ValueError(f"n={n}: too few to measure anything; at least {evaluation.LEAST} are needed")
    if fake is not None and best:
        raise ValueError("--best is of a run: it does not go with --fake")
    join()
    keep_freed()
    names = [metrics] if isinstance(metrics, str) else None if metrics is None else [*metrics]
    common: dict[str, Any] = {
        "metrics": names,
        "features": features,
        "seed": seed,
        "device": pick_device(device),
        "floors": floors,
        "watch": watch,
    }
    if model is None:
        if data is None:
            raise ValueError("--fake needs --real DATA: what the samples are to be compared with")
        against = evaluation.reference(None, split, data)
        return evaluation.evaluate(evaluation.some(evaluation.opened(fake), n, seed), against, **common)
    if best and isinstance(model, Model):
        raise ValueError("best: give the folder of a run, not a model")
    if not isinstance(model, Model):
        model = load(model, device=device, best=best)
    kept = model.run is not None and rank() == 0 and os.access(model.run, os.W_OK)
    if model.run is not None:
        of_a_run.read(model.run)  # a damaged file is better known before than after
        if rank() == 0 and not kept:
            warnings.warn(f"{model.run} cannot be written: the scores are shown, and not kept", stacklevel=2)
    source = (model.config or {}).get("data")
    if source is None and data is None:
        raise ValueError("what the model was trained on is not known: give the real data (--data)")
    against = evaluation.reference(source, split, data, (model.config or {}).get("data_sha256", ""))
    y = None
    if model.conditional:
        against = evaluation.aligned(evaluation.walked(against, n, seed), (model.config or {}).get("labels") or ())
        y = evaluation.conditions(against, n, seed, model.values)
        if y.ndim == 4:
            common["metrics"] = names or against.answers
    drawn = evaluation.draw(model, n if y is None else len(y), seed, y, watch)
    scores = evaluation.evaluate(drawn, against, conditional=model.conditional, **common)
    images = (model.config or {}).get("images")
    scores = [replace(score, images=images) for score in scores]
    if model.run is not None and kept:
        values = against.real.values
        shown = None if against.train is None else evaluation.comparable(against.train, values)
        folder = Run(model.run)
        aim = {} if "python" in folder.plan else _plan(folder).game().equilibrium()
        drawn_as = evaluation.comparable(drawn, values)
        of_a_run.keep(model.run, scores, drawn_as, shown, lambda: report.write(folder, aim))
    return scores


def compare(runs: Sequence[str | Path], metrics: Sequence[str] | None = None) -> dict[str, list[Score | None]]:
    """Return the newest score of each run by each metric, {key: [score of each run or None]}.

    Raises:
        ValueError: If a run has no scores, or none by a metric that is named.
    """
    if len({Path(run).resolve() for run in runs}) < len(runs):
        raise ValueError(f"got {', '.join(map(str, runs))}: give each run once")
    found = []
    for run in runs:
        scores = {score.key: score for score in of_a_run.read(Run(run).path)}
        if not scores:
            raise ValueError(f"{run} has no scores yet: organza evaluate {run}")
        found.append(scores)
    keys = list(dict.fromkeys(key for scores in found for key in scores))
    asked = [key for name in metrics or keys for key in (METRICS[name].keys if name in METRICS else [name])]
    for name in asked:
        if name not in keys:
            raise ValueError(f"no run has a score {name!r}; there are {', '.join(keys)}")
    return {key: [scores.get(key) for scores in found] for key in asked}


def _plan(folder: Run) -> Plan:
    plan = folder.plan
    if "python" in plan:
        raise ValueError(
            f"{folder.path} was trained by a program's own modules: continue it with oz.fit(game, data, run=...), "
            "or load it with oz.load(run, generator=..., prior=...)"
        )
    return Plan.read(plan)
