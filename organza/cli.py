"""The command line: a thin shell around ``organza.api``.

Exit codes: 0 done; 2 the user's mistake, one clear line each, nothing written; 1 our mistake, with a traceback;
130 or 143 stopped by Ctrl-C or SIGTERM, with everything saved.
"""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from organza.progress import playing

if TYPE_CHECKING:
    from torch import Tensor

    from organza.api import Decision
    from organza.model import Model

__all__ = ["app", "main"]

app = typer.Typer(
    name="organza",
    help="Train, measure, explain and ship generative adversarial networks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Run = Annotated[str, typer.Argument(metavar="RUN", help="The run folder.")]
Trained = Annotated[str, typer.Argument(metavar="RUN", help="The run folder, or the folder of a pretrained model.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same samples.")]
Images = Annotated[int | None, typer.Option(min=1, help="Length of the run: images shown to D.")]
Minutes = Annotated[float | None, typer.Option(help="Length in minutes: the speed is measured, then fixes --images.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="digits, mnist, ring, grid25, ... or an .npy or .npz file.")] = "digits",
    recipe: Annotated[str | None, typer.Option(help="See: organza recipes. [default: chosen for the data]")] = None,
    run: Annotated[str | None, typer.Option(help="The run folder to make. [default: runs/DATA-RECIPE-NUMBER]")] = None,
    images: Images = None,
    minutes: Minutes = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of everything: weights, order, noise, dropout.")] = 0,
    device: Device = "auto",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of the plan.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be trained and how long it takes, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Train a GAN; with no argument, on the built-in digits, in under three minutes on two cores."""
    settings: dict[str, Any] = {"images": images, "minutes": minutes, "seed": seed, "device": device}
    settings["changes"] = _changes(set_ or [])
    if dry_run:
        from organza import api
        from organza.data import open_data

        decision = api.decide(open_data(data), recipe, **settings)
        record = {"plan": decision.plan.json(), "choices": [asdict(choice) for choice in decision.choices]}
        _print(record, _said(decision), as_json)
        return
    with playing(as_json) as watch:
        from organza import api

        watch.say(f"reading {data}")
        model = api.train(data, recipe, run=run, **settings, watch=watch, tell=lambda d: watch.say(_said(d)))
    raise typer.Exit(watch.close(model))


@app.command()
def resume(
    run: Run,
    data: Annotated[str | None, typer.Option(help="The data, if its file has moved.")] = None,
    images: Images = None,
    minutes: Minutes = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Continue a run exactly where its last checkpoint was made."""
    with playing(as_json) as watch:
        from organza import api

        watch.say(f"reading {run}")
        model = api.resume(run, data=data, images=images, minutes=minutes, device=device, watch=watch)
    raise typer.Exit(watch.close(model))


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
        _print(record, f"{said}\nseed {seed}, not selected; median distance {record['median']:.2f}", as_json)
    else:
        _print(record, f"{n} samples: {_write_samples(x.cpu(), target)}", as_json)


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
    _print(record, f"{n} pairs, {steps} steps: {target}", as_json)


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
    _print(record, "\n".join(lines), as_json)


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


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print the complete plan of this one.")] = None,
    data: Annotated[str | None, typer.Option(help="What to make the plan for. [default: the paper's images]")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or print one's reference and complete plan."""
    from organza.recipes import RECIPES, SHAPES
    from organza.recipes import recipe as named

    if name is None:
        lines = {each: (make.__doc__ or "").split("\n")[0] for each, make in RECIPES.items()}
        width = max(map(len, lines))
        _print(lines, "\n".join(f"{each:{width}}  {line}" for each, line in lines.items()), as_json)
        return
    make = named(name)
    from inspect import getdoc

    from organza.data import Spec, open_data

    spec = Spec(SHAPES.get(name, (1, 28, 28)), 60_000) if data is None else open_data(data).spec
    plan = make(spec).json()
    plan["data"] = data or "of " + " x ".join(map(str, spec.shape))
    short = re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), json.dumps(plan, indent=2))
    _print(plan, f"{getdoc(make)}\n\n{short}", as_json)


def _said(decision: Decision) -> str:
    """Each choice in a line: what, its value, why."""
    rows = [(choice.name, choice.value, choice.reason) for choice in decision.choices]
    name, value = (max(len(row[i]) for row in rows) for i in (0, 1))
    return "\n".join(f"{row[0]:{name}}  {row[1]:{value}}  {row[2]}" for row in rows)


def _changes(settings: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE settings; a value is JSON where it can be read as such, else text."""
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"--set {setting}: must be KEY=VALUE, e.g. --set training.batch=32")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    return changes


def _print(record: Mapping[str, Any], text: str, as_json: bool) -> None:
    print(json.dumps(record) if as_json else text)


def main() -> None:
    """Run the command and exit."""
    warnings.showwarning = lambda message, *_, **__: print(f"organza: warning: {message}", file=sys.stderr)
    sys.exit(_run(app))


def _run(command: Callable[..., Any]) -> int:
    """Run the command; a user's mistake becomes one line each on standard error."""
    try:
        return int(command(prog_name="organza", standalone_mode=False) or 0)
    except ValueError as error:
        return _mistake(str(error))
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # `organza` alone
            print(str(error) or error.format_message())  # type: ignore[attr-defined]
            return 0
        if hasattr(error, "format_message"):  # the parser's own: unknown option, missing argument, bad number
            return _mistake(error.format_message() + _typed(error.format_message()))
        if type(error).__name__ in ("Exit", "Abort"):
            return int(getattr(error, "exit_code", 1))
        raise


def _typed(message: str) -> str:
    """What was typed for the option that the parser complains of, which it does not say itself."""
    option = re.search(r"value for '(--?[\w-]+)'", message)
    words = sys.argv[1:-1]
    return f", got {sys.argv[words.index(option[1]) + 2]!r}" if option and option[1] in words else ""


def _mistake(text: str) -> int:
    lines = text.splitlines()
    if "--json" in sys.argv:
        print(json.dumps({"error": lines}))
    for line in lines:
        print(f"organza: {line}", file=sys.stderr)
    return 2
