"""The scores of a run: RUN/scores.json, and RUN/evaluation/nearest.png, samples beside the training images nearest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from organza import picture
from organza.lock import held
from organza.metrics.score import Score
from organza.run import write_text

__all__ = ["keep", "read"]


def keep(
    folder: Path, scores: list[Score], fake: Tensor, train: Tensor | None, report: Callable[[], object] | None = None
) -> None:
    """Write scores into a run folder, in the place of older ones of the same protocol, and their picture.

    Arguments:
        folder: The run folder.
        scores: What was found.
        fake: The samples that were judged.
        train: What they were compared with for copies, or None.
        report: Writes what shows them, called when they are there.
    """
    fresh = {(score.name, score.protocol) for score in scores}
    (folder / "evaluation").mkdir(exist_ok=True)
    with held(folder / "evaluation", wait=True):  # of two evaluations at once neither loses the other's
        older = [score for score in read(folder) if (score.name, score.protocol) not in fresh]
        records = [score.json() for score in (*older, *scores)]
        write_text(folder / "scores.json", json.dumps(records, indent=1) + "\n")
        _draw(folder, scores, fake, train)
        if report is not None:
            report()


def _draw(folder: Path, scores: list[Score], fake: Tensor, train: Tensor | None) -> None:
    """The picture of the samples that lie closest to a training image, each left of it."""
    pairs: list[list[int]] = next((score.details["suspects"] for score in scores if score.key == "memorised"), [])
    if pairs and train is not None and fake.ndim == 4:
        fakes, twins = torch.tensor(pairs[:16]).T
        pair = picture.opaque(torch.cat([fake[fakes], train.cpu()[twins]], 3))
        pair = pair if pair.dtype == torch.uint8 else picture.to_uint8(pair)
        framed = torch.nn.functional.pad(pair, (2, 2, 2, 2), value=128)  # which tells pairs apart on any background
        picture.save(picture.grid(framed, columns=4), folder / "evaluation" / "nearest.png")


def read(folder: Path) -> list[Score]:
    """Return the scores of a run folder; those of another version are left out."""
    path = folder / "scores.json"
    if not path.is_file():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it and evaluate again") from None
    found = []
    for record in records if isinstance(records, list) else []:
        try:
            found.append(Score.read(record))
        except ValueError:
            continue
    return found
