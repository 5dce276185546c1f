"""The joint law: joining and splitting are inverse, gradients reach the label, and data and G agree on the layout."""

import pytest
import torch

from organza.data import Spec, held_out, open_data
from organza.joint import grown, join, split
from organza.nn import DCGANGenerator, JointGenerator, MLPGenerator
from organza.recipes import RECIPES


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 13), (5,)])
@pytest.mark.parametrize("classes", [2, 10])
def test_split_is_the_inverse_of_join(shape, classes):
    x, y = torch.rand(12, *shape) * 2 - 1, torch.arange(12) % classes
    whole = join(x, torch.eye(classes)[y])
    assert whole.shape == (12, *grown(shape, classes)) and float(whole.abs().max()) <= 1
    again, labels = split(whole, classes)
    assert torch.equal(again, x) and torch.equal(labels, y)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4)])
def test_no_room_for_the_label(shape):
    with pytest.raises(ValueError, match="no room for a cell for each of 10 classes"):
        grown(shape, 10)


def test_the_data_has_the_same_layout():
    data, plain = open_data("digits[:50][joint]"), open_data("digits[:50]")
    x, y = plain.gather(torch.arange(50))
    assert data.y is None and data.spec.shape == grown((1, 28, 28), 10)
    assert torch.equal(data.gather(torch.arange(50))[0], join(x, torch.eye(10)[y]))
    points = open_data("ring[:50][joint]")
    x, y = open_data("ring[:50]").gather(torch.arange(50))
    assert torch.equal(points.gather(torch.arange(50))[0], join(x, torch.eye(int(y.max()) + 1)[y]))
    with pytest.raises(ValueError, match="every example needs a label"):
        open_data("digits[labels=20][joint]")


def test_held_out_examples_have_their_labels_too():
    assert held_out("digits[:50][joint]") == "digits[joint]" and held_out("digits[labels=20]") == "digits"
    test, plain = open_data("digits[joint]", "test"), open_data("digits", "test")
    assert torch.equal(split(test.gather(torch.arange(99))[0], 10)[1], plain.y[:99])


def test_stacked_digits_are_three_of_them():
    plain, data = open_data("digits[:300]"), open_data("digits[:300][stacked=2000]")
    assert data.spec == Spec((3, 28, 28), 2000) and data.y is None
    found = (data.x.flatten(2)[:200, :, None] == plain.x.flatten(1)).all(-1)  # (200, 3, 300)
    assert found.any(-1).all()
    digit = plain.y[found.int().argmax(-1)]
    assert abs(torch.corrcoef(digit.T.float())[0, 1]) < 0.2 and len(digit.unique(dim=0)) > 150
    assert len(open_data("digits[stacked]")) == 10_000 and held_out("digits[stacked=9]") == "digits[stacked]"
    assert torch.equal(data.x[:50], open_data("digits[:300][stacked=50]").x)
    with pytest.raises(ValueError, match=r"digits\[:9\]\[stacked=0\]: this is for grey images, and a number from 1"):
        open_data("digits[:9][stacked=0]")


def test_g_emits_the_label_it_was_given_and_its_gradient_reaches_the_label():
    network = JointGenerator(DCGANGenerator(6, (1, 9, 12), 4, classes=3), 6, 3)
    x = network(torch.randn(5, 6))
    assert x.shape == (5, 1, 13, 12)
    x[:, :, 9:].sum().backward()
    assert all(weight.grad is not None for weight in network.logits.parameters())
    points = JointGenerator(MLPGenerator(6, (4,), (8,), output="linear", classes=3), 6, 3, temperature=1e-3)
    with torch.no_grad():
        made = points(torch.randn(50, 6))
    assert made.shape == (50, 7) and (made[:, 4:].sum(1) + 1).abs().max() < 1e-2  # one 1 and two -1: whole labels


def test_no_label_is_out_of_reach():
    """Where the net prefers one label to another by a whole standard deviation, the other is still drawn."""
    network = JointGenerator(MLPGenerator(6, (4,), (8,), output="linear", classes=3), 6, 3)
    z = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.logits[-1].weight.zero_()
        network.logits[-1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
        label = split(network(z), 3)[1]
    assert torch.equal(label, (z[:, :3] + torch.tensor([0.0, 1.0, 0.0])).argmax(1))
    assert torch.bincount(label, minlength=3).min() > 200
    with pytest.raises(ValueError, match="labels=7: must be from 1 to latent=6"):
        JointGenerator(MLPGenerator(6, (4,), (8,), output="linear", classes=7), 6, 7)


def test_the_recipe_fits_joint_data():
    data = open_data("digits[:50][joint]")
    RECIPES["joint"](data.spec).fits(data.spec)
