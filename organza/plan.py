"""The plan of a run: every part and number of it, as JSON that is checked whole before anything is built."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from typing import Any, cast

import torch
from torch import nn

from organza import objective, optimizer, prior, term
from organza.data import Spec
from organza.device import memory
from organza.evaluation import Evaluation
from organza.game import Augment, Constraint, Game, Precision, Replay
from organza.part import KINDS, Part, build, checked, hint, part, written
from organza.round import Batch, Draw, key
from organza.training import Training
from organza.values import Values

__all__ = ["KINDS", "Part", "Plan", "PlanError", "hint", "part", "written"]


class PlanError(ValueError):
    """What is wrong with a plan, a line each.

    Arguments:
        problems: One line for each mistake: where, what was got, what is allowed.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


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
        replay: The fakes that D is shown instead of G's newest.
        constraints: What is done to weights after a step.
        conditional: Whether the networks take the condition y.
        joint: Whether D sees real and fake in one call.
        precision: What the networks compute with.
        evaluation: How samples are judged by the way.
        recipe: The recipe this plan came from.
        data: What :func:`~organza.data.open_data` is given.
        labels: The names of the data's classes, in the order of their labels, where they have names.
        values: What the data's numbers become inside, :meth:`Values.json <organza.values.Values.json>`, where known.
    """

    generator: Part
    discriminator: Part
    prior: Part
    objective: Part
    training: Part
    terms: tuple[Part, ...] = ()
    augment: Part | None = None
    replay: Part | None = None
    constraints: tuple[Part, ...] = ()
    conditional: bool = False
    joint: bool = False
    precision: Precision = "float32"
    evaluation: Part | None = None
    recipe: str = ""
    data: str = "digits"
    labels: tuple[str, ...] = ()
    values: Part | None = None

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
        found = checked(_Schema, {k: v for k, v in plan.items() if k != "organza"}, "", problems)
        if not problems:
            with torch.device("meta"):
                for name in ("generator", "discriminator"):
                    _try(partial(build, nn.Module, found[name]), name, problems)
            for name, noun in _NOUNS.items():
                _try(partial(build, noun, found[name]), name, problems)
        if not problems:
            for name in ("generator_optimizer", "discriminator_optimizer"):
                rule = build(optimizer.Optimizer, found["training"][name])
                _try(partial(_first_and_last, rule, **found["training"]), f"training.{name}", problems)
            augment = build(Augment, found["augment"])
            if hasattr(augment, "settings"):
                _try(partial(_first_and_last, augment, **found["training"]), "augment", problems)
            _try(partial(Values.read, found["values"]), "values", problems)
        if problems:
            raise PlanError(problems)
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
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
        given = set[str]()
        for dotted, value in changes.items():
            *path, last = keys = dotted.split(".")
            place: Any = plan
            for i, step in enumerate(path):
                if isinstance(place, dict) and isinstance(place.get(step), str) and ".".join(keys[: i + 1]) in given:
                    place[step] = {"kind": place[step]}  # given by its bare name a moment ago
                place = _step(place, keys, i, problems)
            given.add(dotted)
            if isinstance(place, list):
                if last.isdigit() and int(last) < len(place):
                    place[int(last)] = value
                elif not problems:
                    problems.append(f"{dotted}: there are {len(place)} of them, counted from 0")
            elif isinstance(place, dict):
                place[last] = value
            elif place is not None:
                problems.append(f"{dotted}: {'.'.join(path)} is a single value, with nothing inside it to set")
        if problems:
            raise PlanError(problems)
        return Plan.read(plan)

    def facts(self, images: int, digest: str, law: Any) -> dict[str, Any]:
        """What a model is made of, and the facts of its run, with the prior as it is now, since it may have learnt: see
        :func:`organza.pretrained.write`."""
        names = ("generator", "conditional", "recipe", "data", "labels", "values", "objective", "terms")
        kept = {name: value for name, value in self.json().items() if name in names}
        of_the_run = {"images": images, "data_sha256": digest, "seed": self.training["seed"]}
        return {**kept, "prior": written(law), **of_the_run}

    def game(self) -> Game:
        """Build the game; its weights are a function of ``training.seed``.

        Raises:
            PlanError: If they do not fit into memory.
        """
        if torch.get_default_device().type != "meta":
            with torch.device("meta"):
                _weigh(self.game())
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(key(self.training["seed"], "init"))
            return Game(
                generator=build(nn.Module, self.generator),
                discriminator=build(nn.Module, self.discriminator),
                **{name: build(noun, getattr(self, name)) for name, noun in _PARTS.items()},
                conditional=self.conditional,
                joint=self.joint,
                precision=self.precision,
            )

    def play(self) -> Training:
        """Build the training."""
        return cast(Training, build(Training, self.training))

    def fits(self, data: Spec) -> None:
        """Play one round without numbers (on the meta device), to see that the parts fit the data and each other.

        Raises:
            PlanError: If they do not.
        """
        problems: list[str] = []
        latent, dim = self.generator.get("latent"), self.prior.get("dim")
        if latent is not None and dim is not None and latent != dim:
            raise PlanError([f"generator.latent={latent}, prior.dim={dim}: they must be equal"])
        width = data.condition[0] if len(data.condition) == 1 else data.classes
        if self.conditional and not (width or data.condition):
            raise PlanError(["conditional=true: the data has no labels; give data that has, or set conditional=false"])
        for name in ("generator", "discriminator"):
            classes = getattr(self, name).get("classes")
            if classes is not None and classes != width and (classes or self.conditional):
                what = "numbers in a condition" if data.condition else "classes"
                problems.append(f"{name}.classes={classes}: the data has {width} {what}; set {name}.classes={width}")
        wanted, told = self.prior.get("components"), self.discriminator.get("components")
        if wanted and told and wanted != told:
            problems.append(
                f"discriminator.components={told}: the prior's are {wanted}; set discriminator.components={wanted}"
            )
        wanted = self.prior.get("categories")
        for each in (listed.get("term", listed) for listed in self.terms):  # Lazy has one within
            told = each.get("categories")
            if wanted and told and wanted != told:
                problems.append(f"{each['kind']}.categories={told}: the prior's are {wanted}; both must be equal")
        if problems:
            raise PlanError(problems)
        size = self.training["batch"] // self.training["accumulate"]
        _fitting("training.batch", f"{size:,} examples at once", 4 * size * prod(data.shape))
        with torch.device("meta"):
            law = build(prior.Prior, self.prior)
            game = Game(
                build(nn.Module, self.generator),
                build(nn.Module, self.discriminator),
                law,
                build(objective.Objective, self.objective),
                augment=build(Augment, self.augment),
                conditional=self.conditional,
            )
            _weigh(game)
            x, z = torch.empty(2, *data.shape), torch.empty(2, law.dim)
            y = data.blank(2) if self.conditional else None
            batch = Batch(x, y, Draw(torch.Generator(), 2), 0, 0)
            made = _try(lambda: game.generator(z, y) if self.conditional else game.generator(z), "generator", problems)
            if made is not None and made.shape != x.shape:
                got, wanted = tuple(made.shape[1:]), tuple(data.shape)
                problems.append(f"generator: makes {got}, the data is {wanted}; set generator.shape={list(wanted)}")
            elif made is not None:
                wrong, shape, wanted = list[str](), self.discriminator.get("shape"), list(data.shape)
                _try(lambda: game.look(batch, z, made, "discriminator"), "discriminator", wrong)
                if wrong and shape is not None and list(shape) != wanted:
                    wrong = [f"discriminator: sees {shape}, the data is {wanted}; set discriminator.shape={wanted}"]
                problems += wrong
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
        replay: Replay | None = None,
        constraints: Sequence[Constraint] = (),
        conditional: bool = False,
        joint: bool = False,
        precision: Precision = "float32",
        evaluation: Evaluation | None = None,
        recipe: str = "",
        data: str = "digits",
        labels: Sequence[str] = (),
        values: dict[str, Any] | None = None,
    ) -> None: ...


_PARTS: dict[str, Any] = {  # of the game, besides its networks
    "prior": prior.Prior,
    "objective": objective.Objective,
    "terms": term.Term,
    "augment": Augment,
    "replay": Replay,
    "constraints": Constraint,
}
_NOUNS = {**_PARTS, "training": Training, "evaluation": Evaluation}


def _try(make: Callable[[], Any], path: str, problems: list[str]) -> Any:
    try:
        return make()
    except (ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        problems.append(f"{path}: {' '.join(str(error).split())}")
        return None


def _first_and_last(rule: Any, images: int, batch: int, **_: Any) -> None:
    """What an optimizer, or an augmentation, is set to for its first move and for the last that surely comes:
    schedules go from one end to the other."""
    for moment in (0, max(0, images - batch)):
        rule.settings(moment)


def _weigh(game: Game) -> None:
    for name, network in game.players.items():
        _fitting(name, "its weights", sum(w.nbytes for w in network.parameters()))


def _fitting(path: str, what: str, size: int) -> None:
    """Refuse what takes more bytes than this machine has."""
    if size > memory():
        there = f"{memory() / 2**30:,.1f} GiB"
        raise PlanError(
            [f"{path}: {what} would take {size / 2**30:,.1f} GiB, this machine has {there}: make it smaller"]
        )


def _step(place: Any, keys: list[str], i: int, problems: list[str]) -> Any:
    """Go step i of a dotted key; None once a step has failed."""
    found, step, dotted = None, keys[i], ".".join(keys)
    if isinstance(place, list) and step.isdigit() and int(step) < len(place):
        found = place[int(step)]
    elif isinstance(place, dict) and step in place:
        found = place[step]
        if found is None:
            whole, rest = ".".join(keys[: i + 1]), ".".join(keys[i + 1 :])
            problems.append(f'{dotted}: {whole} is not set; give it whole, {whole}={{"kind": "...", "{rest}": ...}}')
    elif place is not None:
        known = list(place) if isinstance(place, dict) else []
        problems.append(f"{dotted}: there is no {step!r}{hint(step, known)}")
    return found
