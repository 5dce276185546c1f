"""The commands that measure."""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from organza.cli.shell import Device, Json, Seed, aligned, app, show
from organza.progress import measuring

if TYPE_CHECKING:
    from organza.metrics.score import Score

__all__ = ["compare", "evaluate"]


@app.command()
def evaluate(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run folder, or the folder of a pretrained model.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names with commas between them. [default: the usual ones that apply]")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="digits, efficientnet-lite0, inception, random or pixels. [default: as suits]")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="How many samples.")] = 10_000,
    data: Annotated[
        str | None, typer.Option("--data", "--real", help="The real data. [default: what the run was trained on]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train or test. [default: test where there is one]")] = None,
    fake: Annotated[
        str | None, typer.Option(help="Samples of any other program: a folder of pictures, FILE.npz or FILE.npy.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The run's best checkpoint instead of its last.")] = False,
    floors: Annotated[bool, typer.Option(help="Measure held-out real examples too.")] = True,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Judge samples against real data; every score carries its protocol, its error and its floor."""
    # Threads that wait for each other spin, by default so long that on a busy machine this took five times as long
    # (docs/log.md).  Heard by GNU's OpenMP if it is said before PyTorch is loaded; nobody else minds.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    with measuring(as_json) as watch:
        from organza import api

        names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
        settings: dict[str, Any] = {"data": data, "split": split, "metrics": names, "features": features, "n": n}
        settings |= {"seed": seed, "device": device, "best": best, "floors": floors, "watch": watch}
        found = api.evaluate(run, fake=fake, **settings)
    record = {"run": run, "fake": fake, "scores": [score.json() for score in found]}
    show(record, "\n".join([*_table(found), "", *_protocols(found), *_flags(found)]), as_json)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="The run folders.")],
    metrics: Annotated[str | None, typer.Option(help="Keys of scores with commas between them. [default: all]")] = None,
    as_json: Json = False,
) -> None:
    """Rank runs by each of their scores; scores whose protocols differ are not ranked, and it says in what."""
    from organza import api
    from organza.metrics.score import ranked
    from organza.run import Run as Folder

    if len(runs) < 2:
        raise ValueError(f"got {len(runs)} run; give two or more to compare")
    names = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
    rows, record = [], {}
    for key, scores in api.compare(runs, names).items():
        there = [(run, score) for run, score in zip(runs, scores, strict=True) if score is not None]
        try:
            order = [there[place][0] for place in ranked([score for _, score in there])]
            said = "" if len(there) < 2 else f"best {order[0]}"
        except ValueError as error:
            order, said = [], str(error).partition(": ")[2]
        for run, score in there:
            if score.images is not None and score.images < max(Folder(run).checkpoints(), default=0):
                said += f"; {run} was measured at {score.images:,} images and has gone on"
        rows.append([key, *("-" if score is None else _plain(score) for score in scores), said])
        record[key] = {
            "ranking": order,
            "problem": "" if order else said,
            "scores": {run: score.json() for run, score in there},
        }
    show({"runs": runs, "metrics": record}, "\n".join(aligned([["", *runs, ""], *rows])), as_json)


def _plain(score: Score) -> str:
    return str(score).removeprefix(score.name).strip()


def _table(scores: list[Score]) -> list[str]:
    """A line for each score."""
    from organza.metrics.score import BETTER, short

    rows = [["score", "value", "error", "floor", ""]]
    for score in scores:
        error = "" if score.error is None else f"± {short(score.error)}"
        floor = "" if score.floor is None else short(score.floor)
        rows.append([score.name, short(score.value), error, floor, BETTER[score.best]])
    return aligned(rows)


def _protocols(scores: list[Score]) -> list[str]:
    """What the scores depend on: what all share in one line, and what each adds."""
    first = scores[0].protocol
    lines = [
        f"real      {first.real}, {first.split}: {first.n_real:,} examples ({first.digest[:12]}), {first.rounding}",
        f"samples   {first.n_fake:,}, seed {first.seed}; organza {first.organza}, torch {first.torch}",
    ]
    for (name, weights, resize), group in groupby(scores, lambda each: _seen(each)):
        known = f" ({weights[:12]})" if weights else ""
        lines.append(f"features  {name}{known}, resize {resize}: {', '.join(each.name for each in group)}")
    lines += [
        f"{each.name:9} {each.protocol.metric.partition(', ')[2]}" for each in scores if "," in each.protocol.metric
    ]
    return lines


def _seen(score: Score) -> tuple[str, str, str]:
    return score.protocol.features, score.protocol.weights, score.protocol.resize


def _flags(scores: list[Score]) -> list[str]:
    """Each doubt once, with the scores that it concerns."""
    found: dict[str, list[str]] = {}
    for score in scores:
        for flag in score.flags:
            found.setdefault(flag, []).append(score.name)
    every = len(scores)
    return [f"!         {'all' if len(names) == every else ', '.join(names)}: {flag}" for flag, names in found.items()]
