"""organza.model: a seed gives the same samples for ever; ways between them, their neighbours, and the way back."""

import math

import pytest
import torch
from torch import nn

from organza import nearest as module
from organza.model import Model, nearest, path
from organza.prior import Normal, Prior, Uniform


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


def test_samples_are_what_g_makes_of_the_prior():
    model, z = Model(net(), Normal(3)), Normal(3).draw(10, torch.Generator().manual_seed(1))
    assert torch.equal(model.generate(z, seed=1), model.sample(10, seed=1))
    assert torch.equal(model.generate(z), model.generator.eval()(z))
    noisy = Model(net(Noisy()), Normal(3))
    assert torch.equal(noisy.generate(z, seed=1), noisy.sample(10, seed=1))
    assert not torch.equal(noisy.generate(z, seed=2), noisy.generate(z, seed=1))


@pytest.mark.parametrize(("prior", "bound"), [(Normal(3), 0.5), (Uniform(3), 0.25)], ids=repr)
def test_truncation_is_the_priors(prior, bound):
    model = Model(nn.Identity(), prior)
    assert torch.equal(model.sample(10, truncation=bound), prior.truncate(model.sample(10), bound))
    assert model.sample(1000, truncation=bound).abs().max() <= bound


class Plain(Prior):
    """A program's own prior, which declares nothing."""

    def draw(self, n, generator):
        return torch.rand(n, 2, generator=generator)


def test_a_prior_without_truncation():
    with pytest.raises(ValueError, match="Plain has no truncation"):
        Model(nn.Identity(), Plain()).sample(2, truncation=0.5)


@pytest.mark.parametrize("kind", ["spherical", "linear"])
def test_both_ends_of_a_way_are_exactly_samples(kind):
    z = Normal(3).draw(10, torch.Generator().manual_seed(4))
    x = Model(nn.Identity(), Normal(3)).interpolate(5, 7, seed=4, kind=kind)
    assert x.shape == (5, 7, 3)
    assert torch.equal(x[:, 0], z[::2]) and torch.equal(x[:, -1], z[1::2])
    model = Model(net(), Normal(3))
    x = model.interpolate(5, 7, seed=4, kind=kind)
    torch.testing.assert_close(x[:, [0, -1]], model.generate(z).unflatten(0, (5, 2)))
    assert torch.equal(model.interpolate(5, 7, seed=4, kind=kind), x)
    assert not torch.equal(model.interpolate(5, 7, seed=5, kind=kind), x)


@pytest.mark.parametrize(("prior", "kind"), [(Normal(3), "spherical"), (Uniform(3), "linear"), (Plain(), "linear")])
def test_the_way_suits_the_prior(prior, kind):
    model = Model(nn.Identity(), prior)
    other = {"spherical": "linear", "linear": "spherical"}[kind]
    assert torch.equal(model.interpolate(4, 5), model.interpolate(4, 5, kind=kind))
    assert not torch.allclose(model.interpolate(4, 5), model.interpolate(4, 5, kind=other))


def test_a_condition_holds_all_the_way():
    model, y = Model(Labelled(), Normal(3), conditional=True), torch.arange(4)
    x = Model(nn.Identity(), Normal(3)).interpolate(4, 5)
    assert torch.equal(model.interpolate(4, 5, y=y), x * y.view(4, 1, 1))
    with pytest.raises(ValueError, match="needs 4 conditions y, got none"):
        model.interpolate(4, 5)


def ends(n=20, dim=6):
    z = torch.randn(2, n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z[0], z[1]


def test_the_linear_way_is_affine():
    z0, z1 = ends()
    way = path(z0, z1, 9, "linear")
    step = ((z1 - z0) / 8).unsqueeze(1).expand(-1, 8, -1)
    torch.testing.assert_close(way.diff(dim=1), step, rtol=0, atol=1e-14)


def test_the_spherical_way_keeps_the_norm_turns_evenly_and_stays_in_the_plane():
    z0, z1 = ends()
    z1 *= z0.norm(dim=1, keepdim=True) / z1.norm(dim=1, keepdim=True)
    way = path(z0, z1, 9)
    radius = z0.norm(dim=1)
    torch.testing.assert_close(way.norm(dim=2), radius.unsqueeze(1).expand(-1, 9), rtol=1e-13, atol=0)
    angle = torch.acos((z0 * z1).sum(1) / radius**2)
    cosine = (way[:, 1:] * way[:, :-1]).sum(2) / radius.unsqueeze(1) ** 2
    torch.testing.assert_close(torch.acos(cosine), (angle / 8).unsqueeze(1).expand(-1, 8), rtol=1e-10, atol=0)
    assert (torch.linalg.matrix_rank(way, atol=1e-10) == 2).all()
    torch.testing.assert_close(way.flip(1), path(z1, z0, 9), rtol=0, atol=1e-13)


def test_the_spherical_way_changes_the_norm_evenly():
    z0, z1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    middle = path(z0, z1, 3)[0, 1]
    torch.testing.assert_close(middle, torch.full((2,), 2 / math.sqrt(2)))


@pytest.mark.parametrize("factor", [1.0, 2.0, 1 + 1e-9, -1.0, -0.5, 0.0], ids=str)
def test_parallel_ends_are_joined_by_the_chord(factor):
    for dim in (0, 1, 6):
        z, _ = ends(dim=dim)
        for z0, z1 in ((z, factor * z), (factor * z, z)):
            assert torch.equal(path(z0, z1, 5), path(z0, z1, 5, "linear"))
            assert path(z0, z1, 5).isfinite().all()


def test_nearly_parallel_ends_are_no_singular_case():
    z, other = ends()
    for small in (1e-3, 1e-5, 1e-7, 1e-9):
        for sign in (1, -1):
            way = path(z, sign * z + small * other, 5)
            assert way.isfinite().all() and (way.norm(dim=2) < 2 * z.norm(dim=1, keepdim=True)).all()


def test_ways_of_any_shape_and_type():
    z = torch.randn(2, 4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    way = path(z[0], z[1], 6)
    assert way.shape == (4, 6, 3, 5, 5) and way.dtype == torch.float32
    torch.testing.assert_close(way.flatten(2), path(z[0].flatten(1), z[1].flatten(1), 6))


@pytest.mark.parametrize(
    ("arguments", "said"), [({"n": 0}, "n=0"), ({"steps": 1}, "steps=1"), ({"kind": "cubic"}, "spherical, linear")]
)
def test_refused_ways(arguments, said):
    with pytest.raises(ValueError, match=said):
        Model(nn.Identity(), Normal(3)).interpolate(**arguments)


@pytest.mark.parametrize("numbers", [1, 40, 2**22])
def test_nearest_is_what_a_loop_finds(monkeypatch, numbers):
    monkeypatch.setattr(module, "_NUMBERS", numbers)
    g = torch.Generator().manual_seed(0)
    x, examples = torch.rand(23, 1, 2, 4, generator=g) * 2 - 1, torch.randint(256, (57, 1, 2, 4), generator=g)
    index, distance = nearest(x, examples.to(torch.uint8))
    table = torch.stack([((each - (examples / 127.5 - 1)) ** 2).sum((1, 2, 3)).sqrt() for each in x])
    assert index.dtype == torch.long and torch.equal(index, table.argmin(1))
    torch.testing.assert_close(distance, table.min(1).values)
    assert nearest(x[:0], examples.to(torch.uint8))[0].shape == (0,)


def test_only_a_part_of_the_examples_is_in_memory_at_once(monkeypatch):
    monkeypatch.setattr(module, "_NUMBERS", 100)
    sizes, numbers = [], module._numbers
    monkeypatch.setattr(module, "_numbers", lambda x, device: sizes.append(x.numel()) or numbers(x, device))
    nearest(torch.zeros(30, 7), torch.zeros(200, 7))
    assert max(sizes) <= 100


def test_a_copy_is_at_distance_zero():
    examples = torch.randint(256, (50, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    shown = examples.to(torch.float32).div(127.5).sub(1)  # as networks are shown them
    for x in (examples[order], shown[order]):
        index, distance = nearest(x, examples)
        assert torch.equal(index, order) and torch.equal(distance, torch.zeros(50))


def test_nearest_is_exact_where_float32_would_cancel():
    """Points 1e-3 apart, 1e3 from the origin: |a|^2 + |b|^2 - 2ab in float32 is off by 0.1."""
    examples = 1e3 + 1e-3 * torch.arange(100.0).unsqueeze(1)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    index, distance = nearest(examples[order], examples)
    assert torch.equal(examples[index], examples[order]) and not distance.any()


def test_refused_neighbours():
    for examples in (torch.zeros(0, 4), torch.zeros(5, 3)):
        with pytest.raises(ValueError, match="the data that the run was trained on"):
            nearest(torch.zeros(2, 4), examples)


def test_an_image_that_g_made_is_found_again():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g = nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, 64), nn.Tanh()
        )
    model = Model(g.requires_grad_(False), Normal(8))
    x = model.sample(5, seed=3)
    before = torch.get_rng_state()
    z, distance = model.invert(x, batch=2)
    assert torch.equal(torch.get_rng_state(), before) and model.generator.training
    assert z.shape == (5, 8) and not z.requires_grad
    torch.testing.assert_close((model.generate(z) - x).norm(dim=1), distance, rtol=1e-3, atol=1e-6)
    _, drawn = nearest(x, model.sample(1000, seed=4))
    assert (distance < 0.01 * drawn).all()


def test_inversion_is_the_projection_onto_a_linear_g():
    """G(z) = A z with orthonormal columns: the nearest image is A A^T x, at distance |x - A A^T x|."""
    a = torch.linalg.qr(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))[0]
    linear = nn.Linear(3, 8, bias=False)
    linear.weight.data = a
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    z, distance = Model(linear, Normal(3)).invert(x)
    torch.testing.assert_close(z, x @ a, rtol=0, atol=1e-3)
    torch.testing.assert_close(distance, (x - x @ a @ a.T).norm(dim=1), rtol=1e-5, atol=0)
    assert all(p.grad is None for p in linear.parameters())


def test_inversion_stays_where_the_prior_draws():
    x = torch.tensor([[30.0, 40.0]])
    z, distance = Model(nn.Identity(), Normal(2)).invert(x, lr=0.5)
    torch.testing.assert_close(z.norm(), torch.tensor(math.sqrt(2) + 3))
    assert distance.item() == pytest.approx(50 - math.sqrt(2) - 3, rel=1e-4)
    z, _ = Model(nn.Identity(), Uniform(2)).invert(x)
    assert torch.equal(z, torch.ones(1, 2))
    z, _ = Model(nn.Identity(), Plain()).invert(x, lr=1.0)
    torch.testing.assert_close(z, x, rtol=0, atol=1e-2)


class Waves(nn.Module):
    """Many local minima; only a start in the right valley finds the best."""

    def forward(self, z):
        return torch.cat([(12 * z).sin(), z], 1)


def test_more_starts_are_never_worse_and_the_best_is_kept():
    model = Model(Waves(), Uniform(1))
    x = model.sample(10, seed=1)
    few, many = (model.invert(x, steps=200, restarts=k)[1] for k in (1, 32))
    assert many.max() < 1e-2 < few.max()
    none = model.invert(x, steps=0, restarts=5, seed=2)
    starts = model.sample(50, seed=2).unflatten(0, (10, 5))
    torch.testing.assert_close(none[1], (starts - x.unsqueeze(1)).norm(dim=2).min(1).values)


def test_inversion_with_conditions_bytes_and_noise():
    y = torch.tensor([1.0, 2.0, 3.0])
    model = Model(Labelled(), Normal(3), conditional=True)
    z, distance = model.invert(model.sample(3, y=y), y=y, batch=2)
    torch.testing.assert_close(z, Normal(3).draw(3, torch.Generator().manual_seed(0)), rtol=0, atol=1e-3)
    assert distance.max() < 1e-2
    with pytest.raises(ValueError, match="needs 3 conditions y"):
        model.invert(torch.zeros(3, 3))
    _, distance = Model(nn.Identity(), Uniform(2)).invert(torch.tensor([[0, 255]], dtype=torch.uint8))
    assert distance.max() < 1e-2
    noisy = Model(Noisy(), Normal(2))
    z, distance = noisy.invert(torch.zeros(1, 2), restarts=1)
    torch.testing.assert_close(noisy.generate(z), torch.zeros(1, 2), rtol=0, atol=1e-2)
    assert distance.max() < 1e-2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"x": torch.zeros(0, 3)}, "at least 1 image"),
        ({"x": torch.zeros(1, 3), "restarts": 0}, "restarts=0"),
        ({"x": torch.zeros(1, 3), "steps": -1}, "steps=-1"),
        ({"x": torch.zeros(1, 4)}, r"the images are \(4,\), this model makes \(3,\)"),
    ],
)
def test_refused_inversions(arguments, said):
    with pytest.raises(ValueError, match=said):
        Model(nn.Identity(), Normal(3)).invert(**arguments)


def test_a_card_that_a_kill_left_behind_is_no_edited_one(tmp_path, monkeypatch):
    """Where another model's config is there and its card is not yet, the next attempt writes it."""
    from organza import pretrained

    def write(seed, folder=tmp_path / "mine"):
        return pretrained.write(folder, {"seed": seed}, {"w": torch.zeros(1)})

    write(1)
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(pretrained, "write_bytes", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        write(2)
    card = write(3) / "README.md"
    assert "| seed | 3 |" in card.read_text("utf-8")
    card.write_text(own := card.read_text("utf-8") + "mine", "utf-8")
    for seed in (4, 5):
        assert (write(seed) / "README.md").read_text("utf-8") == own
