"""The commands that train."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from organza.cli.shell import Device, Images, Json, Minutes, Run, app, recipes, show
from organza.progress import playing

if TYPE_CHECKING:
    from organza.api import Decision

__all__ = ["changes", "resume", "said", "train"]


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(help="digits, mnist, ring, ...; a folder or .zip of pictures, an .npy or .npz.")
    ] = "digits",
    recipe: Annotated[
        str | None,
        typer.Option(help="See: organza recipes. [default: chosen for the data]", autocompletion=recipes),
    ] = None,
    run: Annotated[str | None, typer.Option(help="The run folder to make. [default: runs/DATA-RECIPE-NUMBER]")] = None,
    images: Images = None,
    minutes: Minutes = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of everything: weights, order, noise, dropout.")] = 0,
    device: Device = "auto",
    resize: Annotated[
        str | None, typer.Option(metavar="SIDE|WxH", help="Pictures' middle part, made so many pixels large.")
    ] = None,
    bad_images: Annotated[
        str | None,
        typer.Option(metavar="skip|stop", help="Leave files out that cannot be read, or stop. [default: stop]"),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any field of the plan.")] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="Judge by it at each picture, and keep the best checkpoint too."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be trained and how long it takes, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Train a GAN; with no argument, on the built-in digits, in under three minutes on two cores."""
    settings: dict[str, Any] = {"images": images, "minutes": minutes, "seed": seed, "device": device}
    part = "".join(f"[{key}={value}]" for key, value in (("bad", bad_images), ("resize", resize)) if value is not None)
    if part:
        from organza.data import added

        data = added(data, part)
    judged = {} if evaluate is None else {"evaluation": {"kind": "Evaluation", "metric": evaluate}}
    settings["changes"] = {**judged, **changes(set_ or [])}
    if dry_run:
        from organza import api
        from organza.data import open_data

        decision = api.decide(open_data(data), recipe, **settings)
        record = {"plan": decision.plan.json(), "choices": [asdict(choice) for choice in decision.choices]}
        show(record, said(decision), as_json)
        return
    with playing(as_json) as watch:
        from organza import api

        watch.say(f"reading {data}")
        model = api.train(data, recipe, run=run, **settings, watch=watch, tell=lambda d: watch.say(said(d)))
    raise typer.Exit(watch.close(model))


@app.command()
def resume(
    run: Run,
    data: Annotated[str | None, typer.Option(help="The data, if its file has moved.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="The new length in all, in images shown to D.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Minutes to go on for: the speed is measured first.")] = None,
    device: Device = "auto",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="What may change: training.accumulate, ...")
    ] = None,
    as_json: Json = False,
) -> None:
    """Continue a run exactly where its last checkpoint was made."""
    with playing(as_json) as watch:
        from organza import api

        watch.say(f"reading {run}")
        settings: dict[str, Any] = {"images": images, "minutes": minutes, "device": device}
        model = api.resume(run, data=data, **settings, changes=changes(set_ or []), watch=watch)
    raise typer.Exit(watch.close(model))


def said(decision: Decision) -> str:
    """Each choice in a line: what, its value, why; and what is unusual about the data."""
    rows = [(choice.name, choice.value, choice.reason) for choice in decision.choices]
    name, value = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [f"{row[0]:{name}}  {row[1]:{value}}  {row[2]}" for row in rows]
    return "\n".join([*lines, *(f"{'data':{name}}  {note}" for note in decision.notes)])


def changes(settings: list[str]) -> dict[str, Any]:
    """Read KEY=VALUE settings; a value is JSON where it can be read as such, else text."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise ValueError(f"--set {setting}: must be KEY=VALUE, e.g. --set training.batch=32")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
