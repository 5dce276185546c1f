r"""The plan of a run: every part and number of it, as JSON that is checked whole before anything is built.

A *part* is ``{"kind": ClassName, **arguments}``.  The kinds of a noun (prior, objective, term ...) are the public
final classes of its module, and the arguments are those of the constructor, so there is no second list to keep.
Every argument of a part is kept in an attribute of the same name: that is how a live part is written down.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache, partial
from types import ModuleType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from organza import augment, energy, moves, objective, optimizer, penalty, prior, schedule, term
from organza import nn as networks
from organza.data import Spec
from organza.evaluation import Evaluation
from organza.game import Augment, Constraint, Game
from organza.round import Batch, Draw, key
from organza.training import Training

__all__ = ["KINDS", "Part", "Plan", "PlanError", "part", "written"]

Part = dict[str, Any]


class PlanError(ValueError):
    """What is wrong with a plan, a line each.

    Arguments:
        problems: One line for each mistake: where, what was got, what is allowed.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


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
    prior.Prior: _final(prior, prior.Prior),
    objective.Objective: {**_final(objective, objective.Objective), **_final(energy, objective.Objective)},
    term.Term: {**_final(penalty, term.Term), **_final(term, term.Term)},
    cast(type, Constraint): {"Clip": penalty.Clip, "MaxColumnNorm": penalty.MaxColumnNorm},
    cast(type, Augment): _final(augment, nn.Module),
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


@dataclass(frozen=True)
class Plan:
    """All that a run needs: the parts of the game and how it is played.

    Arguments:
        generator: G, a part of ``organza.nn``.
        discriminator: D, a part of ``organza.nn``.
        prior: The law of z.
        objective: V(D, G).
        training: The fields of :class:`~organza.training.Training`.
        terms: What else enters the losses.
        augment: What D sees instead of x.
        constraints: What is done to weights after a step.
        conditional: Whether the networks take the label y.
        joint: Whether D sees real and fake in one call.
        evaluation: How samples are judged by the way.
        recipe: The recipe this plan came from.
        data: What :func:`~organza.data.open_data` is given.
    """

    generator: Part
    discriminator: Part
    prior: Part
    objective: Part
    training: Part
    terms: tuple[Part, ...] = ()
    augment: Part | None = None
    constraints: tuple[Part, ...] = ()
    conditional: bool = False
    joint: bool = False
    evaluation: Part | None = None
    recipe: str = ""
    data: str = "digits"

    @classmethod
    def of(cls, **parts: Any) -> Plan:
        """Make a plan of live parts, written parts and plain values; it is checked.

        Raises:
            PlanError: One line for each mistake.
        """
        return cls.read(written(parts))

    @classmethod
    def read(cls, plan: Any) -> Plan:
        """Check a plan in JSON and complete it with the defaults.

        Raises:
            PlanError: One line for each mistake.
        """
        if not isinstance(plan, Mapping):
            raise PlanError([f"the plan is a {type(plan).__name__}; it must be an object"])
        problems: list[str] = []
        checked = _arguments(_Schema, {k: v for k, v in plan.items() if k != "organza"}, "", problems)
        if not problems:
            for name, noun in (("generator", nn.Module), ("discriminator", nn.Module)):
                with torch.device("meta"):
                    _try(partial(_build, noun, checked[name]), name, problems)
            for name, noun in _NOUNS.items():
                _try(partial(_build, noun, checked[name]), name, problems)
        if not problems:
            for name in ("generator_optimizer", "discriminator_optimizer"):
                rule = _build(optimizer.Optimizer, checked["training"][name])
                _try(partial(rule.build, [nn.Parameter(torch.zeros(1))]), f"training.{name}", problems)
        if problems:
            raise PlanError(problems)
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in checked.items()}
        return cls(**fields)

    def json(self) -> dict[str, Any]:
        """Return the complete plan as JSON."""
        return cast(dict[str, Any], json.loads(json.dumps(asdict(self))))

    def set(self, changes: Mapping[str, Any]) -> Plan:
        """Return the plan with values changed by dotted keys ("training.batch", "terms.0.term.weight").

        A bare name where a part belongs is a kind: ``objective=Hinge``.

        Raises:
            PlanError: One line for each mistake.
        """
        plan = self.json()
        problems: list[str] = []
        for dotted, value in changes.items():
            *path, last = dotted.split(".")
            place: Any = plan
            for step in path:
                place = _step(place, step, dotted, problems)
            if isinstance(place, list):
                if last.isdigit() and int(last) < len(place):
                    place[int(last)] = value
                elif not problems:
                    problems.append(f"{dotted}: there are {len(place)} of them, counted from 0")
            elif isinstance(place, dict):
                place[last] = value
            elif place is not None:
                problems.append(f"{dotted}: {'.'.join(path)} is a plain value, it has no parts")
        if problems:
            raise PlanError(problems)
        return Plan.read(plan)

    def game(self) -> Game:
        """Build the game; its weights are a function of ``training.seed``."""
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(key(self.training["seed"], "init"))
            return Game(
                generator=_build(nn.Module, self.generator),
                discriminator=_build(nn.Module, self.discriminator),
                **{name: _build(noun, getattr(self, name)) for name, noun in _NOUNS.items() if name in _OF_THE_GAME},
                conditional=self.conditional,
                joint=self.joint,
            )

    def play(self) -> Training:
        """Build the training."""
        return cast(Training, _build(Training, self.training))

    def fits(self, data: Spec) -> None:
        """Play one round without numbers (on the meta device), to see that the parts fit the data and each other.

        Raises:
            PlanError: If they do not.
        """
        problems: list[str] = []
        latent, dim = self.generator.get("latent"), self.prior.get("dim")
        if latent is not None and dim is not None and latent != dim:
            raise PlanError([f"generator.latent={latent}, prior.dim={dim}: they must be equal"])
        with torch.device("meta"):
            x = torch.empty(2, *data.shape)
            y = torch.zeros(2, dtype=torch.long) if self.conditional else None
            z = torch.empty(2, _build(prior.Prior, self.prior).dim)
            game = Game(
                _build(nn.Module, self.generator),
                _build(nn.Module, self.discriminator),
                _build(prior.Prior, self.prior),
                augment=_build(Augment, self.augment),
                conditional=self.conditional,
            )
            batch = Batch(x, y, Draw(torch.Generator(), 2), 0, 0)
            made = _try(lambda: game.generator(z, y) if self.conditional else game.generator(z), "generator", problems)
            if made is not None and made.shape != x.shape:
                got, wanted = tuple(made.shape[1:]), tuple(data.shape)
                problems.append(f"generator: makes {got}, the data is {wanted}; set generator.shape={list(wanted)}")
            elif made is not None:
                _try(lambda: game.look(batch, z, made, "discriminator"), "discriminator", problems)
        if problems:
            raise PlanError(problems)


class _Schema:
    """The plan's fields with the nouns they name, read like any constructor's."""

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        prior: prior.Prior,
        objective: objective.Objective,
        training: Training,
        terms: Sequence[term.Term] = (),
        augment: Augment | None = None,
        constraints: Sequence[Constraint] = (),
        conditional: bool = False,
        joint: bool = False,
        evaluation: Evaluation | None = None,
        recipe: str = "",
        data: str = "digits",
    ) -> None: ...


_NOUNS: dict[str, Any] = {
    "prior": prior.Prior,
    "objective": objective.Objective,
    "terms": term.Term,
    "augment": Augment,
    "constraints": Constraint,
    "training": Training,
    "evaluation": Evaluation,
}
_OF_THE_GAME = ("prior", "objective", "terms", "augment", "constraints")


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


def _arguments(kind: type, given: Mapping[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    """Check the arguments of a kind and complete them with its defaults; note what is wrong."""
    known = _parameters(kind)
    for name in given:
        if name not in known:
            problems.append(f"{path}{name}: unknown{_hint(name, list(known))}")
    checked: dict[str, Any] = {}
    for name, (parameter, noun, many, plain) in known.items():
        here = f"{path}{name}"
        if name not in given and parameter.default is inspect.Parameter.empty:
            problems.append(f"{here}: missing")
            continue
        value = given[name] if name in given else written(parameter.default)
        if many and noun is not None:
            if isinstance(value, list | tuple):
                checked[name] = [_part(noun, item, f"{here}.{i}", problems) for i, item in enumerate(value)]
            else:
                problems.append(f"{here}: must be a list of parts, got {value!r}")
        elif noun is not None and (isinstance(value, Mapping) or plain is None or _is_kind(noun, value)):
            checked[name] = _part(noun, value, here, problems)
        else:
            checked[name] = _plain(plain, value, here, problems)
    return checked


def _is_kind(noun: type, value: Any) -> bool:
    return isinstance(value, str) and value in KINDS[noun]


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
        problems.append(f"{path}.kind: unknown kind {name!r}{_hint(str(name), list(kinds))}")
        return {}
    given = {k: v for k, v in value.items() if k != "kind"}
    return {"kind": name, **_arguments(kinds[name], given, f"{path}.", problems)}


def _plain(annotation: Any, value: Any, path: str, problems: list[str]) -> Any:
    """Check a plain value strictly, as JSON: no string for a number, no number for a flag."""
    try:
        return _jsonable(TypeAdapter(annotation).validate_json(json.dumps(value), strict=True))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        problems.append(f"{path}: {reason[:1].lower()}{reason[1:]}, got {value!r}")
    except (TypeError, ValueError):
        problems.append(f"{path}: not a JSON value, got {value!r}")
    return None


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def _build(noun: Any, value: Any) -> Any:
    """Make the live part that a checked part describes."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return [_build(noun, item) for item in value]
    kind = KINDS[noun][value["kind"]]
    arguments = {}
    for name, (_, inner, _, _) in _parameters(kind).items():
        item = value[name]
        nested = inner is not None and isinstance(item, dict | list)
        arguments[name] = _build(inner, item) if nested else item
    return kind(**arguments)


def _try(make: Callable[[], Any], path: str, problems: list[str]) -> Any:
    try:
        return make()
    except (ValueError, RuntimeError, TypeError) as error:
        problems.append(f"{path}: {' '.join(str(error).split())}")
        return None


def _step(place: Any, step: str, dotted: str, problems: list[str]) -> Any:
    """Go one step of a dotted key; None once a step has failed."""
    found = None
    if isinstance(place, list) and step.isdigit() and int(step) < len(place):
        found = place[int(step)]
    elif isinstance(place, dict) and step in place:
        found = place[step]
        if found is None:
            problems.append(f"{dotted}: {step} is null, it has no parts; set {step}=KIND first")
    elif place is not None:
        known = list(place) if isinstance(place, dict) else []
        problems.append(f"{dotted}: there is no {step!r}{_hint(step, known)}")
    return found


def _hint(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}" if known else ""
