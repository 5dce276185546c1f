"""The command that lists recipes."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from organza.cli.shell import Json, aligned, app, show
from organza.cli.shell import recipes as names

__all__ = ["recipes"]


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print the complete plan of this one.", autocompletion=names)
    ] = None,
    data: Annotated[str | None, typer.Option(help="What to make the plan for. [default: the paper's images]")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or print one's reference and complete plan."""
    from organza.recipes import RECIPES, example
    from organza.recipes import recipe as named

    if name is None and data is not None:
        raise ValueError(f"--data {data}: is what to make a recipe's plan for; give the recipe's NAME too")
    if name is None:
        lines = {each: (make.__doc__ or "").split("\n")[0] for each, make in RECIPES.items()}
        show(lines, "\n".join(aligned([*lines.items()])), as_json)
        return
    make = named(name)
    from inspect import getdoc

    from organza.data import open_data

    spec = example(name) if data is None else open_data(data).spec
    plan = make(spec).json()
    plan["data"] = data or "of " + " x ".join(map(str, spec.shape))
    short = re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), json.dumps(plan, indent=2))
    show(plan, f"{getdoc(make)}\n\n{short}", as_json)
