"""A plan is checked whole, says each mistake in one line, and builds what it says."""

import inspect
import json

import pytest
import torch

from organza.data import Spec
from organza.moves import Alternating
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import NonSaturating, Scaled
from organza.optimizer import Adam
from organza.penalty import R1
from organza.plan import KINDS, Plan, PlanError, part, written
from organza.prior import Normal
from organza.recipes import RECIPES
from organza.recipes.quick import quick
from organza.schedule import Bursts, Cosine
from organza.training import Training

DIGITS, POINTS = Spec((1, 28, 28), 100), Spec((2,), 100)
NETWORKS = torch.nn.Module  # they are written down by `part`, unmade
LIVE = [(noun, name, kind) for noun, kinds in KINDS.items() for name, kind in kinds.items() if noun is not NETWORKS]


def example() -> Plan:
    return Plan.of(
        generator=part(MLPGenerator, latent=4, shape=(1, 28, 28), widths=(8,)),
        discriminator=part(MLPDiscriminator, shape=(1, 28, 28), widths=(8,)),
        prior=Normal(4),
        objective=Scaled(NonSaturating(0.9), d=0.5),
        terms=(R1(Cosine(10.0, 1.0, 1000)),),
        training=Training(images=640, moves=Alternating(Bursts(2, 5, 1, 100)), generator_optimizer=Adam(1e-3)),
    )


@pytest.mark.parametrize(("noun", "name", "kind"), LIVE, ids=[name for _, name, _ in LIVE])
def test_every_kind_keeps_its_arguments_in_attributes_of_the_same_name(noun: type, name: str, kind: type) -> None:
    """So that any live part can be written down."""
    samples = {"term": R1(), "objective": NonSaturating(), "dim": 3, "start": 1.0, "end": 0.5, "images": 9, "per": 3}
    samples |= {"factor": 0.5, "value": 2.0}
    needed = [
        p.name
        for p in inspect.signature(kind).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    live = kind(**{argument: samples[argument] for argument in needed})
    text = json.loads(json.dumps(written(live)))
    assert text["kind"] == name
    for argument in needed:
        assert text[argument] == json.loads(json.dumps(written(samples[argument])))


def test_json_round_trip_is_exact() -> None:
    plan = example()
    assert Plan.read(json.loads(json.dumps(plan.json()))) == plan


def test_builds_what_it_says() -> None:
    plan = example()
    game, training = plan.game(), plan.play()
    assert game.objective.objective.smoothing == 0.9 and game.objective.d == 0.5  # type: ignore[union-attr]
    assert training.moves.k(0) == 5 and training.moves.k(1) == 2  # type: ignore[attr-defined]
    assert game.terms[0].weight(0) == 10.0  # type: ignore[operator]


def test_weights_are_a_function_of_the_seed_and_nothing_else() -> None:
    plan = example()
    torch.manual_seed(1)
    first = plan.game().state_dict()
    before = torch.random.get_rng_state()
    second = plan.game().state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = plan.set({"training.seed": 1}).game().state_dict()
    assert not torch.equal(first["generator.layers.0.weight"], other["generator.layers.0.weight"])


MISTAKES = [
    ({"training.bath": 3}, ["training.bath: unknown; did you mean batch?"]),
    ({"objective": "Hing"}, ["objective.kind: unknown kind 'Hing'; did you mean Hinge?"]),
    ({"training.batch": "x"}, ["training.batch: input should be a valid integer, got 'x'"]),
    ({"training.batch": 32.5}, ["training.batch: input should be a valid integer"]),
    ({"joint": 1}, ["joint: input should be a valid boolean, got 1"]),
    ({"training.batch": 0}, ["training: batch=0: must be 1 or more"]),
    ({"training.accumulate": 3}, ["training: accumulate=3: must divide batch=64"]),
    ({"objective.objective.smoothing": 2.0}, ["objective: smoothing=2.0: the target of real examples must lie in"]),
    ({"terms.0.weight": "a"}, ["terms.0.weight: input should be a valid number, got 'a'"]),
    ({"terms.3.weight": 1}, ["terms.3.weight: there is no '3'"]),
    ({"terms": 3}, ["terms: must be a list of parts, got 3"]),
    ({"generator.widths": [0]}, ["generator: sizes (4, 0): every layer needs at least 1 unit"]),
    ({"generator": "MLPGenerator"}, ["generator.latent: missing", "generator.shape: missing"]),
    ({"training.generator_optimizer.lr": {"kind": "Linear", "start": 1}}, ["lr.end: missing", "lr.images: missing"]),
    (
        {"training.generator_optimizer.lr": {"kind": "Linear", "start": 1, "end": 0, "images": 0}},
        ["training: Linear(images=0): must be above 0"],
    ),
    (
        {"training.generator_optimizer.lr": -1, "training.discriminator_optimizer.beta2": 1},
        [
            "training.generator_optimizer: Adam: lr=-1.0, beta1=0.5, beta2=0.999, eps=1e-08: lr and eps must be 0",
            "training.discriminator_optimizer: Adam: lr=0.0002, beta1=0.5, beta2=1",
        ],
    ),
    (
        {"training.generator_optimizer.lr": {"kind": "Linear", "start": 1, "end": -1, "images": 640}},
        ["training.generator_optimizer: Adam: lr=-0."],
    ),
    ({"training.discriminator_optimizer.eps": -1}, ["training.discriminator_optimizer: Adam: "]),
    (
        {"training.generator_optimizer.lr": {"kind": "Exponential", "start": 1, "factor": 1e9, "per": 1}},
        ["training.generator_optimizer: "],
    ),
    ({"training.moves.k": {"kind": "Burst"}}, ["training.moves.k.kind: unknown kind 'Burst'; did you mean Bursts?"]),
    ({"prior.dim.size": 3}, ["prior.dim.size: prior.dim is a single value, with nothing inside it to set"]),
    ({"nothing.at.all": 3}, ["nothing.at.all: there is no 'nothing'"]),
    (
        {"augment.shift": 0.1},
        ['augment.shift: augment is not set; give it whole, augment={"kind": "...", "shift": ...}'],
    ),
    (
        {"training.jitter.shift": 0.1},
        ["training.jitter.shift: training.jitter is not set; give it whole, training.jitter="],
    ),
    ({"augment": "DifAugment"}, ["augment.kind: unknown kind 'DifAugment'; did you mean DiffAugment?"]),
    ({"augment": 3}, ['augment: must be a part {"kind": ...} of ']),
    ({"training.half_life": float("inf")}, ["training.half_life: must be finite, got inf"]),
    ({"generator.widths": [float("nan")]}, ["generator.widths: must be finite, got [nan]"]),
    ({"training.batch": "x", "joint": 1}, ["joint:", "training.batch:"]),
]


@pytest.mark.parametrize(("changes", "lines"), MISTAKES, ids=[str(changes) for changes, _ in MISTAKES])
def test_each_mistake_is_one_clear_line(changes: dict[str, object], lines: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        example().set(changes)
    problems = sorted(caught.value.problems)
    assert len(problems) == len(lines)
    for problem, line in zip(problems, sorted(lines), strict=True):
        assert line in problem and "\n" not in problem


def test_set_changes_any_field() -> None:
    plan = example().set({"objective": "Hinge", "training.moves": "Simultaneous", "terms.0.weight": 3, "joint": True})
    assert plan.objective == {"kind": "Hinge"} and plan.training["moves"] == {"kind": "Simultaneous"}
    assert plan.terms[0]["weight"] == 3 and plan.joint
    assert plan.set({"terms": []}).terms == ()
    augment = plan.set({"augment": "ADA", "augment.p": 0.2}).augment  # by its bare name first
    assert augment is not None and (augment["kind"], augment["p"]) == ("ADA", 0.2)


def test_parts_must_fit_the_data_and_each_other() -> None:
    plan = example()
    plan.fits(DIGITS)
    with pytest.raises(PlanError, match=r"generator: makes \(1, 28, 28\), the data is \(1, 32, 32\); set generator"):
        plan.fits(Spec((1, 32, 32), 10))
    with pytest.raises(PlanError, match=r"generator.latent=4, prior.dim=5: they must be equal"):
        plan.set({"prior.dim": 5}).fits(DIGITS)
    with pytest.raises(PlanError, match="discriminator: sees"):
        plan.set({"discriminator.shape": [1, 9, 9]}).fits(DIGITS)
    with pytest.raises(PlanError, match="components=32: the prior's are 64; set discriminator"):
        quick(DIGITS).set({"discriminator.components": 32}).fits(DIGITS)
    with pytest.raises(PlanError, match=r"MutualInformation.categories=\[5\]: the prior's are \[10\]; both must"):
        RECIPES["infogan"](DIGITS).set({"terms.1.categories": [5]}).fits(DIGITS)
