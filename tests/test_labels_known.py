"""A few known labels: which are kept, and how they are drawn beside the batch."""

import pytest
import torch

from organza.data import Data, open_data
from organza.game import Game
from organza.nn import MLPDiscriminator, MLPGenerator
from organza.objective import NonSaturating, Scaled
from organza.prior import Normal
from organza.term import Classification, FeatureMatching
from organza.training import State, Training


def test_as_many_labels_of_each_class_are_kept() -> None:
    data, whole = open_data("digits[labels=50]"), open_data("digits")
    known = data.y >= 0
    assert int(known.sum()) == 50 and torch.bincount(data.y[known]).tolist() == [5] * 10
    assert torch.equal(data.y[known], whole.y[known]) and torch.equal(data.x, whole.x)
    assert torch.equal(open_data(data.name).y, data.y) and data.name == "digits[labels=50]"
    other = open_data("digits[labels=50,seed=1]")
    assert not torch.equal(other.y, data.y) and torch.equal(open_data(other.name).y, other.y)
    assert data.digest != whole.digest


@pytest.mark.parametrize("part", ["labels=5", "labels=55", "labels=20000", "labels=0"])
def test_numbers_of_labels_that_cannot_be(part) -> None:
    with pytest.raises(ValueError, match="labels must be a multiple of the 10 classes, and at most 10000 here"):
        open_data(f"digits[{part}]")


def state(**changes) -> State:
    x = torch.arange(40.0).view(40, 1).repeat(1, 3)
    y = torch.full((40,), -1)
    y[::8] = torch.arange(5) % 3
    D = MLPDiscriminator((3,), (8,), classes=3, condition="one-more")
    terms = (Classification(fakes=False), FeatureMatching())
    game = Game(MLPGenerator(2, (3,), (8,)), D, Normal(2), Scaled(NonSaturating(), g=0), terms, joint=True)
    return State(game, Training(batch=8, labelled=True, **changes), Data("toy", x, y), torch.device("cpu"))


def test_labelled_examples_come_beside_the_batch_in_an_order_of_their_own() -> None:
    here = state()
    (batch,) = here.stream("discriminator")
    assert len(batch.x) == 8 and batch.labelled is not None
    x, y = batch.labelled
    assert len(x) == 8 and (y >= 0).all()
    assert set(x[:5, 0].tolist()) == {0.0, 8.0, 16.0, 24.0, 32.0}  # every one once before any comes again
    assert torch.equal(y, torch.tensor([int(each) // 8 % 3 for each in x[:, 0]]))
    assert next(iter(here.stream("generator"))).labelled is None


def test_micro_batches_see_the_same_labelled_examples() -> None:
    whole = next(iter(state().stream("discriminator"))).labelled
    parts = [batch.labelled for batch in state(accumulate=4).stream("discriminator")]
    assert whole is not None
    for i in (0, 1):
        assert torch.equal(torch.cat([part[i] for part in parts if part is not None]), whole[i])


def test_labels_are_learnt_through_the_loop() -> None:
    here = state()
    before = here.game.discriminator.end.label.weight.clone()
    for _ in range(3):
        here.training.moves(here, here.stream)
    assert not torch.equal(before, here.game.discriminator.end.label.weight)
    assert {"discriminator/Classification", "generator/FeatureMatching"} <= here.means().keys()


def test_labelled_without_labels_is_refused() -> None:
    data = Data("toy", torch.zeros(4, 3), torch.full((4,), -1))
    game = Game(MLPGenerator(2, (3,), (8,)), MLPDiscriminator((3,), (8,)), Normal(2))
    with pytest.raises(ValueError, match="no labelled examples"):
        State(game, Training(batch=2, labelled=True), data, torch.device("cpu"))
