"""What is kept of a run and when: the log, pictures of the same z, scores, checkpoints."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from organza import picture
from organza.data import Data
from organza.model import Model
from organza.run import Run
from organza.training.state import State

__all__ = ["Judge", "Keeper"]


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

    def __init__(
        self,
        state: State,
        run: Run | None,
        judge: Judge | None,
        save_seconds: float,
    ) -> None:
        self.state, self.run, self.judge, self.save_seconds = state, run, judge, save_seconds
        self.saved_time = time.monotonic()
        if run is None:
            return
        if run.begun:
            groups, record, damage = run.load()
            for line in damage:
                warnings.warn(line, stacklevel=3)
            state.restore(groups, record)
            run.rewind(state.images)
        else:
            run.rewind(-1)  # of a run that was killed before its first checkpoint
            self._show(run)

    def keep(self, before: int, stop: bool) -> None:
        """Keep what is due after a round that began at image ``before``: all at the end, a checkpoint at a ``stop``."""
        state, training = self.state, self.state.training
        last = state.images >= training.images
        if last or _due(before, state.images, training.log_every):
            means = state.means()
            if self.run is not None:
                self.run.log({"images": state.images, "steps": state.steps, "time": time.time(), **means})
        if self.run is None:
            return
        if last or _due(before, state.images, training.sample_every):
            self._show(self.run)
        better = False
        if self.judge is not None and (last or _due(before, state.images, self.judge.every or training.sample_every)):
            better = self._judge(self.run, self.judge)
        late = time.monotonic() - self.saved_time > self.save_seconds
        if better or last or stop or late or _due(before, state.images, training.save_every):
            self._save(self.run)

    def _save(self, run: Run) -> None:
        run.save(self.state.images, self.state.tensors(), self.state.record())
        self.saved_time = time.monotonic()

    def _judge(self, run: Run, judge: Judge) -> bool:
        """Log the judge's scores of the model so far; mark it, before it is saved, and say so if none was better.

        In this order a run that is killed in between is judged again, and comes to the same.
        """
        images = self.state.images
        try:
            scores = judge.score(self.state.model())
        except ValueError as error:  # a measurement beside the training, which goes on
            warnings.warn(f"not judged at image {images}: {error}", stacklevel=2)
            return False
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
