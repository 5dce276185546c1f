"""What is kept of a run and when: the log, pictures of the same z, scores, checkpoints."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from organza import picture
from organza.data import Data
from organza.device import full
from organza.distributed import agreed, first, spread, world
from organza.model import Model
from organza.nearest import nearest
from organza.run import Run, write_text
from organza.training.state import State, changed

if TYPE_CHECKING:
    from organza.run import Groups

__all__ = ["Judge", "Keeper", "Unwritten", "writing"]


_SEARCHED = 2**28  # numbers of examples that are searched for the nearest at the end, a minute's work at most


class Unwritten(ValueError):
    """The run folder could not be written; what was saved before is whole."""


@contextmanager
def writing(run: Run | None) -> Iterator[None]:
    """Say what to do where a file of the run could not be written; what is read elsewhere has errors of its own."""
    try:
        yield
    except OSError as error:
        where = Path(error.filename or ("" if run is None else run.path))
        if run is None or not where.resolve().is_relative_to(run.path.resolve()):
            raise
        if isinstance(error, FileNotFoundError) and not (run.path / "plan.json").exists():
            raise Unwritten(
                f"{run.path} is no longer there, or has no plan.json: was it renamed or removed? With its name again, "
                "a resume goes on from its last checkpoint"
            ) from error
        raise Unwritten(
            f"{error.filename or 'the run folder'}: cannot be written ({error.strerror}); what was saved before is "
            "whole: make room on the disk, or the folder writable, then organza resume goes on from there"
        ) from error


@dataclass(frozen=True)
class Judge:
    """What scores the model while it trains; of what it does, training sees only the numbers.

    Arguments:
        score: The model so far, with averaged weights, to numbers by name.
        every: Images from one judgement to the next; 0 for at each picture.
        best: The name of the number by which the best checkpoint is kept; None to keep none.
        highest: Whether the highest is the best, not the lowest.
    """

    score: Callable[[Model], Mapping[str, float]]
    every: int = 0
    best: str | None = None
    highest: bool = False


class Keeper:
    """What is kept of a run and when: the log, pictures of the same z, checkpoints.  With no folder, nothing is.

    The state is restored from the folder's newest good checkpoint if it has any.  Arguments: see :func:`fit`.
    """

    def __init__(self, state: State, run: Run | None, judge: Judge | None, save_seconds: float) -> None:
        self.state, self.run, self.judge, self.save_seconds = state, run, judge, save_seconds
        self.kept = first(lambda: run is not None)
        self.saved_time = time.monotonic()
        if not self.kept:
            return
        if first(lambda: run is not None and run.begun):
            self._restore()
            return
        first(lambda: None if run is None else self._begin(run))
        if run is not None:
            write_text(run.path / "data.json", json.dumps(state.data.summary(), indent=2) + "\n")
            self._show(run)

    def _begin(self, run: Run) -> None:
        """Forget what a run left that was killed before its first checkpoint, and say so.

        Raises:
            ValueError: If by its log it went on beyond where that is made: checkpoints were removed since.
        """
        lines = [line for line in run.records() if isinstance(line.get("time"), int | float)]
        steps = [max(0.0, after["time"] - before["time"]) for before, after in pairwise(lines[:-1])]
        usual = sorted(steps)[len(steps) // 2] if steps else 0.0  # and no more, where a clock has jumped
        if sum(min(step, 10 * usual) for step in steps) > self.save_seconds:
            raise ValueError(
                f"{run.path} went on to image {lines[-1]['images']} by its log, but holds no checkpoint: put "
                f"{run.path / 'checkpoints'} back, or delete log.jsonl to begin anew"
            )
        if lines:
            warnings.warn(f"{run.path} was stopped before its first checkpoint: it begins anew", stacklevel=7)
        run.rewind(-1)

    def _restore(self) -> None:
        """Take over the newest good checkpoint, which rank 0 reads for all."""
        groups: Groups = {}

        def read() -> tuple[dict[str, Any], list[str], list[str]]:
            assert self.run is not None
            loaded, record, damage = self.run.load()
            groups.update(loaded)
            return record, damage, list(loaded)

        record, damage, names = first(read)
        for line in [*damage, *changed(record, self.state.record())]:
            warnings.warn(line, stacklevel=5)
        self.state.restore({name: spread(groups.get(name, {})) for name in names}, record)
        if self.run is not None:
            self.run.rewind(self.state.images)

    @property
    def late(self) -> bool:
        """Whether a checkpoint is due by the clock."""
        return self.run is not None and time.monotonic() - self.saved_time > self.save_seconds

    def keep(self, before: int, save: bool) -> None:
        """Keep what is due after a round that began at image ``before``: all at the end, a checkpoint at a ``save``."""
        state, training = self.state, self.state.training
        last = state.images >= training.images
        if last or _due(before, state.images, training.log_every):
            means = state.means()
            if self.run is not None:
                self.run.log({"images": state.images, "steps": state.steps, "time": time.time(), **means})
        if not self.kept:
            return
        if self.run is not None and (last or _due(before, state.images, training.sample_every)):
            self._show(self.run)
        better = False
        if self.judge is not None and (last or _due(before, state.images, self.judge.every or training.sample_every)):
            better = self._judge(self.judge)
        if better or last or save or _due(before, state.images, training.save_every):
            self._save()

    def _save(self) -> None:
        self.state.agree()
        groups = self.state.tensors()
        if self.run is not None:
            self.run.save(self.state.images, groups, self.state.record())
        self.saved_time = time.monotonic()

    def _judge(self, judge: Judge) -> bool:
        """Log the judge's scores of the model so far; mark it, before it is saved, and say so if none was better.

        In this order a run that is killed in between is judged again, and comes to the same.
        """
        images = self.state.images
        self.state.agree()
        scores: Mapping[str, float] = {}
        why = ""
        try:
            scores = judge.score(self.state.model())
        except (ValueError, MemoryError, RuntimeError) as error:  # of a measurement beside the training, which goes on
            told = isinstance(error, ValueError | torch.linalg.LinAlgError)  # type: ignore[attr-defined]
            if not told and (world() > 1 or not full(error)):  # the others wait for what this process will not say
                raise
            why = " ".join(str(error).split())[:200] or "out of memory"
        if agreed(bool(why))[0]:
            warnings.warn(f"not judged at image {images}: {why or 'another process could not'}", stacklevel=2)
            return False
        return first(lambda: self._best(judge, scores))

    def _best(self, judge: Judge, scores: Mapping[str, float]) -> bool:
        """Log the scores; mark the model if none was better, and say whether it is so."""
        run, images = self.run, self.state.images
        assert run is not None
        run.log({"images": images, "steps": self.state.steps, **scores})
        value, best = scores.get(judge.best or ""), run.best
        if value is None or not math.isfinite(value):
            return False
        rival = best["value"] if best is not None and best["name"] == judge.best else None
        if rival is not None and not (value > rival if judge.highest else value < rival):
            return False
        run.mark(images, str(judge.best), value)
        return True

    def _show(self, run: Run) -> None:
        """Keep a picture of the same 64 z, or of the same 8 under each of some conditions, or of images from images."""
        run.stay()
        state = self.state
        model, data, seed, columns = state.model(), state.data, state.training.seed, None
        if not model.conditional:
            x = model.sample(64, seed)
        elif len(data.spec.condition) == 3:
            x = _beside(model, data, seed)
        else:
            x, columns = _across(model, data, seed), 8
        drawn = picture.draw(x if x.ndim == 4 else model.restore(x), data.x, columns)
        if drawn is not None:
            picture.save(drawn, run.path / "samples" / f"{state.images}.png")
        if x.ndim == 4 and state.images >= state.training.images and len(data.spec.condition) != 3:
            examples = data.x[:: math.ceil(data.x.numel() / _SEARCHED)]
            examples = examples if examples.dtype == torch.uint8 else data.values.inside(examples)
            index, _ = nearest(x[:32], examples)
            picture.save(picture.pairs(x[:32], examples[index.to(examples.device)]), run.path / "nearest.png")


def _across(model: Model, data: Data, seed: int) -> Tensor:
    """A row of 8 for each of at most ten labels, or of the first eight conditions."""
    assert data.y is not None
    classes = data.spec.classes
    y = torch.arange(min(10, classes)) if classes else data.gather(torch.arange(min(8, len(data))))[1]
    assert y is not None
    return model.across(y, 8, seed).flatten(0, 1)


def _beside(model: Model, data: Data, seed: int) -> Tensor:
    """Images made from images to the right of them, (n, C, H, 2 W); of joined pairs (a, b) what was made of a."""
    y = data.gather(torch.arange(min(64, len(data))))[1]
    assert y is not None
    x = model.sample(len(y), seed, y).cpu()
    if data.spec.joined:
        y, x = y.chunk(2, 1)[0], x.chunk(2, 1)[1]
    if y.shape[1] == 1:
        y = y.expand(-1, x.shape[1], -1, -1)
    return torch.cat([y.cpu(), x], 3) if y.shape[1] == x.shape[1] else x


def _due(before: int, now: int, every: int) -> bool:
    """Whether a multiple of ``every`` was reached since ``before``."""
    return every > 0 and before // every < now // every
