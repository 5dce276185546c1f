"""The commands that use a trained generator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from organza.cli.shell import Device, Json, Seed, Trained, app, show

if TYPE_CHECKING:
    from torch import Tensor

    from organza.model import Model

__all__ = ["export", "interpolate", "sample"]


@app.command()
def sample(
    run: Trained,
    n: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="How many samples.")] = 64,
    seed: Seed = 0,
    out: Annotated[str | None, typer.Option(help="FILE.png (a grid), FILE.npz (an array) or a folder/.")] = None,
    truncation: Annotated[
        float | None, typer.Option(help="Draw z towards the middle: normal to [-B, B], uniform to B of its width.")
    ] = None,
    nearest: Annotated[bool, typer.Option("--nearest", help="Each beside its nearest training example.")] = False,
    data: Annotated[str | None, typer.Option(help="The training data of --nearest, if its file has moved.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw samples from a trained run: by chance, not selected."""
    name = f"{'nearest' if nearest else 'sample'}-{n}-{seed}{'' if truncation is None else f'-{truncation:g}'}.png"
    target = out or str(Path(run) / name)
    if nearest:
        _check_suffix(target, ".png (a grid of pairs)")
    elif not target.endswith("/") and not Path(target).is_dir():
        _check_suffix(target, ".png (a grid)", ".npz (an array)", "/ (a folder of pictures)")
    model = _load(run, device)
    x = model.sample(n, seed, truncation=truncation)
    record: dict[str, Any] = {"out": target, "n": n, "seed": seed}
    if nearest:
        record |= _write_nearest(x, data or (model.config or {}).get("data"), target)
        said = f"{n} samples, each left of its nearest training example: {target}"
        show(record, f"{said}\nseed {seed}, not selected; median distance {record['median']:.2f}", as_json)
    else:
        show(record, f"{n} samples: {_write_samples(x.cpu(), target)}", as_json)


@app.command()
def interpolate(
    run: Trained,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many pairs.")] = 8,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="The samples from one end to the other.")] = 8,
    seed: Seed = 0,
    kind: Annotated[str | None, typer.Option(help="spherical or linear. [default: as suits the prior]")] = None,
    out: Annotated[str | None, typer.Option(help="FILE.png (a row for each pair) or FILE.gif (a film).")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Walk from sample to sample: a picture with a row for each pair, or a film that goes to and fro."""
    target = out or str(Path(run) / f"interpolate-{seed}.png")
    _check_suffix(target, ".png (a row for each pair)", ".gif (a film)")
    x = _load(run, device).interpolate(n, steps, seed, kind)  # (n, steps, ...)
    from organza import picture

    _check_pictures(x[0], "interpolate")
    if target.endswith(".gif"):
        frames = [picture.grid(x[:, step], columns=n) for step in range(steps)]
        picture.gif([*frames[1:], *frames[-2::-1]], target)  # ends, where it rests, at the beginning
    else:
        picture.save(picture.grid(x.flatten(0, 1), columns=steps), target)
    record = {"out": target, "n": n, "steps": steps, "seed": seed}
    show(record, f"{n} pairs, {steps} steps: {target}", as_json)


@app.command()
def export(
    run: Trained,
    pretrained: Annotated[str, typer.Option(metavar="DIR", help="Folder of weights, config and model card to make.")],
    as_json: Json = False,
) -> None:
    """Write a trained generator in a form that can be passed on."""
    from organza import api

    folder = api.load(run, device="cpu").save_pretrained(pretrained)
    record = {"pretrained": str(folder), "files": sorted(path.name for path in folder.iterdir())}
    lines = [
        f"{folder}: {', '.join(record['files'])}",
        f"next    organza sample {folder} -n 100 --out grid.png",
        f"        choose a license at the top of {folder / 'README.md'} before you publish the folder",
    ]
    show(record, "\n".join(lines), as_json)


def _load(run: str, device: str) -> Model:
    """The model of a run or folder, which must need nothing but z."""
    from organza import api

    model = api.load(run, device=device)
    if model.conditional:
        code = f"organza.load({run!r}).sample(n, y=labels)"
        raise ValueError(f"{run} is conditional: it needs labels, which this command has none of; in Python: {code}")
    return model


def _check_suffix(target: str, *allowed: str) -> None:
    if Path(target).suffix not in [each.split()[0] for each in allowed]:
        raise ValueError(f"--out {target}: must end in {' or '.join(allowed)}")


def _check_pictures(x: Tensor, what: str) -> None:
    if x.ndim != 4:
        raise ValueError(f"{what} shows pictures, and this generator makes {tuple(x.shape[1:])}")


def _write_nearest(x: Tensor, data: str | None, target: str) -> dict[str, Any]:
    """Write samples beside their nearest examples; return which, and how far they are."""
    import torch

    from organza import picture
    from organza.data import open_data
    from organza.model import nearest

    _check_pictures(x, "--nearest")
    try:
        examples = open_data(data or "").x
    except ValueError as error:
        raise ValueError(f"--nearest needs the training data: {error}; give it by --data") from None
    index, distance = nearest(x, examples)
    found = examples[index.to(examples.device)]
    pairs = [(each if each.dtype == torch.uint8 else picture.to_uint8(each)).cpu() for each in (x, found)]
    # Two that belong together touch; between pairs is the grid's gap.  As wide as high, at two widths a pair.
    picture.save(picture.grid(torch.cat(pairs, 3), columns=math.ceil(math.sqrt(len(x) / 2))), target)
    return {"median": float(distance.median()), "index": index.tolist(), "distance": distance.tolist()}


def _write_samples(x: Tensor, target: str) -> str:
    """Write samples as a grid, an array or a folder of pictures; return where."""
    import numpy as np

    from organza import picture

    if target.endswith("/") or Path(target).is_dir():
        if x.ndim != 4:
            raise ValueError(f"--out {target}: a folder takes pictures, these are vectors; use FILE.npz or FILE.png")
        for i, each in enumerate(x):
            picture.save(picture.grid(each[None]), Path(target) / f"{i:06d}.png")
    elif target.endswith(".npz"):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, x=(picture.to_uint8(x) if x.ndim == 4 else x).numpy())
    else:
        drawn = picture.draw(x)
        if drawn is None:
            raise ValueError(f"--out {target}: {tuple(x.shape[1:])} is no picture; use FILE.npz")
        picture.save(drawn, target)
    return target
