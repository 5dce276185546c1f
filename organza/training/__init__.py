r"""Training: play the game by its moves until D has seen so many images.

Nothing here depends on which game is played.  All that a run is, at any moment between two rounds, is in
:class:`State`: the game's and the average's weights and buffers, the optimizers' moments, and two integers (images
shown to D, moves of G).  All chance is re-derived from (seed, images, steps), so a restored state continues exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from organza.data import Data, open_data
from organza.device import full, pick_device, undisturbed
from organza.distributed import agreed, first, join, world
from organza.game import Game
from organza.lock import held
from organza.model import Model
from organza.run import Run
from organza.training.keeper import Judge, Keeper, Unwritten, writing
from organza.training.settings import Training
from organza.training.state import Diverged, State

__all__ = ["Diverged", "Judge", "Keeper", "OutOfMemory", "State", "Training", "Unwritten", "enough_memory", "fit"]


class OutOfMemory(ValueError):
    """A turn does not fit into memory; what was saved before is whole."""


def fit(
    game: Game,
    data: Any,
    training: Training | None = None,
    *,
    run: str | Path | Run | None = None,
    device: str = "auto",
    watch: Callable[[State], bool | None] | None = None,
    judge: Judge | None = None,
    save_seconds: float = 60.0,
    **changes: Any,
) -> Model:
    """Play the game and return the trained generator.

    A run folder keeps the log, pictures of the same z and checkpoints; one that has checkpoints is continued exactly.

    Arguments:
        game: The game; it is trained in place.
        data: Whatever :func:`~organza.data.open_data` takes; vectors and signals in their own numbers, as the networks
            are the program's own, unless it is a :class:`~organza.data.Data`, which is taken as it is.
        training: How to play; ``changes`` replace single fields of it (``images=500_000``).
        run: The run folder: a path (made if missing, resumed if not) or a :class:`~organza.run.Run`.
        device: "auto", "cpu", "cuda" or "mps".
        watch: Called after every round with the state; ends the training by returning True.
        judge: What scores the model by the way; its numbers are logged, and the best checkpoint by one of them stays.
        save_seconds: Seconds from one checkpoint to the next (besides ``training.save_every``).

    Raises:
        ValueError: If data, settings or the run folder do not fit; nothing is written then.
        Diverged: If a loss, gradient or weight is no longer finite.
        OutOfMemory: If a turn does not fit into memory.
        Unwritten: If the run folder could not be written.
    """
    join()
    training = _changed(training or Training(), changes)
    data = data if isinstance(data, Data) else open_data(data).unscaled()
    state = State(game, training, data, pick_device(device))
    memory = enough_memory(training, lambda: f"at image {state.images} (what was saved before is whole)")
    with ExitStack() as held_until_the_end, undisturbed(state.device, training.threads), memory:
        folder = _opened(run, state, held_until_the_end)
        with writing(folder):
            keeper = Keeper(state, folder, judge, save_seconds)
            _replan(folder, state)
        stop = False
        while state.images < training.images and not stop:
            before = state.images
            training.moves(state, state.stream)  # one round of the game
            stop, late = agreed(watch is not None and bool(watch(state)), keeper.late)
            with writing(folder):
                keeper.keep(before, stop or late)
        state.agree()
    return state.model(None if folder is None else folder.path)


@contextmanager
def enough_memory(training: Training, when: Callable[[], str]) -> Iterator[None]:
    """Say what to do where memory is not enough for a game that is played so.

    Raises:
        OutOfMemory: In the place of PyTorch's and Python's own errors.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not full(error):
            raise
        batch, parts = training.batch, training.accumulate
        at_once = f"{batch // (parts * world())} of {batch} examples at once"
        raise OutOfMemory(f"out of memory {when()}, with {at_once}: {_less(training)}") from error


def _less(training: Training) -> str:
    """How to take less memory: the next number of micro-batches that the batches allow."""
    batches = [size for size in (training.batch, training.generator_batch) if size]
    for parts in range(training.accumulate + 1, min(batches) + 1):
        if not any(size % (parts * world()) for size in batches) and not training.moves.whole:
            advice = f"--set training.accumulate={parts}, which organza resume takes too, needs less for the same game"
            return f"{advice} (statistics of a batch, as of batch norm, are then of its parts)"
    return "take smaller networks, a smaller training.batch, or more processes"


def _changed(training: Training, changes: dict[str, Any]) -> Training:
    known = [f.name for f in fields(training)]
    for name in changes:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
            raise ValueError(f"fit({name}=...): unknown setting{hint}")
    return replace(training, **changes)


def _opened(run: str | Path | Run | None, state: State, until: ExitStack) -> Run | None:
    """The run's folder, where nobody else may write until the end; rank 0 alone has one."""
    found: list[Run] = []

    def hold() -> None:
        if run is not None:
            found.append(_folder(run, state))
            until.enter_context(held(found[0].path))

    first(hold)
    return found[0] if found else None


def _folder(run: str | Path | Run, state: State) -> Run:
    if isinstance(run, Run):
        return run
    if (Path(run) / "plan.json").exists():
        _agree(folder := Run(run), _parts(state.game))
        return folder
    return Run.create(run, _plan(state))


_SAME = ("objective", "prior", "augment", "replay")


def _parts(game: Game) -> dict[str, str]:
    """The kinds of a game's parts, also of those that are no modules."""
    named = {**dict(game.named_children()), **{name: getattr(game, name) for name in _SAME}}
    return {name: type(part).__name__ for name, part in named.items() if part is not None}


def _agree(run: Run, parts: Mapping[str, str]) -> None:
    """Refuse to go on with parts of other kinds than a program's own run began with."""
    own = run.plan.get("python")
    was = own.get("game") if isinstance(own, dict) and run.begun else None
    if not isinstance(was, dict):
        return
    for name in _SAME if "prior" in was else ("objective",):  # runs from before did not note what is no module
        if was.get(name) != parts.get(name):
            began = f"{run.path} was trained with {name}={was.get(name)}, not {parts.get(name)}"
            raise ValueError(f"{began}: a run goes on as it began; give the same game, or another run")


def _plan(state: State) -> dict[str, Any]:
    """What is kept of a program's own game, which no plan can rebuild."""
    return {"python": {"game": _parts(state.game), "training": state.training.describe()}, "data": state.data.name}


def _replan(run: Run | None, state: State) -> None:
    """Write down how a program's own run goes on, once its checkpoint has been accepted, or begins anew without one."""
    if run is not None and isinstance(run.plan.get("python"), dict):
        plan = {**run.plan, **_plan(state)}
        if plan != run.plan:
            run.replan(plan)
