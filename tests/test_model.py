"""organza.model: a seed gives the same samples for ever."""

import pytest
import torch
from torch import nn

from organza.model import Model
from organza.prior import Normal, Uniform


class Labelled(nn.Module):
    def forward(self, z, y):
        return z * y.unsqueeze(1)


def net(*last):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 4), *last)


class Noisy(nn.Module):
    """A layer that adds noise in evaluation too, as StyleGAN's does."""

    def forward(self, x):
        return x + torch.randn_like(x)


@pytest.mark.parametrize("last", [nn.Tanh(), Noisy()], ids=["plain", "noisy"])
def test_a_seed_is_a_set_of_samples(last):
    model = Model(net(last), Normal(3))
    first = model.sample(10, seed=1)
    torch.rand(5)
    assert first.shape == (10, 4) and not first.requires_grad
    assert torch.equal(model.sample(10, seed=1), first)
    assert not torch.isclose(model.sample(10, seed=2), first).any()
    assert not torch.isclose(first[1:], first[:-1]).any()


@pytest.mark.parametrize("last", [nn.Tanh(), Noisy()], ids=["plain", "noisy"])
def test_the_global_generator_is_left_alone(last):
    before = torch.get_rng_state()
    Model(net(last), Normal(3)).sample(10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch", [1, 3, 10, 1000])
def test_the_batch_size_changes_nothing(batch):
    model = Model(net().double(), Uniform(3))
    model.prior.draw = lambda n, g: torch.rand(n, 3, generator=g, dtype=torch.float64)
    torch.testing.assert_close(model.sample(10, batch=batch), model.sample(10), rtol=1e-12, atol=1e-14)
    conditional = Model(Labelled(), Normal(3), conditional=True)
    y = torch.arange(10)
    assert torch.equal(conditional.sample(10, y=y, batch=batch), conditional.sample(10, y=y))


def test_conditions():
    model, y = Model(Labelled(), Normal(3), conditional=True), torch.arange(4)
    plain = Model(nn.Identity(), Normal(3))
    assert torch.equal(model.sample(4, y=y), plain.sample(4) * y.unsqueeze(1))
    for wrong, said in ((None, "none"), (torch.arange(3), "3")):
        with pytest.raises(ValueError, match=f"needs 4 conditions y, got {said}"):
            model.sample(4, y=wrong)


def test_samples_are_drawn_in_evaluation_and_the_mode_comes_back():
    generator = net()
    generator[1].eval()  # one layer at rest in a network in training
    before = [module.training for module in generator.modules()]
    statistics = generator[1].running_mean.clone()
    model = Model(generator, Normal(3))
    training = model.sample(50)
    assert [module.training for module in generator.modules()] == before
    assert torch.equal(generator[1].running_mean, statistics)
    assert torch.equal(Model(generator.eval(), Normal(3)).sample(50), training)
    assert not any(module.training for module in generator.modules())


def test_the_mode_comes_back_after_an_error():
    generator = net()
    with pytest.raises(RuntimeError):
        Model(generator, Normal(5)).sample(2)
    assert generator.training


def test_a_generator_without_weights_lies_on_the_cpu():
    assert Model(nn.Identity(), Normal(3)).device == torch.device("cpu")


@pytest.mark.parametrize("n", [0, -1])
def test_refusals(n):
    with pytest.raises(ValueError, match=f"n={n}"):
        Model(nn.Identity(), Normal(3)).sample(n)
