"""Recipes: complete plans as functions of the data, one file per paper or program.

Each is ``name(data: Spec, images: int = ...) -> Plan``; the default length is the recipe's own, and schedules that
span the run stretch with it.  The first line of the docstring is what ``organza recipes`` prints.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from organza.plan import Plan
from organza.recipes.mlp import mlp, mlp_literal
from organza.recipes.quick import quick

__all__ = ["MINUTES", "RECIPES", "recipe"]

RECIPES: dict[str, Callable[..., Plan]] = {"quick": quick, "mlp": mlp, "mlp-literal": mlp_literal}

# Recipes whose own length is a time: as many images as fit into it on the machine at hand.
MINUTES = {"quick": 2.1}


def recipe(name: str) -> Callable[..., Plan]:
    """Return the recipe of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in RECIPES:
        close = get_close_matches(name, RECIPES, 1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(RECIPES)}"
        raise ValueError(f"recipe {name!r} is unknown; {hint}")
    return RECIPES[name]
