r"""A part of a plan as JSON, ``{"kind": ClassName, **arguments}``, checked before anything is built.

The kinds of a noun (prior, objective, term ...) are the public final classes of its module, and the arguments are those
of the constructor, so there is no second list to keep.  Every argument of a part is kept in an attribute of the same
name: that is how a live part is written down.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from types import ModuleType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import nn

from organza import (
    ada,
    augment,
    energy,
    mixture,
    moves,
    objective,
    optimizer,
    penalty,
    perceptual,
    prior,
    replay,
    schedule,
    term,
    weighing,
)
from organza import nn as networks
from organza.evaluation import Evaluation
from organza.game import Augment, Constraint, Replay
from organza.training import Training

__all__ = ["KINDS", "Part", "build", "checked", "hint", "part", "written"]

Part = dict[str, Any]


def _final(module: ModuleType, base: type) -> dict[str, type]:
    """The public classes of a module that are of this kind and can be made."""
    found = {name: getattr(module, name) for name in module.__all__}
    return {
        name: kind
        for name, kind in found.items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base and not inspect.isabstract(kind)
    }


KINDS: dict[type, dict[str, type]] = {
    nn.Module: _final(networks, nn.Module),
    prior.Prior: {**_final(prior, prior.Prior), **_final(mixture, prior.Prior)},
    objective.Objective: {**_final(objective, objective.Objective), **_final(energy, objective.Objective)},
    term.Term: {k: v for module in (penalty, perceptual, term, weighing) for k, v in _final(module, term.Term).items()},
    cast(type, Constraint): {"Clip": penalty.Clip, "MaxColumnNorm": penalty.MaxColumnNorm},
    cast(type, Augment): {**_final(augment, nn.Module), **_final(ada, nn.Module)},
    cast(type, Replay): _final(replay, nn.Module),
    moves.Moves: _final(moves, moves.Moves),
    optimizer.Optimizer: _final(optimizer, optimizer.Optimizer),
    schedule.Schedule: _final(schedule, schedule.Schedule),
    Training: {"Training": Training},
    Evaluation: {"Evaluation": Evaluation},
}


def part(kind: type, **arguments: Any) -> Part:
    """Write a part down without making it: for networks, whose making costs memory and chance."""
    return {"kind": kind.__name__, **{name: written(value) for name, value in arguments.items()}}


def written(value: Any) -> Any:
    """Write a live part (or a list of them, or a plain value) as JSON, with all its arguments."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {name: written(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [written(item) for item in value]
    return {
        "kind": type(value).__name__,
        **{name: written(getattr(value, name)) for name in _parameters(cast(type, type(value)))},
    }


@cache
def _parameters(kind: type) -> dict[str, tuple[inspect.Parameter, type | None, bool, Any]]:
    """Of each argument: the parameter, the noun of its part if it takes one, whether many, and its plain type."""
    start = getattr(kind, "__init__")  # noqa: B009 (mypy: of a class, not of an instance)
    hints = get_type_hints(start)
    found: dict[str, tuple[inspect.Parameter, type | None, bool, Any]] = {}
    for name, parameter in inspect.signature(start).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = hints[name]
        options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        noun, many, plain = None, False, []
        for option in options:
            inner = get_args(option)[0] if get_origin(option) is Sequence else option
            if get_origin(option) is Callable:
                noun = schedule.Schedule
            elif inner in KINDS:
                noun, many = inner, inner is not option
            else:
                plain.append(option)
        found[name] = (parameter, noun, many, Union[tuple(plain)] if plain else None)  # noqa: UP007
    return found


def checked(kind: type, given: Mapping[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    """Check the arguments of a kind and complete them with its defaults; note what is wrong."""
    known = _parameters(kind)
    for name in given:
        if name not in known:
            told = name if str(name).isprintable() else repr(name)
            problems.append(f"{path}{told}: unknown{hint(name, list(known))}")
    found: dict[str, Any] = {}
    for name, (parameter, noun, many, plain) in known.items():
        here = f"{path}{name}"
        if name not in given and parameter.default is inspect.Parameter.empty:
            problems.append(f"{here}: missing")
            continue
        value = given[name] if name in given else written(parameter.default)
        if many and noun is not None:
            if isinstance(value, list | tuple):
                found[name] = [_part(noun, item, f"{here}.{i}", problems) for i, item in enumerate(value)]
            else:
                problems.append(f"{here}: must be a list of parts, got {value!r}")
        elif noun is not None and (isinstance(value, Mapping) or _is_part(noun, plain, value)):
            found[name] = _part(noun, value, here, problems)
        else:
            found[name] = _plain(plain, value, here, problems)
    return found


def _is_part(noun: type, plain: Any, value: Any) -> bool:
    """Whether a value is to be read as a part: where nothing else is taken but null, or where it is a kind's name."""
    only = plain is None or (plain is type(None) and value is not None)
    return only or (isinstance(value, str) and value in KINDS[noun])


def _part(noun: type, value: Any, path: str, problems: list[str]) -> Part:
    """Check one part of a noun."""
    kinds = KINDS[noun]
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        problems.append(f'{path}: must be a part {{"kind": ...}} of {", ".join(kinds)}, got {value!r}')
        return {}
    name = value.get("kind", next(iter(kinds)) if len(kinds) == 1 else None)
    if not isinstance(name, str) or name not in kinds:
        problems.append(f"{path}.kind: unknown kind {name!r}{hint(str(name), list(kinds))}")
        return {}
    given = {k: v for k, v in value.items() if k != "kind"}
    return {"kind": name, **checked(kinds[name], given, f"{path}.", problems)}


def _plain(annotation: Any, value: Any, path: str, problems: list[str]) -> Any:
    """Check a plain value strictly, as JSON: no string for a number, no number for a flag, no infinity."""
    try:
        given = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        what = "not a JSON value" if isinstance(error, TypeError) else "must be finite"
        problems.append(f"{path}: {what}, got {value!r}")
        return None
    try:
        return _jsonable(TypeAdapter(annotation).validate_json(given, strict=True))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        problems.append(f"{path}: {reason[:1].lower()}{reason[1:]}, got {value!r}")
    return None


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def build(noun: Any, value: Any) -> Any:
    """Make the live part that a checked part describes."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return [build(noun, item) for item in value]
    kind = KINDS[noun][value["kind"]]
    arguments = {}
    for name, (_, inner, _, _) in _parameters(kind).items():
        item = value[name]
        nested = inner is not None and isinstance(item, dict | list)
        arguments[name] = build(inner, item) if nested else item
    return kind(**arguments)


def hint(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}" if known else ""
