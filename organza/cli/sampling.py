"""The commands that use a trained generator."""

from __future__ import annotations

import io
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from organza.cli.shell import Device, Json, Seed, Trained, app, show

if TYPE_CHECKING:
    from torch import Tensor

    from organza.model import Model

__all__ = ["export", "interpolate", "sample"]

Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label", help="A class by name or number, or numbers a,b,...; several times for several. [default: all]"
    ),
]


@app.command()
def sample(
    run: Trained,
    n: Annotated[
        int | None,
        typer.Option("-n", min=1, max=1_000_000, help="How many samples (64), or how many of each label (8)."),
    ] = None,
    label: Labels = None,
    seed: Seed = 0,
    out: Annotated[
        str | None, typer.Option(help="FILE.png (a grid), FILE.npz or .npy (an array) or a folder/.")
    ] = None,
    truncation: Annotated[
        float | None, typer.Option(help="Draw z towards the middle: normal to [-B, B], uniform to B of its width.")
    ] = None,
    nearest: Annotated[bool, typer.Option("--nearest", help="Each beside its nearest training example.")] = False,
    data: Annotated[str | None, typer.Option(help="The training data of --nearest, if its file has moved.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Draw samples from a trained run, by chance, not selected; of labels a row for each, of the same z a column."""
    from organza import api

    asked = [*map(str, label or ()), *(() if truncation is None else [f"{truncation:g}"])]
    name = "-".join(["nearest" if nearest else "sample", str(n or (8 if label else 64)), str(seed), *asked])
    target = out or str(Path(run) / (re.sub(r"[^\w.,-]", "_", name)[:120] + ".png"))
    if data is not None and not nearest:
        raise ValueError(f"--data {data}: is the training data of --nearest; add --nearest, or leave --data out")
    if nearest:
        _check_suffix(target, ".png (a grid of pairs)")
    elif not target.endswith(("/", os.sep)) and not Path(target).is_dir():
        _check_suffix(target, ".png (a grid)", ".npz (an array)", ".npy (an array)", "/ (a folder of pictures)")
    model = api.load(run, device=device)
    names, y = _labels(model, run, label)
    count = n or (64 if y is None else 8)
    if y is None:
        x = model.sample(count, seed, truncation=truncation)
    else:
        x = model.across(y, count, seed, truncation=truncation).flatten(0, 1)  # (k n, ...)
    if out is None and x.ndim == 2 and x.shape[1] != 2:  # of vectors there is no picture
        target = str(Path(target).with_suffix(".npz"))
    record: dict[str, Any] = {"out": target, "n": len(x), "seed": seed, **({"labels": names} if names else {})}
    if nearest:
        config = model.config or {}
        record |= _write_nearest(x, data or config.get("data"), target, "" if data else config.get("data_sha256", ""))
        said = f"{len(x)} samples, each left of its nearest training example: {target}"
        show(record, f"{said}\nseed {seed}, not selected; median distance {record['median']:.2f}", as_json)
    else:
        written = _write_samples(model, x.cpu(), target, names, None if y is None else y.repeat_interleave(count, 0))
        rows = f", a row for each of {', '.join(names)}" if len(names) > 1 else ""
        show(record, f"{len(x)} samples{rows}: {written}", as_json)


@app.command()
def interpolate(
    run: Trained,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many pairs.")] = 8,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="The samples from one end to the other.")] = 8,
    seed: Seed = 0,
    kind: Annotated[str | None, typer.Option(help="spherical or linear. [default: as suits the prior]")] = None,
    label: Labels = None,
    code: Annotated[
        int | None, typer.Option(min=0, help="Lead this code of InfoGAN through its values instead.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="FILE.png (a row for each pair) or FILE.gif (a film).")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Walk from sample to sample: a picture with a row for each pair, or a film that goes to and fro."""
    from organza import api, picture

    target = out or str(Path(run) / (f"interpolate-{seed}.png" if code is None else f"code-{code}-{seed}.png"))
    _check_suffix(target, ".png (a row for each pair)", ".gif (a film)")
    if code is not None and (kind is not None or label):
        raise ValueError("--code leads one code through its values: it takes neither --kind nor --label")
    model = api.load(run, device=device)
    if code is not None:
        x = model.traverse(code, n, steps, seed)  # (n, steps, ...)
    else:
        y = _labels(model, run, label)[1]
        if y is not None and label and len(y) not in (1, n):
            raise ValueError(f"--label: got {len(y)} for {n} pairs; give one, or one for each pair (-n {len(y)})")
        y = None if y is None else y[[i % len(y) for i in range(n)]]
        x = model.interpolate(n, steps, seed, kind, y)  # (n, steps, ...)

    _check_pictures(x[0], "interpolate")
    x = picture.opaque(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # GIF has no half-transparent colours
    if target.endswith(".gif"):
        frames = [picture.grid(x[:, step], columns=n) for step in range(x.shape[1])]
        picture.gif([*frames[1:], *frames[-2::-1]], target)  # ends, where it rests, at the beginning
    else:
        picture.save(picture.grid(x.flatten(0, 1), columns=x.shape[1]), target)
    record = {"out": target, "n": n, "steps": x.shape[1], "seed": seed}
    what = "pairs" if code is None else f"z with code {code}"
    show(record, f"{n} {what}, {x.shape[1]} steps: {target}", as_json)


@app.command()
def export(
    run: Trained,
    pretrained: Annotated[str, typer.Option(metavar="DIR", help="Folder of weights, config and model card to make.")],
    as_json: Json = False,
) -> None:
    """Write a trained generator in a form that can be passed on."""
    from organza import api
    from organza.pretrained import use

    model = api.load(run, device="cpu")
    folder = model.save_pretrained(pretrained)
    record = {"pretrained": str(folder), "files": sorted(path.name for path in folder.iterdir())}
    card = folder / "README.md"
    edited = "\nlicense: other" not in card.read_text("utf-8")
    todo = "was edited, and is as it was" if edited else "asks at its top for a license before you publish the folder"
    lines = [
        f"{folder}: {', '.join(record['files'])}",
        f"next    {use(folder, model.config or {})}",
        f"        {card} {todo}",
    ]
    show(record, "\n".join(lines), as_json)


def _labels(model: Model, run: str, given: list[str] | None) -> tuple[list[str], Tensor | None]:
    """The conditions that were asked for, by name and as y; all classes if none was; None if the model takes none."""
    import torch

    config = model.config or {}
    known, generator = list(config.get("labels") or ()), config.get("generator") or {}
    classes = generator.get("classes", 0)
    if not model.conditional:
        if given:
            raise ValueError(f"--label {given[0]}: {run} is not conditional: it takes no labels; leave --label out")
        return [], None
    if not classes:
        raise ValueError(f"{run} takes images as conditions, not labels: organza translate {run} INPUT --out DIR")
    if not given and not known:
        raise ValueError(f"{run} takes {classes} numbers as a condition: give them, --label 0,1,...")
    values: list[Any] = [_label(each, known, classes) for each in given or known]
    if len({isinstance(value, int) for value in values}) > 1:
        raise ValueError("--label: give either classes or numbers, not both")
    return list(given or known), torch.tensor(values)


def _label(text: str, known: list[str], classes: int) -> int | list[float]:
    """A class by its name or number, or numbers with commas between them."""
    if text in known:
        return known.index(text)
    if text.isdecimal() and int(text) < len(known):
        return int(text)
    numbers = text.split(",")
    if len(numbers) == classes and (classes > 1 or not known):
        try:
            return [float(number) for number in numbers]
        except ValueError:
            pass
    if not known:
        raise ValueError(f"--label {text}: needed are {classes} numbers with commas between them")
    close = get_close_matches(text, known, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(f"--label {text}: there are {', '.join(known[:20])}{' ...' * (len(known) > 20)}{hint}")


def _folder(label: str) -> str:
    """A label as the name of a folder, whoever chose it: within the one that was asked for, and no other label's but
    where a disk takes small and capital letters for the same."""

    def escaped(found: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in found[0].encode())

    return re.sub(r'[\x00-\x1f<>:"/\\|?*%]|^[ .]+|[ .]+$', escaped, label) or "%"


def _check_suffix(target: str, *allowed: str) -> None:
    if Path(target).suffix not in [each.split()[0] for each in allowed]:
        raise ValueError(f"--out {target}: must end in {' or '.join(allowed)}")


def _check_pictures(x: Tensor, what: str) -> None:
    if x.ndim != 4:
        raise ValueError(f"{what} shows pictures, and this generator makes {tuple(x.shape[1:])}")


def _write_nearest(x: Tensor, data: str | None, target: str, digest: str) -> dict[str, Any]:
    """Write samples beside their nearest examples, of data with this digest if there is one; return which, and how far
    they are."""
    import torch

    from organza import picture
    from organza.data import open_data
    from organza.model import nearest

    _check_pictures(x, "--nearest")
    if not data:
        raise ValueError("--nearest needs the training data, which this model does not name: give it by --data")
    try:
        found = open_data(data)
        if digest and found.digest != digest:
            raise ValueError(f"{found.name} is no longer what the model was trained on (the digests differ)")
        examples = found.x if found.x.dtype == torch.uint8 else found.values.inside(found.x)
    except ValueError as error:
        raise ValueError(f"--nearest needs the training data: {error}; give it by --data") from None
    index, distance = nearest(x, examples)
    picture.save(picture.pairs(x, examples[index.to(examples.device)]), target)
    return {"median": float(distance.median()), "index": index.tolist(), "distance": distance.tolist()}


def _write_samples(model: Model, x: Tensor, target: str, names: list[str], y: Tensor | None) -> str:
    """Write samples as a grid, as numbers like those of the data or as a folder of pictures, of labels one folder each.

    Return where.
    """
    import numpy as np

    from organza import picture
    from organza.run import write_bytes

    if target.endswith(("/", os.sep)) or Path(target).is_dir():
        if x.ndim != 4:
            what = "vectors" if x.ndim == 2 else "signals"
            raise ValueError(f"--out {target}: a folder takes pictures, these are {what}; use FILE.npz or FILE.png")
        deep = x.shape[1] == 1 and model.values is not None and model.values.dtype == "uint16"
        each_label = len(x) // max(1, len(names))
        for i, each in enumerate(x):  # of colours PNG files of 16 bits would be, but Pillow writes none
            one = model.restore(each[None])[0, 0].numpy() if deep else picture.grid(each[None])
            folder = Path(target, _folder(names[i // each_label])) if names else Path(target)
            picture.save(one, folder / f"{i:06d}.png")
    elif target.endswith((".npz", ".npy")):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        found, file = model.restore(x).numpy(), io.BytesIO()
        if target.endswith(".npy"):
            np.save(file, found)
        else:
            arrays: dict[str, Any] = {"x": found, "layout": {4: "NCHW", 3: "NCL"}.get(x.ndim, "ND")}
            if y is not None:
                arrays["y"] = y.numpy()
            np.savez(file, **arrays)
        write_bytes(Path(target), file.getvalue())
    else:
        drawn = picture.draw(x if x.ndim == 4 else model.restore(x), columns=len(x) // len(names) if names else None)
        if drawn is None:
            raise ValueError(f"--out {target}: {tuple(x.shape[1:])} is no picture; use FILE.npz")
        picture.save(drawn, target)
    return target
