"""What is chosen when nobody says: a recipe that fits, a reason for each choice, and honest costs."""

from functools import partial

import pytest
import torch

from organza import api, auto, decision
from organza.data import Data, Spec, open_data
from organza.decision import measure
from organza.metrics.weights import Missing
from organza.plan import Plan
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


@pytest.mark.parametrize("device", [CPU, CUDA, MPS], ids=str)
def test_digits_are_quick(device: torch.device) -> None:
    """On any device, as the first commands of the docs say; and its plan is untouched."""
    chosen = auto.choose(SPECS["digits"], device)
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


def test_a_decision_is_the_plan_that_would_be_trained(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("organza.decision.measure", partial(measure, seconds=0.1))
    decision = api.decide(digits, images=640, seed=3, device="cpu", changes={"training.batch": 16})
    plan, names = decision.plan, [choice.name for choice in decision.choices]
    assert plan.recipe == "quick"
    assert [plan.training[name] for name in ("images", "seed", "batch")] == [640, 3, 16]
    assert plan.augment is None  # 200 images are few, but each is seen three times
    assert names == ["recipe", "gamma", "augmentation", "parameters", "memory", "time"]  # the rest was given
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
    data = SPECS["digits"]
    plan = RECIPES["r3gan-tiny"](data)
    needed = auto.memory(plan, data)
    assert auto.micro_batches(plan, data, 2 * needed) == 1
    parts = auto.micro_batches(plan, data, needed)
    assert parts == 2 and auto.memory(plan.set({"training.accumulate": parts}), data) < 0.8 * needed
    assert auto.micro_batches(plan, data, 1) == 64  # the batch is 64: no more can be done


def test_a_choice_that_is_overridden_is_not_told() -> None:
    changes = {"training.batch": 16, "terms": [], "augment": {"kind": "DiffAugment", "policy": []}}
    decision = api.decide(open_data("digits[:200]"), images=64, changes=changes, timed=False, device="cpu")
    assert [choice.name for choice in decision.choices] == ["recipe", "parameters", "memory"]
    changes = {"terms.0.term.weight": 2.0}
    inner = api.decide(open_data("digits[:200]"), images=64, changes=changes, timed=False, device="cpu")
    assert "gamma" not in [choice.name for choice in inner.choices] and "batch" in [c.name for c in inner.choices]


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_every_number_that_is_chosen_names_its_setting(device: torch.device) -> None:
    """So that it is not told once the user has set it."""
    for choice in auto.choose(SPECS["digits"], device).reasons:
        if choice.name not in ("recipe", "length"):
            assert choice.stands({"training.seed": 1}) and not choice.stands({choice.setting: None}), choice.name


@pytest.mark.parametrize(("images", "augmented"), [(9_984, False), (10_016, True)])
def test_few_images_are_augmented_once_d_sees_them_often(digits: Data, images: int, augmented: bool) -> None:
    decision = api.decide(digits, images=images, timed=False, device="cpu")
    (choice,) = (choice for choice in decision.choices if choice.name == "augmentation")
    assert (decision.plan.augment is not None) == augmented == (choice.value == "DiffAugment")
    own = {"augment": {"kind": "DiffAugment", "policy": ["color"]}}
    decision = api.decide(digits, images=images, timed=False, device="cpu", changes=own)
    assert decision.plan.augment is not None and decision.plan.augment["policy"] == ["color"]
    named = api.decide(digits, "quick", images=images, timed=False, device="cpu", changes={"augment": "DiffAugment"})
    assert named.plan.augment is not None


def test_a_short_time_is_filled_without_augmentation(digits: Data) -> None:
    decision = api.decide(digits, minutes=0.02, device="cpu")
    assert decision.plan.augment is None and "too seldom" in str(decision.choices)


def test_what_is_too_large_is_said_and_not_tried() -> None:
    decision = api.decide(open_data("digits[:200]"), "r3gan", device="cpu", changes={"training.batch": 2**14})
    memory = decision.choices[-1]
    assert memory.name == "memory" and "try --set training.accumulate=" in memory.reason


@pytest.mark.parametrize("name", ["tiny", "goodfellow2014", "dcgan", "wgan", "wgan-gp", "sngan", "r3gan-tiny"])
def test_memory_counts_weights_and_graph(name: str) -> None:
    """At least weights, gradients, moments and G's average; the graph's share is in proportion to the batch."""
    data = SPECS["digits"]
    plan = RECIPES[name](data).set({"training.generator_batch": 0})
    with torch.device("meta"):
        game = plan.game()
    g, d = (4 * sum(w.numel() for w in network.parameters()) for network in (game.generator, game.discriminator))
    moments = {"Adam": 2, "RMSprop": 1, "SGD": 1}[plan.training["generator_optimizer"]["kind"]]
    fixed = (2 + moments) * (g + d) + g
    one, two = (auto.memory(plan.set({"training.batch": batch}), data) - fixed for batch in (64, 128))
    assert 0 < one < two <= 2 * one
    alternating = "fresh_noise" in plan.training["moves"]
    moves = {"training.moves": {**plan.training["moves"], "fresh_noise": True}} if alternating else {}
    split = auto.memory(plan.set({"training.batch": 128, "training.accumulate": 2, **moves}), data)
    assert split == auto.memory(plan.set({"training.batch": 64, **moves}), data)


def test_memory_counts_the_fakes_that_both_turns_share() -> None:
    """G's graph of every micro-batch is kept until it has moved; nothing else is."""
    data = SPECS["digits"]
    plan = RECIPES["dcgan"](data).set({"training.batch": 128})
    kept = {}
    for fresh in (True, False):
        for parts in (1, 4):
            changes = {"training.accumulate": parts, "training.moves.fresh_noise": fresh}
            kept[fresh, parts] = auto.memory(plan.set(changes), data)
    assert kept[False, 4] > kept[True, 4] and kept[False, 1] > kept[True, 1] > kept[True, 4]
    per = (kept[False, 1] - kept[False, 4]) / (kept[True, 1] - kept[True, 4])
    assert 0 < per < 1  # D's part of the graph is cut, G's is not


def test_memory_counts_the_larger_turn() -> None:
    data = SPECS["digits"]
    plan = RECIPES["sngan"](data)
    assert auto.memory(plan, data) > auto.memory(plan.set({"training.generator_batch": 64}), data)


def test_the_graph_of_a_perceptron_by_hand() -> None:
    """D's turn, which shares G's graph, keeps the inputs of both players' layers, real and fake in one batch."""
    data = SPECS["digits"]
    plan = RECIPES["tiny"](data)
    n, numbers = 128, 4
    layers = 100 + 256 + 784 + 2 * 784 + 2 * 256  # z, G's units, its sigmoid, the joined batch, D's units
    kept = auto.memory(plan, data) - 4 * 4 * (227_344 + 201_217) - 4 * 227_344
    assert kept == pytest.approx(n * numbers * layers, rel=0.01)


def test_folders_have_plain_names(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    names = {
        "mnist[:50000]": "mnist-50000",
        "a b/photos.npz": "photos",
        "b/c.zip[:9]": "c-9",
        "x.npy[3:9]": "x-3-9",
        "array": "array",
    }
    for name, folder in names.items():
        assert api.free_folder(Data(name, torch.zeros(1, 2)), "tiny").name == f"{folder}-tiny-1"


def no_weights(device: torch.device) -> None:
    raise Missing("the weights are not here")


@pytest.mark.parametrize(("device", "small"), [("cpu", "-small"), ("cuda", "")])
def test_images_from_images_have_recipes_of_their_own(device: str, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("organza.perceptual.network", no_weights)
    pairs = Spec((3, 32, 32), 100, condition=(1, 32, 32))
    joined = Spec((6, 32, 32), 100, condition=(6, 32, 32), joined=True)
    for data, recipe in ((pairs, f"pix2pix{small}"), (joined, f"cyclegan{small}")):
        found = auto.choose(data, torch.device(device))
        length = (None, 20.0) if small else (20_000, None)
        assert (found.recipe, found.images, found.minutes) == (recipe, *length)
        RECIPES[found.recipe](data, found.images or 100).fits(data)


@pytest.mark.parametrize(
    ("there", "channels", "recipe"), [(True, 3, "perceptual"), (True, 4, "small"), (False, 3, "small")]
)
def test_features_teach_where_their_weights_are(
    there: bool, channels: int, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("organza.perceptual.network", (lambda device: None) if there else no_weights)
    found = auto.choose(Spec((channels, 32, 32), 100, condition=(1, 32, 32)), torch.device("cpu"))
    assert found.recipe == f"pix2pix-{recipe}"
    assert ("pip install 'organza[perceptual]'" in found.reasons[0].reason) == (not there)


def test_a_damaged_file_of_weights_is_no_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(device: torch.device) -> None:
        raise ValueError("is damaged")

    monkeypatch.setattr("organza.perceptual.network", damaged)
    with pytest.raises(ValueError, match="is damaged"):
        auto.choose(Spec((3, 32, 32), 100, condition=(1, 32, 32)), torch.device("cpu"))


@pytest.mark.parametrize(
    ("minutes", "changes", "width", "images"),
    [
        (3.0, {}, 32, 180 * 2_000),
        (10.0, {}, 64, 600 * 900),  # as many as the wide networks manage, though that is few enough for narrow ones
        (10.0, {"generator.width": 32, "discriminator.width": 32}, 32, 600 * 2_000),
        (10.0, {"generator.width": 16}, 16, 600 * 900),
    ],
)
def test_time_for_wider_networks_is_their_own(
    minutes: float, changes: dict[str, int], width: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fastest(plan: Plan, data: Data, device: str, seconds: float) -> tuple[int, float]:
        return 2, 2_000.0 if plan.discriminator["width"] == 32 else 900.0

    monkeypatch.setattr(decision, "fastest", fastest)
    plan = decision.decide(open_data("digits[:64]"), minutes=minutes, device="cpu", changes=changes).plan
    assert plan.generator["width"] == width
    assert 0.98 * images < plan.training["images"] <= images
    assert plan.training["threads"] == 2
    assert decision.fulfils(plan, None, None, changes)
