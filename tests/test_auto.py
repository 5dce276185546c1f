"""What is chosen when nobody says: a recipe that fits, a reason for each choice, and honest costs."""

import pytest
import torch

from organza import api, auto
from organza.data import Data, Spec, open_data
from organza.recipes import RECIPES

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
SPECS = {
    "digits": Spec((1, 28, 28), 10_000, 10),
    "few": Spec((3, 48, 36), 300),
    "faces": Spec((3, 256, 256), 70_000),
    "odd": Spec((4, 33, 50), 6_000),
    "points": Spec((2,), 100_000),
    "tiny": Spec((1, 5, 5), 100),
}


@pytest.mark.parametrize("device", [CPU, CUDA, MPS], ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_what_is_chosen_fits(name: str, device: torch.device) -> None:
    data = SPECS[name]
    chosen = auto.choose(data, device)
    assert (chosen.images is None) != (chosen.minutes is None)
    plan = RECIPES[chosen.recipe](data, 6400).set(chosen.changes)
    plan.fits(data)
    assert chosen.reasons[0].name == "recipe" and all(c.value and c.reason for c in chosen.reasons)


def test_digits_are_quick() -> None:
    """And on the CPU its plan is untouched."""
    chosen = auto.choose(SPECS["digits"], CPU)
    assert (chosen.recipe, chosen.changes, chosen.minutes) == ("quick", {}, 2.1)


def test_few_images_are_augmented() -> None:
    for device in (CPU, CUDA):
        assert auto.choose(SPECS["few"], device).changes["augment"] == {"kind": "DiffAugment"}
        assert "augment" not in auto.choose(SPECS["odd"], device).changes


def test_sizes_follow_the_device_and_the_data() -> None:
    assert auto.choose(SPECS["faces"], CPU).recipe == "quick"
    assert auto.choose(SPECS["faces"], CUDA).recipe == "r3gan"
    assert auto.choose(SPECS["few"], CUDA).recipe == auto.choose(SPECS["faces"], MPS).recipe == "r3gan-small"


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("digits[:200]")


def test_a_decision_is_the_plan_that_would_be_trained(digits: Data) -> None:
    decision = api.decide(digits, images=640, seed=3, device="cpu", changes={"training.batch": 16})
    plan, names = decision.plan, [choice.name for choice in decision.choices]
    assert plan.recipe == "quick"
    assert [plan.training[name] for name in ("images", "seed", "batch")] == [640, 3, 16]
    assert plan.augment is not None  # 200 images are few
    assert names == ["recipe", "batch", "gamma", "augmentation", "length", "parameters", "memory", "time"]
    parameters = next(choice.value for choice in decision.choices if choice.name == "parameters")
    game = plan.game()
    for network, letter in ((game.generator, "G"), (game.discriminator, "D")):
        assert f"{letter} {sum(w.numel() for w in network.parameters()):,}" in parameters


def test_what_the_user_says_wins(digits: Data) -> None:
    decision = api.decide(digits, "tiny", images=1280, changes={"objective": "Hinge"}, timed=False)
    assert decision.plan.recipe == "tiny" and decision.plan.objective == {"kind": "Hinge"}
    assert [choice.name for choice in decision.choices] == ["parameters", "memory"]
    chosen = api.decide(digits, images=640, changes={"augment": None}, timed=False)
    assert chosen.plan.augment is None


def test_a_turn_is_cut_to_fit_the_memory() -> None:
    data = Spec((3, 64, 64), 70_000)
    plan = RECIPES["r3gan-small"](data)
    needed = auto.memory(plan, data)
    assert auto.micro_batches(plan, data, 2 * needed) == 1
    parts = auto.micro_batches(plan, data, needed)
    assert parts == 2 and auto.memory(plan.set({"training.accumulate": parts}), data) < 0.8 * needed
    assert auto.micro_batches(plan, data, 1) == 64  # the batch is 64: no more can be done


@pytest.mark.parametrize("name", ["tiny", "goodfellow2014", "dcgan", "wgan-gp", "sngan", "r3gan-tiny"])
def test_memory_counts_weights_and_graph(name: str) -> None:
    """At least weights, gradients, two moments and G's average; more with the batch, by the graph's share alone."""
    data = SPECS["digits"]
    plan = RECIPES[name](data)
    with torch.device("meta"):
        game = plan.game()
    g, d = (4 * sum(w.numel() for w in network.parameters()) for network in (game.generator, game.discriminator))
    fixed = 4 * (g + d) + g
    plan = plan.set({"training.generator_batch": 0})
    one, two = (auto.memory(plan.set({"training.batch": batch}), data) for batch in (64, 128))
    assert fixed < one < two < 2 * one - fixed + 4 * (g + d)
    split = auto.memory(plan.set({"training.batch": 128, "training.accumulate": 2}), data)
    assert split == one
